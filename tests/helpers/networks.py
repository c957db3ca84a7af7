"""Weights from a file into a network, images for it, and what it makes of them."""

import numpy as np
from mindspore import Tensor, nn

from mindghost.checkpoint.load import Loaded, fill_network


def load(network: nn.Cell, path) -> Loaded:
    return fill_network(network, path, stem="conv_stem", classifier="classifier")


def logits(network: nn.Cell, *shape: int, seed: int = 0) -> np.ndarray:
    network.set_train(False)
    images = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return network(Tensor(images)).asnumpy()


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
