"""C++ sources as a shared library: compiled at first use with the system's compiler, kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .download import cache_dir, locked

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-pthread")
_COMPILERS = ("c++", "g++", "clang++")
# nodelete: a library's threads live as long as the process, whoever unloads it.
_LINK_FLAGS = ("-shared", "-pthread", "-Wl,-z,nodelete")
_TIMEOUT = 600  # seconds for one file


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
        version is ever taken for it. Of several processes one builds, the others wait.

        Raises NativeError where there is no compiler, or where it fails.
        """
        compiler = system_compiler()
        target = cache_dir() / "native" / f"{self.name}-{self.digest(compiler)}.so"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target):
                if not target.is_file():
                    self._build(compiler, target)
        except OSError as error:
            raise NativeError(f"{target}: {error.strerror or error}") from error
        return target

    def commands(self, compiler: list[str], folder: Path, flags: tuple[str, ...] = FLAGS) -> list[list[str]]:
        """Commands that make an object file of each source, in `folder`; independent of each other."""
        return [
            [*compiler, *flags, *options, "-c", str(source), "-o", str(folder / f"{name}.o")]
            for name, (source, options) in self.units.items()
        ]

    def digest(self, compiler: list[str]) -> str:
        """Changes with anything that the library is made of."""
        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
        options = {name: options for name, (_, options) in self.units.items()}
        parts = [platform.machine(), shlex.join(compiler), version.stdout]
        parts.append(repr((FLAGS, _LINK_FLAGS, self.linked, options)))
        parts += [f"{source.name} {source.read_text()}" for source in sorted(self.folder.glob("*.[ch]*"))]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def _build(self, compiler: list[str], target: Path) -> None:
        """Compile and link beside the target; it appears under its name only when it is complete."""
        with tempfile.TemporaryDirectory(prefix=".build.", dir=target.parent) as temporary:
            folder = Path(temporary)
            running = [
                subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
                )
                for command in self.commands(compiler, folder)
            ]
            try:
                for process in running:
                    _check(process, process.communicate(timeout=_TIMEOUT)[1])
                objects = [str(path) for path in sorted(folder.glob("*.o"))]
                made = folder / target.name
                command = [*compiler, *_LINK_FLAGS, *objects, *self.linked, "-o", str(made)]
                link = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
                _check(link, link.stderr)
            except subprocess.TimeoutExpired as error:
                raise NativeError(f"{compiler[0]} takes over {_TIMEOUT} seconds") from error
            finally:
                for process in running:
                    process.kill()
                    process.wait()
                    process.stderr.close()
            self.load(made)
            os.replace(made, target)


def system_compiler() -> list[str]:
    """The system's C++ compiler as the beginning of a command: $CXX, else the first one that there is.

    Raises NativeError where there is none.
    """
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [[name] for name in _COMPILERS]:
        if shutil.which(command[0]):
            return command
    if chosen:
        raise NativeError(f"CXX: there is no program {chosen[0]}")
    raise NativeError(f"no C++ compiler ({', '.join(_COMPILERS)})")


def one_line(text: str) -> str:
    """The beginning of a message, without line breaks."""
    return " ".join(text.split())[:200]


def _check(process: subprocess.Popen | subprocess.CompletedProcess, errors: str) -> None:
    if process.returncode != 0:
        lines = [line for line in errors.splitlines() if "error" in line] or errors.splitlines()
        raise NativeError(f"{shlex.join(process.args[:1])} failed: {one_line(lines[0] if lines else 'no message')}")
