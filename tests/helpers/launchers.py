"""Real launchers for the tests: mpirun and msrun of this environment, and what they leave behind."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mindghost.files.cache import cache_dir
from tests.helpers.places import ROOT

BIN = Path(sys.executable).parent


def environment(home: Path, **extra: str) -> dict[str, str]:
    """Little but the paths, so that nothing of the machine's settings helps or harms.

    mpirun keeps its session in `home`: in /tmp it is named by process number, and a killed one's is left there. The
    cache is the user's: the native operators are not built for each test.
    """
    paths = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin"}
    folders = {"HOME": str(home), "TMPDIR": "/tmp", "PRTE_MCA_prte_tmpdir_base": str(home)}
    return {**paths, **folders, "MINDGHOST_HOME": str(cache_dir()), **extra}


def cache_with_libraries(folder: Path) -> Path:
    """A cache of a test's own, with the native libraries of the user's: to build them takes ten seconds each time."""
    if (libraries := cache_dir() / "native").is_dir() and not (folder / "native").exists():
        shutil.copytree(libraries, folder / "native", ignore=shutil.ignore_patterns(".*"))
    return folder


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


def children_of(parent: int) -> list[int]:
    """The processes that a process has started, the oldest first: the data workers of a run, and what watches them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, owner = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(owner) == parent and state != "Z":
            found.append(int(folder.name))
    return sorted(found)


class Process:
    """A command that is watched while it runs, in a process group of its own, as a terminal starts it.

    Leaving the `with` block kills what is left of the group.

    Args:
        command: program and arguments.
        home: see `environment`.
        largest_file: in bytes, beyond which the system refuses to write (RLIMIT_FSIZE); None for no limit.

    Attributes:
        pid: of the process, and of its group.
        lines: what it has printed so far.
        error: all of its standard error, once it has ended.
    """

    def __init__(self, command: list[str], home: Path, largest_file: int | None = None) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(home),
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=None if largest_file is None else limit,
        )
        self.pid = self._process.pid
        self.lines: list[str] = []
        self.error = ""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_error)]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def _read_error(self) -> None:
        self.error = self._process.stderr.read()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 300) -> None:
        """Wait until a condition holds. Fails where the process ends before, or takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            said = "\n".join([*self.lines[-3:], self.error])
            assert self.runs, f"ended before {what}:\n{said}"
            assert time.monotonic() < deadline, f"no {what} in {seconds} s:\n{said}"
            time.sleep(0.001)

    def wait_for_line(self, text: str) -> None:
        """Wait until it has printed a line with this text."""
        self.wait_for(lambda: any(text in line for line in self.lines), f"a line with {text!r}")

    def send(self, number: int, group: bool = False) -> None:
        """Send a signal: to the process, or as a terminal does to its whole group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def end(self, seconds: float) -> int:
        """Exit status, which has to come within so many seconds; negative for a signal."""
        status = self._process.wait(seconds)
        for reader in self._readers:
            reader.join(10)
        return status
