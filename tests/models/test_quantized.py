"""Networks that are trained for 8-bit integers: what is rounded, and to what."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost.models import create_model, ghostnet, quantized, repghostnet
from mindghost.models.folded import folded
from mindghost.models.layers import is_statistic
from tests.helpers.short import all_strides, cut
from tests.helpers.weights import randomise


@pytest.fixture(autouse=True)
def pynative():
    ms.set_context(mode=ms.PYNATIVE_MODE)


class Small(nn.Cell):
    """Two layers with a shortcut around the second, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1, has_bias=True)
        self.relu = nn.ReLU()
        self.block = Block()
        self.classifier = nn.Dense(4, 2)

    def construct(self, x):
        return self.classifier(ops.mean(self.block(self.relu(self.first(x))), (2, 3)))


class Block(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(4, 4, 1, has_bias=True)

    def construct(self, x):
        return x + self.second(x)


def ranges(network: nn.Cell) -> dict[str, float]:
    return {p.name: p.asnumpy().item() for p in network.get_parameters() if quantized.is_range(p.name)}


def trained(network: nn.Cell, images: np.ndarray) -> nn.Cell:
    """A network whose ranges are those of some images, in evaluation."""
    network.set_train(True)
    network(Tensor(images))
    return network.set_train(False)


def test_what_is_rounded():
    """The image, what a ReLU or a sum gives, what the sum reads, and what the classifier reads; not the logits."""
    network = quantized.quantize_aware(Small())
    places = {name.rpartition(".")[0] for name in ranges(network)}
    assert places == {"first.input", "relu.output", "block.second.output", "block.output", "classifier.input"}
    weights = {p.name for p in network.get_parameters()} - set(ranges(network))
    assert weights == {
        f"{layer}.{kind}" for layer in ("first", "block.second", "classifier") for kind in ("weight", "bias")
    }
    assert all(is_statistic(name) for name in ranges(network))
    assert not any(p.requires_grad for p in network.get_parameters() if quantized.is_range(p.name))


def rounded(x: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float, int]:
    """Integers of values, and what they stand for: in float64, apart from how the network does it."""
    scale = np.float64(np.float32(high) - np.float32(low)) / 255
    zero = round(-low / scale)
    return np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64), scale, zero


def layer(x: np.ndarray, ends: tuple[float, float], weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A layer of pixels (N, C) by 64-bit integers."""
    integers, scale, zero = rounded(x, *ends)
    steps = np.abs(weight).max(1).astype(np.float64) / 63
    whole = np.rint(weight / steps[:, None]).astype(np.int64)
    offset = np.rint(bias / (steps * scale)).astype(np.int64)
    return ((integers - zero) @ whole.T + offset) * (steps * scale)


def test_logits_are_those_of_integers():
    """Each layer's products summed up in 64-bit integers, outside of MindSpore."""
    network = quantized.quantize_aware(Small())
    random = np.random.default_rng(1)
    for parameter in network.trainable_params():
        parameter.set_data(Tensor(random.normal(0, 0.5, parameter.shape).astype(np.float32)))
    images = random.standard_normal((2, 3, 4, 4)).astype(np.float32)
    found = trained(network, images)(Tensor(images)).asnumpy()
    values = {p.name: p.asnumpy() for p in network.get_parameters()}

    def ends(place: str) -> tuple[float, float]:
        return values[f"{place}.moving_minimum"].item(), values[f"{place}.moving_maximum"].item()

    def kept(x: np.ndarray, place: str) -> np.ndarray:
        integers, scale, zero = rounded(x, *ends(place))
        return (integers - zero) * scale

    def of(name: str, x: np.ndarray, place: str) -> np.ndarray:
        weight = values[f"{name}.weight"]
        return layer(x, ends(place), weight.reshape(len(weight), -1), values[f"{name}.bias"])

    x = images.transpose(0, 2, 3, 1).reshape(-1, 3)
    x = kept(np.maximum(of("first", x, "first.input"), 0), "relu.output")
    x = kept(x + kept(of("block.second", x, "relu.output"), "block.second.output"), "block.output")
    means = x.reshape(2, 16, 4).mean(1)
    np.testing.assert_allclose(found, of("classifier", means, "classifier.input"), rtol=0, atol=2e-6)
    assert ends("first.input") == (images.min(), images.max())


def test_ranges_follow_the_batches():
    cell = quantized.FakeQuantize().set_train()
    for values in ([-1, 3], [-2, 1], [0.5, 4]):
        cell(Tensor(values, ms.float32))
    low, high = -1.0, 3.0
    for batch in ((-2, 1), (0, 4)):  # 0 is within every range
        low, high = 0.99 * low + 0.01 * batch[0], 0.99 * high + 0.01 * batch[1]
    assert cell.moving_minimum.asnumpy().item() == pytest.approx(low, rel=1e-6)
    assert cell.moving_maximum.asnumpy().item() == pytest.approx(high, rel=1e-6)
    before = cell.moving_maximum.asnumpy().item()
    cell.set_train(False)(Tensor([100.0]))
    assert cell.moving_maximum.asnumpy().item() == before


FAMILY = {
    "ghostnet_050": {},
    "ghostnetv2_100": {},
    "ghostnetv3_050": {},
    "repghostnet_050": {},
    "ghost_vgg16": {},
    "ghost_resnet56": {},
    "ghost_unet": {"backbone": "ghostnet_050"},
}


@pytest.mark.parametrize("name", FAMILY)
def test_networks_stay_close_to_what_they_are_in_float(name, monkeypatch):
    strides = all_strides() if name == "ghost_unet" else cut(ghostnet.STAGES)
    monkeypatch.setattr(ghostnet, "STAGES", strides)
    monkeypatch.setattr(repghostnet, "STAGES", cut(repghostnet.STAGES))
    options = {"num_classes": 3, **FAMILY[name]}
    network = create_model(name, **options)
    randomise(network, gamma=(0.3, 0.6))
    form = folded(name, network, **options)
    images = np.random.default_rng(2).standard_normal((4, 3, 64, 64)).astype(np.float32)
    expected = form(Tensor(images)).asnumpy()
    integers = quantized.quantize_aware(form)
    layers = [cell for _, cell in integers.cells_and_names() if isinstance(cell, quantized.QuantizedLayer)]
    plain = [cell for _, cell in integers.cells_and_names() if type(cell) in (nn.Conv2d, nn.Dense, nn.BatchNorm2d)]
    assert len(layers) > 5
    assert not plain
    found = trained(integers, images)(Tensor(images)).asnumpy()
    error = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    assert 1e-5 < error < 0.2
    names = [parameter.name for parameter in integers.get_parameters()]
    assert len(set(names)) == len(names)


def test_grayscale_images():
    network = create_model("ghostnet_050", num_classes=3, in_channels=1)
    integers = quantized.quantize_aware(folded("ghostnet_050", network, 3, 1), 1)
    assert integers(Tensor(np.zeros((1, 1, 32, 32), np.float32))).shape == (1, 3)
