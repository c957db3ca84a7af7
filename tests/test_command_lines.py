"""What all commands have in common: numbers within bounds, errors in one line, an output that nobody reads."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ghostnet.arguments import Parser, number
from ghostnet.errors import UserError
from tests.launchers import ROOT, environment

PRINTS = """
import sys
from ghostnet.cli import run_command

def main():
    {lines}

sys.exit(run_command("prints.py", main))
"""


@pytest.mark.parametrize(
    ("kind", "text", "value"), [(int, "1", 1), (int, "4096", 4096), (float, "0.5", 0.5), (float, "1e1", 10.0)]
)
def test_numbers_within_their_bounds(kind, text, value):
    assert number(kind, 0.5 if kind is float else 1, 4096)(text) == value


@pytest.mark.parametrize("text", ["0", "4097", "1.5", "x", "", "-1", "nan"])
def test_numbers_out_of_their_bounds(text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        number(int, 1, 4096)(text)
    assert str(caught.value) == f"expected an integer from 1 to 4,096, got {text!r}"


def test_no_number_of_a_share_is_nan():
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number from 0 to 100, got 'nan'"):
        number(float, 0, 100)("nan")


def test_a_wrong_argument_is_one_line():
    parser = Parser(prog="p")
    parser.add_argument("--top_k", type=number(int, 1, 9))
    with pytest.raises(UserError) as caught:
        parser.parse_args(["--top_k", "x"])
    expected = "--top_k: expected an integer from 1 to 9, got 'x'; --help explains the command line"
    assert str(caught.value) == expected


def ended(lines: str, output: int, folder: Path) -> tuple[int, str]:
    """Exit status and last line on standard error of a command with these lines."""
    command = [sys.executable, "-c", PRINTS.format(lines=lines)]
    done = subprocess.run(
        command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment(folder), cwd=ROOT, timeout=60
    )
    return done.returncode, done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("lines", ["[print(line) for line in range(100_000)]", "print(1)"])
def test_a_reader_that_leaves(lines, tmp_path):
    """Its end of the pipe is closed before anything is printed."""
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        assert ended(lines, ours, tmp_path) == (128 + signal.SIGPIPE, "")
    finally:
        os.close(ours)


def test_another_pipe_that_breaks_keeps_its_traceback(tmp_path):
    found = ended("raise BrokenPipeError(32, 'of another pipe')", subprocess.DEVNULL, tmp_path)
    assert found == (1, "BrokenPipeError: [Errno 32] of another pipe")
