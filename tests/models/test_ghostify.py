"""Ghost modules in any network: what is replaced, what stays the same, and where the modules start."""

import itertools

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost.models.complexity import complexity
from mindghost.models.ghost_fit import fit
from mindghost.models.ghostify import GhostConvolution, Reorder, default_skip, ghostify
from tests.helpers.weights import randomise


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


class Small(nn.Cell):
    """Stem, two convolutions in a SequentialCell (the second with bias), a depthwise one, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.norm = nn.BatchNorm2d(16)
        self.body = nn.SequentialCell(
            nn.Conv2d(16, 24, 3, stride=2, pad_mode="pad", padding=1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 33, 1, has_bias=True),
        )
        self.depthwise = nn.Conv2d(33, 33, 3, group=33)
        self.classifier = nn.Dense(33, 5)

    def construct(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.body(ops.relu(self.norm(self.stem(x)))))
        return self.classifier(ops.mean(x, (2, 3)))


PADDINGS = (
    {"pad_mode": "same"},
    {"pad_mode": "valid"},
    {"pad_mode": "pad", "padding": 2},
    {"pad_mode": "pad", "padding": (0, 1, 2, 3)},
)
SETTINGS = [
    # Every second one has a bias, every third one is dilated.
    {"kernel_size": size, "stride": stride, "has_bias": n % 2 == 0, "dilation": 2 if n % 3 == 0 else 1, **padding}
    for n, (size, stride, padding) in enumerate(itertools.product((1, 3, (1, 5), 4), (1, 2, (2, 1)), PADDINGS))
]


def test_a_module_keeps_stride_padding_dilation_and_bias():
    """Its intrinsic maps are the convolution's own, whatever its settings, on odd and even sizes."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    for setting, size in itertools.product(SETTINGS, ((12, 15), (13, 16))):
        conv = nn.Conv2d(5, 8, **setting)
        randomise(conv)
        x = random_images(2, 5, *size)
        expected = conv(x).asnumpy()
        start = fit(expected, bias=setting["has_bias"])
        found = GhostConvolution(conv, start=start)(x).asnumpy()
        assert GhostConvolution(conv)(x).shape == found.shape == expected.shape, (setting, size)
        kept = start.intrinsic
        np.testing.assert_allclose(found[:, kept], expected[:, kept], rtol=0, atol=1e-4, err_msg=str(setting))


def test_a_fresh_module_is_intrinsic_maps_then_ghosts_of_them():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    module = GhostConvolution(nn.Conv2d(4, 7, 3, has_bias=True), ratio=3, dw_size=5)
    randomise(module)
    x = random_images(2, 4, 6, 6)
    intrinsic = module.primary_conv(x)
    expected = np.concatenate([intrinsic.asnumpy(), module.cheap_operation(intrinsic).asnumpy()], axis=1)
    assert expected.shape[1] == 9
    np.testing.assert_array_equal(module(x).asnumpy(), expected[:, :7])
    assert module.cheap_operation.weight.shape == (6, 1, 5, 5)


def made_of_three(bias: bool) -> tuple[np.ndarray, dict[int, int], np.ndarray]:
    """Six maps of which three are 3x3-filtered copies of others: maps, {ghost: its source}, the filters."""
    rng = np.random.default_rng(0)
    sources = {0: 4, 2: 1, 5: 3}
    maps = 5 * rng.standard_normal((4, 6, 9, 8)).astype(np.float32)
    filters = 0.1 * rng.standard_normal((6, 1, 3, 3)).astype(np.float32)
    for ghost, source in sources.items():
        cheap = nn.Conv2d(1, 1, 3, pad_mode="pad", padding=1, has_bias=bias)
        cheap.weight.set_data(Tensor(filters[ghost : ghost + 1]))
        if bias:
            cheap.bias.set_data(Tensor([2.0 + ghost], ms.float32))
        maps[:, ghost : ghost + 1] = cheap(Tensor(maps[:, source : source + 1])).asnumpy()
    return maps, sources, filters


@pytest.mark.parametrize("bias", [False, True])
def test_ghosts_that_are_ghosts_are_found(bias):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    maps, sources, filters = made_of_three(bias)
    found = fit(maps, bias=bias)
    assert found.intrinsic.tolist() == [1, 3, 4]
    assert found.explained > 0.9999
    for ghost, source in sources.items():
        at = found.order[ghost] - 3
        assert found.intrinsic[at] == source
        np.testing.assert_allclose(found.filters[at], filters[ghost], atol=1e-3)
        assert found.bias[at] == pytest.approx(2 + ghost if bias else 0, abs=1e-3)
    assert sorted(found.order) == list(range(6))


def test_gain_says_which_maps_matter():
    maps, *_ = made_of_three(False)
    gain = np.ones(6)
    gain[[0, 2, 5]] = 1000
    assert fit(maps, gain).intrinsic.tolist() == [0, 2, 5]


@pytest.mark.parametrize("ratio", [2, 3])
def test_the_pairing_is_the_best_there_is(ratio):
    """`explained` is what the module itself gives, and no other pairing gives more."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    conv = nn.Conv2d(6, 7, 3)
    randomise(conv, 1)
    x = random_images(8, 6, 10, 10)
    maps = conv(x).asnumpy()
    gain = np.random.default_rng(0).uniform(0.5, 2, 7)
    start = fit(maps, gain, ratio)
    others = np.setdiff1d(np.arange(7), start.intrinsic)

    def error(order: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """Squared error after `gain` when ghosts are fitted to the given maps, and no choice is left."""
        return (np.square(order[:, channels] - maps[:, channels]).mean((0, 2, 3)) * gain[channels] ** 2).sum()

    found = GhostConvolution(conv, ratio, start=start)(x).asnumpy()
    total = (maps[:, others].var((0, 2, 3)) * gain[others] ** 2).sum()
    assert 1 - error(found, others) / total == pytest.approx(start.explained, abs=1e-4)
    # One intrinsic map and one other: the pair's error, for each pair.
    pairs = np.zeros((len(start.intrinsic), len(others)))
    for (i, kept), (j, other) in itertools.product(enumerate(start.intrinsic), enumerate(others)):
        large_first = np.array([1e6, 1.0])
        alone = fit(maps[:, [kept, other]], large_first)
        explained = alone.explained * maps[:, other].var()
        pairs[i, j] = (maps[:, other].var() - explained) * gain[other] ** 2
    slots = np.repeat(np.arange(len(start.intrinsic)), ratio - 1)[: len(others)]
    best = min(
        sum(pairs[i, j] for i, j in zip(slots, p, strict=True)) for p in itertools.permutations(range(len(others)))
    )
    assert error(found, others) == pytest.approx(best, rel=1e-3)


def test_dead_maps_give_finite_filters():
    maps = np.zeros((2, 4, 5, 5), np.float32)
    start = fit(maps)
    assert np.isfinite(start.filters).all()
    assert sorted(start.order) == [0, 1, 2, 3]


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_reordering_and_its_gradient(mode):
    ms.set_context(mode=mode)
    order = np.array([2, 0, 3, 1])
    cell, x, factor = Reorder(order), random_images(2, 4, 3, 3), random_images(2, 4, 3, 3, seed=1)
    np.testing.assert_array_equal(cell(x).asnumpy(), x.asnumpy()[:, order])

    def total(images: Tensor) -> Tensor:
        return (cell(images) * factor).sum()

    gradient = ms.grad(total)(x).asnumpy()
    expected = np.empty_like(gradient)
    expected[:, order] = factor.asnumpy()
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_a_network_by_hand(mode):
    """What is replaced, names, counts; a network that was compiled before runs the new layers."""
    ms.set_context(mode=mode)
    network, x = Small(), random_images(2, 3, 16, 16)
    network.set_train(False)
    network(x)
    others = {n: p for n, p in network.parameters_and_names() if not n.startswith("body.")}
    report = ghostify(network, image=(3, 16, 16))
    assert (ms.get_context("mode"), network.training) == (mode, False)
    assert report.replaced == ("body.0", "body.3")
    assert report.kept == {"stem": "the first convolution", "depthwise": "grouped or depthwise"}
    assert [p.name for p in network.get_parameters() if p.name.startswith("body")] == [
        *("body.0.primary_conv.weight", "body.0.cheap_operation.weight"),
        *("body.1.moving_mean", "body.1.moving_variance", "body.1.gamma", "body.1.beta"),
        *("body.3.primary_conv.weight", "body.3.primary_conv.bias"),
        *("body.3.cheap_operation.weight", "body.3.cheap_operation.bias"),
    ]
    assert {n: p for n, p in network.parameters_and_names() if not n.startswith("body.")} == others
    # 4x4 maps of 12 + 12 channels and of 17 + 17, of which one is cut off.
    saved = (24 - 12) * 16 * 9 - 12 * 9 + (33 - 17) * 24 - 17 * 9
    assert report.before.macs - report.after.macs == 16 * saved
    assert report.before.parameters - report.after.parameters == saved + 33 - 34
    assert report.after.macs == complexity(network, 16, 16).macs
    assert min(report.before.milliseconds, report.after.milliseconds) > 0

    found = network(x).asnumpy()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    body = ops.relu(network.norm(network.stem(x)))
    for cell in (network.body[0], network.body[1], network.body[2], network.body[3]):
        body = cell(body)
    assert isinstance(network.body[0], GhostConvolution)
    expected = network.classifier(ops.mean(network.depthwise(body), (2, 3))).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_report_is_a_table():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    lines = str(ghostify(Small(), image=(3, 16, 16))).splitlines()
    assert lines[0].split() == ["before", "after", "after", "/", "before"]
    before = complexity(Small(), 16, 16)
    assert lines[1].split()[:2] == ["parameters", f"{before.parameters:,}"]
    assert lines[2].split()[:2] == ["MACs", f"{before.macs:,}"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4:] == [
        "one image of 3 x 16 x 16; 2 convolutions replaced",
        "left alone (the first convolution): stem",
        "left alone (grouped or depthwise): depthwise",
    ]


def test_starting_from_the_convolutions():
    """A network whose maps are faint copies of others, as far as they are not intrinsic, keeps its output."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network, x = Small(), random_images(8, 3, 16, 16)
    network.set_train(False)
    for index in (0, 3):
        weight, half = network.body[index].weight.asnumpy().copy(), network.body[index].out_channels // 2
        weight[-half:] = -0.05 * weight[:half]
        network.body[index].weight.set_data(Tensor(weight))
    expected = network(x).asnumpy()
    report = ghostify(network, start_from=x)
    assert (report.image, report.replaced) == ((3, 16, 16), ("body.0", "body.3"))
    assert min(report.explained.values()) > 0.999
    assert "ghosts start with 100% of the variance" in str(report)
    np.testing.assert_allclose(network(x).asnumpy(), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_a_weight_file_holds_where_the_maps_go(tmp_path):
    """Weights of modules that were fitted work in a network that was fitted to other weights and images."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    first, second = Small().set_train(False), Small().set_train(False)
    randomise(second)
    ghostify(first, start_from=random_images(4, 3, 16, 16))
    ghostify(second, start_from=random_images(4, 3, 16, 16, seed=1))
    x = random_images(2, 3, 16, 16, seed=2)
    assert (first.body[0].reorder.order.asnumpy() != second.body[0].reorder.order.asnumpy()).any()
    ms.save_checkpoint(first, str(tmp_path / "w.ckpt"))
    assert ms.load_param_into_net(second, ms.load_checkpoint(str(tmp_path / "w.ckpt"))) == ([], [])
    np.testing.assert_array_equal(second(x).asnumpy(), first(x).asnumpy())


def test_the_batch_norm_behind_a_convolution_counts():
    """Of maps that vary alike, those stay that the batch norm enlarges."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = Small()
    gamma = np.ones(24, np.float32)
    gamma[1::2] = 1000
    network.body[1].gamma.set_data(Tensor(gamma))
    weight = network.body[0].weight.asnumpy()
    ghostify(network, start_from=random_images(4, 3, 16, 16))
    np.testing.assert_array_equal(network.body[0].primary_conv.weight.asnumpy(), weight[1::2])


@pytest.mark.parametrize(
    ("name", "pixels", "replaced"),
    [("resnet18", 32, 19), ("resnet50", 32, 52), ("mobilenet_v2_100", 32, 34), ("mobilenet_v3_small_100", 64, 22)],
)
def test_networks_of_mindcv(name, pixels, replaced):
    """What is replaced; unique names; every parameter gets a gradient."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = mindcv.create_model(name, num_classes=4)
    dense = [n for n, c in network.cells_and_names() if type(c) is nn.Conv2d and c.group == 1]
    report = ghostify(network, image=(3, pixels, pixels))
    assert len(report.replaced) == replaced
    assert set(report.replaced) | {n for n, why in report.kept.items() if why != "grouped or depthwise"} == set(dense)
    names = [parameter.name for parameter in network.get_parameters()]
    assert len(set(names)) == len(names)
    assert names == [n for n, _ in network.parameters_and_names()]
    assert sum(name.endswith("cheap_operation.weight") for name in names) == replaced
    network.set_train(True)
    gradients = ms.grad(lambda x: (network(x) ** 2).sum(), None, network.trainable_params())(
        random_images(4, 3, 48, 48)
    )
    for parameter, gradient in zip(network.trainable_params(), gradients, strict=True):
        assert np.isfinite(gradient.asnumpy()).all(), parameter.name
        if "primary_conv" in parameter.name or "cheap_operation" in parameter.name:
            assert np.abs(gradient.asnumpy()).max() > 0, parameter.name


def test_training_in_graph_mode():
    """Twenty steps on one batch: the loss falls below a tenth, starting fresh and from the convolutions."""
    x, labels = random_images(8, 3, 16, 16), Tensor(np.arange(8) % 5, ms.int32)
    for options in ({"image": (3, 16, 16)}, {"start_from": x}):
        network = Small()
        ghostify(network, **options)
        step = nn.TrainOneStepCell(
            nn.WithLossCell(network, nn.CrossEntropyLoss()), nn.Adam(network.trainable_params(), 0.01)
        )
        step.set_train(True)
        losses = [float(step(x, labels)) for _ in range(30)]
        assert losses[-1] < 0.1 * losses[0], losses


def test_skip_by_name_and_by_rule():
    ms.set_context(mode=ms.PYNATIVE_MODE)

    def replaced(skip) -> tuple[str, ...]:
        return ghostify(Small(), skip=skip, image=(3, 16, 16)).replaced

    assert replaced("body.3") == ("body.0",)
    assert replaced(["body"]) == ()
    assert replaced(lambda site: False) == ("stem", "body.0", "body.3")
    assert replaced(lambda site: default_skip(site) or site.conv.kernel_size == (1, 1)) == ("body.0",)
    assert replaced(lambda site: site.map_size == (8, 8)) == ("body.0", "body.3")
    report = ghostify(Small(), skip=lambda site: site.conv.has_bias and "has a bias", image=(3, 16, 16))
    assert report.kept["body.3"] == "has a bias"
    with pytest.raises(ValueError, match=r"skip: no convolution is called 'body.1'"):
        replaced(["body.1"])


@pytest.mark.parametrize("options", [{"ratio": 1}, {"dw_size": 2}, {"dw_size": 0}])
def test_impossible_options_change_nothing(options):
    network = Small()
    names = [parameter.name for parameter in network.get_parameters()]
    with pytest.raises(ValueError, match="ratio: expected 2 or more, dw_size: odd"):
        ghostify(network, image=(3, 16, 16), **options)
    assert [parameter.name for parameter in network.get_parameters()] == names


def test_a_convolution_that_is_held_twice():
    """As two cells it is replaced in both places; in a list, which cannot be seen, it is an error."""
    ms.set_context(mode=ms.PYNATIVE_MODE)

    class Twice(nn.Cell):
        def __init__(self, hidden: bool) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 1)
            self.conv = nn.Conv2d(16, 16, 3)
            self.again = nn.SequentialCell(nn.ReLU(), self.conv)
            self.hidden = (lambda x, conv=self.conv: conv(x)) if hidden else (lambda x: x)

        def construct(self, x: Tensor) -> Tensor:
            return self.hidden(self.again(self.conv(self.stem(x))))

    network = Twice(hidden=False)
    assert ghostify(network, image=(3, 8, 8)).replaced == ("conv",)
    assert network.conv is network.again[1]
    assert isinstance(network.conv, GhostConvolution)
    with pytest.raises(RuntimeError, match="conv: the network also holds this convolution where it cannot be replaced"):
        ghostify(Twice(hidden=True), image=(3, 8, 8))


def test_other_kinds_of_convolution_are_left_alone():
    class Standardised(nn.Conv2d):
        pass

    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = nn.SequentialCell(nn.Conv2d(3, 16, 1), Standardised(16, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 8, 3))
    report = ghostify(network, image=(3, 8, 8))
    assert report.replaced == ("2",)
    assert report.kept == {"0": "the first convolution", "1": "a Standardised", "3": "fewer than 16 channels"}
