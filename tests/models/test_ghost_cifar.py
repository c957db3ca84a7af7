"""The CIFAR-10 networks: counts that follow from the papers' tables, shortcuts, sizes, a training step."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindghost.models import card, create_model
from mindghost.models.ghost_cifar import BasicBlock, ResidualConv, cosine_patterns
from tests.helpers.weights import randomise

# (channels in, channels out, pixels of the output) of every convolution but the first
VGG16 = [(64, 64, 1024), (64, 128, 256), (128, 128, 256), (128, 256, 64), *[(256, 256, 64)] * 2, (256, 512, 16)]
VGG16 += [(512, 512, 16)] * 2 + [(512, 512, 4)] * 3
RESNET56 = [(16, 16, 1024)] * 18 + [(16, 32, 256), *[(32, 32, 256)] * 17, (32, 64, 64), *[(64, 64, 64)] * 17]
AIRBENCH = [(128, 128, 256), (384, 384, 64), (384, 384, 16)]
# Its plain convolutions after the first, two of each stage: weights and batch norms, products
PLAIN = 9 * (32 * 128 + 128 * 384 + 384 * 384 + 128 * 128 + 2 * 384 * 384) + 2 * 2 * (128 + 384 + 384)
PLAIN_MACS = 9 * (32 * 128 * 1024 + (128 * 384 + 128 * 128) * 256 + 2 * 384 * 384 * 64 + 384 * 384 * 16)
HIDDEN = 512 * 512


@pytest.mark.parametrize(
    ("name", "ratio", "convolutions", "stem", "head"),
    [
        ("vgg16_cifar", 1, VGG16, 64, (HIDDEN + 3 * 512 + 5130, HIDDEN + 5120)),
        ("ghost_vgg16", 2, VGG16, 64, (HIDDEN + 3 * 512 + 5130, HIDDEN + 5120)),
        ("resnet56_cifar", 1, RESNET56, 16, (650, 640)),
        ("ghost_resnet56", 2, RESNET56, 16, (650, 640)),
        ("ghost_airbench", 2, AIRBENCH, 32, (PLAIN + 3850, PLAIN_MACS + 3840)),
    ],
)
def test_counts_follow_from_the_table(name, ratio, convolutions, stem, head):
    """Ghost modules: 1 / ratio of a convolution, 3x3 depthwise filters for the other maps, a batch norm for all."""
    parameters, macs = head[0] + stem * (27 + 2), head[1] + stem * 27 * 1024
    for channels_in, channels_out, pixels in convolutions:
        weights = channels_out // ratio * channels_in * 9 + (channels_out - channels_out // ratio) * 9
        parameters += weights + 2 * channels_out
        macs += weights * pixels
    assert (card(name).parameters, card(name).macs) == (parameters, macs)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("vgg16_cifar", 15.0e6, 313e6),
        ("ghost_vgg16", 7.7e6, 158e6),
        ("resnet56_cifar", 0.85e6, 125e6),
        ("ghost_resnet56", 0.43e6, 63e6),
    ],
)
def test_counts_are_near_the_papers(name, parameters, macs):
    assert card(name).parameters == pytest.approx(parameters, rel=0.02)
    assert card(name).macs == pytest.approx(macs, rel=0.04)


@pytest.mark.parametrize("ratio", [1, 2])
def test_shortcut_is_every_second_pixel_and_zeros(ratio):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    block = BasicBlock(4, 8, ratio, stride=2).set_train(False)
    randomise(block)
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 6)).astype(np.float32)
    skipped = np.concatenate([x[:, :, ::2, ::2], np.zeros((2, 4, 4, 3), np.float32)], 1)
    convolved = block.conv2(block.conv1(Tensor(x))).asnumpy()
    assert convolved.min() < 0
    np.testing.assert_allclose(block(Tensor(x)).asnumpy(), np.maximum(convolved + skipped, 0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ratio", [1, 2])
def test_residual_convolution_adds_its_input_to_a_relu(ratio):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    block = ResidualConv(4, ratio).set_train(False)
    randomise(block)
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 6)).astype(np.float32)
    added = block(Tensor(x)).asnumpy() - x
    assert added.min() >= -1e-6
    np.testing.assert_allclose(added, block.conv(Tensor(x)).asnumpy(), rtol=0, atol=1e-5)
    assert added.std() > 0


@pytest.mark.parametrize("name", ["vgg16_cifar", "ghost_vgg16", "resnet56_cifar", "ghost_resnet56", "ghost_airbench"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (47, 64)])
def test_sizes(name, height, width):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model(name, in_channels=1).set_train(False)
    randomise(network)
    found = network(Tensor(np.ones((1, 1, height, width), np.float32))).asnumpy()
    assert found.shape == (1, 10)
    assert np.isfinite(found).all()
    assert found.std() > 0


@pytest.mark.parametrize("in_channels", [1, 3])
def test_airbench_starts_from_orthonormal_patterns(in_channels):
    patterns = cosine_patterns(in_channels)
    flat = patterns.reshape(len(patterns), -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(9 * in_channels), atol=1e-6)
    np.testing.assert_allclose(patterns[0], np.full((in_channels, 3, 3), 1 / np.sqrt(9 * in_channels)), atol=1e-6)
    filters = create_model("ghost_airbench", in_channels=in_channels).conv1.weight.asnumpy()
    count = min(9 * in_channels, len(filters) // 2)
    np.testing.assert_array_equal(filters[: 2 * count : 2], patterns[:count])
    np.testing.assert_array_equal(filters[1 : 2 * count : 2], -patterns[:count])
    assert np.unique(filters.reshape(len(filters), -1), axis=0).shape == (32, 9 * in_channels)
