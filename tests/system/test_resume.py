"""A run that is killed and resumed ends as one that was not: real processes, bit for bit."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mindghost.checkpoint import weights as weights_file
from tests.helpers.commands import command, process
from tests.helpers.launchers import environment
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT
from tests.helpers.run_records import records
from tests.helpers.training import arguments, assert_same_end


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    result = process(*arguments(images, folder))
    assert (result.returncode, result.stderr) == (0, "")
    return folder


def kill_after(line: str, images: Path, folder: Path) -> None:
    """Start a run and kill it with SIGKILL, workers and all, once it has printed the start of `line`."""
    run = subprocess.Popen(
        [sys.executable, *arguments(images, folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(folder.parent),
        cwd=ROOT,
    )
    try:
        assert any(printed.startswith(line) for printed in run.stdout), "the run ended before that line"
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait(30)
        run.stdout.close()


@pytest.mark.parametrize("line", [pytest.param("epoch 1/2  step 4/6", marks=pytest.mark.slow), "epoch 2/2  step 3/6"])
def test_a_killed_run_goes_on_bit_for_bit(line, straight, images, tmp_path):
    folder = tmp_path / "run"
    kill_after(line, images, folder)
    time.sleep(0.1)
    done = weights_file.read(folder / "run_state.ckpt")
    epoch, step = int(done["run_epoch"][0]), int(done["run_step"][0])
    result = process(*arguments(images, folder), "--resume")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{epoch} epochs and {step} steps are done" in result.stdout
    steps = [printed.split("  ")[1] for printed in result.stdout.splitlines() if "  step " in printed]
    assert steps[0] == f"step {step + 1}/6"
    assert len(steps) == (5 - step) + 5 * (1 - epoch)
    assert_same_end(folder, straight)


def test_a_finished_run_has_nothing_left_to_do(straight, images):
    before = (straight / "ghostnet_050_last.ckpt").read_bytes()
    result = process(*arguments(images, straight), "--resume")
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 epochs and 0 steps are done" in result.stdout
    assert (straight / "ghostnet_050_last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"lr": 0.1, "batch_size": 4}, "batch_size: 6 -> 4; lr: 0.4 -> 0.1"),
        ({"epoch_size": 3}, "epoch_size: 2 -> 3"),
        ({"ckpt_save_dir": "/nowhere/run"}, "/nowhere/run/run_state.ckpt: no such file"),
    ],
)
def test_changes_are_refused(keys, expected, straight, images, monkeypatch, capsys):
    import train

    line = arguments(images, straight, **keys)[2:]
    status, error = command(train.main, "train.py", *line, "--resume", monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert expected in error
    assert error.count("\n") == 1


def test_other_images_are_refused(straight, images, tmp_path, monkeypatch, capsys):
    import train

    other = write_images(tmp_path / "other", train_images=7)
    line = arguments(other, straight)[2:]
    status, error = command(train.main, "train.py", *line, "--resume", monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert "the training images" in error


def test_a_taught_run_wants_its_teacher_back(straight, images, tmp_path, monkeypatch, capsys):
    """The network of one run teaches that of another; a resumed run is refused once the teacher is another one."""
    import train

    teacher = tmp_path / "teacher.ckpt"
    shutil.copy(straight / "ghostnet_050_last.ckpt", teacher)
    keys = {"teacher": "ghostnet_050", "teacher_ckpt_path": teacher, "distill_alpha": 1.0, "epoch_size": 1}
    keys |= {"mode": 1, "warmup_epochs": 0, "decay_epochs": 1, "tensorboard": False}
    result = process(*arguments(images, tmp_path / "run", **keys))
    assert (result.returncode, result.stderr) == (0, "")
    record, alone = (records(run)[0] for run in (tmp_path / "run", straight))
    assert 0 < record["train_loss"] < alone["train_loss"] / 2
    with teacher.open("ab") as file:
        file.write(b" ")
    line = arguments(images, tmp_path / "run", **keys)[2:]
    status, error = command(train.main, "train.py", *line, "--resume", monkeypatch=monkeypatch, capsys=capsys)
    assert (status, error.count("\n")) == (2, 1)
    assert "the training images or the teacher's weights" in error
