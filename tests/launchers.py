"""Real launchers for the tests: mpirun and msrun of this environment, and what they leave behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def environment(home: Path, **extra: str) -> dict[str, str]:
    """Little but the paths, so that nothing of the machine's settings helps or harms."""
    path = f"{BIN}:/usr/local/bin:/usr/bin:/bin"
    return {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": path, "HOME": str(home), "TMPDIR": "/tmp", **extra}


def mpirun_command(ranks: int, *arguments: object) -> list[str]:
    """`mpirun -n RANKS python ARGUMENTS`, on a machine with too few cores too, and as root."""
    as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    python = [sys.executable, *map(str, arguments)]
    return [str(BIN / "mpirun"), *as_root, "--oversubscribe", "-n", str(ranks), *python]


def run(
    command: list[str], home: Path, timeout: float = 300, cores: set[int] | None = None, **extra: str
) -> subprocess.CompletedProcess:
    """Run a command to its end; on these cores alone, if given."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(home, **extra),
        cwd=ROOT,
        check=False,
        preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
    )


def processes_with(mark: str) -> list[int]:
    """Processes that have `mark` in their command line or environment: those of a run, workers and scheduler too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in text and state != "Z" and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def wait_until_gone(mark: str, seconds: float) -> list[int]:
    """The processes with this mark that are left after so many seconds; none as soon as there are none."""
    deadline = time.monotonic() + seconds
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
