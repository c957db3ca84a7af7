"""How a run was made: command line, machine, versions. The entries of a `run.json`, one for each process of the run."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from ..files import json_text, paths
from ..process import launch
from ..process.display import shell

_GIT_TIMEOUT = 10  # seconds


def read(file: Path) -> list[Any]:
    """The entries of a `run.json`, at least one. Raises UserError where it cannot be read, or holds none."""
    if not paths.exists(file):
        raise UserError(f"{file}: no such file; train.py writes it, so give a run that it made since it does")
    found = json_text.read(file, "restore the one that training wrote")
    if not isinstance(found, list) or not found:
        raise UserError(f"{file}: expected a list with an entry for each process; restore the one that training wrote")
    return found


def session(device: str) -> dict[str, Any]:
    """What made this process's part of a run.

    Args:
        device: "CPU", "Ascend" or "GPU".

    Returns `command`, `started` (local time, ISO 8601), `device`, `ranks`, `cpu`, `cores` (that this process may use),
    `platform`, `versions` by package, `commit` (of this project; None where it is not run from its repository).
    """
    return {
        "command": command_line(sys.argv),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": device,
        "ranks": launch.detect().ranks,
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "versions": versions(),
        "commit": commit(Path(__file__).parent),
    }


def command_line(arguments: list[str]) -> str:
    """The shell command that started a program; of a launcher's options, the number of ranks alone is known.

    `arguments` are `sys.argv` of a Python file, of `mindghost`, or of `python -m mindghost`.
    """
    found = launch.detect()
    starts = {None: [], "mpirun": [f"mpirun -n {found.ranks}"], "msrun": [f"msrun --worker_num={found.ranks}"]}
    file, *words = arguments
    if Path(file).name == "mindghost" and found.launcher != "msrun":
        program = ["mindghost"]
    elif Path(file).name == "mindghost" or Path(file).parts[-2:] == ("mindghost", "__main__.py"):
        program = ["python -m mindghost"]
    else:
        # msrun starts Python itself.
        program = [shell(file)] if found.launcher == "msrun" else ["python", shell(file)]
    return " ".join([*starts[found.launcher], *program, *map(shell, words)])


def versions() -> dict[str, str]:
    """Versions of Python, this project and what it computes with; packages that are not installed are left out."""
    import mindspore

    # MindSpore by what is imported: its package has other names for other devices.
    found = {"python": platform.python_version(), "ghostnet": __version__, "mindspore": mindspore.__version__}
    for package in ("mindcv", "numpy", "pillow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    """The processor's name; its architecture where the system has no name (Linux on Arm)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit(folder: Path) -> str | None:
    """The git commit of the source in `folder`, with "-dirty" where it was changed; None where git does not know it."""
    # Installed into another project's tree, it is not that project's commit.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it is missing or fails."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
