"""The commands as a user types them: in a process of their own, or in this one, which saves the start."""

import os
import subprocess
import sys

from mindghost.cli import main
from mindghost.cli.command import run_command
from tests.helpers.places import ROOT


def flags(**keys) -> list[str]:
    return [part for key, value in keys.items() for part in (f"--{key}", str(value))]


def process(*arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)


def command(entry, program, *arguments, monkeypatch, capsys) -> tuple[int, str]:
    """Exit status and standard error of an entry point, without the seconds that a process takes to start."""
    monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
    capsys.readouterr()
    status = run_command(program, entry)
    return status, capsys.readouterr().err


def run_mindghost(*words: object) -> int:
    """Exit status of `mindghost WORDS`, in this process."""
    return main.run(list(map(str, words)))
