"""What the tests share."""

import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ghostnet  # noqa: F401  (environment defaults, before MindSpore is imported)

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
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    yield
    gc.collect()


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
def tried(record_property) -> Callable[[str], None]:
    """Counts a fault of this kind: as survived, if the test passes."""
    return lambda kind: record_property("fault", kind)


def pytest_terminal_summary(terminalreporter) -> None:
    """A line for each kind of fault that was tried: how many, and how many in tests that passed."""
    tried, survived = Counter(), Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            kinds = [value for name, value in report.user_properties if name == "fault"]
            tried.update(kinds)
            survived.update(kinds if report.passed else [])
    if not tried:
        return
    terminalreporter.section("faults: tried, survived")
    for kind in sorted(tried):
        terminalreporter.write_line(f"{tried[kind]:4} {survived[kind]:4}  {kind}")
    terminalreporter.write_line(f"{tried.total():4} {survived.total():4}  in all")


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
