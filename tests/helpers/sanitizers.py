"""Programs that test our C++ code: how they are built, under sanitizers and for other processors, and what they say."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from mindghost.csrc.cpp_library import CppLibrary

on_aarch64 = pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="no cross compiler and emulator (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)",
)


def sanitizer_flags(compiler: list[str], sanitizer: str, folder: Path) -> tuple[str, ...]:
    """A compiler's flags for a sanitizer; skips the test where its programs do not run."""
    flags = ("-std=c++17", "-O1", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    (folder / "probe.cpp").write_text("int main() {}")
    probe = [*compiler, *flags, str(folder / "probe.cpp"), "-o", str(folder / "probe")]
    if subprocess.run(probe, capture_output=True).returncode or subprocess.run([folder / "probe"]).returncode:
        pytest.skip(f"no {sanitizer} sanitizer")
    return flags


def built(test: Path, with_: CppLibrary, compiler: list[str], flags: tuple[str, ...], folder: Path) -> Path:
    """A program of tests, linked with the parts of a library."""
    commands = with_.commands(compiler, folder, flags)
    commands.append([*compiler, *flags, f"-I{with_.folder}", "-c", str(test), "-o", str(folder / "test.o")])
    for process in [subprocess.Popen(command) for command in commands]:
        assert process.wait() == 0
    objects = [str(path) for path in folder.glob("*.o")]
    subprocess.run([*compiler, *flags, *objects, "-o", str(folder / "test")], check=True)
    return folder / "test"


def assert_no_failures(command: Sequence[str | Path]) -> None:
    """Run such a program."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failures" in done.stdout
