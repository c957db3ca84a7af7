"""One run at a time in a folder: real processes."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindghost.errors import UserError
from mindghost.files import lock as lock_module
from mindghost.files.lock import FolderLock
from tests.helpers.locks import lock_holder


@pytest.fixture
def lock(tmp_path) -> Iterator[FolderLock]:
    lock = FolderLock(tmp_path, "ckpt_save_dir")
    yield lock
    lock.release()


def test_a_second_process_is_refused_until_the_first_is_killed(lock, tmp_path):
    with lock_holder(tmp_path) as process:
        with pytest.raises(UserError) as caught:
            lock.take()
        assert str(caught.value) == (
            f"ckpt_save_dir: {tmp_path} is in use by another run (process {process.pid} on {socket.gethostname()}); "
            "wait for it to end, or give another folder"
        )
        process.kill()
        process.wait(30)
        # Its worker is alive, with the file open.
        lock.take()
    lock.take()
    assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def is_refused_elsewhere(folder: Path) -> bool:
    program = "import sys; from pathlib import Path; from mindghost.files.lock import FolderLock as L; "
    program += "L(Path(sys.argv[1]), 'key').take()"
    environment = {**os.environ, "PYTHONPATH": "src"}
    result = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, env=environment
    )
    assert result.returncode == ("is in use" in result.stderr), result.stderr
    return result.returncode == 1


def test_a_second_run_of_the_same_process_is_refused_and_takes_nothing_away(lock, tmp_path):
    lock.take()
    second = FolderLock(tmp_path, "ckpt_save_dir")
    with pytest.raises(UserError, match=f"in use by another run .process {os.getpid()} on "):
        second.take()
    second.release()
    assert is_refused_elsewhere(tmp_path)
    lock.release()
    assert not is_refused_elsewhere(tmp_path)


@pytest.mark.parametrize("content", ["", "process 1", "\xff" * 2000])
def test_a_file_that_names_no_process(content, lock, tmp_path):
    with lock_holder(tmp_path):
        (tmp_path / ".lock").write_text(content)
        with pytest.raises(UserError, match="in use by another run; wait"):
            lock.take()


def test_a_stale_file_is_no_obstacle(lock, tmp_path):
    (tmp_path / ".lock").write_text("process 1 on elsewhere\n" * 100)
    lock.take()
    assert (tmp_path / ".lock").read_text().count("\n") == 1


def test_without_locks_there_is_a_line(lock, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    lock.take()
    assert caplog.messages == [f"{tmp_path}: its file system has no locks: start no second run there"]


@pytest.mark.fault("overwriting", "clean error")
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda lock, mine: lock.mkdir(), "a folder, not a file"),
        (lambda lock, mine: os.mkfifo(lock), "a FIFO, not a file"),
        (lambda lock, mine: lock.symlink_to(mine), "a link, not a file"),
        (lambda lock, mine: lock.symlink_to("absent"), "a link, not a file"),
    ],
)
def test_what_is_no_lock_is_one_line(make, what, lock, tmp_path):
    (tmp_path / "mine").write_text("precious")
    make(tmp_path / ".lock", tmp_path / "mine")
    with pytest.raises(UserError) as caught:
        lock.take()
    remedy = "a run keeps its lock there; move it away, or give another folder"
    assert str(caught.value) == f"ckpt_save_dir: {tmp_path / '.lock'}: {what}; {remedy}"
    assert (tmp_path / "mine").read_text() == "precious"
    assert not (tmp_path / "absent").exists()


@pytest.mark.fault("overwriting", "ok")
def test_a_file_that_no_run_wrote_is_locked_and_keeps_its_content(lock, tmp_path):
    (tmp_path / "mine").write_text("precious")
    os.link(tmp_path / "mine", tmp_path / ".lock")
    lock.take()
    assert is_refused_elsewhere(tmp_path)
    # Not before: a process that closes a file gives its lock up.
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.fault("disk full, read-only, no permission", "clean error")
def test_a_folder_that_takes_no_file(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        FolderLock(tmp_path / "absent", "ckpt_save_dir").take()


# --- One writer of a file


def test_a_file_has_one_writer(tmp_path):
    (tmp_path / "x").write_text("mine")
    with lock_module.writing(tmp_path / "x"), lock_module.writing(tmp_path / "y"):
        with pytest.raises(UserError) as caught, lock_module.writing(tmp_path / "x"):
            pass
        assert str(caught.value) == f"{tmp_path / 'x'}: is being written by another process; wait for it to end"
    with lock_module.writing(tmp_path / "x"):
        assert (tmp_path / "x").read_text() == "mine"


@pytest.mark.fault("overwriting", "clean error")
def test_a_lock_of_a_file_that_cannot_be_made(tmp_path):
    (tmp_path / ".x.lock").mkdir()
    match = r"\.x\.lock: cannot be written \(Is a directory\); x needs it"
    with pytest.raises(UserError, match=match), lock_module.writing(tmp_path / "x"):
        pass
