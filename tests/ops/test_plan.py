"""Whole networks as plans: against MindSpore's operators, image by image and thread by thread, and what has no plan."""

import ctypes
import dataclasses
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost.csrc import cpp_library
from mindghost.models import create_model, pruned
from mindghost.models.g_ghost_regnet import GGhostRegNet
from mindghost.models.ghostnet import GhostNet
from mindghost.ops import library, plan, rewrite
from mindghost.ops.plan.native import NativePlan
from mindghost.ops.plan.program import Convolution, Program
from tests.helpers.families import one_of_each
from tests.helpers.networks import images
from tests.helpers.places import ROOT
from tests.helpers.sanitizers import assert_no_failures, built, on_aarch64, sanitizer_flags
from tests.helpers.weights import randomise

try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")

NAMES = [
    "ghostnet_050",
    "ghostnet_130",
    "ghostnetv2_100",
    "ghostnetv2_130",
    "ghostnetv3_050",
    "ghostnetv3_130",
    "repghostnet_050",
    "repghostnet_111",
    "g_ghost_regnetx_032",
    "g_ghost_regnetx_080",
    "ghost_resnet50_s2",
    "ghost_resnet50_s4",
    "ghost_resnet56",
    "resnet56_cifar",
    "ghost_vgg16",
    "vgg16_cifar",
]


@pytest.fixture(autouse=True)
def operator_by_operator():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    library.load(LIBRARY, 2)


def network(name: str, num_classes: int = 3, **others) -> nn.Cell:
    made = create_model(name, num_classes, **others)
    # GhostNetV3 sums up five branches.
    randomise(made, gamma=(0.1, 0.3) if name.startswith("ghostnetv3") and not others.get("deploy") else (0.3, 0.9))
    return made.set_train(False)


def assert_agrees(made: nn.Cell, *shapes: tuple[int, ...]) -> None:
    run = plan.of(made, plan.Form(LIBRARY))
    assert run is not None
    for shape in shapes:
        given = images(*shape)
        expected = made(Tensor(given)).asnumpy()
        found = run(given)
        assert found.shape == expected.shape
        assert found.dtype == np.float32
        assert np.any(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", one_of_each(NAMES))
def test_logits_are_those_of_mindspore(name):
    assert_agrees(network(name), (2, 3, 64, 64), (3, 3, 33, 49))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ghost_unet", {}),
        ("plain_unet", {}),
        ("ghost_lraspp", {}),
        ("plain_lraspp", {}),
        ("ghost_unet", {"backbone": "g_ghost_regnetx_032", "decoder_width": 0.5}),
        ("ghost_lraspp", {"backbone": "ghost_resnet50_s4"}),
    ],
)
def test_logits_of_pixels(name, options):
    """Of sizes that strides do not divide, and of images of one pixel; more of them than go through at once."""
    assert_agrees(network(name, 3, **options), (2, 3, 64, 64), (3, 3, 45, 70), (1, 3, 1, 1), (9, 3, 33, 33))


@pytest.mark.parametrize("name", ["ghostnetv3_050", "repghostnet_050"])
def test_fused_forms(name):
    assert_agrees(network(name, deploy=True), (1, 3, 40, 40))


@pytest.mark.parametrize(("classes", "in_channels"), [(1, 1), (17, 5)])
def test_other_channels_and_classes(classes, in_channels):
    assert_agrees(
        network("ghostnet_050", classes, in_channels=in_channels), (2, in_channels, 1, 1), (1, in_channels, 70, 9)
    )


def test_without_a_classifier():
    made = network("ghostnet_050")
    made.reset_classifier(0)
    assert_agrees(made, (2, 3, 32, 32))


def test_odd_numbers_of_channels():
    """As pruning leaves them: the lanes of what a bottleneck adds are not those of its result."""
    made = GhostNet(0.5, num_classes=3)
    first = "blocks.1.0.ghost1"
    pruned.narrow(
        made,
        {
            f"{first}.primary_conv.0": (5, 0),
            f"{first}.primary_conv.1": (5,),
            f"{first}.cheap_operation.0": (5, 5),
            f"{first}.cheap_operation.1": (5,),
            "blocks.1.0.conv_dw": (10, 10),
            "blocks.1.0.bn_dw": (10,),
            "blocks.1.0.ghost2.primary_conv.0": (0, 10),
        },
    )
    randomise(made, gamma=(0.3, 0.9))
    assert_agrees(made.set_train(False), (2, 3, 48, 48))


def test_groups_and_parts_of_a_stage_that_fill_no_blocks():
    """Nine and twelve channels of a group; 18 that pass through the stage and 18 ghosts, and 27 and 33."""
    made = GGhostRegNet((2, 3, 1, 4), (24, 36, 48, 60), 12, num_classes=3)
    randomise(made, gamma=(0.3, 0.9))
    assert_agrees(made.set_train(False), (2, 3, 64, 64), (1, 3, 40, 75))
    made.reset_classifier(0)
    assert_agrees(made, (2, 3, 32, 32))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_bits_depend_neither_on_threads_nor_on_the_rest_of_a_batch(bfloat16):
    run = plan.of(network("ghostnetv2_100"), plan.Form(LIBRARY, bfloat16))
    given = images(19, 3, 48, 48)
    expected = run(given)
    for threads in (1, 2, 3):
        ctypes.CDLL(str(LIBRARY)).ghostnet_set_threads(threads)
        np.testing.assert_array_equal(run(given), expected)
        for count in (1, 2, 5):
            np.testing.assert_array_equal(run(given[:count]), expected[:count])


@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_is_no_number_stays_in_its_image(bfloat16):
    run = plan.of(network("ghostnet_050"), plan.Form(LIBRARY, bfloat16))
    given = images(3, 3, 32, 32)
    given[1, 0, 5, 5] = np.nan
    found = run(given)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


def test_arrays_of_any_kind():
    run = plan.of(network("ghostnet_050"), plan.Form(LIBRARY))
    given = images(2, 3, 32, 40)
    expected = run(np.ascontiguousarray(given[..., ::-1]))
    np.testing.assert_array_equal(run(given[..., ::-1]), expected)
    np.testing.assert_array_equal(run(given[..., ::-1].astype(np.float64)), expected)
    for shape in ((2, 1, 32, 32), (0, 3, 32, 32), (3, 32, 32)):
        with pytest.raises(ValueError, match="expected images"):
            run(np.zeros(shape, np.float32))


def test_a_plan_has_the_weights_of_its_time():
    made = network("ghostnet_050")
    run, given = plan.of(made, plan.Form(LIBRARY)), images(1, 3, 32, 32)
    before = run(given)
    randomise(made, seed=1, gamma=(0.3, 0.9))
    np.testing.assert_array_equal(run(given), before)
    assert np.abs(plan.of(made, plan.Form(LIBRARY))(given) - before).max() > 1e-3


def test_what_has_no_plan():
    """Other networks, and those with a cell that is not known, are left to MindSpore as a whole."""
    other = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.ReLU())
    rewritten, dilated = network("ghostnet_050"), network("ghostnet_050")
    rewrite.use(rewritten, LIBRARY)
    dilated.conv_stem.dilation = (2, 2)
    transposed = create_model("ghost_unet", 3, upsampling="transposed").set_train(False)
    assert plan.knows(network("ghostnet_050"))
    for made in (other, rewritten, dilated, transposed, network("ghost_airbench")):
        assert plan.of(made, plan.Form(LIBRARY)) is None
    assert not plan.knows(other)
    assert not plan.knows(rewritten)


def plan_test(compiler: list[str], flags: tuple[str, ...], folder: Path, *more: str) -> Path:
    """tests/csrc/plan_test.cpp, built with what plans are made of: against the definitions, on 1 to 3 threads."""
    whole = library.description(*more)
    parts = {name: unit for name, unit in whole.units.items() if name.startswith(("plan", "thread_pool", "tiles"))}
    test = ROOT / "tests" / "csrc" / "plan_test.cpp"
    return built(test, dataclasses.replace(whole, units=parts), compiler, flags, folder)


@pytest.mark.parametrize(("sanitizer", "sets"), [("address,undefined", []), ("thread", ["best"])])
def test_plans_under_a_sanitizer(sanitizer, sets, tmp_path):
    """Bit-identical for 1 to 3 threads, no bad access."""
    compiler = cpp_library.system_compiler()
    flags = sanitizer_flags(compiler, sanitizer, tmp_path)
    assert_no_failures([plan_test(compiler, flags, tmp_path), *sets])


@on_aarch64
def test_plans_on_aarch64(tmp_path):
    """As an emulator of the processor runs them; whether they are fast there is another question."""
    flags = (*cpp_library.FLAGS, "-static")
    assert_no_failures(["qemu-aarch64", plan_test(["aarch64-linux-gnu-g++"], flags, tmp_path, "aarch64")])


def test_a_first_convolution_may_have_no_padding():
    """Of one pixel, so that its outputs are the logits."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((5, 3, 1, 1)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    program = Program(3)
    run = NativePlan(LIBRARY, program.finished(program.dense(program.images, Convolution(weight, bias)), 5))
    given = rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    np.testing.assert_allclose(run(given), given[:, :, 0, 0] @ weight[:, :, 0, 0].T + bias, atol=1e-6)
