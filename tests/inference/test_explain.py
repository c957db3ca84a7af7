"""Maps of where a network saw a class: their gradients, their formulas, their place in the image."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.cli import predict
from mindghost.config import Config
from mindghost.data import transforms
from mindghost.errors import UserError
from mindghost.inference import class_activation, explain
from mindghost.inference.class_activation import PlanExplainer
from mindghost.inference.explain import Explainer
from mindghost.models import create_model
from mindghost.models.folded import folded
from mindghost.models.quantized import quantize_aware
from mindghost.models.surgery import replace_cells
from mindghost.ops import library, plan
from mindghost.tasks import heat
from tests.helpers.weights import randomise

# At import, where the cache is still the user's.
try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError:
    LIBRARY = None
MODES = (ms.PYNATIVE_MODE, ms.GRAPH_MODE)
IMAGE = (3, 32, 32)


class Nudged(nn.Cell):
    """A cell to whose output something is added."""

    tail = None

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell, self.added, self.output = cell, None, None

    def construct(self, *inputs):
        out = self.cell(*inputs)
        self.output = out
        return out if self.added is None else out + self.added


def network_of(model: str, **options) -> nn.Cell:
    network = create_model(model, num_classes=4, **options)
    randomise(network, gamma=(0.3, 0.6))
    return network


def images_of(count: int, shape=IMAGE) -> np.ndarray:
    return np.random.RandomState(5).normal(size=(count, *shape)).astype(np.float32)


def operators(native: bool):
    if native and LIBRARY is None:
        pytest.skip("no library of native operators")
    return LIBRARY if native else None


@pytest.fixture
def seen(monkeypatch) -> list:
    """The maps and gradients that the method "both" was given."""
    given = []

    def both(maps, gradients):
        given.append((maps, gradients))
        return maps[:, 0]

    monkeypatch.setitem(class_activation.METHODS, "both", both)
    return given


def what_explains(seen, model: str, layer: str, native: bool, **options):
    """Logits, maps and gradients, and the network's own logits and a nudged twin of it."""
    images, labels = images_of(3), np.array([1, 3, 0])
    logits, _ = Explainer(network_of(model, **options), IMAGE, layer, "both", operators(native))(images, labels)
    ((maps, gradients),) = seen
    return images, labels, logits, maps, gradients


@pytest.mark.parametrize("mode", MODES)
def test_networks_trained_for_integers_are_explained(short_network, mode):
    """By our operators and by MindSpore's: the same logits, and maps."""

    def integers() -> nn.Cell:
        network = quantize_aware(folded("ghostnet_050", network_of("ghostnet_050"), 4))
        network.set_train()(Tensor(images_of(4)))
        return network

    ms.set_context(mode=ms.PYNATIVE_MODE)
    networks = [integers() for _ in range(2)]
    images, labels = images_of(3), np.array([1, 3, 0])
    native = Explainer(networks[0], IMAGE, operators=operators(True))
    ms.set_context(mode=mode)
    logits, maps = native(images, labels)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected = Explainer(networks[1], IMAGE)(images, labels)
    scale = np.abs(expected[0]).max()
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=0.05 * scale)
    np.testing.assert_allclose(maps, expected[1], rtol=0, atol=0.05 * expected[1].max())
    assert expected[1].max() > 0


# As graphs, two of them are enough.
LAYERS = {"": MODES, "blocks.1": MODES, "bn1": MODES[:1], "blocks.1.0.ghost2": MODES[:1]}


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("layer", "mode"), [(layer, mode) for layer, modes in LAYERS.items() for mode in modes])
def test_gradients_are_those_of_finite_differences(short_network, seen, mode, native, layer):
    nudge = 1e-2 if layer == "bn1" else 3e-2
    ms.set_context(mode=mode)
    images, labels, logits, maps, gradients = what_explains(seen, "ghostnet_050", layer, native)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    twin = network_of("ghostnet_050").set_train(False)
    np.testing.assert_allclose(logits, twin(Tensor(images)).asnumpy(), rtol=1e-4, atol=1e-4)
    cell = dict(twin.cells_and_names())[layer or "blocks"]
    nudged = Nudged(cell)
    replace_cells(twin, {id(cell): nudged})
    twin.set_train(False)
    twin(Tensor(images))
    np.testing.assert_allclose(maps, nudged.output.asnumpy(), rtol=1e-4, atol=1e-4)

    def logit(added):
        nudged.added = Tensor(added)
        return twin(Tensor(images)).asnumpy()[np.arange(3), labels].astype(np.float64)

    random = np.random.RandomState(1)
    for _ in range(4):
        direction = random.normal(size=maps.shape).astype(np.float32)
        direction *= nudge * maps.std() / np.abs(direction).max()
        slope = (logit(direction) - logit(-direction)) / 2
        np.testing.assert_allclose((gradients * direction).sum(axis=(1, 2, 3)), slope, rtol=0.05, atol=2e-3)
    assert np.abs(gradients).max() > 0


@pytest.mark.parametrize(
    ("model", "options", "size"),
    [
        ("ghostnetv2_100", {}, 64),
        ("ghostnetv3_050", {}, 64),
        ("ghostnetv3_050", {"deploy": True}, 64),
        ("repghostnet_050", {}, 64),
        ("ghost_resnet56", {}, 32),
        ("ghost_vgg16", {}, 32),
    ],
)
def test_a_map_sums_what_a_mean_makes_of_it(short_network, seen, model, options, size):
    """Gradients of all kinds of networks: maps that go through a linear head alone have the classifier's weights."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = network_of(model, **options)
    images = images_of(2, (3, size, size))
    expected = network.set_train(False)(Tensor(images)).asnumpy()
    explainer = Explainer(network, (3, size, size), "", "both")
    logits, found = explainer(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    ((maps, gradients),) = seen
    assert maps.shape == gradients.shape == (2, maps.shape[1], *explainer.size)
    assert found.shape == (2, *explainer.size)
    # All heads begin with the mean over pixels: each pixel of a map has one gradient.
    np.testing.assert_allclose(
        gradients, np.broadcast_to(gradients[:, :, :1, :1], gradients.shape), rtol=1e-4, atol=1e-7
    )
    assert gradients.any()
    if model == "ghost_resnet56":
        weight, pixels = network.fc.weight.asnumpy(), maps.shape[2] * maps.shape[3]
        np.testing.assert_allclose(
            gradients[:, :, 0, 0], weight[expected.argmax(axis=1)] / pixels, rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize(
    ("model", "options", "layers"),
    [
        ("ghostnet_050", {}, ["", "blocks.0", "blocks.4.0"]),
        ("ghostnetv2_100", {}, ["", "blocks.1"]),
        ("ghostnetv3_050", {}, ["blocks.2"]),
        ("ghostnetv3_050", {"deploy": True}, ["blocks.2.0"]),
        ("repghostnet_050", {}, ["", "blocks.0"]),
        ("g_ghost_regnetx_032", {}, ["layer4", "layer1", "layer3"]),
        ("ghost_resnet50_s4", {}, ["", "relu", "layer2"]),
        ("ghost_resnet56", {}, ["layer1"]),
        ("ghost_vgg16", {}, ["features.5"]),
    ],
)
def test_a_program_explains_as_mindspore_does(monkeypatch, seen, model, options, layers):
    """All kinds of layers, forward by the plan and back by NumPy; pixels that halving leaves over."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    monkeypatch.setattr(class_activation, "MOST", 2)
    program = plan.program(network_of(model, **options))
    size, labels = (3, 45, 70), np.array([1, -1, 0])
    images = images_of(3, size)
    for layer in layers:
        seen.clear()
        ours = PlanExplainer(operators(True), program, size, layer, "both")
        logits, _ = ours(images, labels)
        theirs = Explainer(network_of(model, **options), size, layer, "both")
        expected, _ = theirs(images, labels)
        assert (ours.layer, ours.size) == (theirs.layer, theirs.size)
        *parts, (maps, gradients) = seen
        assert len(parts) == 2
        for found, wanted in (
            (logits, expected),
            (np.concatenate([part[0] for part in parts]), maps),
            (np.concatenate([part[1] for part in parts]), gradients),
        ):
            assert found.dtype == np.float32
            assert np.any(wanted)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_a_program_knows_the_layers_of_feature_info():
    others = ("repghostnet_100", "g_ghost_regnetx_032", "ghost_resnet50_s2", "ghost_resnet56", "ghost_vgg16")
    for model in ("ghostnet_100", "ghostnetv2_100", "ghostnetv3_100", *others):
        network = create_model(model, num_classes=4)
        program = plan.program(network)
        known = {name: mark.reduction for name, mark in program.marks.items() if mark.reduction}
        assert known == {entry["name"]: entry["reduction"] for entry in network.feature_info}
        assert list(program.marks)[-1] == network.body[-1]


def test_the_command_line_knows_the_methods():
    """Its parser does not import them: that takes seconds."""
    choices = {action.dest: action.choices for action in predict.make_parser()._actions}
    assert set(choices["explain_method"]) == set(class_activation.METHODS)
    assert predict.METHOD in class_activation.METHODS


def test_the_formulas_are_those_of_the_papers():
    random = np.random.RandomState(2)
    maps, gradients = random.normal(size=(2, 2, 3, 4, 5))
    layer_cam, grad_cam = np.zeros((2, 4, 5)), np.zeros((2, 4, 5))
    for image in range(2):
        for row in range(4):
            for column in range(5):
                for channel in range(3):
                    value = maps[image, channel, row, column]
                    layer_cam[image, row, column] += max(gradients[image, channel, row, column], 0) * value
                    grad_cam[image, row, column] += gradients[image, channel].mean() * value
    np.testing.assert_allclose(class_activation.layer_cam(maps, gradients), np.maximum(layer_cam, 0), atol=1e-12)
    np.testing.assert_allclose(class_activation.grad_cam(maps, gradients), np.maximum(grad_cam, 0), atol=1e-12)


def test_any_number_of_images_has_the_same_maps(short_network, monkeypatch):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    monkeypatch.setattr(explain, "MOST", 2)
    images = images_of(5)
    logits, maps = Explainer(network_of("ghostnet_050"), IMAGE, "blocks.1")(images)
    assert (logits.shape, maps.shape) == ((5, 4), (5, 8, 8))
    one_by_one = Explainer(network_of("ghostnet_050"), IMAGE, "blocks.1")
    one_by_one(images[:2])
    for index in range(5):
        alone = one_by_one(images[index : index + 1])
        np.testing.assert_allclose(maps[index], alone[1][0], rtol=1e-4, atol=1e-6)
    # The likeliest class is what is explained where nobody says.
    named = Explainer(network_of("ghostnet_050"), IMAGE, "blocks.1")(images, logits.argmax(axis=1))[1]
    np.testing.assert_allclose(named, maps, rtol=1e-4, atol=1e-6)
    others = Explainer(network_of("ghostnet_050"), IMAGE, "blocks.1")(images, logits.argmin(axis=1))[1]
    assert not np.allclose(others, maps, rtol=1e-2)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        ("block.1", "no layer is called 'block.1'; the nearest is blocks.1, and others are blocks.0, blocks.1"),
        ("x" * 500, "no layer is called 'xxx"),
        ("dropout", "dropout gives no feature maps; give another one, such as blocks.3"),
        ("classifier", "classifier gives no feature maps"),
        ("global_pool", None),
    ],
)
def test_a_layer_that_cannot_be_drawn_is_refused(short_network, layer, why):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if why is None:
        assert Explainer(network_of("ghostnet_050"), IMAGE, layer).size == (1, 1)
        return
    with pytest.raises(UserError) as caught:
        Explainer(network_of("ghostnet_050"), IMAGE, layer)
    message = str(caught.value)
    assert why in message
    assert message.startswith("--explain_layer: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 400


def test_small_maps_are_said(short_network):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    explainer = Explainer(network_of("ghostnet_050"), (3, 24, 24))
    (note,) = explainer.notes()
    assert note == (
        "layer blocks: its maps have 3 x 3 pixels, which hardly say where; --explain_layer blocks.1 has finer ones"
    )
    assert Explainer(network_of("ghostnet_050"), (3, 64, 64)).notes() == []
    if LIBRARY is not None:
        program = plan.program(network_of("ghostnet_050"))
        assert PlanExplainer(LIBRARY, program, (3, 24, 24)).notes() == [note]
        assert PlanExplainer(LIBRARY, program, (3, 64, 64)).notes() == []


def test_a_map_lies_where_the_network_looked():
    """One bright pixel of the map, over an image of which evaluation cuts the centre."""
    config = Config(image_resize=64, crop_pct=0.5, model="ghostnet_050", num_classes=3)
    box = transforms.seen_box(config, 200, 400)
    np.testing.assert_allclose(box, (50, 150, 150, 250))
    pixels = np.full((200, 400, 3), 100, np.uint8)
    found = np.zeros((4, 4), np.float32)
    found[0, 3] = 2.0
    drawn = heat.over(pixels, found, box)
    assert drawn.shape == pixels.shape
    assert drawn.dtype == np.uint8
    assert (drawn[:50] == 50).all()
    assert (drawn[:, 250:] == 50).all()
    brightness = drawn[50:150, 150:250].sum(axis=2)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    # The pixel's centre is at 12.5 rows and 87.5 columns; towards the corner it stays as bright.
    assert row <= 13
    assert column >= 87
    assert brightness[5, 95] == brightness.max()
    assert brightness[60, 30] <= brightness.min() + 3  # rounded
    # What evaluation keeps of the image is this box.
    marked = pixels.copy()
    marked[50:150, 150:250] = 255
    assert (transforms.eval_pixels(config)(marked)[2:-2, 2:-2] == 255).all()


def test_a_map_of_nothing_and_gray_images_are_drawn():
    pixels = np.full((10, 12, 1), 200, np.uint8)
    drawn = heat.over(pixels, np.zeros((2, 2), np.float32), (0, 1, 10, 11))
    assert drawn.shape == (10, 12, 3)
    assert (drawn[:, 0] == 100).all()
    assert len(np.unique(drawn[:, 1:11].reshape(-1, 3), axis=0)) == 1
