"""The commands as a user types them: in a process of their own, or in this one, which saves the start."""

import os
import runpy
import subprocess
import sys

import pytest

from mindghost.cli.command import run_command
from tests.helpers.places import ROOT


def flags(**keys) -> list[str]:
    return [part for key, value in keys.items() for part in (f"--{key}", str(value))]


def process(*arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)


def command(main, program, *arguments, monkeypatch, capsys) -> tuple[int, str]:
    """Exit status and standard error of an entry point, without the seconds that a process takes to start."""
    monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
    capsys.readouterr()
    status = run_command(program, main)
    return status, capsys.readouterr().err


def run_script(name: str, monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    return exit_info.value.code
