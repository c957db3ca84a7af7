"""Many images and many steps: what they cost, and what does not grow. Figures: docs/reliability.md."""

import os
import re
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.launchers import Process
from tests.system.fault.runs import train, wait_for_steps

CLASSES, IMAGES = 1000, 200  # of each


def write_tree(root: Path) -> Path:
    """Each class's images are names of one file, so that they take room in folders only."""
    for label in range(CLASSES):
        folder = root / "train" / f"n{label:04}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (label % 256, label // 256, 0)).save(folder / "0.png")
        for number in range(1, IMAGES):
            os.link(folder / "0.png", folder / f"{number}.png")
    return root


def resident(pid: int, kind: str = "VmRSS") -> float:
    """Megabytes of a process: now, or at most so far ("VmHWM")."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1]) / 1024


def peak(command: list[str], home: Path) -> tuple[float, float]:
    """The most megabytes that a run had, and its seconds to the first step."""
    highest, started, first = 0.0, time.monotonic(), 0.0
    with Process(command, home) as process:
        while process.runs:
            try:
                highest = max(highest, resident(process.pid, "VmHWM"))
            except (OSError, TypeError):  # it ends
                break
            if not first and any("step" in line and "loss" in line for line in process.lines):
                first = time.monotonic() - started
            time.sleep(0.05)
        assert process.end(60) == 0, process.error
    return highest, first


@pytest.mark.slow
def test_two_hundred_thousand_images(images, tmp_path):
    """They cost their names, some numbers each, and a look at their headers; the second start not even that."""
    keys = {"epoch_size": 1, "decay_epochs": 1, "num_classes": CLASSES, "num_samples": 36}
    keys |= {"ckpt_save_interval_steps": None, "num_parallel_workers": 2}
    # The second takes its graph from the first, as all that follow.
    _, few = [peak(train(images, tmp_path / name / "run", **keys), tmp_path) for name in ("new", "few")]
    tree = write_tree(tmp_path / "images")
    many = [peak(train(tree, tmp_path / name / "run", **keys), tmp_path) for name in ("first", "second")]
    print(f"\npeak MB, seconds to the first step: 36 images {few}, 200,000 images {many}")
    assert max(megabytes for megabytes, _ in many) < few[0] + 250
    log = (tmp_path / "second" / "run" / "train.log").read_text()
    assert "200,000 training images" in log


@pytest.mark.slow
def test_nothing_grows_over_two_thousand_steps(images, tmp_path):
    def state(pid: int) -> tuple[float, int, int, int]:
        processes = Path(f"/proc/{pid}")
        temporary = len(os.listdir("/tmp")) + len(os.listdir("/dev/shm"))
        return resident(pid), len(os.listdir(processes / "task")), len(os.listdir(processes / "fd")), temporary

    keys = {"batch_size": 1, "gradient_accumulation_steps": 1, "epoch_size": 60, "decay_epochs": 60}
    keys |= {"ckpt_save_interval_steps": None, "keep_checkpoint_max": 2, "val_while_train": True}
    with Process(train(images, tmp_path / "run", **keys), tmp_path) as process:
        wait_for_steps(process, 400)
        early = state(process.pid)
        wait_for_steps(process, 2000)
        late = state(process.pid)
        assert process.end(600) == 0, process.error
    print(f"\nMB, threads, open files, temporary files: step 400 {early}, step 2,000 {late}")
    assert late[0] < 1.05 * early[0] + 20
    assert late[1] <= early[1]
    assert late[2] <= early[2] + 2
    assert late[3] <= early[3] + 2
