"""The networks are the published ones: golden numbers, and mindcv itself."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindcv.loss import create_loss
from mindcv.optim import create_optimizer
from mindspore import Tensor, nn

from mindghost.checkpoint import weights as weights_file
from mindghost.models import CLASSIFICATION, card, create_model, layers, list_models
from mindghost.models.ghostnet import GhostModule
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import update_by
from tests.helpers.networks import assert_golden_card, assert_golden_logits, load, logits, write_golden
from tests.helpers.weights import randomise


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnet_100"])
def test_golden_logits(name, tmp_path):
    """PyTorch names and weights, through the converter and a file, give the logits of the original code.

    One network is compiled for each size, the other one runs operator by operator.
    """
    ms.set_context(mode=ms.GRAPH_MODE if name == "ghostnet_050" else ms.PYNATIVE_MODE)
    write_golden(name, tmp_path / "golden.ckpt")
    network = create_model(name)
    load(network, tmp_path / "golden.ckpt")
    assert_golden_logits(network, name)


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnet_100"])
def test_golden_card(name):
    assert_golden_card(name)


@pytest.mark.parametrize("name", ["ghostnet_050", pytest.param("ghostnet_100", marks=pytest.mark.slow), "ghostnet_130"])
def test_parity_with_mindcv_in_both_directions(name, tmp_path):
    """A file of mindcv's gives mindcv's logits here, one of ours gives ours there; names stand in the same order."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    theirs, ours = mindcv.create_model(name), create_model(name)
    randomise(theirs, 1)
    ms.save_checkpoint(theirs, str(tmp_path / "theirs.ckpt"))
    load(ours, tmp_path / "theirs.ckpt")
    assert [p.name for p in ours.get_parameters()] == [p.name for p in theirs.get_parameters()]
    expected = logits(theirs, 2, 3, 96, 64)
    np.testing.assert_allclose(logits(ours, 2, 3, 96, 64), expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    randomise(ours, 2)
    weights_file.write(tmp_path / "ours.ckpt", {p.name: p.asnumpy() for p in ours.get_parameters()})
    not_in_file, _ = ms.load_param_into_net(theirs, ms.load_checkpoint(str(tmp_path / "ours.ckpt"), crc_check=True))
    assert not_in_file == []
    expected = logits(ours, 2, 3, 96, 64)
    np.testing.assert_allclose(logits(theirs, 2, 3, 96, 64), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_gradients_agree_with_mindcv(tmp_path):
    """Same weights, same batch, training mode: the same gradient for every parameter."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    theirs, ours = (make("ghostnet_050", drop_rate=0.0) for make in (mindcv.create_model, create_model))
    randomise(theirs, 3)
    ms.save_checkpoint(theirs, str(tmp_path / "w.ckpt"))
    load(ours, tmp_path / "w.ckpt")
    images = Tensor(np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32))
    found = []
    for network in (ours, theirs):
        network.set_train(True)
        gradient = ms.grad(lambda x, net=network: (net(x) ** 2).mean(), None, network.trainable_params())
        found.append([g.asnumpy() for g in gradient(images)])
    for parameter, mine, reference in zip(ours.trainable_params(), *found, strict=True):
        scale = max(np.abs(reference).max(), 1e-4)
        np.testing.assert_allclose(mine, reference, rtol=0, atol=2e-3 * scale, err_msg=parameter.name)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 65), (7, 1)])
def test_small_and_non_square_images(height, width):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model("ghostnet_050", num_classes=7, in_channels=1)
    found = logits(network, 1, 1, height, width)
    assert found.shape == (1, 7)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("ratio", "channels"), [(2, 8), (2, 7), (3, 8), (4, 4)])
def test_ghost_module_is_primary_maps_then_cheap_ones(ratio, channels):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = GhostModule(5, channels, kernel_size=3, ratio=ratio, stride=2)
    randomise(module)
    module.set_train(False)
    x = Tensor(np.random.default_rng(0).standard_normal((2, 5, 9, 9)).astype(np.float32))
    primary = module.primary_conv(x)
    expected = np.concatenate([primary.asnumpy(), module.cheap_operation(primary).asnumpy()], axis=1)[:, :channels]
    found = module(x).asnumpy()
    assert found.shape == (2, channels, 5, 5)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "keys",
    [
        {"kernel_size": 3, "stride": 2, "dilation": 2, "pad_mode": "pad", "padding": 2},
        {"kernel_size": (1, 3), "stride": (2, 1), "pad_mode": "pad", "padding": (0, 0, 1, 1)},
        {"kernel_size": 3, "stride": 2, "pad_mode": "same", "group": 2},
    ],
)
def test_ghost_module_stands_for_any_convolution(keys):
    """The maps of the convolution that it replaces: with its first filters, the same values before batch norm."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    convolution = nn.Conv2d(6, 8, **keys)
    module = GhostModule(6, 8, relu=False, **keys).set_train(False)
    primary = module.primary_conv[0]
    assert primary.weight.shape == (4, *convolution.weight.shape[1:])
    x = Tensor(np.random.default_rng(0).standard_normal((1, 6, 8, 10)).astype(np.float32))
    assert module(x).shape == convolution(x).shape
    if "group" not in keys:
        primary.weight.set_data(Tensor(convolution.weight.asnumpy()[:4]))
        np.testing.assert_allclose(primary(x).asnumpy(), convolution(x).asnumpy()[:, :4], rtol=0, atol=1e-6)


def test_dropout_keeps_the_mean_and_follows_the_seed():
    def masks(seed):
        ms.set_seed(seed)
        dropout = layers.Dropout(0.25)
        dropout.set_train(True)
        ones = Tensor(np.ones((200, 500), np.float32))
        return dropout(ones).asnumpy(), dropout(ones).asnumpy()

    first, second = masks(5)
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert abs(first.mean() - 1) < 0.01
    assert (first != second).any()
    np.testing.assert_array_equal(masks(5)[0], first)
    inference = layers.Dropout(0.25).set_train(False)
    np.testing.assert_array_equal(inference(Tensor([1.0, 2.0])).asnumpy(), [1.0, 2.0])


@pytest.mark.parametrize(("value", "expected"), [(4, 4), (1, 4), (6, 8), (5.9, 8), (9.9, 12), (57.2, 56), (18, 20)])
def test_make_divisible(value, expected):
    assert layers.make_divisible(value, 4) == expected


def test_wrong_names_and_options_are_refused():
    with pytest.raises(ValueError, match="nearest is 'ghostnet_100'"):
        create_model("ghostnet_1000")
    with pytest.raises(ValueError, match="drop_path_rate: ghostnet_050 has no stochastic depth"):
        create_model("ghostnet_050", drop_path_rate=0.1)


def test_dropout_masks_follow_their_counter_and_are_uniform():
    """Setting the counter repeats a mask, in a compiled network with gradients too; positions are independent."""
    dropout = layers.Dropout(0.5)
    dropout.set_train(True)
    x = Tensor(np.ones((64, 1280), np.float32))
    masks = [dropout(x).asnumpy() for _ in range(3)]
    assert int(dropout.counter) == 3
    dropout.counter.set_data(Tensor(1, ms.int32))
    np.testing.assert_array_equal(dropout(x).asnumpy(), masks[1])
    assert list(dropout.get_parameters()) == []

    def kept(images):
        return dropout(images).sum()

    gradient = ms.grad(kept)
    dropout.counter.set_data(Tensor(2, ms.int32))
    np.testing.assert_array_equal(gradient(x).asnumpy(), masks[2])
    shifted = (np.roll(masks[1].ravel(), by).reshape(masks[1].shape) for by in (-2, -1, 1, 2))
    for other in (masks[1], *shifted, np.roll(masks[0], 1, axis=0), np.roll(masks[0], 1, axis=1)):
        # Four standard deviations of the correlation of 81,920 independent coins.
        assert abs(np.corrcoef(masks[0].ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(masks[0].size)


def graph_mode_cases() -> list:
    """Every classifier, and fused forms; the one that compiles fastest in quick runs too."""
    fused = [(name, {"deploy": True}) for name in ("ghostnetv3_050", "repghostnet_050")]
    cases = [*((name, {}) for name in list_models(CLASSIFICATION)), *fused]
    return [pytest.param(*case, marks=[] if case[0] == "ghost_vgg16" else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(("name", "options"), graph_mode_cases())
def test_every_network_trains_and_evaluates_in_graph_mode(name, options):
    """Compiled training starts from PyNative mode's loss, lowers it, and evaluates to PyNative mode's logits."""
    # Smaller images come to a map of one pixel, where a batch norm before another one has no gradient.
    rng, size, count = np.random.default_rng(0), min(card(name).input_size, 128), 10
    images = Tensor(rng.standard_normal((8, 3, size, size)).astype(np.float32))
    labels = Tensor(np.arange(8, dtype=np.int32))
    network, loss = create_model(name, num_classes=10, drop_rate=0.0, **options), create_loss("CE")
    before = {parameter.name: parameter.asnumpy().copy() for parameter in network.trainable_params()}
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = float(loss(network.set_train(True)(images), labels))

    ms.set_context(mode=ms.GRAPH_MODE)
    optimizer = create_optimizer(network.trainable_params(), "momentum", lr=[0.003] * count)
    step = TrainStep(network, loss, update_by(optimizer), StepOptions()).set_train(True)
    losses = [float(step(images, labels)[0]) for _ in range(count)]
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < 0.9 * losses[0]
    # The momentum, as rounding can swallow a small step of a gamma, which is 1.
    assert [moment.name for moment in optimizer.moments if not moment.asnumpy().any()] == []
    # A filter of one number (V3's 1x1 depthwise branch) is undone by the batch norm behind it.
    filters = [parameter for parameter in network.trainable_params() if parameter.name.endswith(".weight")]
    filters = [parameter for parameter in filters if np.prod(parameter.shape[1:]) > 1]
    assert [weight.name for weight in filters if (weight.asnumpy() == before[weight.name]).all()] == []

    network.set_train(False)
    compiled = network(images[:1]).asnumpy()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = network(images[:1]).asnumpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(compiled, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
