"""Networks for inference: folded and fused they have the trained network's logits; ONNX files are mended."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.deploy import fold
from mindghost.models import card, create_model, reparam
from tests.helpers.weights import randomise


def logits(network: nn.Cell, images: np.ndarray) -> np.ndarray:
    return network.set_train(False)(Tensor(images)).asnumpy()


@pytest.fixture(autouse=True)
def pynative():
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv3_050", "repghostnet_050", "ghost_vgg16"])
def test_deployed_form_has_the_logits_and_no_batch_norm(name, short_network):
    trained = create_model(name, num_classes=3, in_channels=1)
    randomise(trained, gamma=(0.3, 0.6))
    images = np.random.default_rng(1).standard_normal((2, 1, 33, 64)).astype(np.float32)
    expected = logits(trained, images)
    before = {p.name: p.asnumpy().copy() for p in trained.get_parameters()}
    network = fold.deployed_form(name, trained, 3, 1)
    np.testing.assert_allclose(logits(network, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    kinds = [type(cell) for _, cell in network.cells_and_names()]
    assert nn.BatchNorm2d not in kinds
    fused = create_model(name, deploy=card(name).fused_parameters is not None)
    assert kinds.count(nn.Conv2d) == sum(isinstance(cell, nn.Conv2d) for _, cell in fused.cells_and_names())
    assert all((p.asnumpy() == before[p.name]).all() for p in trained.get_parameters())
    if card(name).fused_parameters is None:
        assert {p.name for p in network.get_parameters()} >= {n for n in before if n.endswith(".weight")}


def test_fold_by_hand():
    """weight 2, bias 3; batch norm with mean 1, variance 4 - eps, gamma 6, beta 5: ((2x + 3) - 1) / 2 * 6 + 5."""
    one = np.ones(1, np.float32)
    weights = {
        "c.weight": 2 * np.ones((1, 1, 1, 1), np.float32),
        "c.bias": 3 * one,
        "n.gamma": 6 * one,
        "n.beta": 5 * one,
        "n.moving_mean": one,
        "n.moving_variance": (4 - reparam.EPSILON) * one,
        "other.weight": one,
    }
    folded = reparam.fold(weights, {"c": "n"})
    assert set(folded) == {"c.weight", "c.bias", "other.weight"}
    assert folded["c.weight"].item() == pytest.approx(6)
    assert folded["c.bias"].item() == pytest.approx(11)
    assert weights["c.bias"].item() == 3


def test_plain_operators_have_the_same_values_and_are_taken_back():
    class Network(nn.Cell):
        def __init__(self):
            super().__init__()
            self.gates = nn.SequentialCell(nn.ReLU(), nn.HSigmoid())
            self.gate = nn.HSigmoid()

        def construct(self, x):
            return self.gate(self.gates(x) - x)

    network = Network()
    images = 4 * np.random.default_rng(0).standard_normal((2, 3, 7, 10)).astype(np.float32)
    expected = logits(network, images)
    with fold.plain_operators(network):
        kinds = {type(cell) for _, cell in network.cells_and_names()}
        assert fold.OnnxHardSigmoid in kinds
        assert nn.HSigmoid not in kinds
        np.testing.assert_allclose(logits(network, images), expected, rtol=0, atol=1e-6)
    assert [type(cell) for _, cell in network.cells_and_names()].count(nn.HSigmoid) == 2


@pytest.mark.parametrize(("size", "padding"), [((7, 10), 1), ((1, 2), 1)])
def test_padded_max_pools_pad_beforehand(size, padding):
    images = np.abs(np.random.default_rng(0).standard_normal((2, 3, *size))).astype(np.float32)
    pool = nn.MaxPool2d(3, 2, pad_mode="pad", padding=padding)
    np.testing.assert_array_equal(logits(fold.PaddedMaxPool(pool), images), logits(pool, images))
