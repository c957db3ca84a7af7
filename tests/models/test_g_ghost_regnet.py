"""G-Ghost-RegNets are the published ones: golden numbers of the original code."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindghost.checkpoint.load import fill_network
from mindghost.models import card, create_model
from mindghost.models.g_ghost_regnet import ChannelMeans, GhostStage, g_ghost_regnetx_032
from tests.helpers.families import one_of_each
from tests.helpers.networks import assert_golden_card, assert_golden_logits, write_golden

GOLDEN_NAMES = ["g_ghost_regnetx_032", "g_ghost_regnetx_040"]


@pytest.mark.parametrize("name", one_of_each(GOLDEN_NAMES))
def test_golden_logits(name, tmp_path):
    """PyTorch names and weights, through the converter and a file, give the logits of the original code."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    write_golden(name, tmp_path / "golden.ckpt")
    network = create_model(name).set_train(False)
    facts = card(name)
    fill_network(network, tmp_path / "golden.ckpt", stem=facts.stem, classifier=facts.classifier)
    assert_golden_logits(network, name)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_card(name):
    assert_golden_card(name)


@pytest.mark.parametrize(("name", "parameters", "macs"), [("080", 24.6, 4.2), ("160", 32.4, 9.0)])
def test_larger_cards_are_the_published_figures(name, parameters, macs):
    facts = card(f"g_ghost_regnetx_{name}")
    assert round(facts.parameters / 1e6, 1) == parameters
    assert facts.macs / 1e9 == pytest.approx(macs, abs=0.051)


def test_halves_are_whole_groups():
    """Half of the channels would not be whole groups of 3/4 the width in every stage: the rest is cheap."""
    expected = {32: (48, [(192, 72), (432, 216)]), 160: (128, [(512, 192), (896, 384)]), 80: (120, [(240, 90)])}
    for group_width, stages in expected.values():
        for channels, intrinsic in stages:
            stage = GhostStage(8, channels, 3, group_width)
            assert stage.parts == [intrinsic, channels - intrinsic]
            assert stage.layers[0].conv2.group == intrinsic // (group_width * 3 // 4)


def test_channel_means_are_those_of_the_joined_maps():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((2, channels, 3, 5)).astype(np.float32) for channels in (4, 2, 3)]
    expected = np.concatenate(maps, 1).mean((2, 3), keepdims=True)
    found = ChannelMeans()(tuple(Tensor(m) for m in maps)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 65), (320, 96)])
def test_small_and_non_square_images(height, width):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = g_ghost_regnetx_032(num_classes=7, in_channels=1).set_train(False)
    features = network.forward_features(Tensor(np.ones((1, 1, height, width), np.float32)))
    assert features.shape == (1, 1008, -(-height // 32), -(-width // 32))
    found = network.forward_head(features).asnumpy()
    assert found.shape == (1, 7)
    assert np.isfinite(found).all()
