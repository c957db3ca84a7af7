"""Programs of others, which are run once and end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError


def finished(
    name: str, command: Sequence[str | Path], folder: Path | None = None, seconds: int | None = None
) -> subprocess.CompletedProcess[str]:
    """A program that has ended, well or not: run with modules of its own alone, and without input.

    Args:
        name: of the program, for messages.
        command: to start it.
        folder: that it works in; None for this process's.
        seconds: that it may take; None for any time.

    Raises UserError where it does not start, or is not done in time.
    """
    own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=own,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise UserError(f"{name} does not start here: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{name} was not done after {seconds} seconds") from error


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a program has said, in 200 characters; its exit status where it has said nothing."""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit status {done.returncode}"
