"""What training leaves, made without it."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindghost import build
from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.models import create_model
from tests.helpers.weights import randomise

CLASSES = ["ant", "bee", "cat"]


def write_run(folder: Path, **keys) -> Path:
    """What training leaves of a network with random weights: the checkpoint and what is beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = Config(**{"num_classes": 3, "image_resize": 32, "data_dir": str(folder / "none"), **keys})
    network = create_model(config.model, **build.options(config))
    deep = config.model.startswith(("ghostnet", "ghost_unet", "ghost_lraspp"))
    randomise(network, gamma=(0.3, 0.6) if deep else (0.5, 1.5))
    path = folder / f"{config.model}_best.ckpt"
    weights_file.write(path, {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()})
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "classes.json").write_text(json.dumps(CLASSES[: config.num_classes]))
    return path


def trained_logits(path: Path, images: np.ndarray) -> np.ndarray:
    config = Config.from_file(path.parent / "config.yaml")
    network = create_model(config.model, **build.options(config))
    weights = weights_file.read(path)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(weights[parameter.name]))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    return network.set_train(False)(Tensor(images)).asnumpy()
