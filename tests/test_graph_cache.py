"""Compiled graphs that are kept: equal results, and no stale or damaged one is ever taken."""

import json
import os
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindghost import graph_cache
from mindghost.config import Config
from mindghost.graph_cache import GraphCache
from mindghost.models import ghostnet
from mindghost.ops import library as native
from mindghost.parallel.ranks import ALONE, Ranks
from mindghost.train.step import StepOptions, TrainStep, training_loss
from mindghost.train.update import update_by
from tests.helpers.launchers import Process, cache_with_libraries, mpirun_command, run
from tests.helpers.short import stages
from tests.helpers.training import arguments, assert_same_end

COMPILES = "compiling the "
try:
    OPERATORS = native.library()
    native.load(OPERATORS, 2)
except native.NativeError:
    OPERATORS = None


def settings(**keys) -> Config:
    return Config(**{"model": "ghostnet_050", "data_dir": "D", "num_classes": 3, **keys})


def small_step(config: Config, **options) -> TrainStep:
    ms.set_seed(config.seed)
    np.random.seed(config.seed)
    network = ghostnet.ghostnet_050(num_classes=3, **{"drop_rate": 0.2, **options})
    optimizer = nn.Momentum(network.trainable_params(), 0.05, 0.9)
    options = StepOptions.from_config(config)
    return TrainStep(network, training_loss(config), update_by(optimizer, OPERATORS), options).set_train()


def name_of(step: nn.Cell, config: Config, shapes: tuple = ((2, 3, 32, 32),), ranks: Ranks = ALONE) -> str:
    return graph_cache._digest(step, shapes, GraphCache(config, "CPU", ranks).keys, ranks)


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """Where graphs are kept, for this test alone."""
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MS_COMPILER_CACHE_ENABLE", raising=False)
    return tmp_path / "home" / "graphs"


def test_names_tell_graphs_apart(monkeypatch):
    monkeypatch.setattr(ghostnet, "STAGES", stages())
    config = settings()
    step = small_step(config)
    name = name_of(step, config)
    assert name_of(small_step(config), config) == name
    free = settings(data_dir="E", ckpt_save_dir="F", log_interval=7, resume=True)
    assert name_of(step, free) == name
    others = {
        "dropout": name_of(small_step(config, drop_rate=0.3), config),
        "seed": name_of(small_step(settings(seed=1)), config),
        "key of the loss": name_of(step, settings(label_smoothing=0.1)),
        "shape": name_of(step, config, ((3, 3, 32, 32),)),
        "channels": name_of(small_step(config, in_channels=1), config),
        "rank": name_of(step, config, ranks=Ranks(rank=1, size=2)),
    }
    step.network.classifier.weight.requires_grad = False
    others["frozen weight"] = name_of(step, config)
    step.network.classifier.weight.requires_grad = True
    monkeypatch.setenv("MS_DEV_SOMETHING", "1")
    others["MindSpore's environment"] = name_of(step, config)
    monkeypatch.delenv("MS_DEV_SOMETHING")
    monkeypatch.setattr(graph_cache, "version", lambda _: "9.9")
    graph_cache._program.cache_clear()
    others["version of mindcv"] = name_of(step, config)
    monkeypatch.setattr(ms, "__version__", "9.9")
    graph_cache._program.cache_clear()
    others["version"] = name_of(step, config)
    monkeypatch.undo()
    graph_cache._program.cache_clear()
    assert name_of(step.set_train(False), config) not in others.values()
    assert len({name, *others.values()}) == 1 + len(others)


def cell_of(factor: float) -> nn.Cell:
    class Scaled(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.factor = factor

        def construct(self, x: Tensor) -> Tensor:
            return x * self.factor

    return Scaled().set_train(False)


def compiled(steps: list, home: Path) -> list:
    """A process of its own multiplies by these factors, one after the other. Those whose graphs were not kept.

    MindSpore itself would tell them apart by their order alone. "flip", "truncate", "empty" and "delete" are done to
    the one kept graph, before the last factor comes again.
    """
    cache_with_libraries(home)
    done = run([sys.executable, __file__, json.dumps(steps)], home.parent, MINDGHOST_HOME=str(home))
    assert done.returncode == 0, done.stderr
    suffix = f"; later starts take it from {home / 'graphs'}"
    lines = json.loads(done.stdout.splitlines()[-1])
    assert all(line.endswith(suffix) for line in lines)
    return [int(line.removesuffix(suffix).rpartition(" ")[2]) for line in lines]


def entries(home: Path) -> list[Path]:
    return [path for path in (home / "graphs").iterdir() if path.name[0] != "."]


def test_a_changed_network_is_compiled_afresh(tmp_path):
    home = tmp_path / "home"
    assert compiled([2, 3, 2], home) == [2, 3]
    assert compiled([3, 4, 2], home) == [4]
    assert len(entries(home)) == len(list((home / "graphs").iterdir())) == 3


def test_a_damaged_entry_is_compiled_afresh(tmp_path):
    assert compiled([2, "flip", "truncate", 2, "empty", "delete", 2], tmp_path / "home") == [2] * 5


def damage(how: str, graph: Path) -> None:
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    kinds = {"flip": content, "truncate": content[:-100], "empty": b""}
    graph.unlink() if how == "delete" else graph.write_bytes(kinds[how])


def compile_products() -> None:
    """What `compiled` starts."""
    said = []
    graph_cache.log.setLevel("INFO")
    graph_cache.log.addFilter(lambda record: said.append(record.getMessage()))
    ms.set_context(mode=ms.GRAPH_MODE)
    x = Tensor(np.ones((2, 3), np.float32))
    graphs = GraphCache(settings(), "CPU", ALONE)
    factor = 2
    for step in json.loads(sys.argv[1]):
        if isinstance(step, str):
            damage(step, *entries(Path(os.environ["MINDGHOST_HOME"])))
        else:
            factor = step
        cell = cell_of(float(factor))
        for _ in range(2):
            graphs.compile(cell, x, what=f"the product with {factor}")
        np.testing.assert_array_equal(cell(x).asnumpy(), np.full((2, 3), factor, np.float32))
    print(json.dumps(said))


def test_a_cache_that_cannot_be_written_is_left_alone(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "mindghost")
    ms.set_context(mode=ms.GRAPH_MODE)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "file"))
    cell, x = cell_of(6.0), Tensor(np.ones((2, 3), np.float32))
    GraphCache(settings(), "CPU", ALONE).compile(cell, x, what="the product")
    np.testing.assert_array_equal(cell(x).asnumpy(), np.full((2, 3), 6, np.float32))
    [message] = [record.getMessage() for record in caplog.records]
    assert message == f"compiled graphs are not kept: {tmp_path / 'file' / 'graphs'}: Not a directory"


@pytest.mark.fault("caches", "ok")
def test_a_graph_is_taken_from_a_cache_that_cannot_be_written(tmp_path, read_only):
    home = tmp_path / "home"
    assert compiled([2], home) == [2]
    read_only(home)
    assert compiled([2], home) == []


@pytest.mark.fault("caches", "ok")
def test_half_a_graph_is_not_kept(shelf, caplog):
    """What MindSpore leaves on a full disk; the two lines that it prints then are avoided, as far as room is known."""
    caplog.set_level("INFO", "mindghost")
    shelf.mkdir(parents=True)
    graphs = GraphCache(settings(), "CPU", ALONE)
    message = b"\x0a\x03abc\x10\xff\x01\x15abcd\x19abcdefgh"
    graphs._keep("a" * 32, message)
    assert graph_cache._SHELF.read("a" * 32) == (message, False)
    ends = {0, 5, 8, 13, len(message)}
    assert {size for size in range(len(message) + 1) if graph_cache._is_whole(message[:size])} == ends - {0}
    graphs._keep("b" * 32, message[:-1])
    assert not (shelf / ("b" * 32)).exists()
    assert caplog.messages[0].startswith("compiled graphs are not kept: ")


@pytest.mark.fault("caches", "ok")
def test_where_no_place_has_room_nothing_is_kept(shelf, monkeypatch):
    monkeypatch.setattr(graph_cache, "_ROOM", 1 << 60)
    shelf.mkdir(parents=True)
    with pytest.raises(OSError, match="neither it nor the folder for temporary files takes a graph"):
        graph_cache._folder_of_process(shelf)


@pytest.mark.parametrize(
    ("keys", "device"),
    [({"compile_cache": False}, "CPU"), ({}, "Ascend"), ({"mode": 1}, "CPU"), ({}, "environment")],
)
def test_switched_off(keys, device, shelf, monkeypatch):
    if device == "environment":
        monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "0")
        device = "CPU"
    GraphCache(settings(**keys), device, ALONE).compile(cell_of(7.0), Tensor(np.ones((2, 3), np.float32)))
    assert not shelf.exists()


def test_a_run_from_kept_graphs_is_the_same_run(images, tmp_path):
    """Dropout, mixup, average, accumulation and validation: without the cache, filling it, and from it."""
    runs, home = [tmp_path / name for name in ("without", "filling", "from")], cache_with_libraries(tmp_path / "home")
    for folder, cached, compiled in zip(runs, (False, True, True), (1, 1, 0), strict=True):
        line = arguments(images, folder, compile_cache=cached, val_while_train=True, epoch_size=2, decay_epochs=1)
        done = run([sys.executable, *line], tmp_path, MINDGHOST_HOME=str(home))
        assert (done.returncode, done.stderr) == (0, "")
        assert sum(COMPILES in line for line in done.stdout.splitlines()) == compiled
    for folder in runs[1:]:
        assert_same_end(folder, runs[0])
    assert [path.name for path in (home / "graphs").glob(".*")] == []


@pytest.mark.slow
def test_ranks_keep_graphs_of_their_own(images, tmp_path):
    home = tmp_path / "home"
    for folder in ("first", "second"):
        line = arguments(images, tmp_path / folder, distribute=True, val_while_train=False, batch_size=3)
        done = run(mpirun_command(2, *line), tmp_path, MINDGHOST_HOME=str(home))
        assert done.returncode == 0, done.stderr
        assert len(entries(home)) == 2
    assert COMPILES not in done.stdout
    assert_same_end(tmp_path / "second", tmp_path / "first")


def test_a_killed_process_leaves_nothing_that_is_used(images, tmp_path):
    """SIGKILL while the graph is compiled."""
    home = cache_with_libraries(tmp_path / "home")
    line = arguments(images, tmp_path / "run", val_while_train=False)
    with Process(["env", f"MINDGHOST_HOME={home}", sys.executable, *line], tmp_path) as process:
        process.wait_for_line(COMPILES)
    assert entries(home) == []


if __name__ == "__main__":
    compile_products()
