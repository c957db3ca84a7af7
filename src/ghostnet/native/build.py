"""The C++ operators as a library: compiled at first use with the system's compiler, then kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..download import cache_dir, locked

SOURCES = Path(__file__).parent
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-pthread")
# nodelete: the library's threads live as long as the process, whoever unloads it.
_LINK_FLAGS = ("-shared", "-pthread", "-Wl,-z,nodelete")
_TIMEOUT = 600  # seconds for one file


class NativeError(Exception):
    """Why there is no library, in one line."""


def library() -> Path:
    """The library for this machine, built unless this very one has been built before.

    It is kept in the `native` folder of the cache, under a digest of sources, compiler and flags, so that no other
    version is ever taken for it. Of several processes one builds, the others wait.

    Raises NativeError where there is no compiler, or where it fails.
    """
    compiler = _compiler()
    target = cache_dir() / "native" / f"libghostnet-{_digest(compiler)}.so"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not target.is_file():
                _build(compiler, target)
    except OSError as error:
        raise NativeError(f"{target}: {error.strerror or error}") from error
    return target


def load(path: Path, threads: int) -> str:
    """Load the library into this process, to run on so many threads. Returns the instruction set that it chose.

    Raises NativeError where the file is no library of ours.
    """
    try:
        functions = ctypes.CDLL(str(path))
        functions.ghostnet_kernels.restype = ctypes.c_char_p
        functions.ghostnet_set_threads(threads)
        return functions.ghostnet_kernels().decode()
    except (OSError, AttributeError) as error:
        raise NativeError(f"{path} cannot be loaded ({_line(str(error))}); delete it") from error


def variants(machine: str = platform.machine()) -> dict[str, tuple[str, ...]]:
    """Instruction sets that the loops are compiled for -> their flags and macros; the best one is taken at run time."""
    found = {"baseline": ("-DGHOSTNET_WIDTH=4",)}
    if machine in ("x86_64", "AMD64"):
        found["avx2"] = ("-mavx2", "-mfma", "-DGHOSTNET_WIDTH=8")
    return found


def commands(
    compiler: list[str], folder: Path, flags: tuple[str, ...] = _FLAGS, machine: str = platform.machine()
) -> list[list[str]]:
    """Commands that make an object file of each source, in `folder`; independent of each other."""
    has = [f"-DGHOSTNET_{name.upper()}" for name in variants(machine) if name != "baseline"]
    units = {source.stem: (source, has) for source in sorted(SOURCES.glob("*.cpp")) if source.stem != "kernels"}
    for name, options in variants(machine).items():
        macros = [*options, f"-DGHOSTNET_KERNELS=kernels_{name}", f'-DGHOSTNET_NAME="{name}"']
        units[f"kernels_{name}"] = (SOURCES / "kernels.cpp", macros)
    return [
        [*compiler, *flags, *macros, "-c", str(source), "-o", str(folder / f"{name}.o")]
        for name, (source, macros) in units.items()
    ]


def _compiler() -> list[str]:
    """The system's C++ compiler as the beginning of a command: $CXX, else the first one that there is."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [[name] for name in _COMPILERS]:
        if shutil.which(command[0]):
            return command
    if chosen:
        raise NativeError(f"CXX: there is no program {chosen[0]}")
    raise NativeError(f"no C++ compiler ({', '.join(_COMPILERS)})")


def _digest(compiler: list[str]) -> str:
    """Changes with anything that the library is made of."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
    parts = [platform.machine(), shlex.join(compiler), version.stdout, repr((_FLAGS, _LINK_FLAGS, variants()))]
    parts += [f"{source.name} {source.read_text()}" for source in sorted(SOURCES.glob("*.[ch]*"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(compiler: list[str], target: Path) -> None:
    """Compile and link beside the target; it appears under its name only when it is complete."""
    with tempfile.TemporaryDirectory(prefix=".build.", dir=target.parent) as temporary:
        folder = Path(temporary)
        running = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
            for command in commands(compiler, folder)
        ]
        try:
            for process in running:
                _check(process, process.communicate(timeout=_TIMEOUT)[1])
            objects = [str(path) for path in sorted(folder.glob("*.o"))]
            made = folder / target.name
            command = [*compiler, *_LINK_FLAGS, *objects, "-o", str(made)]
            link = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
            _check(link, link.stderr)
        except subprocess.TimeoutExpired as error:
            raise NativeError(f"{compiler[0]} takes over {_TIMEOUT} seconds") from error
        finally:
            for process in running:
                process.kill()
                process.wait()
                process.stderr.close()
        load(made, 1)
        os.replace(made, target)


def _check(process: subprocess.Popen | subprocess.CompletedProcess, errors: str) -> None:
    if process.returncode != 0:
        lines = [line for line in errors.splitlines() if "error" in line] or errors.splitlines()
        raise NativeError(f"{shlex.join(process.args[:1])} failed: {_line(lines[0] if lines else 'no message')}")


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
