"""Faults that end jobs of several ranks under mpirun, and how these go on; see test_runs.py."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.launchers import Process, children_of, mpirun_command, run, wait_until_gone
from tests.helpers.places import ROOT
from tests.helpers.training import arguments, assert_same_end
from tests.system.fault.runs import (
    GONE,
    KEYS,
    assert_a_state_is_intact,
    assert_went_on,
    saved_step,
    steps_of,
    undisturbed,
    wait_for_a_save,
    wait_for_steps,
)


def train_on_ranks(ranks: int, images: Path, folder: Path, *more: str, **keys) -> list[str]:
    return mpirun_command(ranks, *arguments(images, folder, distribute=True, **{**KEYS, **keys}), *more)


def ranks_of(mpirun: Process) -> list[int]:
    """Process numbers of the ranks, in their order: mpirun's children that run Python."""
    return [child for child in children_of(mpirun.pid) if b"python" in Path(f"/proc/{child}/cmdline").read_bytes()]


def assert_job_ended(mpirun: Process, folder: Path) -> int:
    """Within a minute, with all of its processes. Returns the exit status."""
    started = time.monotonic()
    status = mpirun.end(GONE)
    assert status != 0
    assert wait_until_gone(str(folder.parent), GONE - (time.monotonic() - started)) == []
    return status


# The last one is for the long runs alone: `-m fault` is to end within 12 minutes.
@pytest.mark.parametrize(
    ("ranks", "victim"),
    [
        pytest.param(2, 1, marks=pytest.mark.fault),
        pytest.param(3, 0, marks=[pytest.mark.fault, pytest.mark.slow]),
        pytest.param(3, 2, marks=pytest.mark.slow),
    ],
)
def test_a_killed_rank_ends_the_job(ranks, victim, images, tmp_path, tried):
    folder = tmp_path / "run"
    tried(f"rank killed, of {ranks}")
    with Process(train_on_ranks(ranks, images, folder, ckpt_save_interval_steps=1), tmp_path) as mpirun:
        wait_for_steps(mpirun, 2)
        os.kill(ranks_of(mpirun)[victim], signal.SIGKILL)
        assert_job_ended(mpirun, folder)
    assert saved_step(folder) >= steps_of(mpirun.lines)[-1] - 1


@pytest.mark.fault
def test_a_stopped_rank_ends_the_job(images, tmp_path, tried):
    """Its neighbours see it, once they have waited for it long enough."""
    folder = tmp_path / "run"
    tried("rank stalled (SIGSTOP), of 2")
    with Process(train_on_ranks(2, images, folder, ckpt_save_interval_steps=1), tmp_path) as mpirun:
        wait_for_steps(mpirun, 2)
        rank = ranks_of(mpirun)[1]
        os.kill(rank, signal.SIGSTOP)
        assert assert_job_ended(mpirun, folder) == 1
    why = f"stopped because rank 1 (process {rank}) has been stopped (SIGSTOP) for 12 seconds"
    assert f"{why}; files saved earlier are kept\n" in mpirun.error
    assert saved_step(folder) >= steps_of(mpirun.lines)[-1] - 1


@pytest.mark.fault
def test_a_rank_that_leaves_early_ends_the_job(images, tmp_path, tried):
    """With status 0, in which mpirun sees nothing wrong."""
    folder, sign = tmp_path / "run", tmp_path / "leave"
    tried("rank leaves early with status 0, of 2")
    script = ROOT / "tests" / "system" / "fault" / "leaving_rank.py"
    line = mpirun_command(
        2, script, sign, *arguments(images, folder, distribute=True, **KEYS, ckpt_save_interval_steps=1)
    )
    with Process(line, tmp_path) as mpirun:
        wait_for_steps(mpirun, 2)
        rank = ranks_of(mpirun)[1]
        sign.touch()
        assert assert_job_ended(mpirun, folder) == 1
    why = f"stopped because rank 1 (process {rank}) has left the job; files saved earlier are kept\n"
    assert why in mpirun.error
    assert saved_step(folder) >= steps_of(mpirun.lines)[-1] - 1


@pytest.mark.fault
def test_ranks_leave_out_the_same_bad_images(images, tmp_path, tried):
    """Each looks at every second one; rank 1 finds what rank 0 does not look at, and the other way round.

    As many images are left as the other jobs have, and one that no batch takes: the step is compiled already.
    """
    tried("bad images left out, of 2 ranks")
    tree, folder = tmp_path / "images", tmp_path / "run"
    shutil.copytree(images, tree)
    for name in ("ant/0.png", "bee/1.png", "bee/2.png"):
        os.truncate(tree / "train" / name, 50)
    for number in range(6, 10):
        shutil.copy(tree / "train" / "cat" / "0.png", tree / "train" / "cat" / f"{number}.png")
    keys = {"on_bad_image": "skip", "ckpt_save_interval_steps": None}
    result = run(train_on_ranks(2, tree, folder, **keys), tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("left out: ") == 3
    assert result.stdout.count("3 of 40 images left out (on_bad_image: skip)") == 1
    assert "37 training images" in result.stdout
    # 18 images on each rank are 6 batches of 3, of which 2 make an update.
    assert steps_of(result.stdout.splitlines()) == list(range(1, 25))


@pytest.fixture(scope="module")
def straight_ranks(images, tmp_path_factory) -> Path:
    """Two ranks; 96 steps."""
    folder = tmp_path_factory.mktemp("straight_ranks") / "run"
    keys = {**RANK_KEYS, "ckpt_save_interval_steps": None}
    return undisturbed(train_on_ranks(2, images, folder, **keys), folder)


RANK_KEYS = {"epoch_size": 16, "decay_epochs": 16, "ckpt_save_interval_steps": 1}


@pytest.mark.slow
def test_signals_to_mpirun(straight_ranks, images, tmp_path, tried):
    """On SIGTERM and Ctrl-C mpirun ends its ranks at once; SIGUSR1 it passes on to them."""
    folder, done = tmp_path / "run", 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        tried(f"{number.name} to mpirun")
        keys = {**RANK_KEYS, "ckpt_save_interval_steps": 3 if number != signal.SIGUSR1 else None}
        line = train_on_ranks(2, images, folder, *(["--resume"] if done else []), **keys)
        with Process(line, tmp_path) as mpirun:
            wait_for_steps(mpirun, 4)
            mpirun.send(number)
            status = assert_job_ended(mpirun, folder)
        assert_went_on(mpirun, done)
        before, done = done, saved_step(folder)
        assert done > before
    assert status == 138
    assert done == steps_of(mpirun.lines)[-1]
    assert f"train.py: stopped by SIGUSR1 after epoch {(done - 1) // 6 + 1}, step {(done - 1) % 6 + 1};" in mpirun.error
    with Process(train_on_ranks(2, images, folder, "--resume", **RANK_KEYS), tmp_path) as mpirun:
        assert mpirun.end(300) == 0
    assert_went_on(mpirun, done)
    assert_same_end(folder, straight_ranks)


@pytest.mark.slow
def test_a_job_of_two_ranks_is_killed_at_20_random_moments(straight_ranks, images, tmp_path, tried):
    """mpirun, rank 0 or rank 1: whichever is killed takes all others along."""
    folder, rng, done, cut_off = tmp_path / "killed" / "run", random.Random(5), 0, 0
    moments = ["start-up"] * 3 + ["save"] * 8 + ["random"] * 9
    rng.shuffle(moments)
    for moment in moments:
        resume = ["--resume"] if done else []
        with Process(train_on_ranks(2, images, folder, *resume, **RANK_KEYS), folder.parent) as mpirun:
            if moment == "start-up":
                mpirun.wait_for(lambda: len(ranks_of(mpirun)) == 2, "ranks")
                time.sleep(rng.uniform(0, 15))
            else:
                wait_for_steps(mpirun, rng.randint(1, 3))
                if moment == "save":
                    wait_for_a_save(mpirun, folder)
                time.sleep(rng.uniform(0, 0.01 if moment == "save" else 0.4))
            victim = rng.choice(["mpirun", "rank 0", "rank 1"])
            tried(f"SIGKILL of {victim}, of two ranks")
            number = mpirun.pid if victim == "mpirun" else ranks_of(mpirun)[int(victim[-1])]
            os.kill(number, signal.SIGKILL)
            assert_job_ended(mpirun, folder)
        assert_went_on(mpirun, done)
        done = assert_a_state_is_intact(folder, max([done, *steps_of(mpirun.lines)[:-1]]))
        cut_off += bool(list(folder.glob(".*.tmp")))
    # Saves that did not come to their end.
    assert cut_off > 0
    with Process(train_on_ranks(2, images, folder, "--resume", **RANK_KEYS), folder.parent) as mpirun:
        assert mpirun.end(600) == 0
    assert mpirun.error == ""
    assert_went_on(mpirun, done)
    assert_same_end(folder, straight_ranks)
