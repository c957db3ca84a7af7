"""Runs that meet a fault: what starts them, what they have saved, and what must be true of it."""

import re
import subprocess
import sys
from pathlib import Path

from mindghost.checkpoint import weights as weights_file
from tests.helpers.launchers import Process, run
from tests.helpers.training import arguments

# 12 steps an epoch on one process, 6 on two ranks; validation costs each start the compilation of a second graph.
KEYS = {"batch_size": 3, "epoch_size": 4, "decay_epochs": 4, "val_while_train": False}
STEPS = 12
COMPILES = "compiling the training step"
GONE = 60  # seconds within which a run that met a fault has to end, with all its processes


def train(images: Path, folder: Path, *more: str, **keys) -> list[str]:
    return [sys.executable, *arguments(images, folder, **{**KEYS, **keys}), *more]


def undisturbed(command: list[str], folder: Path) -> Path:
    result = run(command, folder.parent)
    assert (result.returncode, result.stderr) == (0, "")
    return folder


def steps_of(lines: list[str]) -> list[int]:
    """Numbers of the steps, from the start of the run, after which a line was printed."""
    found = []
    for line in lines:
        if start := re.search(r"epochs of (\d+) steps of", line):
            steps = int(start[1])
        elif done := re.match(r"epoch (\d+)/\d+  (?:step (\d+)/\d+  )?loss", line):
            found.append((int(done[1]) - 1) * steps + int(done[2] or steps))
    return found


def saved_step(folder: Path, name: str = "run_state.ckpt") -> int:
    """The step, from the start of the run, after which a state was saved. Raises UserError if it is not intact."""
    state = weights_file.read(folder / name)
    return int(state["run_epoch"][0] * state["run_steps"][0] + state["run_step"][0])


def saved_files(folder: Path) -> dict[str, bytes]:
    """Weights and states with their digests, and temporary files, if a save has left some."""
    return {file.name: file.read_bytes() for pattern in ("*.ckpt*", ".*.tmp") for file in folder.glob(pattern)}


def assert_nothing_half_written(folder: Path) -> None:
    assert not list(folder.glob(".*.tmp"))
    sums = [file.name for file in folder.glob("*.sha256")]
    checked = subprocess.run(["sha256sum", "--check", "--quiet", *sums], cwd=folder, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def assert_went_on(process: Process, after: int) -> None:
    """No step was run again, and none was left out."""
    steps = steps_of(process.lines)
    assert steps == list(range(after + 1, after + 1 + len(steps)))


def wait_for_steps(process: Process, count: int) -> None:
    process.wait_for(lambda: len(steps_of(process.lines)) >= count, f"{count} steps")


def wait_for_a_save(process: Process, folder: Path) -> None:
    """Wait until a save of the state has begun and is not finished."""
    process.wait_for(lambda: list(folder.glob(".run_state.ckpt.*.tmp")), "a save")


def assert_a_state_is_intact(folder: Path, at_least: int) -> int:
    """The step that the run will go on after: nothing that was saved is lost, whenever the process was killed."""
    if not (folder / "run_state.ckpt").exists():
        assert at_least == 0
        return 0
    done = saved_step(folder)
    assert done >= at_least
    return done
