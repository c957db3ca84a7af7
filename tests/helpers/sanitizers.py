"""Sanitizers of the C++ compiler."""

import subprocess
from pathlib import Path

import pytest


def sanitizer_flags(compiler: list[str], sanitizer: str, folder: Path) -> tuple[str, ...]:
    """A compiler's flags for a sanitizer; skips the test where its programs do not run."""
    flags = ("-std=c++17", "-O1", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    (folder / "probe.cpp").write_text("int main() {}")
    probe = [*compiler, *flags, str(folder / "probe.cpp"), "-o", str(folder / "probe")]
    if subprocess.run(probe, capture_output=True).returncode or subprocess.run([folder / "probe"]).returncode:
        pytest.skip(f"no {sanitizer} sanitizer")
    return flags
