"""GhostNetV2 is the published one: golden numbers, and DFC attention against its definition in numpy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindghost.models import create_model
from mindghost.models.ghostnetv2 import DfcGhostModule, halve, resize_nearest
from tests.helpers.networks import assert_golden_card, assert_golden_logits, images, load, logits, write_golden
from tests.helpers.weights import randomise

# As in golden/README: the logits are of order one.
GAMMA = (0.3, 0.9)
SIZES = [(1, 1), (1, 6), (7, 1), (2, 3), (7, 7), (8, 8), (10, 5)]


def halved(x: np.ndarray) -> np.ndarray:
    """2x2 means; an odd last row or column is left out, a single one stays."""
    for axis in (2, 3):
        pairs = x.shape[axis] // 2
        if pairs:
            even, odd = (x.take(range(first, 2 * pairs, 2), axis) for first in (0, 1))
            x = (even + odd) / 2
    return x


def nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = np.arange(height) * x.shape[2] // height, np.arange(width) * x.shape[3] // width
    return x[:, :, rows][:, :, :, columns]


@pytest.mark.parametrize("name", ["ghostnetv2_100", "ghostnetv2_130"])
def test_golden_logits(name, tmp_path):
    """PyTorch names and weights, through the converter and a file, give the logits of the original code."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    write_golden(name, tmp_path / "golden.ckpt")
    network = create_model(name)
    load(network, tmp_path / "golden.ckpt")
    assert_golden_logits(network, name)


@pytest.mark.parametrize("name", ["ghostnetv2_100", "ghostnetv2_130"])
def test_golden_card(name):
    assert_golden_card(name)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_halving_rounds_down_but_keeps_a_pixel(height, width):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    x = images(2, 3, height, width)
    found = halve(Tensor(x)).asnumpy()
    assert found.shape == (2, 3, max(height // 2, 1), max(width // 2, 1))
    np.testing.assert_allclose(found, halved(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_takes_the_nearest_pixel_and_gives_its_gradient_back(height, width):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    small = images(2, 3, max(height // 2, 1), max(width // 2, 1))
    np.testing.assert_array_equal(resize_nearest(Tensor(small), height, width).asnumpy(), nearest(small, height, width))

    weights = images(2, 3, height, width, seed=1)
    gradient = ms.grad(lambda x: (resize_nearest(x, height, width) * Tensor(weights)).sum())(Tensor(small)).asnumpy()
    # Every large pixel gives its weight to the small pixel that it is a copy of.
    source = nearest(np.arange(small.size).reshape(small.shape), height, width)
    expected = np.bincount(source.ravel(), weights.ravel(), small.size).reshape(small.shape)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_attention_weighs_the_maps_of_the_ghost_module(height, width):
    """Against the definition, on maps of every parity: what 32 to 320 pixels come to deep in the network."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = DfcGhostModule(5, 8)
    randomise(module)
    module.set_train(False)
    x = images(2, 5, height, width)
    primary = module.primary_conv(Tensor(x))
    maps = np.concatenate([primary.asnumpy(), module.cheap_operation(primary).asnumpy()], axis=1)
    attention = 1 / (1 + np.exp(-module.short_conv(Tensor(halved(x))).asnumpy()))
    expected = maps * nearest(attention, height, width)
    np.testing.assert_allclose(module(Tensor(x)).asnumpy(), expected, rtol=0, atol=1e-5)


def test_all_bottlenecks_but_the_first_two_have_attention():
    names = [parameter.name for parameter in create_model("ghostnetv2_100").get_parameters()]
    with_attention = {name.split(".ghost1.")[0] for name in names if ".ghost1.short_conv.0" in name}
    every = {name.split(".ghost1.")[0] for name in names if ".ghost1.primary_conv.0" in name}
    assert len(every) == 16
    assert every - with_attention == {"blocks.0.0", "blocks.1.0"}


def test_images_of_any_shape_one_by_one():
    """One image alone gives what it gives in a batch, and another than its neighbour."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model("ghostnetv2_100", num_classes=7, in_channels=1)
    randomise(network, gamma=GAMMA)
    for height, width in ((32, 32), (32, 320), (33, 47), (100, 72)):
        together = logits(network, 2, 1, height, width)
        alone = network(Tensor(images(2, 1, height, width)[:1])).asnumpy()
        assert alone.shape == (1, 7)
        scale = np.abs(together).max()
        np.testing.assert_allclose(alone, together[:1], rtol=0, atol=1e-4 * scale, err_msg=f"{height}x{width}")
        assert np.abs(together[0] - together[1]).max() > 1e-2 * scale
