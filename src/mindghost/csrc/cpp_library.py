"""C++ sources as a shared library: compiled at first use with the system's compiler, kept in the user's cache.

A library has its sha256 beside it, and is compared with it before it is loaded: half a file, or one with a flipped bit,
would end the process with a signal, or compute something else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ..errors import RunError, UserError
from ..files import intact, paths, scratch
from ..files.cache import cache_dir, locked

log = logging.getLogger("mindghost")

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-pthread")
_COMPILERS = ("c++", "g++", "clang++")
# nodelete: a library's threads live as long as the process, whoever unloads it.
_LINK_FLAGS = ("-shared", "-pthread", "-Wl,-z,nodelete")
_TIMEOUT = 600  # seconds for one file
# Runs a command for as long as somebody has the other end of its standard input. Once the process that builds has
# ended, by whatever signal, the folder $0 goes, and all of this process group ends (a compiler is several processes),
# by SIGKILL: a run has other signals blocked, and so have its children.
_FOR_US = """
exec 3<&0 </dev/null
(read -r _ <&3; rm -rf -- "$0" || rm -rf -- "$0"; kill -KILL 0) >/dev/null 2>&1 &
watcher=$!
"$@" 3<&-
status=$?
kill -KILL "$watcher"
exit "$status"
"""


class NativeError(Exception):
    """Why there is no library, in one line."""


@dataclass(frozen=True)
class CppLibrary:
    """What a library is made of.

    Attributes:
        name: of its file in the cache, before the digest.
        folder: whose sources and headers it depends on.
        units: names of its object files -> the source of each, and its macros and flags.
        load: loads the library from its path into this process, or raises NativeError.
        linked: options for libraries of the system.
    """

    name: str
    folder: Path
    units: dict[str, tuple[Path, tuple[str, ...]]]
    load: Callable[[Path], object]
    linked: tuple[str, ...] = ()

    def build(self) -> Path:
        """The library for this machine, built unless this very one has been built before.

        It is kept in the `native` folder of the cache, under a digest of sources, compiler and flags, so that no other
        version is ever taken for it. Of several processes one builds, the others wait; one that is there is taken from
        a cache that cannot be written, too, and a damaged one is built again.

        Raises NativeError where there is no compiler, or where it fails.
        """
        compiler = system_compiler()
        target = cache_dir() / "native" / f"{self.name}-{self.digest(compiler)}.so"
        if _is_intact(target):
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target):
                if not _is_intact(target):
                    if intact.sidecar(target).is_file():
                        log.warning(f"{target}: damaged; it is built again")
                    self._build(compiler, target)
        except OSError as error:
            raise NativeError(f"{target}: {error.strerror or error}") from error
        except (UserError, RunError) as error:
            raise NativeError(str(error)) from error
        return target

    def commands(self, compiler: list[str], folder: Path, flags: tuple[str, ...] = FLAGS) -> list[list[str]]:
        """Commands that make an object file of each source, in `folder`; independent of each other."""
        return [
            [*compiler, *flags, *options, "-c", str(source), "-o", str(folder / f"{name}.o")]
            for name, (source, options) in self.units.items()
        ]

    def digest(self, compiler: list[str]) -> str:
        """Changes with anything that the library is made of. Raises NativeError where the compiler has no version."""
        try:
            version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            raise NativeError(f"{compiler[0]} --version: {one_line(str(error))}") from error
        options = {name: options for name, (_, options) in self.units.items()}
        parts = [platform.machine(), shlex.join(compiler), version.stdout]
        parts.append(repr((FLAGS, _LINK_FLAGS, self.linked, options)))
        parts += [
            f"{source.name} {source.read_text(encoding='utf-8')}" for source in sorted(self.folder.glob("*.[ch]*"))
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _build(self, compiler: list[str], target: Path) -> None:
        """Compile and link beside the target; it appears under its name only when it is complete."""
        with scratch.folder("build", near=target.parent) as folder:
            made = folder / target.name
            objects = [str(folder / f"{name}.o") for name in self.units]
            with _running(self.commands(compiler, folder), folder) as running:
                _wait(running)
            link = [*compiler, *_LINK_FLAGS, *sorted(objects), *self.linked, "-o", str(made)]
            with _running([link], folder) as running:
                _wait(running)
            self.load(made)
            intact.write_with_sidecar(target, made.read_bytes())


def _is_intact(library: Path) -> bool:
    if not (paths.is_file(library) and paths.is_file(intact.sidecar(library))):
        return False
    try:
        intact.read_intact(library)
    except UserError:
        return False
    return True


@contextmanager
def _running(commands: list[list[str]], folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Commands that run at once, and not longer than the `with` block or this process; they leave files in `folder`."""
    theirs, ours = os.pipe()
    # Their temporary files, too, which a compiler that is killed leaves behind.
    environment = {**os.environ, "TMPDIR": str(folder)}
    processes: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            processes.append(
                subprocess.Popen(
                    ["/bin/sh", "-c", _FOR_US, str(folder), *command],
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env=environment,
                    start_new_session=True,
                )
            )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
        os.close(theirs)
        os.close(ours)


def _wait(processes: list[subprocess.Popen[str]]) -> None:
    """Raise NativeError unless all commands succeed in time."""
    for process in processes:
        name = cast("list[str]", process.args)[4]
        try:
            errors = process.communicate(timeout=_TIMEOUT)[1]
        except subprocess.TimeoutExpired as error:
            raise NativeError(f"{name} takes over {_TIMEOUT} seconds") from error
        if process.returncode != 0:
            lines = [line for line in errors.splitlines() if "error" in line] or errors.splitlines()
            raise NativeError(f"{shlex.join([name])} failed: {one_line(lines[0] if lines else 'no message')}")


def system_compiler() -> list[str]:
    """The system's C++ compiler as the beginning of a command: $CXX, else the first one that there is.

    Raises NativeError where there is none.
    """
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise NativeError(f"CXX: {os.environ['CXX']!r} is no command ({error})") from error
    for command in [chosen] if chosen else [[name] for name in _COMPILERS]:
        if shutil.which(command[0]):
            return command
    if chosen:
        raise NativeError(f"CXX: there is no program {chosen[0]}")
    raise NativeError(f"no C++ compiler ({', '.join(_COMPILERS)})")


def one_line(text: str) -> str:
    """The beginning of a message, without line breaks."""
    return " ".join(text.split())[:200]
