"""Faults that end whole runs, and how these go on: real processes, bit for bit as a run that nothing disturbed.

The table that pytest prints at the end counts the faults (see conftest.py). What smaller parts do about them is proved
where those are tested: test_weights_file.py, test_run_folder.py, test_folder_lock.py; a killed mpirun:
test_distributed.py.
"""

import io
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import validate
from ghostnet import weights_file
from tests.launchers import Process, children_of, mpirun_command, processes_with, run, wait_until_gone
from tests.test_end_to_end import command, write_images
from tests.test_resume import arguments, assert_same_end

# 12 steps an epoch on one process, 6 on two ranks; validation costs each start the compilation of a second graph.
KEYS = {"batch_size": 3, "epoch_size": 4, "decay_epochs": 4, "val_while_train": False}
STEPS = 12
COMPILES = "the first step compiles the graph"
GONE = 60  # seconds within which a run that met a fault has to end, with all its processes

Tried = Callable[[str], None]


@pytest.fixture
def tried(record_property) -> Tried:
    """Counts a fault of this kind: as survived, if the test passes."""
    return lambda kind: record_property("fault", kind)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def train(images: Path, folder: Path, *more: str, **keys) -> list[str]:
    return [sys.executable, *arguments(images, folder, **{**KEYS, **keys}), *more]


def train_on_ranks(ranks: int, images: Path, folder: Path, *more: str, **keys) -> list[str]:
    return mpirun_command(ranks, *arguments(images, folder, distribute=True, **{**KEYS, **keys}), *more)


def undisturbed(command: list[str], folder: Path) -> Path:
    result = run(command, folder.parent)
    assert (result.returncode, result.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    return undisturbed(train(images, folder, ckpt_save_interval_steps=None), folder)


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


DAMAGE = [flip_a_bit, truncate, empty, replace_by_png, replace_by_zip]


# --- One process


def test_one_run_outlives_one_fault_after_the_other(straight, images, tmp_path, tried):
    """Each part ends with another fault; the last one must not be noticed by the run at all."""
    folder = tmp_path / "run"

    tried("data worker killed, the run waits for data")
    with Process(train(images, folder, ckpt_save_interval_steps=2), tmp_path) as process:
        wait_for_steps(process, 4)
        workers = stop_workers(process)
        os.kill(workers[0], signal.SIGKILL)
        assert process.end(GONE) == 1
        last = (
            "stopped because a data worker process died (out of memory?); the data that the run waits for will not come"
        )
        assert process.error.splitlines()[-1] == last
        assert wait_until_gone(str(folder), 10) == []
    done = saved_step(folder)
    assert done == max(step for step in steps_of(process.lines) if step % 2 == 0)
    assert_nothing_half_written(folder)

    tried("state damaged: flip_a_bit, the whole run")
    flip_a_bit(folder / "run_state.ckpt")
    before, done = saved_files(folder), saved_step(folder, "run_state_previous.ckpt")
    tried("disk full while saving (RLIMIT_FSIZE)")
    line = train(images, folder, "--resume", ckpt_save_interval_steps=1)
    with Process(line, tmp_path, largest_file=1_000_000) as process:
        assert process.end(300) == 1
    assert "run_state.ckpt: damaged: its sha256" in process.lines[0]
    assert process.lines[0].endswith("run_state_previous.ckpt, the state before it")
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

    with Process(train(images, folder, "--resume", ckpt_save_interval_steps=None), tmp_path) as process:
        process.wait_for_line(COMPILES)
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
    with Process(train(images, folder, "--resume", ckpt_save_interval_steps=None), tmp_path) as process:
        process.wait_for_line(COMPILES)
        started = time.monotonic()
        process.send(number, group)
        assert process.end(GONE) == 128 + number
        assert time.monotonic() - started < 10
        assert process.error == f"stopped by {number.name}\n"
        assert wait_until_gone(str(folder), 10) == []
    assert re.search(r"run_state\.ckpt: damaged: .*; going on from .*run_state_previous\.ckpt, the", process.lines[0])
    assert saved_files(folder) == before


def test_a_second_ctrl_c_ends_a_run_in_the_middle_of_a_step(images, tmp_path, tried):
    """PyNative mode, where the second step takes seconds on any machine: it compiles each operator's gradient."""
    folder = tmp_path / "run"
    tried("second Ctrl-C during a step")
    with Process(train(images, folder, ckpt_save_interval_steps=None, mode=1), tmp_path) as process:
        wait_for_steps(process, 1)
        process.send(signal.SIGINT, group=True)
        time.sleep(0.2)
        process.send(signal.SIGINT, group=True)
        assert process.end(5) == 130
        assert process.error == "stopped by SIGINT\n"
        assert wait_until_gone(str(folder), 10) == []
    assert steps_of(process.lines) == [1]
    assert saved_files(folder) == {}


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
@pytest.mark.parametrize("moment", ["compiling", "training", "all at once"])
def test_a_killed_data_worker_ends_the_run(moment, straight, images, tmp_path, tried):
    """As by the kernel's memory killer; and all of them, where a batch system sends SIGTERM to every process."""
    folder = tmp_path / "run"
    with Process(train(images, folder), tmp_path) as process:
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
            process.send(signal.SIGTERM, group=True)
            assert process.end(GONE) == 143
            assert "train.py: stopped by SIGTERM after epoch 1, step " in process.error
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


def assert_a_state_is_intact(folder: Path, at_least: int) -> int:
    """The step that the run will go on after: nothing that was saved is lost, whenever the process was killed."""
    if not (folder / "run_state.ckpt").exists():
        assert at_least == 0
        return 0
    done = saved_step(folder)
    assert done >= at_least
    return done


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


# --- Ranks


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


@pytest.mark.parametrize(
    ("ranks", "victim"),
    [(2, 1), pytest.param(3, 0, marks=pytest.mark.slow), pytest.param(3, 2, marks=pytest.mark.slow)],
)
def test_a_killed_rank_ends_the_job(ranks, victim, images, tmp_path, tried):
    folder = tmp_path / "run"
    tried(f"rank killed, of {ranks}")
    with Process(train_on_ranks(ranks, images, folder, ckpt_save_interval_steps=1), tmp_path) as mpirun:
        wait_for_steps(mpirun, 2)
        os.kill(ranks_of(mpirun)[victim], signal.SIGKILL)
        assert_job_ended(mpirun, folder)
    assert saved_step(folder) >= steps_of(mpirun.lines)[-1] - 1


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


def test_a_dead_worker_that_nobody_reports_ends_a_run_that_waits(tmp_path, tried):
    tried("data worker killed, MindSpore says nothing")
    lines = """
import os, time
from ghostnet.runtime import StopSignals

with StopSignals() as signals:
    signals.defer()
    if os.fork() == 0:
        os._exit(0)
    signals.waits_since = time.monotonic() - 31
    time.sleep(50)
"""
    result = run([sys.executable, "-c", lines], tmp_path, timeout=40)
    last = "stopped because a data worker process died (out of memory?); the data that the run waits for will not come"
    assert (result.returncode, result.stderr.splitlines()[-1]) == (1, last)


def test_a_second_report_of_a_dead_worker_does_not_end_a_run_that_ends(tmp_path, tried):
    """MindSpore sends SIGTERM to its own process; what comes after the run's last step must not kill it."""
    tried("data worker killed, MindSpore says it twice")
    lines = """
import os, signal, time
from ghostnet.cli import signals_for_this_thread

with signals_for_this_thread():
    from ghostnet.runtime import StopSignals

with StopSignals() as signals:
    signals.defer()
    os.kill(os.getpid(), signal.SIGTERM)
    while signals.received is None:
        time.sleep(0.1)
os.kill(os.getpid(), signal.SIGTERM)
print("said its last words")
"""
    result = run([sys.executable, "-c", lines], tmp_path, timeout=40)
    assert (result.returncode, result.stdout) == (0, "said its last words\n")
