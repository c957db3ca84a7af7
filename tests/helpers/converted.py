"""Golden weights in files, and whether a converted file still gives their logits."""

import re
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindghost.checkpoint import safetensors as safetensors_file
from mindghost.checkpoint.load import fill_network
from mindghost.models import create_model
from tests.helpers.places import GOLDEN

NAME = "ghostnet_050"


def write_safetensors(path: Path, arrays) -> Path:
    path.write_bytes(safetensors_file.encode(arrays))
    return path


def loaded(path: Path) -> ms.nn.Cell:
    network = create_model(NAME)
    fill_network(network, path, stem="conv_stem", classifier="classifier")
    return network


def golden_example() -> tuple[np.ndarray, np.ndarray]:
    """Images and the original code's logits for them, of one size."""
    golden = np.load(GOLDEN / f"{NAME}.npz")
    key = golden.files[0]
    images = np.random.default_rng(20200613).standard_normal((2, 3, *map(int, re.findall(r"\d+", key))))
    return images.astype(np.float32), golden[key]


def assert_golden(path: Path) -> None:
    """The weights give the logits of the original code."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = loaded(path).set_train(False)
    images, expected = golden_example()
    np.testing.assert_allclose(network(Tensor(images)).asnumpy(), expected, rtol=0, atol=1e-4)


def assert_same(found, expected) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name
