"""Networks for segmentation: every size of image, every backbone, and each decoder once more in numpy."""

import mindspore as ms
import numpy as np
import pytest
from mindcv.optim import create_optimizer
from mindspore import Tensor, nn, ops

from mindghost.deploy import fold
from mindghost.models import SEGMENTATION, create_model, ghostnet, list_models
from mindghost.models.complexity import complexity
from mindghost.models.depth import layers, stages
from mindghost.models.layers import he_normal_init, he_uniform_init, pytorch_init
from mindghost.models.upsample import Enlarge, TransposedEnlarge, Upsample
from mindghost.ops import library, rewrite
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import update_by
from tests.helpers import short
from tests.helpers.networks import images
from tests.helpers.weights import randomise

VARIANTS = [*((name, {}) for name in list_models(SEGMENTATION)), ("ghost_unet", {"upsampling": "transposed"})]
# The plain twins have nothing that the others have not.
VARIANTS = [pytest.param(*case, marks=pytest.mark.slow if case[0].startswith("plain") else []) for case in VARIANTS]


@pytest.fixture
def small(monkeypatch):
    """GhostNets of five bottlenecks; operator by operator."""
    monkeypatch.setattr(ghostnet, "STAGES", short.all_strides())
    ms.set_context(mode=ms.PYNATIVE_MODE)


# --- The same in numpy


def interpolation(short: int, long: int) -> np.ndarray:
    """The matrix (long, short) of half-pixel bilinear resizing, from the formula of each pixel."""
    matrix = np.zeros((long, short))
    for index in range(long):
        place = max((index + 0.5) * short / long - 0.5, 0)
        low = min(int(place), short - 1)
        high = min(low + 1, short - 1)
        matrix[index, low] += 1 - (place - low)
        matrix[index, high] += place - low
    return matrix


def enlarged(x: np.ndarray, factor: int, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (interpolation(n, n * factor)[:wanted] for n, wanted in zip(x.shape[2:], size, strict=True))
    return np.einsum("Hh,nchw,Ww->ncHW", rows, x, columns)


def convolved(x: np.ndarray, cell: nn.Cell) -> np.ndarray:
    weight = cell.weight.asnumpy().astype(np.float64)
    pad = [(0, 0), (0, 0), *((size // 2, size // 2) for size in weight.shape[2:])]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, pad), weight.shape[2:], (2, 3))
    if cell.group > 1:
        assert cell.group == x.shape[1] == weight.shape[0]
        out = np.einsum("nchwij,cij->nchw", windows, weight[:, 0])
    else:
        out = np.einsum("nchwij,ocij->nohw", windows, weight)
    return out if cell.bias is None else out + cell.bias.asnumpy()[:, None, None]


def transposed(x: np.ndarray, cell: nn.Cell) -> np.ndarray:
    weight = cell.weight.asnumpy().astype(np.float64)
    count, _, height, width = x.shape
    out = np.einsum("nchw,coij->nohiwj", x, weight).reshape(count, weight.shape[1], 2 * height, 2 * width)
    return out + cell.bias.asnumpy()[:, None, None]


def part(x: np.ndarray, cells: nn.SequentialCell) -> np.ndarray:
    """Convolution, batch norm, ReLU."""
    convolution, norm, relu = cells
    assert isinstance(relu, nn.ReLU)
    mean, variance, gamma, beta = (
        p.asnumpy().astype(np.float64)[:, None, None]
        for p in (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta)
    )
    return np.maximum((convolved(x, convolution) - mean) / np.sqrt(variance + norm.eps) * gamma + beta, 0)


def module(x: np.ndarray, cell: nn.Cell) -> np.ndarray:
    if isinstance(cell, nn.SequentialCell):
        return part(x, cell)
    intrinsic = part(x, cell.primary_conv)
    return np.concatenate((intrinsic, part(intrinsic, cell.cheap_operation)), 1)


def unet(network: nn.Cell, maps: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    *skips, x = maps
    for level, skip in zip(network.decoder, reversed(skips), strict=True):
        if isinstance(level.enlarge, TransposedEnlarge):
            x = transposed(x, level.enlarge.transposed)[:, :, : skip.shape[2], : skip.shape[3]]
        else:
            x = enlarged(x, 2, skip.shape[2:])
        x = module(module(np.concatenate((x, skip), 1), level.fuse), level.refine)
    return enlarged(convolved(x, network.classifier), 2, size)


def lraspp(network: nn.Cell, maps: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """In torchvision's order: the maps are enlarged, and then classified."""
    low, high = maps
    gates = convolved(high.mean((2, 3), keepdims=True), network.decoder.gates[1])
    high = module(high, network.decoder.features) / (1 + np.exp(-gates))
    high = enlarged(high, 4, low.shape[2:])
    logits = convolved(low, network.classifier.low) + convolved(high, network.classifier.high)
    return enlarged(logits, 8, size)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_decoders_are_those_of_numpy_at_an_odd_size(small, name, options):
    network = create_model(name, num_classes=3, backbone="ghostnet_050", decoder_width=0.5, **options)
    randomise(network)
    network.set_train(False)
    x = Tensor(images(2, 3, 37, 70))
    maps = [each.asnumpy().astype(np.float64) for each in network.backbone(x)]
    expected = (unet if "unet" in name else lraspp)(network, maps, (37, 70))
    assert expected.shape == (2, 3, 37, 70)
    np.testing.assert_allclose(network(x).asnumpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_the_plain_head_is_torchvisions(small, torchvision):
    """Its `LRASPPHead` with our weights, on our maps; then resized as its `LRASPP` does, to a multiple of 32."""
    import torch

    head = torchvision.models.segmentation.lraspp.LRASPPHead(20, 80, 5, 64).eval()
    network = create_model("plain_lraspp", num_classes=5, backbone="ghostnet_050", decoder_width=0.5)
    randomise(network)
    ours = {p.name: torch.tensor(p.asnumpy()) for p in network.get_parameters()}
    convolution, norm, _ = network.decoder.features
    layers = {"cbr.0": convolution, "cbr.1": norm, "scale.1": network.decoder.gates[1]}
    layers |= {f"{kind}_classifier": getattr(network.classifier, kind) for kind in ("low", "high")}
    kinds = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    state = {}
    for theirs, cell in layers.items():
        for parameter in cell.get_parameters():
            kind = parameter.name.rpartition(".")[2]
            state[f"{theirs}.{kinds.get(kind, kind)}"] = ours[parameter.name]
    head.load_state_dict(state)
    x = Tensor(images(2, 3, 64, 96))
    low, high = (torch.tensor(each.asnumpy()) for each in network.set_train(False).backbone(x))
    with torch.no_grad():
        logits = head({"low": low, "high": high})
        expected = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(network(x).asnumpy(), expected.numpy(), rtol=0, atol=1e-4 * float(expected.abs().max()))


# --- Resizing


def test_upsampling_by_hand_and_its_gradient(small):
    """[0, 4] comes to [0, 1, 3, 4]. The gradient is the transposed matrix."""
    two = Upsample()(Tensor(np.array([[[[0.0, 4.0]]]], np.float32)), (1, 4))
    np.testing.assert_array_equal(two.asnumpy(), [[[[0, 1, 3, 4]]]])
    x, weight = images(2, 3, 5, 4), images(2, 3, 8, 11, seed=1)
    gradient = ms.grad(lambda each: (Upsample()(each, (8, 11)) * Tensor(weight)).sum())(Tensor(x))
    rows, columns = interpolation(5, 8), interpolation(4, 11)
    expected = np.einsum("Hh,nchw,Ww->ncHW", rows, x, columns)
    np.testing.assert_allclose(Upsample()(Tensor(x), (8, 11)).asnumpy(), expected, atol=1e-6)
    np.testing.assert_allclose(gradient.asnumpy(), np.einsum("Hh,ncHW,Ww->nchw", rows, weight, columns), atol=1e-5)


def test_what_is_cut_off_leaves_the_rest_where_it_was(small):
    x = Tensor(images(1, 2, 3, 4))
    whole = Enlarge(4)(x, (12, 16)).asnumpy()
    np.testing.assert_array_equal(Enlarge(4)(x, (9, 13)).asnumpy(), whole[:, :, :9, :13])
    np.testing.assert_array_equal(Enlarge(4)(x, (12, 13)).asnumpy(), whole[:, :, :, :13])


# --- Sizes, backbones, options


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_any_size_of_image(small, name, options):
    network = create_model(name, num_classes=2, in_channels=1, backbone="ghostnetv2_100", **options).set_train(False)
    for size in ((1, 1), (1, 65), (31, 33)):
        logits = network(Tensor(images(1, 1, *size))).asnumpy()
        assert logits.shape == (1, 2, *size)
        assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        pytest.param("ghostnetv3_050", [8, 12, 20, 56, 80], marks=pytest.mark.slow),
        pytest.param("repghostnet_050", [8, 12, 20, 56, 80], marks=pytest.mark.slow),
        pytest.param("g_ghost_regnetx_032", [32, 96, 192, 432, 1008], marks=pytest.mark.slow),
        ("ghost_resnet50_s4", [64, 256, 512, 1024, 2048]),
    ],
)
def test_any_backbone(backbone, channels):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model("ghost_unet", num_classes=2, backbone=backbone).set_train(False)
    assert network.backbone.out_channels == channels
    assert network(Tensor(images(1, 3, 33, 40))).shape == (1, 2, 33, 40)


@pytest.mark.parametrize("backbone", ["ghostnetv3_050", pytest.param("repghostnet_050", marks=pytest.mark.slow)])
def test_the_deployed_form_has_the_same_logits(small, backbone):
    """Branches of the backbone fused, batch norms folded, in the decoder, too."""
    options = {"num_classes": 3, "backbone": backbone, "decoder_width": 0.5, "upsampling": "transposed"}
    trained = create_model("ghost_unet", **options)
    randomise(trained, gamma=(0.2, 0.4))
    x = Tensor(images(1, 3, 45, 64))
    expected = trained.set_train(False)(x).asnumpy()
    deployed = fold.deployed_form("ghost_unet", trained, **options)
    kinds = {p.name.rpartition(".")[2] for p in deployed.get_parameters()}
    assert kinds == {"weight", "bias"}
    np.testing.assert_allclose(deployed(x).asnumpy(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "ghostnet_99"}, "backbone: 'ghostnet_99' is not known; the nearest is 'ghostnet_"),
        ({"backbone": "ghost_lraspp"}, "backbone: ghost_lraspp is no classifier; give one such as ghostnet_100"),
        ({"backbone": "ghost_vgg16"}, "backbone: ghost_vgg16 is made for images of 32 x 32 pixels"),
        ({"upsampling": "nearest"}, "upsampling: ghost_unet takes bilinear or transposed, not 'nearest'"),
        ({"decoder_width": 0.0}, "decoder_width: expected a number above 0, got 0.0"),
        ({"num_classes": 0}, "num_classes: expected 1 or more, got 0"),
        ({"features_only": True}, "features_only: ghost_unet gives logits of pixels; ask its backbone, ghostnet_100"),
        ({"deploy": True}, "deploy: ghostnet_100 has no fused form"),
        ({"drop_path_rate": 0.1}, "drop_path_rate: ghost_unet has no stochastic depth"),
    ],
)
def test_options_that_do_not_fit(options, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        create_model("ghost_unet", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "ghostnet_100"}, "backbone: ghostnet_050 is a classifier, which has none"),
        ({"decoder_width": 2.0}, "decoder_width: ghostnet_050 is a classifier, which has no decoder"),
        ({"upsampling": "transposed"}, "upsampling: ghostnet_050 is a classifier, which has no decoder"),
    ],
)
def test_classifiers_have_no_decoder(options, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        create_model("ghostnet_050", **options)


def test_width_and_kind_of_the_decoder(small):
    """A plain decoder has the maps of the other one, and about twice its multiply-accumulates."""
    counts = {
        (name, width): complexity(create_model(name, backbone="ghostnet_050", decoder_width=width), 64, 64)
        for name in ("ghost_unet", "plain_unet")
        for width in (1.0, 0.5)
    }
    backbone = complexity(create_model("ghostnet_050", features_only=True), 64, 64).macs
    decoders = {key: found.macs - backbone for key, found in counts.items()}
    for width in (1.0, 0.5):
        assert counts["ghost_unet", width].activations == counts["plain_unet", width].activations
        assert 1.7 < decoders["plain_unet", width] / decoders["ghost_unet", width] < 2
    assert 2 < decoders["ghost_unet", 1.0] / decoders["ghost_unet", 0.5] < 4


def test_a_transposed_convolution_counts_each_input_pixel_once(small):
    """In MACs: 5 x 7 pixels of 3 channels, times a filter of 4 x 2 x 2."""
    found = complexity(nn.SequentialCell(nn.Conv2dTranspose(3, 4, 2, 2, pad_mode="valid")), 5, 7)
    assert (found.parameters, found.macs, found.activations) == (48, 5 * 7 * 3 * 16, 4 * 10 * 14)


# --- Weights: names, how they start, what stays frozen


def test_names_stages_and_layers_are_those_of_the_classifier(small):
    classifier, network = create_model("ghostnet_050"), create_model("ghost_lraspp", backbone="ghostnet_050")
    names = [parameter.name for parameter in network.get_parameters()]
    body = [f"backbone.{p.name}" for p in classifier.get_parameters() if p.name.split(".")[:2] != ["blocks", "5"]]
    body = [name for name in body if not name.startswith(("backbone.conv_head", "backbone.classifier"))]
    assert names[: len(body)] == body
    assert {name.partition(".")[0] for name in names[len(body) :]} == {"decoder", "classifier"}

    expected = [(stage.name, tuple(f"backbone.{name}" for name in stage.parameters)) for stage in stages(classifier)]
    assert [(stage.name, stage.parameters) for stage in stages(network)] == expected[:-1]

    of_classifier, found = layers(classifier), layers(network)
    # The classifier has one layer more before its head, the 1x1 convolution.
    head = of_classifier["classifier.weight"] - 1
    assert found == {
        name: of_classifier[name.removeprefix("backbone.")] if name.startswith("backbone.") else head for name in names
    }


def test_names_of_decoders_stay_what_they_are(small):
    """Weight files hold them."""

    def names(name: str, **options: str) -> set[str]:
        network = create_model(name, backbone="ghostnet_050", **options)
        return {p.name for p in network.get_parameters() if not p.name.startswith("backbone.")}

    kinds = ("moving_mean", "moving_variance", "gamma", "beta")
    part = {"0.weight", *(f"1.{kind}" for kind in kinds)}
    ghost = {f"{half}.{name}" for half in ("primary_conv", "cheap_operation") for name in part}
    levels = {f"decoder.{level}.{module}" for level in range(4) for module in ("fuse", "refine")}
    ends = {f"classifier.{kind}" for kind in ("weight", "bias")}
    learnt = {f"decoder.{level}.enlarge.transposed.{kind}" for level in range(4) for kind in ("weight", "bias")}
    expected = {f"{place}.{name}" for place in levels for name in ghost} | ends
    assert names("ghost_unet") == expected
    assert names("ghost_unet", upsampling="transposed") == expected | learnt
    assert names("plain_unet") == {f"{place}.{name}" for place in levels for name in part} | ends

    ends = {f"classifier.{map}.{kind}" for map in ("low", "high") for kind in ("weight", "bias")}
    ends.add("decoder.gates.1.weight")
    assert names("ghost_lraspp") == {f"decoder.features.{name}" for name in ghost} | ends
    assert names("plain_lraspp") == {f"decoder.features.{name}" for name in part} | ends


@pytest.mark.parametrize(
    ("backbone", "init", "start"),
    [
        ("ghostnet_050", "mindcv", he_uniform_init),
        ("ghostnet_050", "pytorch", pytorch_init),
        ("ghost_resnet50_s4", "mindcv", he_normal_init),
    ],
)
def test_a_decoder_starts_as_its_backbone_does(small, backbone, init, start):
    """Weights of the second level's transposed convolution and of its first 3x3 one, by their spread."""
    network = create_model("ghost_unet", backbone=backbone, init=init, upsampling="transposed", decoder_width=4)
    level = network.decoder[1]
    for cell in (level.enlarge.transposed, level.refine.primary_conv[0]):
        found = cell.weight.asnumpy()
        cell.weight.set_data(Tensor(np.zeros_like(found)))
        start(cell)
        again = cell.weight.asnumpy()
        assert found.std() == pytest.approx(again.std(), rel=0.05)
        assert np.abs(found).max() == pytest.approx(np.abs(again).max(), rel=0.05 if init == "pytorch" else 0.3)


def test_a_fresh_classifier(small):
    network = create_model("ghost_lraspp", num_classes=4, backbone="ghostnet_050")
    network.reset_classifier(2)
    weights = {p.name: p.shape for p in network.get_classifier().get_parameters() if p.name.endswith("weight")}
    assert weights == {"classifier.low.weight": (2, 20, 1, 1), "classifier.high.weight": (2, 128, 1, 1)}
    assert network(Tensor(images(1, 3, 32, 32))).shape == (1, 2, 32, 32)


# --- Training


class PixelLoss(nn.Cell):
    """Mean cross-entropy of all pixels."""

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        rows = ops.reshape(ops.transpose(logits, (0, 2, 3, 1)), (-1, logits.shape[1]))
        return ops.cross_entropy(rows, ops.reshape(labels, (-1,)))


def graph_cases() -> list:
    """Every network and way of enlarging; one of them in quick runs, too."""
    cases = [case.values for case in VARIANTS]
    return [pytest.param(*case, marks=[] if case[0] == "ghost_lraspp" else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("native", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["native", "mindspore"])
@pytest.mark.parametrize(("name", "options"), graph_cases())
def test_every_network_trains_and_evaluates_in_graph_mode(small, name, options, native):
    """Compiled training starts from PyNative mode's loss, lowers it, and evaluates to PyNative mode's logits."""
    x, labels = Tensor(images(4, 3, 61, 64)), np.zeros((4, 61, 64), np.int32)
    labels[:, 20:, 30:] = 2
    labels = Tensor(labels)
    network, loss = create_model(name, num_classes=3, backbone="ghostnet_050", **options), PixelLoss()
    expected = float(loss(network.set_train(True)(x), labels))

    ms.set_context(mode=ms.GRAPH_MODE)
    if native:
        rewrite.use(network, library.library())
    optimizer = create_optimizer(network.trainable_params(), "momentum", lr=[0.02] * 8)
    step = TrainStep(network, loss, update_by(optimizer), StepOptions()).set_train(True)
    losses = [float(step(x, labels)[0]) for _ in range(8)]
    # The first step of PyNative mode moved the statistics, which training does not read.
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < 0.8 * losses[0]
    assert [moment.name for moment in optimizer.moments if not moment.asnumpy().any()] == []

    compiled = network.set_train(False)(x).asnumpy()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    plain = create_model(name, num_classes=3, backbone="ghostnet_050", **options).set_train(False)
    for parameter, trained in zip(plain.get_parameters(), network.get_parameters(), strict=True):
        assert parameter.name == trained.name
        parameter.set_data(Tensor(trained.asnumpy()))
    expected = plain(x).asnumpy()
    np.testing.assert_allclose(compiled, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
