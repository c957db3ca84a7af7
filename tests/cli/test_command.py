"""What all commands have in common: numbers within bounds, errors in one line, an output that nobody reads."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mindghost.config.arguments import Parser, number
from mindghost.errors import UserError
from tests.helpers.launchers import environment
from tests.helpers.places import ROOT

PRINTS = """
import sys
from mindghost.cli.command import run_program

def main():
    {lines}

run_program("prints.py", main)
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


@pytest.mark.fault("names", "ok")
def test_a_traceback_sends_nothing_to_the_terminal_that_it_obeys(tmp_path):
    found = ended("raise ValueError('a\\x1b[2Jb\\udcff')", subprocess.DEVNULL, tmp_path)
    assert found == (1, r"ValueError: a\x1b[2Jb\xff")


SAYS = """
import sys
from mindghost.cli.command import run_program

def main():
    import logging
    print(sys.getfilesystemencoding(), ascii(sys.argv[1]), sys.argv[1])
    logging.getLogger("mindghost").warning("odd: %s", "a\\nb")

run_program("says.py", main)
"""


@pytest.mark.fault("names", "ok")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"\\xf6"),
        ({"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}, b"\xf6"),
        ({"LC_ALL": "C"}, "ö".encode()),
        ({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}, "ö".encode()),
    ],
    ids=["C", "latin-1", "default", "strict"],
)
def test_names_are_utf_8_in_every_locale(settings, said, tmp_path):
    """And output is in the encoding that was asked for, with escapes for what it lacks."""
    assert_says(settings, said, tmp_path)


@pytest.mark.fault("names", "ok")
def test_names_are_utf_8_in_a_locale_of_latin_1(tmp_path):
    name = "de_DE.ISO-8859-1"
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / name)]
    if shutil.which(made[0]) is None or subprocess.run(made, capture_output=True).returncode:
        pytest.skip("no localedef, or nothing to make a locale of")
    assert_says({"LOCPATH": str(tmp_path), "LC_ALL": name}, b"\xf6", tmp_path)


def assert_says(settings: dict[str, str], said: bytes, folder: Path) -> None:
    (folder / "says.py").write_text(SAYS)
    done = subprocess.run(
        [os.fsencode(sys.executable), b"says.py", "dö".encode() + b"\xff"],
        capture_output=True,
        env={**environment(folder), **settings},
        cwd=folder,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"odd: a\\nb\n")
    assert done.stdout == b"utf-8 'd\\xf6\\udcff' d" + said + b"\\udcff\n"
