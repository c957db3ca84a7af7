"""Output that can't be written: a training goes on, a short command ends with one line, and nobody sees a traceback."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.launchers import environment
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT
from tests.system.fault.runs import saved_step

FULL = "/dev/full"
STEPS = 3
TRAIN = [
    *("--model", "ghostnet_050", "--image_resize", "32", "--batch_size", "8", "--epoch_size", "3"),
    *("--warmup_epochs", "0", "--num_parallel_workers", "2"),
]


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> list[str]:
    """A short training, but for its folder; without docstrings (-OO), which have no part in anything."""
    root = write_images(tmp_path_factory.mktemp("images"), ("ant", "bee", "cat"), train_images=8, val_images=3)
    return [
        sys.executable,
        "-OO",
        "tests/helpers/short.py",
        "train.py",
        "--data_dir",
        str(root),
        *TRAIN,
        "--ckpt_save_dir",
    ]


def logged(folder: Path) -> list[str]:
    """What the run's log says, without times."""
    return [text.split(" ", 2)[2] for text in (folder / "train.log").read_text().splitlines()]


def assert_is_whole(folder: Path) -> None:
    lines = logged(folder)
    assert [text.split()[1] for text in lines if text.startswith("epoch ")] == ["1/3", "2/3", "3/3"]
    assert lines[-2] == f"last weights: {folder / 'ghostnet_050_last.ckpt'}"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.fault("output", "ok")
def test_a_training_outlives_its_terminal(line, tmp_path):
    """The terminal is closed at the first epoch's line, when that epoch is saved already."""
    folder = tmp_path / "run"
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execve(line[0], [*line, str(folder)], environment(tmp_path))
    shown = b""
    while b"epoch 1/3  loss" not in shown:
        assert select.select([terminal], [], [], 120)[0], shown
        shown += os.read(terminal, 1 << 16)
    saved = saved_step(folder)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert saved == STEPS
    assert_is_whole(folder)
    assert any(text.startswith("the terminal was closed (SIGHUP): the run goes on") for text in logged(folder))


@pytest.mark.fault("output", "ok")
def test_a_training_without_any_stream(line, tmp_path):
    """A full disk behind standard output; standard error and standard input are closed. The shell has variables of MPI
    left over, and OMP_NUM_THREADS."""
    folder = tmp_path / "run"
    variables = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMP_NUM_THREADS": "1"}
    command = ["sh", "-c", 'exec "$@" >/dev/full 2>&- <&-', "sh", *line, str(folder)]
    # Above it is no launcher: a new session's shell is enough, since this process has none above it either.
    done = subprocess.run(command, env=environment(tmp_path, **variables), cwd=ROOT, timeout=300)
    assert done.returncode == 0
    assert_is_whole(folder)
    lines = logged(folder)
    assert sum("standard output cannot be written (No space left on device): the run goes on" in t for t in lines) == 1
    assert any("OMPI_COMM_WORLD_SIZE is set, but no launcher started this process" in text for text in lines)
    assert any(text.endswith("1 thread(s)") for text in lines)


PRINTS = """
import sys
from mindghost.cli.command import run_program

def main():
    {lines}

run_program("prints.py", main)
"""
MANY = "[print('line', number) for number in range(100_000)]"


def ended(lines: str, redirections: str, folder: Path, **variables: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command with these lines, as a shell starts it."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", PRINTS.format(lines=lines)]
    done = subprocess.run(
        command, capture_output=True, env=environment(folder, **variables), cwd=ROOT, timeout=60, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.fault("output", "clean error")
@pytest.mark.parametrize("lines", ["print(1)", MANY, "print(1, flush=True)", "print(1); raise SystemExit(0)"])
def test_a_full_disk_ends_a_short_command_with_one_line(lines, tmp_path):
    wanted = "prints.py: error: standard output cannot be written (No space left on device)\n"
    assert ended(lines, f">{FULL}", tmp_path) == (1, "", wanted)


@pytest.mark.fault("output", "clean error")
def test_a_closed_output_ends_a_short_command_with_one_line(tmp_path):
    wanted = "prints.py: error: standard output cannot be written (it is closed)\n"
    assert ended("print(1)", ">&-", tmp_path) == (1, "", wanted)


@pytest.mark.fault("output", "ok")
@pytest.mark.parametrize("redirection", [f"2>{FULL}", "2>&-"])
def test_what_standard_error_does_not_take_is_dropped(redirection, tmp_path):
    assert ended("print(1); print('to nobody', file=sys.stderr)", redirection, tmp_path) == (0, "1\n", "")
    failing = "from mindghost.errors import UserError; raise UserError('to nobody')"
    assert ended(failing, redirection, tmp_path) == (2, "", "")


@pytest.mark.fault("output", "clean error")
def test_a_command_without_any_stream_ends_with_its_status(tmp_path):
    assert ended("print(1)", ">&- 2>&- <&-", tmp_path) == (1, "", "")
    assert ended("print(repr(sys.stdin.read()))", "<&-", tmp_path) == (0, "''\n", "")


@pytest.mark.fault("output", "ok")
def test_a_file_never_gets_the_number_of_a_stream_that_was_closed(tmp_path):
    """What is printed would land in it."""
    file = tmp_path / "weights"
    lines = f"file = open({str(file)!r}, 'wb', 0); print('text'); print('text', file=sys.stderr); file.write(b'w')"
    ended(lines, ">&- 2>&- <&-", tmp_path)
    assert file.read_bytes() in (b"", b"w")


@pytest.mark.fault("output", "ok")
@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", rb"caf\xe9 \u4e2d"), ("latin-1", b"caf\xe9 \\u4e2d"), ("utf-8", None)]
)
def test_what_an_encoding_lacks_is_escaped(encoding, expected, tmp_path):
    text = "caf\u00e9 \u4e2d"
    lines = f"print({text!a}); print({text!a}, file=sys.stderr)"
    command = [sys.executable, "-c", PRINTS.format(lines=lines)]
    variables = {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, env=environment(tmp_path, **variables), cwd=ROOT, timeout=60)
    expected = text.encode() if expected is None else expected
    assert (done.returncode, done.stdout, done.stderr) == (0, expected + b"\n", expected + b"\n")


@pytest.mark.fault("environments", "clean error")
def test_a_current_folder_that_is_gone(tmp_path):
    lines = PRINTS.format(lines="print(1)")
    command = ["sh", "-c", 'mkdir "$1" && cd "$1" && rmdir "$1" && exec "$2" -c "$3"', "sh", tmp_path / "gone"]
    done = subprocess.run([*command, sys.executable, lines], capture_output=True, env=environment(tmp_path), text=True)
    wanted = "the current folder cannot be used (No such file or directory); change to one that is there"
    assert (done.returncode, done.stderr) == (2, f"prints.py: error: {wanted}\n")


@pytest.mark.fault("output", "ok")
def test_another_error_keeps_its_traceback(tmp_path):
    status, _, errors = ended("raise OSError(71, 'of a file')", "", tmp_path)
    assert status == 1
    assert errors.startswith("Traceback")
    assert errors.endswith("OSError: [Errno 71] of a file\n")


@pytest.mark.fault("output", "ok")
def test_a_terminal_that_takes_no_more_for_now_is_waited_for(tmp_path):
    """Standard output is non-blocking, as other programs leave it, and its reader is slow."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-c", PRINTS.format(lines=MANY)]
    process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, env=environment(tmp_path), cwd=ROOT)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read().count(b"\n") == 100_000
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.fault("output", "clean error")
def test_commands_that_leave_early_say_what_they_could_not_write(tmp_path):
    """`--help` and `--print_config`."""
    lines = {
        "train.py": ["train.py", "--print_config"],
        "mindghost predict": ["-m", "mindghost", "predict", "--help"],
        "mindghost": ["-m", "mindghost"],
    }
    for name, arguments in lines.items():
        with open(FULL, "wb") as full:
            done = subprocess.run(
                [sys.executable, *arguments], stdout=full, stderr=subprocess.PIPE, env=environment(tmp_path), cwd=ROOT
            )
        wanted = f"{name}: error: standard output cannot be written (No space left on device)\n"
        assert (done.returncode, done.stderr.decode()) == (1, wanted)
