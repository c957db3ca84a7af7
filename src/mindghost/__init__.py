"""GhostNet on MindSpore: training, evaluation and deployment.

Importing this package sets environment defaults that only work before MindSpore is imported, and nothing else. A value
that the user has set always wins.
"""

import importlib.metadata
import os
import platform
from pathlib import Path

__version__ = "0.1.0"


def _has_avx512() -> bool:
    """True on an x86 machine with AVX-512 (read from the Linux kernel; False where that cannot be known)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _has_onednn_3() -> bool:
    """True with MindSpore >= 2.9, found without importing it."""
    try:
        major, minor = importlib.metadata.version("mindspore").split(".")[:2]
        return (int(major), int(minor)) >= (2, 9)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


# MindSpore logs warnings by the page; 3 keeps errors only.
os.environ.setdefault("GLOG_v", "3")
# oneDNN 3.10 (MindSpore >= 2.9) runs plain-layout convolutions with its reference code on AVX-512: 100 times slower.
limits_onednn = "ONEDNN_MAX_CPU_ISA" not in os.environ and _has_avx512() and _has_onednn_3()
if limits_onednn:
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"
