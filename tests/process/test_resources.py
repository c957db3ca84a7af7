"""What a machine has too little of is one line and status 1, wherever it shows; nothing else is taken for it."""

import errno
import subprocess
import sys
import threading

import pytest

from mindghost.errors import RunError
from mindghost.process import resources
from tests.helpers.launchers import environment
from tests.helpers.places import ROOT

FILES, MEMORY, PROCESSES = "may open no more files", "memory ran out", "no more processes or threads"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/a/b.png"), f"/a/b.png: this process {FILES}"),
        (OSError(errno.ENFILE, "Too many open files in system"), "the system can open no more files"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), PROCESSES),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
        (MemoryError(), MEMORY),
        (RuntimeError("can't start new thread"), PROCESSES),
        (RuntimeError("std::bad_alloc"), MEMORY),
        (RuntimeError("- Memory not enough:\n---\nMemory isn't enough and alloc failed, kernel name: 1"), MEMORY),
        (RuntimeError("Failed to launch multiprocessing of GeneratorDataset: Too many open files. Please"), FILES),
        (ImportError("libx.so: failed to map segment from shared object"), MEMORY),
        (ImportError("x.so: cannot open shared object file: Too many open files"), FILES),
        (OSError("libx.so: cannot open shared object file: Too many open files"), FILES),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device; make room there"),
        (OSError(errno.EFBIG, "File too large"), "File too large; make room there"),
        (OSError(errno.EIO, "Input/output error", b"/a/b"), "/a/b: Input/output error; look after that disk"),
        (OSError(errno.ENOENT, "No such file or directory", "/a/b"), None),
        (RuntimeError("something else"), None),
        (ValueError("Too many open files"), None),
        (KeyError("std::bad_alloc"), None),
    ],
)
def test_what_the_machine_lacks_is_told_from_other_errors(error, said):
    found = resources.problem(error)
    assert found is None if said is None else said in found


def test_a_full_disk_is_no_lack_that_reading_meets():
    assert resources.lacking(OSError(errno.ENOSPC, "No space left on device")) is None
    with pytest.raises(RunError, match=f"^x: this process {FILES}"):
        resources.check(OSError(errno.EMFILE, "Too many open files"), "x")


RUNS_OUT = """
import resource, sys
from mindghost.cli.command import run_program

def main():
    {lines}

run_program("p.py", main)
"""


@pytest.mark.fault("resources", "clean error")
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); bytes(1 << 31)", MEMORY),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); files = [open('/dev/null') for _ in range(9)]", FILES),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)); import subprocess; subprocess.run(['true'])", FILES),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); import sqlite3", FILES),
        ("open('/dev/full', 'w').write('x' * 99999)", "No space left on device; make room there"),
        ("raise BlockingIOError(11, 'Resource temporarily unavailable')", PROCESSES),
    ],
    ids=["memory", "files", "subprocess", "import", "disk", "processes"],
)
def test_a_command_that_runs_out_ends_with_one_line(lines, said, tmp_path):
    command = [sys.executable, "-c", RUNS_OUT.format(lines=lines)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("p.py: error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_fault_of_the_code_keeps_its_traceback(tmp_path):
    command = [sys.executable, "-c", RUNS_OUT.format(lines="[].pop()")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "IndexError: pop from empty list"


def train(folder, data, *prefix: str, workers: int = 2) -> subprocess.CompletedProcess:
    """A training of one epoch by a shell that has set limits."""
    options = "--model ghostnet_050 --image_resize 32 --batch_size 4 --epoch_size 1 --warmup_epochs 0"
    command = [
        sys.executable,
        "tests/helpers/short.py",
        "train.py",
        *options.split(),
        "--num_parallel_workers",
        str(workers),
    ]
    command += ["--data_dir", str(data), "--ckpt_save_dir", str(folder / "run"), "--val_while_train", "False"]
    shell = ["sh", "-c", f'{"; ".join(prefix)}; exec "$@"', "sh", *command]
    return subprocess.run(
        shell, capture_output=True, text=True, env=environment(folder), cwd=ROOT, timeout=300, check=False
    )


@pytest.mark.slow
@pytest.mark.fault("resources", "ok")
@pytest.mark.parametrize("limit", ["ulimit -n 20", "ulimit -n 32"])
def test_training_with_few_files(limit, images, tmp_path):
    done = train(tmp_path, images, limit)
    assert done.returncode == 0, done.stderr
    assert "few files may be open, enough for 1 worker(s)" in done.stdout
    assert done.stderr == ""


@pytest.mark.fault("resources", "clean error")
@pytest.mark.parametrize("kilobytes", [400_000, 700_000])
def test_too_little_memory_for_mindspore_itself(kilobytes, images, tmp_path):
    line = f'ulimit -v {kilobytes}; exec "$@"'
    command = ["sh", "-c", line, "sh", sys.executable, "train.py", "--data_dir", str(images)]
    command += ["--ckpt_save_dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"train.py: error: {MEMORY}")
    assert "Traceback" not in done.stderr


def test_threads_that_can_be_started_are_gone_again(monkeypatch):
    before = threading.active_count()
    resources.try_threads(20)
    assert threading.active_count() == before
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) == 5:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        resources.try_threads(20)
    assert threading.active_count() == before


@pytest.mark.slow
@pytest.mark.fault("resources", "clean error")
def test_training_with_few_threads(images, tmp_path):
    """As `ulimit -u`, to which root does not keep: memory for the stacks of a few threads."""
    done = train(tmp_path, images, "ulimit -s 131072", "ulimit -v 1900000", workers=1)
    assert done.returncode == 1
    assert done.stderr == (
        "train.py: error: no more processes or threads can be started; end others, or raise the limit "
        "(ulimit -u; -v: memory)\n"
    )
