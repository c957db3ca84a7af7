"""Weights from a file into a network, images for it, what it makes of them, and the golden numbers of the originals."""

import json

import numpy as np
from mindspore import Tensor, nn

from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.load import Loaded, fill_network
from mindghost.checkpoint.names import from_pytorch
from mindghost.models import card
from tests.helpers.places import GOLDEN
from tests.helpers.weights import golden_state


def load(network: nn.Cell, path) -> Loaded:
    return fill_network(network, path, stem="conv_stem", classifier="classifier")


def logits(network: nn.Cell, *shape: int, seed: int = 0) -> np.ndarray:
    network.set_train(False)
    images = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return network(Tensor(images)).asnumpy()


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write_golden(name: str, path) -> None:
    """The golden weights of the original PyTorch code, through the converter, as a file."""
    weights_file.write(path, from_pytorch(golden_state(name)))


def assert_golden_logits(network: nn.Cell, name: str, tolerance: float = 1e-4) -> None:
    """With its golden weights a network gives the logits of the original code, for images of each size that is kept."""
    golden = np.load(GOLDEN / f"{name}.npz")
    assert golden.files
    for key in golden.files:
        height, width = map(int, key.removeprefix("logits_").split("x"))
        found = logits(network, 2, 3, height, width, seed=20200613)
        np.testing.assert_allclose(found, golden[key], rtol=0, atol=tolerance)


def assert_golden_card(name: str) -> None:
    """A card has the original network's counts. That it counts its own network is in tests/cli/test_complexity.py."""
    facts = json.loads((GOLDEN / f"{name}.json").read_text())
    assert card(name).parameters == facts["trainable_parameters"]
    assert card(name).macs == facts["conv_and_linear_macs_224"]
