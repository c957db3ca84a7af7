"""What the tests share."""

import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mindghost  # noqa: F401  (environment defaults, before MindSpore is imported)
from tests.system.fault.harness import OUTCOMES, table

GOLDEN = Path(__file__).parent / "golden"
CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox")


def write_images(root: Path, classes=CLASSES, train_images=6, val_images=3) -> Path:
    """Image folders whose classes differ in colour."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train_images), ("val", val_images)):
        for index, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = rng.integers(0, 80, (40, 48, 3)) + np.array([index * 25, 170 - index * 25, 60])
                Image.fromarray(np.uint8(pixels)).save(folder / f"{image}.png")
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def graph_mode() -> Iterator[None]:
    """Where MindSpore is in use, a test starts in graph mode with a fixed seed, and its networks are collected."""
    ms = sys.modules.get("mindspore")
    if ms is None:
        yield
        return
    if not gc.get_freeze_count():
        # What the imports have made lives as long as the process, and takes 0.1 seconds to look through each time.
        gc.freeze()
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    yield
    gc.collect()


@pytest.fixture(scope="session")
def timm():
    """PyTorch's image models. A test that asks for it is skipped where there is no torch or no timm."""
    torch = pytest.importorskip("torch")
    try:
        pytest.importorskip("torchvision")
    except RuntimeError:
        # Its compiled operators are for another build of torch. timm imports it, but needs none of them.
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
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


def faults_of(reports: list[pytest.TestReport]) -> dict[str, dict]:
    """The rows of the table. Of the parameters of one case the first report counts: give those that failed first."""
    rows: dict[str, dict] = {}
    counted = set()
    for report in reports:
        for name, value in report.user_properties:
            if name == "fault":
                group, kind, once = value
                found = {kind if report.passed else "failure": 1}
                if once and (report.nodeid.partition("::")[0], once) in counted:
                    found = {}
                counted.add((report.nodeid.partition("::")[0], once))
                add_faults(rows, group, found, [] if report.passed else [report.nodeid])
            elif name == "faults":
                for group, row in value.items():
                    add_faults(rows, group, row, row["failures"])
    return rows


def add_faults(rows: dict[str, dict], group: str, counts: dict[str, int], failures: list[str]) -> None:
    row = rows.setdefault(group, {"cases": 0, **dict.fromkeys(OUTCOMES, 0), "failures": []})
    for kind in OUTCOMES:
        row[kind] += counts.get(kind, 0)
        row["cases"] += counts.get(kind, 0)
    row["failures"] += failures


def golden_state(name: str, num_classes: int = 1000) -> dict[str, np.ndarray]:
    """The state dict of golden/README's fill rule, by PyTorch names."""
    facts = json.loads((GOLDEN / f"{name}.json").read_text())
    state = {}
    for entry, shape, kind in facts["entries"]:
        if entry.startswith("classifier."):
            shape = [num_classes, *shape[1:]]
        rng = np.random.default_rng(zlib.crc32(entry.encode()))
        if kind == "weight":
            values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif kind == "gamma":
            values = rng.uniform(*facts["gamma_range"], shape)
        elif kind == "running_var":
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * rng.standard_normal(shape)
        state[entry] = values.astype(np.float32)
    return state


def randomise(network, seed: int = 0, gamma: tuple[float, float] = (0.5, 1.5)) -> None:
    """Random weights and batch-norm statistics, so that no parameter is at a value that hides a mistake.

    Values grow from layer to layer with a `gamma` around 1; a deep network with sigmoids needs a smaller one, or
    rounding decides which of them are open.
    """
    from mindspore import Tensor

    rng = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        kind = parameter.name.rpartition(".")[2]
        if kind == "gamma":
            values = rng.uniform(*gamma, parameter.shape)
        elif kind == "moving_variance":
            values = rng.uniform(0.5, 1.5, parameter.shape)
        elif kind == "weight":
            values = rng.standard_normal(parameter.shape) * np.sqrt(2 / np.prod(parameter.shape[1:]))
        else:
            values = 0.1 * rng.standard_normal(parameter.shape)
        parameter.set_data(Tensor(values.astype(np.float32)))


def sanitizer_flags(compiler: list[str], sanitizer: str, folder: Path) -> tuple[str, ...]:
    """A compiler's flags for a sanitizer; skips the test where its programs do not run."""
    flags = ("-std=c++17", "-O1", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    (folder / "probe.cpp").write_text("int main() {}")
    probe = [*compiler, *flags, str(folder / "probe.cpp"), "-o", str(folder / "probe")]
    if subprocess.run(probe, capture_output=True).returncode or subprocess.run([folder / "probe"]).returncode:
        pytest.skip(f"no {sanitizer} sanitizer")
    return flags
