"""What the tests share."""

import gc
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mindghost  # noqa: F401  (environment defaults, before MindSpore is imported)
from mindghost.files.cache import cache_dir
from tests.helpers.fault_counts import faults_of
from tests.helpers.pictures import write_images
from tests.helpers.short import cut
from tests.system.fault.harness import table

if measured := os.environ.get("COVERAGE_PROCESS_CONFIG"):
    # scripts/coverage.sh: processes that get an environment of their own are measured too.
    start_process = subprocess.Popen.__init__

    def start_measured(self, *arguments, env=None, **keys):
        env = None if env is None else {**env, "COVERAGE_PROCESS_CONFIG": measured}
        start_process(self, *arguments, env=env, **keys)

    subprocess.Popen.__init__ = start_measured


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def own_cache(monkeypatch, tmp_path) -> None:
    """The test's own cache folder, where nothing was looked at before; with the native libraries of the user's.

    To build these takes half a minute each time.
    """
    (libraries := cache_dir() / "native").mkdir(parents=True, exist_ok=True)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "native").symlink_to(libraries)
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / ".cache"))


@pytest.fixture
def short_network(monkeypatch) -> None:
    """GhostNet and RepGhostNet of four bottlenecks in this process, for tests of anything but the network."""
    from mindghost.models import ghostnet, repghostnet

    for module in (ghostnet, repghostnet):
        monkeypatch.setattr(module, "STAGES", cut(module.STAGES))


@pytest.fixture(autouse=True)
def graph_mode() -> Iterator[None]:
    """Where MindSpore is in use, a test starts in graph mode with a fixed seed; its networks are collected."""
    ms = sys.modules.get("mindspore")
    if ms is None:
        yield
        return
    if not gc.get_freeze_count():
        # What the imports have made lives as long as the process, and takes 0.1 seconds to look through each time.
        gc.freeze()
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    start = time.monotonic()
    yield
    # What is quicker makes no network. To collect after each of 2,000 such tests took a minute.
    if time.monotonic() - start > 0.05 or multiprocessing.active_children():
        gc.collect()


@pytest.fixture(scope="session")
def torchvision():
    """PyTorch's vision library. A test that asks for it is skipped where it is not there."""
    torch = pytest.importorskip("torch")
    try:
        pytest.importorskip("torchvision")
    except RuntimeError:
        # Its compiled operators are for another build of torch, and no test needs one of them.
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    return pytest.importorskip("torchvision")


@pytest.fixture(scope="session")
def timm(torchvision):
    """PyTorch's image models. A test that asks for it is skipped where there is no torch or no timm."""
    pytest.importorskip("timm.optim")
    pytest.importorskip("timm.scheduler")
    return pytest.importorskip("timm")


@pytest.fixture(params=["limit", "tmpfs"])
def full_disk(request, tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder that takes no file over 250 kB, and what the system says to one."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "limit":
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, limits[1]))
        yield folder, "File too large"
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=250k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder, "No space left on device"
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Makes a folder read-only for everybody, root too, until the test ends."""
    mounted = []

    def mount(folder: Path) -> None:
        commands = (["--bind", folder, folder], ["-o", "remount,bind,ro", folder])
        for words in commands:
            if os.geteuid() != 0 or subprocess.run(["mount", *map(str, words)], capture_output=True).returncode:
                pytest.skip("needs the right to mount a file system")
            if folder not in mounted:
                mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(autouse=True)
def marked_fault(request, record_property) -> None:
    """A test with the mark fault(group, outcome) is a case of that group, with that outcome if it passes.

    With `once=True`, all parameters of the test are one case: permutations of one situation.
    """
    if (mark := request.node.get_closest_marker("fault")) and mark.args:
        group, outcome = mark.args
        record_property("fault", (group, outcome, request.node.originalname if mark.kwargs.get("once") else ""))


@pytest.fixture
def tried(record_property) -> Callable[[str], None]:
    """Counts a fault of this kind: as survived, if the test passes."""
    return lambda kind: record_property("fault", (f"runs: {kind}", "ok", ""))


# Files whose tests take longest. A process of pytest that gets one of them last keeps the others waiting; those whose
# tests wait for other processes stand beside those that compute.
LONG_FILES = (
    "parallel/test_ranks.py",
    "ops/test_fused.py",
    "system/fault/test_ranks.py",
    "system/test_end_to_end.py",
    "system/fault/test_runs.py",
    "system/test_doc_commands.py",
    "test_graph_cache.py",
    "models/test_network.py",
    "system/test_quantize_aware.py",
    "system/test_fine_tuning.py",
    "models/test_models.py",
    "test_packaging.py",
    "system/test_resume.py",
    "system/test_names.py",
    "system/test_multi_label.py",
    "system/test_segmentation.py",
    "cli/test_complexity.py",
    "models/test_ghostify.py",
    "train/test_step.py",
    "ops/test_momentum.py",
    "system/fault/test_groups.py",
    "benchmark/test_benchmark.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the order within a file, and of all others, stays."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_addoption(parser) -> None:
    parser.addoption("--fault-json", metavar="FILE", help="write the table of faults to FILE")
    parser.addoption("--skipped", metavar="FILE", help="write the tests that were skipped to FILE, a line each")
    parser.addoption("--no-skips", action="store_true", help="a test that would be skipped fails")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """With --no-skips, what a test misses on this machine is an error (.ci/run)."""
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", f"{item.nodeid}: {report.longrepr[2]}"
    return report


def pytest_terminal_summary(terminalreporter) -> None:
    """The tests that were skipped, to a file; the table of the faults that were tried (see tests/system/fault)."""
    if path := terminalreporter.config.getoption("--skipped"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text("".join(f"{report.nodeid}\n" for report in terminalreporter.getreports("skipped")))
    if not (rows := faults_of([*terminalreporter.getreports("failed"), *terminalreporter.getreports("passed")])):
        return
    terminalreporter.section("faults")
    rows = dict(sorted(rows.items()))
    terminalreporter.write_line(table(rows))
    if path := terminalreporter.config.getoption("--fault-json"):
        Path(path).write_text(json.dumps(rows, indent=1))
