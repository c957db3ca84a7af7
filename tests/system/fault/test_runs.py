"""Faults that end whole runs of one process, and how these go on: bit for bit as a run that nothing disturbed.

The table that pytest prints at the end counts the faults (see conftest.py). Runs of several ranks: in
test_ranks.py; a killed mpirun: tests/parallel/test_ranks.py. What smaller parts do about faults is proved where
those are tested: checkpoint/test_weights.py, runs/test_saved_states.py, files/test_lock.py, test_runtime.py.
"""

import io
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import validate
from tests.helpers.commands import command
from tests.helpers.launchers import Process, children_of, processes_with, run, wait_until_gone
from tests.helpers.training import assert_same_end
from tests.system.fault.runs import (
    COMPILES,
    GONE,
    STEPS,
    assert_a_state_is_intact,
    assert_nothing_half_written,
    assert_went_on,
    saved_files,
    saved_step,
    steps_of,
    train,
    undisturbed,
    wait_for_a_save,
    wait_for_steps,
)


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    return undisturbed(train(images, folder, ckpt_save_interval_steps=None), folder)


def stop_workers(process: Process) -> list[int]:
    """Stop the data workers, and wait until the run has used up what they had made."""
    workers = children_of(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    seen, since = len(process.lines), time.monotonic()
    while time.monotonic() - since < 5:
        time.sleep(0.1)
        if len(process.lines) > seen:
            seen, since = len(process.lines), time.monotonic()
    assert process.runs
    return workers


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def replace_by_png(file: Path) -> None:
    Image.new("RGB", (64, 64)).save(file, "PNG")


def replace_by_zip(file: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02}q\x00.")
    file.write_bytes(content.getvalue())


WORKER_DIED = "stopped because a data worker process died (out of memory?)"
DAMAGE = [flip_a_bit, truncate, empty, replace_by_png, replace_by_zip]


@pytest.mark.fault
def test_one_run_outlives_one_fault_after_the_other(straight, images, tmp_path, tried):
    """Each part ends with another fault; the last one must not be noticed by the run at all."""
    folder = tmp_path / "run"

    tried("data worker killed, the run waits for data")
    with Process(train(images, folder, ckpt_save_interval_steps=2), tmp_path) as process:
        wait_for_steps(process, 4)
        workers = stop_workers(process)
        os.kill(workers[0], signal.SIGKILL)
        assert process.end(GONE) == 1
        done = saved_step(folder)
        assert (
            process.error.splitlines()[-1] == f"{WORKER_DIED} after epoch {(done - 1) // STEPS + 1}, step "
            f"{(done - 1) % STEPS + 1}; go on with --resume"
        )
        assert wait_until_gone(str(folder), 10) == []
    assert done == steps_of(process.lines)[-1]
    assert_nothing_half_written(folder)

    tried("state damaged: flip_a_bit, the whole run")
    flip_a_bit(folder / "run_state.ckpt")
    before, done = saved_files(folder), saved_step(folder, "run_state_previous.ckpt")
    tried("disk full while saving (RLIMIT_FSIZE)")
    line = train(images, folder, "--resume", ckpt_save_interval_steps=1)
    with Process(line, tmp_path, largest_file=1_000_000) as process:
        assert process.end(300) == 1
    said = next(line for line in process.lines if "run_state.ckpt: damaged: its sha256" in line)
    assert said.endswith("run_state_previous.ckpt, the state before it")
    assert_went_on(process, done)
    refused = "cannot be written (File too large); files saved earlier are kept"
    assert process.error == f"train.py: error: {folder / 'run_state.ckpt'}: {refused}\n"
    assert saved_files(folder) == before

    for number, group, workers, name in ((signal.SIGTERM, False, 1, "SIGTERM"), (signal.SIGINT, True, 2, "Ctrl-C")):
        tried(f"{name} during training")
        # A single worker is a thread: nothing is forked then, which would end threads that the imports have started.
        line = train(images, folder, "--resume", ckpt_save_interval_steps=None, num_parallel_workers=workers)
        with Process(line, tmp_path) as process:
            wait_for_steps(process, 2)
            process.send(number, group)
            assert process.end(GONE) == 128 + number
        assert_went_on(process, done)
        done = saved_step(folder)
        assert done == steps_of(process.lines)[-1]
        where = f"after epoch {(done - 1) // STEPS + 1}, step {(done - 1) % STEPS + 1}"
        assert process.error == f"train.py: stopped by {number.name} {where}; go on with --resume\n"
        assert wait_until_gone(str(folder), 10) == []
        assert_nothing_half_written(folder)

    line = train(images, folder, "--resume", ckpt_save_interval_steps=None)
    with Process(line, tmp_path) as process:
        wait_for_steps(process, 1)
        # So that it does not end before the others have begun.
        os.kill(process.pid, signal.SIGSTOP)
        for more in ([], ["--resume"], ["--overwrite", "True"]):
            tried("second run in the folder")
            second = run(train(images, folder, *more), tmp_path)
            user = f"process {process.pid} on {socket.gethostname()}"
            expected = f"is in use by another run ({user}); wait for it to end, or give another folder\n"
            assert second.returncode == 2
            assert second.stderr == f"train.py: error: ckpt_save_dir: {folder} {expected}"
        os.kill(process.pid, signal.SIGCONT)
        assert process.end(300) == 0
    assert process.error == ""
    assert_went_on(process, done)
    assert_same_end(folder, straight)


@pytest.mark.fault
def test_a_dead_worker_takes_batches_with_it(images, tmp_path, tried):
    """MindSpore asks a worker for the memory of its first batches: they may be there, and nobody gets at them."""
    folder = tmp_path / "run"
    tried("data worker killed, its batches are beyond reach")
    with Process(train(images, folder, compile_cache=False), tmp_path) as process:
        process.wait_for_line(COMPILES)
        time.sleep(1)  # in which the workers make all that they may
        for worker in children_of(process.pid):
            os.kill(worker, signal.SIGSTOP)
        wait_for_steps(process, 1)
        os.kill(stop_workers(process)[0], signal.SIGKILL)
        assert process.end(GONE) == 1
        # MindSpore's own line comes from another thread, at times after ours.
        assert any(line.startswith(f"{WORKER_DIED} after epoch 1, step ") for line in process.error.splitlines())
        assert "Traceback" not in process.error
        assert wait_until_gone(str(folder), 10) == []
    assert_nothing_half_written(folder)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("number", "group", "damage"),
    [
        (signal.SIGTERM, False, truncate),
        (signal.SIGINT, True, empty),
        pytest.param(signal.SIGUSR1, False, replace_by_png, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, True, replace_by_zip, marks=pytest.mark.slow),
    ],
)
def test_a_signal_before_the_first_step_ends_a_run_at_once(number, group, damage, straight, images, tmp_path, tried):
    """Of a run, here, that falls back on the state before a damaged one."""
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    tried(f"state damaged: {damage.__name__}, the start")
    damage(folder / "run_state.ckpt")
    before = saved_files(folder)
    tried(f"{number.name} during start-up")
    line = train(images, folder, "--resume", ckpt_save_interval_steps=None, compile_cache=False)
    with Process(line, tmp_path) as process:
        process.wait_for_line(COMPILES)
        started = time.monotonic()
        process.send(number, group)
        assert process.end(GONE) == 128 + number
        assert time.monotonic() - started < 10
        assert process.error == f"stopped by {number.name}\n"
        assert wait_until_gone(str(folder), 10) == []
    said = re.compile(r"run_state\.ckpt: damaged: .*; going on from .*run_state_previous\.ckpt, the")
    assert any(map(said.search, process.lines))
    assert saved_files(folder) == before


@pytest.mark.fault
def test_a_second_ctrl_c_ends_a_run_in_the_middle_of_a_step(images, tmp_path, tried):
    """PyNative mode, where the second step takes seconds on any machine: it compiles each operator's gradient."""
    folder = tmp_path / "run"
    tried("second Ctrl-C during a step")
    with Process(train(images, folder, ckpt_save_interval_steps=None, mode=1), tmp_path) as process:
        wait_for_steps(process, 1)
        process.send(signal.SIGINT, group=True)
        time.sleep(0.7)  # what comes within half a second is the same stop
        process.send(signal.SIGINT, group=True)
        assert process.end(5) == 130
        assert process.error == "stopped by SIGINT\n"
        assert wait_until_gone(str(folder), 10) == []
    assert steps_of(process.lines) == [1]
    assert saved_files(folder) == {}


@pytest.mark.fault
@pytest.mark.parametrize("damage", DAMAGE)
def test_validation_refuses_damaged_weights_by_name(damage, straight, tmp_path, tried, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    path = folder / "ghostnet_050_last.ckpt"
    tried(f"weights damaged: {damage.__name__}")
    damage(path)
    status, error = command(validate.main, "validate.py", "--ckpt_path", path, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert error.startswith(f"validate.py: error: {path}: damaged: its sha256 is not that in {path.name}.sha256;")
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["compiling", "training", "group", "all at once"])
def test_a_killed_data_worker_ends_the_run(moment, straight, images, tmp_path, tried):
    """As by the kernel's memory killer; and all of them, where a batch system sends SIGTERM to every process.

    `timeout` sends it to the process, and then to its group; the workers have groups of their own.
    """
    folder = tmp_path / "run"
    with Process(train(images, folder, compile_cache=moment != "compiling"), tmp_path) as process:
        if moment == "compiling":
            tried("data worker killed during start-up")
            process.wait_for_line(COMPILES)
            process.wait_for(lambda: len(children_of(process.pid)) > 1, "workers")
            time.sleep(1)
            os.kill(children_of(process.pid)[0], signal.SIGKILL)
            assert process.end(GONE) == 1
            assert process.error.endswith("\nstopped because a data worker process died (out of memory?)\n")
        elif moment == "training":
            tried("data worker killed during training")
            wait_for_steps(process, 3)
            os.kill(children_of(process.pid)[0], signal.SIGKILL)
            assert process.end(GONE) == 1
            reason = "train.py: error: stopped because a data worker process died (out of memory?) after epoch 1, step "
            assert reason in process.error
        else:
            tried("SIGTERM to the run and its workers")
            wait_for_steps(process, 3)
            if moment == "group":
                process.send(signal.SIGTERM)
                time.sleep(0.1)
                process.send(signal.SIGTERM, group=True)
            else:
                for each in (*children_of(process.pid), process.pid):
                    os.kill(each, signal.SIGTERM)
            assert process.end(GONE) == 143
            assert "stopped by SIGTERM after epoch 1, step " in process.error
        assert wait_until_gone(str(folder), 10) == []
    done = 0
    if moment != "compiling":
        done = saved_step(folder)
        assert done == steps_of(process.lines)[-1]
        assert_nothing_half_written(folder)
    line = train(images, folder, *(["--resume"] if done else []), ckpt_save_interval_steps=None)
    with Process(line, tmp_path) as process:
        assert process.end(300) == 0
    assert_went_on(process, done)
    assert_same_end(folder, straight)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system with room for two states and little more, and a function that makes room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_run_that_filled_the_disk_goes_on_when_there_is_room(small_disk, straight, images, tmp_path, tried):
    folder, make_room = small_disk[0] / "run", small_disk[1]
    tried("disk full while saving (tmpfs)")
    with Process(train(images, folder), tmp_path) as process:
        assert process.end(300) == 1
    # What is written next to a state that is there needs room beside both.
    done = saved_step(folder)
    assert 0 < done < 4 * STEPS
    refused = r"cannot be written \(No space left on device\); files saved earlier are kept\n"
    assert re.fullmatch(rf"train\.py: error: {folder}/\S+: {refused}", process.error)
    assert_nothing_half_written(folder)
    make_room()
    with Process(train(images, folder, "--resume"), tmp_path) as process:
        assert process.end(300) == 0
    assert_went_on(process, done)
    assert_same_end(folder, straight)


@pytest.mark.slow
def test_one_process_is_killed_at_20_random_moments(images, tmp_path, tried):
    """And twice by a second Ctrl-C in the middle of a save. With validation; a state is saved after every step."""
    keys = {"epoch_size": 8, "decay_epochs": 8, "val_while_train": True, "ckpt_save_interval_steps": 1}
    straight = undisturbed(train(images, tmp_path / "straight" / "run", **keys), tmp_path / "straight" / "run")
    folder, rng, done, cut_off = tmp_path / "killed" / "run", random.Random(3), 0, 0
    moments = ["start-up"] * 3 + ["save"] * 8 + ["random"] * 9 + ["Ctrl-C"] * 2
    rng.shuffle(moments)
    for moment in moments:
        resume = ["--resume"] if done else []
        with Process(train(images, folder, *resume, **keys), folder.parent) as process:
            if moment == "start-up":
                tried("SIGKILL during start-up")
                process.wait_for(lambda: processes_with(str(folder)), "start")
                time.sleep(rng.uniform(0, 10))
                status = kill(process)
            else:
                wait_for_steps(process, rng.randint(1, 3))
                if moment == "random":
                    tried("SIGKILL at a random moment")
                    time.sleep(rng.uniform(0, 0.3))
                    status = kill(process)
                elif moment == "save":
                    tried("SIGKILL in the middle of a save")
                    wait_for_a_save(process, folder)
                    time.sleep(rng.uniform(0, 0.01))
                    status = kill(process)
                else:
                    tried("second Ctrl-C in the middle of a save")
                    process.send(signal.SIGINT, group=True)
                    wait_for_a_save(process, folder)
                    process.send(signal.SIGINT, group=True)
                    status = process.end(GONE)
            assert status == (130 if moment == "Ctrl-C" else -signal.SIGKILL)
            assert wait_until_gone(str(folder), 10) == []
        assert_went_on(process, done)
        done = assert_a_state_is_intact(folder, max([done, *steps_of(process.lines)[:-1]]))
        cut_off += bool(list(folder.glob(".*.tmp")))
    # Saves that did not come to their end.
    assert cut_off > 0
    with Process(train(images, folder, "--resume", **keys), folder.parent) as process:
        assert process.end(600) == 0
    assert process.error == ""
    assert_went_on(process, done)
    assert_same_end(folder, straight)


def kill(process: Process) -> int:
    process.send(signal.SIGKILL)
    return process.end(10)
