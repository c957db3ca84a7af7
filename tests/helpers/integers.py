"""What training for 8-bit integers leaves, made without it."""

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindghost import build
from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from tests.helpers.trained import write_run


def write_integer_run(folder: Path, **keys) -> Path:
    """The checkpoint of a network with random weights, whose ranges are those of some random images."""
    path = write_run(folder, **keys)
    float_config = Config.from_file(folder / "config.yaml")
    config = float_config.replace(quantize_aware="int8", ckpt_path=str(path))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = build.network(config)
    build.load_weights(network, config, fine_tune=True)
    height, width = np.broadcast_to(config.image_resize, 2)
    shape = (4, config.in_channels, int(height), int(width))
    network.set_train()(Tensor(np.random.default_rng(6).standard_normal(shape).astype(np.float32)))
    weights_file.write(path, {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()})
    (folder / "config.yaml").write_text(config.replace(ckpt_path="").to_yaml())
    return path
