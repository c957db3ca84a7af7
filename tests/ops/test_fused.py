"""The C++ operators: results against MindSpore's, how they are built, and what happens where they cannot be."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindghost import build as rooms
from mindghost.config import Config
from mindghost.csrc import cpp_library
from mindghost.errors import UserError
from mindghost.models import ghostnet
from mindghost.models.ghostnet import GhostBottleneck, GhostModule
from mindghost.models.ghostnetv3 import GhostNetV3
from mindghost.models.layers import (
    ConvBnAct,
    Dropout,
    SqueezeExcite,
    convolution,
    depthwise_convolution,
    freeze_batch_norm,
)
from mindghost.models.repghostnet import RepGhostNet
from mindghost.ops import allreduce, fused, library, rewrite
from mindghost.ops.library import native_operators
from mindghost.train.step import StepOptions, TrainStep
from mindghost.train.update import update_by
from tests.helpers.networks import assert_golden_logits, write_golden
from tests.helpers.sanitizers import assert_no_failures, built, on_aarch64, sanitizer_flags
from tests.helpers.short import stages
from tests.helpers.weights import randomise

SOURCE = library.SOURCES
TESTS = Path(__file__).parents[1]
PROBE = "from mindghost.ops import library; print(library.library())"

try:
    LIBRARY = library.library()
    library.load(LIBRARY, 2)
except library.NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")


def results(cell: nn.Cell, x: np.ndarray) -> dict[str, np.ndarray]:
    """One training pass: output, gradients of a weighted sum of it, and running statistics."""
    cell.set_train()
    weights = []

    def forward(x):
        y = cell(x)
        if not weights:
            weights.append(Tensor(np.random.RandomState(1).uniform(-1, 1, y.shape).astype(np.float32)))
        return ops.reduce_sum(y * weights[0]), y

    parameters = cell.trainable_params()
    (_, y), (d_x, gradients) = ops.value_and_grad(forward, 0, parameters, has_aux=True)(Tensor(x))
    found = {"y": y, "d_x": d_x} | {p.name: g for p, g in zip(parameters, gradients, strict=True)}
    found |= {p.name: p for p in cell.get_parameters() if not p.requires_grad}
    return {name: value.asnumpy().copy() for name, value in found.items()}


def sequence(*cells: nn.Cell) -> nn.SequentialCell:
    return nn.SequentialCell(*cells)


def norm_after(*arguments: int, relu: bool = True) -> nn.SequentialCell:
    convolution = depthwise_convolution(*arguments)
    cells = [convolution, nn.BatchNorm2d(convolution.out_channels)]
    return sequence(*cells, nn.ReLU()) if relu else sequence(*cells)


CELLS = {
    "3x3": (lambda: sequence(depthwise_convolution(3, 3)), (2, 3, 8, 8)),
    "3x3, stride 2, odd": (lambda: sequence(depthwise_convolution(3, 3, 2)), (2, 3, 7, 9)),
    "5x5, stride 2, even": (lambda: sequence(depthwise_convolution(5, 5, 2)), (1, 5, 12, 6)),
    "7x7, two outputs each": (lambda: sequence(depthwise_convolution(2, 7, 1, 2)), (2, 2, 33, 31)),
    "1x5": (lambda: sequence(depthwise_convolution(2, (1, 5))), (2, 2, 6, 14)),
    "one channel, one pixel": (lambda: sequence(depthwise_convolution(1, 5, 2)), (1, 1, 1, 1)),
    "norm": (lambda: sequence(nn.BatchNorm2d(3)), (4, 3, 5, 7)),
    "norm, ReLU": (lambda: sequence(nn.BatchNorm2d(17), nn.ReLU()), (2, 17, 7, 7)),
    "norm of another momentum": (lambda: sequence(nn.BatchNorm2d(3, 1e-3, 0.7)), (4, 3, 5, 7)),
    "norm of a batch of one": (lambda: sequence(nn.BatchNorm2d(3), nn.ReLU()), (1, 3, 4, 4)),
    "3x3, norm, ReLU": (lambda: norm_after(3, 3, 1, 2), (4, 3, 9, 9)),
    "5x5, stride 2, norm": (lambda: norm_after(3, 5, 2, relu=False), (4, 3, 9, 9)),
    "convolution, norm, ReLU": (lambda: ConvBnAct(3, 4, 1), (2, 3, 6, 6)),
    "Ghost module": (lambda: GhostModule(4, 8), (4, 4, 9, 10)),
    "Ghost module, 5x5, no ReLU": (lambda: GhostModule(4, 8, dw_size=5, relu=False), (4, 4, 9, 10)),
    "Ghost module, ratio 3": (lambda: GhostModule(4, 9, ratio=3), (4, 4, 9, 10)),
    "Ghost module, cut": (lambda: GhostModule(4, 10, ratio=3), (4, 4, 9, 10)),
    "squeeze-and-excitation": (lambda: sequence(SqueezeExcite(8, 0.25)), (2, 8, 9, 10)),
    "squeeze-and-excitation of single pixels": (lambda: sequence(SqueezeExcite(8, 0.25)), (3, 8, 1, 1)),
    "dense 3x3": (lambda: sequence(convolution(5, 7, 3)), (8, 5, 6, 9)),
    "dense 3x3, 16 samples, norm": (lambda: sequence(convolution(3, 8, 3), nn.BatchNorm2d(8)), (16, 3, 8, 8)),
    "dense 3x3, many channels": (lambda: sequence(convolution(48, 44, 3)), (16, 48, 9, 12)),
    "dense 3x3 of one map, norm": (lambda: sequence(convolution(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), (8, 1, 6, 9)),
    "dense 3x3, one map of one": (lambda: sequence(convolution(1, 1, 3)), (8, 1, 6, 9)),
    "dense 3x3, an odd batch of large maps": (lambda: sequence(convolution(3, 4, 3)), (3, 3, 70, 66)),
    "dense 5x3, no padding": (lambda: sequence(convolution(4, 4, (5, 3), pad_mode="valid")), (8, 4, 7, 7)),
    "dense 3x3, an odd batch": (lambda: sequence(convolution(5, 7, 3), nn.BatchNorm2d(7)), (5, 5, 6, 9)),
    "max pool": (lambda: sequence(nn.MaxPool2d(2, 2)), (2, 3, 8, 6)),
    "max pool of odd maps, ties": (lambda: sequence(nn.ReLU(), nn.MaxPool2d(2, 2)), (2, 3, 7, 9)),
    "Ghost module, dense": (lambda: GhostModule(4, 8, 3), (8, 4, 9, 10)),
    "bottleneck": (lambda: GhostBottleneck(8, 16, 8, 3, 1, 0), (4, 8, 9, 10)),
    "bottleneck, stride 2, SE": (lambda: GhostBottleneck(8, 16, 12, 5, 2, 0.25), (4, 8, 9, 10)),
}


# In evaluation, absolute: sums of 432 products, not of some tens, which Winograd's algorithm makes in another way.
TOLERANCES = {"dense 3x3, many channels": 5e-6}


def pair(make) -> tuple[nn.Cell, nn.Cell]:
    """Two equal cells, the second one on our operators."""
    own, native = sequence(make()), sequence(make())
    randomise(own)
    randomise(native)
    rewrite.use(native, LIBRARY)
    ours = (fused.Chain, fused.Gated, fused.Dense, fused.OfMaps)
    assert any(isinstance(cell, ours) for _, cell in native.cells_and_names())
    return own, native


@pytest.mark.parametrize("name", CELLS)
def test_results_are_mindspores(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    make, shape = CELLS[name]
    own, native = pair(make)
    assert [p.name for p in own.get_parameters()] == [p.name for p in native.get_parameters()]
    x = np.random.RandomState(3).uniform(-1, 1, shape).astype(np.float32)
    expected, found = results(own, x), results(native, x)
    for key, value in expected.items():
        # The weights' gradients of many channels come to 56, and are sums of 1,728 products.
        absolute = max(2e-5, 1e-6 * np.abs(value).max())
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=absolute, err_msg=key)
    again = pair(make)[1]
    for key, value in results(again, x).items():
        assert np.array_equal(value, found[key]), f"{key} differs from run to run"
    for cell in (own, native):
        cell.set_train(False)
    np.testing.assert_allclose(
        native(Tensor(x)).asnumpy(), own(Tensor(x)).asnumpy(), rtol=1e-5, atol=TOLERANCES.get(name, 1e-6)
    )


def evaluated(cell: nn.Cell, x: np.ndarray) -> list[np.ndarray]:
    """The gradients of a weighted sum of the output in evaluation: those of the input and of the weights."""
    cell.set_train(False)
    weights = Tensor(np.random.RandomState(1).uniform(-1, 1, cell(Tensor(x)).shape).astype(np.float32))

    def forward(x):
        return ops.reduce_sum(cell(x) * weights)

    parameters = cell.trainable_params()
    if not parameters:
        return [ops.grad(forward)(Tensor(x)).asnumpy()]
    d_x, gradients = ops.grad(forward, 0, parameters)(Tensor(x))
    return [d_x.asnumpy(), *(gradient.asnumpy() for gradient in gradients)]


IN_GRAPH_MODE = ("norm, ReLU", "3x3, norm, ReLU", "Ghost module, cut", "bottleneck, stride 2, SE")


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, ms.PYNATIVE_MODE) for name in CELLS), *((name, ms.GRAPH_MODE) for name in IN_GRAPH_MODE)],
)
def test_gradients_in_evaluation_are_mindspores(name, mode):
    ms.set_context(mode=mode)
    make, shape = CELLS[name]
    x = np.random.RandomState(3).uniform(-1, 1, shape).astype(np.float32)
    own, native = pair(make)
    expected = evaluated(own, x)
    assert expected[0].any()
    for value, found in zip(expected, evaluated(native, x), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=max(2e-5, 1e-6 * np.abs(value).max()))


@pytest.mark.parametrize("name", CELLS)
def test_frozen_cells_have_the_gradients_of_their_inputs_alone(name):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    make, shape = CELLS[name]
    x = np.random.RandomState(3).uniform(-1, 1, shape).astype(np.float32)
    own, native = pair(make)
    rewrite.freeze(native)
    expected, found = evaluated(own, x), evaluated(native, x)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=max(2e-5, 1e-6 * np.abs(expected[0]).max()))
    chains = [cell for _, cell in native.cells_and_names() if isinstance(cell, fused.Chain)]
    ours = {id(parameter) for chain in chains for parameter in chain.trainable_params()}
    for parameter, gradient in zip(native.trainable_params(), found[1:], strict=True):
        assert id(parameter) not in ours or not gradient.any()


def dropped(network: nn.Cell, x: np.ndarray) -> tuple[bytes, bytes]:
    """The bits of what dropout leaves, and of the gradient."""
    weight = Tensor(np.random.RandomState(1).uniform(-1, 1, x.shape).astype(np.float32))

    def forward(x):
        y = network(x)
        return ops.reduce_sum(y * weight), y

    (_, y), gradient = ops.value_and_grad(forward, 0, None, has_aux=True)(Tensor(x))
    return y.asnumpy().tobytes(), gradient.asnumpy().tobytes()


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_dropout_has_the_same_bits(mode):
    """A run goes on with or without our operators. Zeros keep their signs, and what is no number stays visible."""
    ms.set_context(mode=mode)
    x = np.random.RandomState(3).uniform(-1, 1, (3, 5, 7, 9)).astype(np.float32)
    x[0, 0, 0, :3] = np.nan, np.inf, -0.0
    found = []
    for native in (False, True):
        np.random.seed(4)
        network = sequence(Dropout(0.3)).set_train()
        if native:
            rewrite.use(network, LIBRARY)
            assert isinstance(network[0].mask, fused.NativeMask)
        found.append(dropped(network, x))
    assert found[0] == found[1]


def test_gradients_are_differences():
    """Of a whole Ghost module without ReLU, along a random direction of input and parameters."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    cell = pair(lambda: GhostModule(3, 6, relu=False))[1]
    cell.set_train()
    random = np.random.RandomState(5)
    x = Tensor(random.uniform(-1, 1, (3, 3, 6, 6)).astype(np.float32))
    weight = Tensor(random.uniform(-1, 1, (3, 6, 6, 6)).astype(np.float32))
    parameters = cell.trainable_params()
    gradients = ops.grad(lambda x: ops.reduce_sum(cell(x) * weight), None, parameters)(x)
    start = [parameter.asnumpy().copy() for parameter in parameters]
    direction = [random.uniform(-1, 1, value.shape).astype(np.float32) for value in start]

    def value(step: float) -> float:
        for parameter, base, along in zip(parameters, start, direction, strict=True):
            parameter.set_data(Tensor(base + step * along))
        return float((cell(x).asnumpy().astype(np.float64) * weight.asnumpy()).sum())

    slope = sum((g.asnumpy() * along).sum() for g, along in zip(gradients, direction, strict=True))
    assert (value(1e-3) - value(-1e-3)) / 2e-3 == pytest.approx(slope, rel=2e-3)


def test_training_agrees_in_graph_mode(monkeypatch):
    """Some steps of a short network from equal weights: equal losses, and equal names and order of the weights."""
    monkeypatch.setattr(ghostnet, "STAGES", stages())
    losses, names = [], []
    for native in (False, True):
        ms.set_seed(1)
        np.random.seed(1)
        network = ghostnet.ghostnet_050(num_classes=3, drop_rate=0.0)
        if native:
            rewrite.use(network, LIBRARY)
        optimizer = nn.Momentum(network.trainable_params(), 0.05, 0.9)
        step = TrainStep(network, nn.CrossEntropyLoss(), update_by(optimizer), StepOptions()).set_train()
        x = Tensor(np.random.RandomState(2).uniform(-1, 1, (6, 3, 48, 40)).astype(np.float32))
        y = Tensor(np.array([0, 1, 2, 0, 1, 2], np.int32))
        losses.append([float(step(x, y)[0].asnumpy()) for _ in range(6)])
        names.append(list(step.state()))
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert losses[0][-1] < losses[0][0]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "name",
    ["ghostnet_050", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ghostnet_100", "repghostnet_080"))],
)
def test_golden_logits(name, tmp_path):
    """The published network's, in graph mode, of two sizes from one compiled network."""
    write_golden(name, tmp_path / "golden.ckpt")
    config = settings(model=name, num_classes=1000, ckpt_path=str(tmp_path / "golden.ckpt"))
    network = rooms.network(config).set_train(False)
    rewrite.use(network, LIBRARY)
    rooms.load_weights(network, config, fine_tune=False)
    assert_golden_logits(network, name)


@pytest.mark.parametrize("deploy", [False, True])
def test_repghostnet_agrees_with_and_without(short_network, deploy):
    """Logits of evaluation; in training, gradients of every parameter, and the statistics that are left."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    plain, native = (RepGhostNet(0.5, num_classes=3, drop_rate=0.0, deploy=deploy) for _ in range(2))
    for network in (plain, native):
        randomise(network, gamma=(0.3, 0.9))
    rewrite.use(native, LIBRARY)
    x = Tensor(np.random.default_rng(0).standard_normal((4, 3, 48, 40)).astype(np.float32))
    found = []
    for network in (plain, native):
        network.set_train(False)
        logits = network(x).asnumpy()
        network.set_train(True)
        gradients = ms.grad(lambda x, network=network: (network(x) ** 2).mean(), None, network.trainable_params())(x)
        statistics = [p.asnumpy() for p in network.get_parameters() if ".moving_" in p.name]
        found.append([logits, *(gradient.asnumpy() for gradient in gradients), *statistics])
    assert [p.name for p in native.get_parameters()] == [p.name for p in plain.get_parameters()]
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-4 * max(np.abs(expected).max(), 1e-3))


def test_what_a_network_has_is_replaced():
    network = ghostnet.ghostnet_050()
    rewrite.use(network, LIBRARY)
    chains = {id(cell) for _, cell in network.cells_and_names() if isinstance(cell, fused.Chain)}
    held = {id(c) for _, cell in network.cells_and_names() if id(cell) in chains for c in cell._cells.values()}
    norms = [cell for _, cell in network.cells_and_names() if type(cell) is nn.BatchNorm2d]
    assert {id(norm) for norm in norms} <= held
    for other in (GhostNetV3(0.5), RepGhostNet(0.5)):
        rewrite.use(other, LIBRARY)
        cells = [cell for _, cell in other.cells_and_names()]
        held = {id(c) for cell in cells if isinstance(cell, fused.Chain) for c in cell._cells.values()}
        assert all(id(cell) in held for cell in cells if type(cell) is nn.BatchNorm2d)


def test_frozen_norms_and_other_convolutions_stay():
    frozen = sequence(nn.BatchNorm2d(3))
    freeze_batch_norm(frozen)
    dilated = sequence(nn.Conv2d(3, 3, 3, pad_mode="pad", padding=2, dilation=2, group=3))
    same = sequence(nn.Conv2d(3, 3, 3, 2, pad_mode="same", group=3))
    biased = sequence(nn.Conv2d(3, 3, 3, pad_mode="pad", padding=1, group=3, has_bias=True))
    half = sequence(nn.BatchNorm2d(3).to_float(ms.float16))
    half[0].gamma.set_dtype(ms.float16)
    for cell in (frozen, dilated, same, biased, half):
        rewrite.use(cell, LIBRARY)
        assert not any(isinstance(child, fused.Chain) for _, child in cell.cells_and_names())


def test_another_type_is_refused():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    native = pair(lambda: sequence(nn.BatchNorm2d(3)))[1].set_train()
    with pytest.raises(TypeError, match="take tensors of Float32, Float32,"):
        native(Tensor(np.zeros((2, 3, 4, 4)), ms.float16))


def test_ranks_without_room_for_shared_memory_do_without(tmp_path, monkeypatch):
    monkeypatch.setattr(allreduce, "_SHARED_MEMORY", tmp_path)
    with ExitStack() as stack:
        assert allreduce._shared_file(1 << 60, stack) == b""
    assert not list(tmp_path.iterdir())
    with ExitStack() as stack:
        assert os.stat(allreduce._shared_file(5000, stack)).st_size == 5000
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(allreduce, "_SHARED_MEMORY", tmp_path / "none")
    assert allreduce._shared_file(5000, stack) == b""


# How the library comes to be.


def settings(**keys) -> Config:
    return Config(**{"model": "ghostnet_050", "data_dir": "D", **keys})


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "native"


def test_without_a_compiler_one_line_says_so(cache, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert native_operators(settings(), "CPU", 2) is None
    [message] = [record.getMessage() for record in caplog.records]
    assert message == (
        "MindSpore's own operators instead of the faster native ones: no C++ compiler (c++, g++, clang++)"
    )
    with pytest.raises(UserError, match="native_ops: on, but no C\\+\\+ compiler") as caught:
        native_operators(settings(native_ops="on"), "CPU", 2)
    assert "\n" not in str(caught.value)


def test_a_compiler_that_fails_leaves_nothing(cache, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'x.cpp:1: fatal error: no such thing' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert native_operators(settings(), "CPU", 2) is None
    [message] = [record.getMessage() for record in caplog.records]
    assert message.endswith(f"{broken} failed: x.cpp:1: fatal error: no such thing")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(UserError, match="CXX: there is no program /no/such/compiler"):
        native_operators(settings(native_ops="on"), "CPU", 2)


def test_elsewhere_they_are_never_used():
    assert native_operators(settings(), "Ascend", 2) is None
    with pytest.raises(UserError, match="native_ops: on, but they are for float32 on a CPU, not for Ascend, O0"):
        native_operators(settings(native_ops="on"), "Ascend", 2)
    with pytest.raises(UserError, match="^native_ops: our operators are for float32, not for amp_level: O2; set"):
        settings(native_ops="on", amp_level="O2")
    assert native_operators(settings(amp_level="O2", val_amp_level="O3"), "CPU", 2) is None
    assert native_operators(settings(amp_level="O2", val_amp_level="bfloat16"), "CPU", 2) is not None


def test_each_network_by_its_precision():
    """Trained in float16 and evaluated in float32: ours are for the second one, of a network without a plan."""
    mixed = settings(model="ghost_airbench", amp_level="O2", num_classes=3)
    operators = native_operators(mixed, "CPU", 2)
    trained = rooms.training_precision(rooms.network(mixed), mixed, operators)
    evaluated = rooms.evaluation_network(mixed, operators)
    found = [any(isinstance(c, fused.Chain) for _, c in net.cells_and_names()) for net in (trained, evaluated)]
    assert found == [False, True]


def test_off_is_off(caplog):
    caplog.set_level("INFO", "mindghost")
    assert native_operators(settings(native_ops="off"), "CPU", 2) is None
    assert not caplog.records


def test_two_processes_build_once(cache, tmp_path):
    """The compiler notes each call, and optimises nothing, which takes long; a third process finds the library."""
    calls = tmp_path / "calls"
    compiler = tmp_path / "cxx"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *-shared*) echo link >> {calls};; esac\nexec c++ "$@" -O0\n')
    compiler.chmod(0o755)
    environment = os.environ | {"CXX": str(compiler), "PYTHONPATH": str(SOURCE.parents[2])}
    command = [sys.executable, "-c", PROBE]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=300)[0] for process in running}
    paths.add(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert len(paths) == 1
    assert Path(paths.pop().strip()).parent == cache
    assert calls.read_text() == "link\n"


def test_the_name_follows_sources_and_flags(monkeypatch, tmp_path):
    before = library.description().digest(["c++"])
    assert library.description().digest(["c++"]) == before
    assert library.description().digest(["c++", "-g"]) != before
    for source in SOURCE.glob("*.[ch]*"):
        (tmp_path / source.name).write_text(source.read_text())
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    assert library.description().digest(["c++"]) == before
    (tmp_path / "thread_pool.cpp").write_text((SOURCE / "thread_pool.cpp").read_text() + "\n")
    assert library.description().digest(["c++"]) != before


def operators_test(compiler: list[str], flags: tuple[str, ...], folder: Path, *more: str) -> Path:
    """tests/csrc/operators_test.cpp, built with our operators: against the definitions, on 1 to 3 threads."""
    return built(TESTS / "csrc" / "operators_test.cpp", library.description(*more), compiler, flags, folder)


@pytest.mark.parametrize(("sanitizer", "cases"), [("address,undefined", ["3"]), ("thread", ["25", "best"])])
def test_operators_under_a_sanitizer(sanitizer, cases, tmp_path):
    """Bit-identical for 1 to 3 threads, no bad access."""
    compiler = cpp_library.system_compiler()
    flags = sanitizer_flags(compiler, sanitizer, tmp_path)
    assert_no_failures([operators_test(compiler, flags, tmp_path), *cases])


@on_aarch64
def test_operators_on_aarch64(tmp_path):
    """As an emulator of the processor runs them; whether they are fast there is another question."""
    flags = (*cpp_library.FLAGS, "-static")
    test = operators_test(["aarch64-linux-gnu-g++"], flags, tmp_path, "aarch64")
    assert_no_failures(["qemu-aarch64", test, "10"])
