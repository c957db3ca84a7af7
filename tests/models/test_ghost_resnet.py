"""Ghost-ResNet-50 is mindcv's ResNet-50 with Ghost modules for all convolutions but the first."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.models import card, create_model
from mindghost.models.complexity import complexity
from tests.helpers.weights import randomise


def ghost_size(convolution: nn.Conv2d, ratio: int) -> tuple[int, int]:
    """Weights of the Ghost module for a convolution, without batch norm, and values of its two batch norms."""
    filters, *shape = convolution.weight.shape
    intrinsic = filters // ratio
    return intrinsic * int(np.prod(shape)) + (filters - intrinsic) * 9, 2 * filters


@pytest.mark.parametrize("ratio", [2, 4])
def test_parameters_follow_from_resnet50(ratio):
    """Its convolutions' sizes divided by the ratio, 3x3 depthwise filters for the rest, stem and classifier whole."""
    reference = mindcv.create_model("resnet50")
    stem, *others = [cell for _, cell in reference.cells_and_names() if isinstance(cell, nn.Conv2d)]
    expected = stem.weight.size + 2 * stem.weight.shape[0] + reference.classifier.weight.size + 1000
    expected += sum(sum(ghost_size(convolution, ratio)) for convolution in others)
    assert card(f"ghost_resnet50_s{ratio}").parameters == expected


@pytest.mark.parametrize(("ratio", "macs"), [(2, 2.2), (4, 1.2)])
def test_macs_are_the_papers(ratio, macs):
    assert round(card(f"ghost_resnet50_s{ratio}").macs / 1e9, 1) == macs


def test_macs_follow_from_resnet50():
    """The primary convolutions do 1 / ratio of the work; the depthwise ones 9 for each of their output values."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    reference = mindcv.create_model("resnet50")
    outputs = {}
    for name, cell in reference.cells_and_names():
        if isinstance(cell, nn.Conv2d):
            cell.register_forward_hook(lambda _c, _x, output, name=name: outputs.update({name: output.shape}))
    whole = complexity(reference).macs
    (_, *stem_shape), *shapes = outputs.values()
    unchanged = int(np.prod(stem_shape)) * 147 + 2_048_000
    values = sum(int(np.prod(shape[1:])) for shape in shapes)
    for ratio in (2, 4):
        expected = unchanged + (whole - unchanged) // ratio + values * (ratio - 1) // ratio * 9
        assert card(f"ghost_resnet50_s{ratio}").macs == expected


def test_wired_as_mindcvs_resnet50():
    """Our modules put in the place of mindcv's convolutions, and its batch norms taken out, give our logits."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    ours = create_model("ghost_resnet50_s2", num_classes=9).set_train(False)
    randomise(ours)
    theirs = mindcv.create_model("resnet50", num_classes=9).set_train(False)
    theirs.conv1, theirs.bn1, theirs.classifier = ours.conv1, ours.bn1, ours.fc
    for name in ("layer1", "layer2", "layer3", "layer4"):
        for mine, block in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            for index in (1, 2, 3):
                setattr(block, f"conv{index}", getattr(mine, f"conv{index}"))
                setattr(block, f"bn{index}", nn.Identity())
            if mine.downsample is not None:
                block.down_sample = mine.downsample
    # An odd width and height after the stem: mindcv's max pool pads both sides then, as the original does always.
    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 65, 97)).astype(np.float32))
    expected = theirs(images).asnumpy()
    found = ours(images).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_max_pool_pads_both_sides():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model("ghost_resnet50_s4")
    x = np.abs(np.random.default_rng(0).standard_normal((1, 2, 6, 8))).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    np.testing.assert_array_equal(network.maxpool(Tensor(x)).asnumpy(), windows.max((-2, -1)))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 65), (320, 96)])
def test_small_and_non_square_images(height, width):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model("ghost_resnet50_s4", num_classes=7, in_channels=1).set_train(False)
    features = network.forward_features(Tensor(np.ones((1, 1, height, width), np.float32)))
    assert features.shape == (1, 2048, -(-height // 32), -(-width // 32))
    found = network.forward_head(features).asnumpy()
    assert found.shape == (1, 7)
    assert np.isfinite(found).all()
