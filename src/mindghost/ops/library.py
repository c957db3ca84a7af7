"""The C++ operators as a library."""

from __future__ import annotations

import ctypes
import logging
import platform
from pathlib import Path

from ..config import Config
from ..csrc.cpp_library import CppLibrary, NativeError, one_line
from ..errors import UserError
from ..files.cache import cache_dir
from ..files.scratch import is_utf_8

log = logging.getLogger("mindghost")

# What C++ knows, too (`load` compares): the places in the `options` of a chain, and how many samples lie together.
OPTIONS = (
    "First",
    "Convolution",
    "Second",
    "Residual",
    "Stride",
    "PadHeight",
    "PadWidth",
    "Relu1",
    "Eps1",
    "Momentum1",
    "Relu2",
    "Eps2",
    "Momentum2",
    "Running",
    "Frozen",
)
SAMPLES_TOGETHER = 8

SOURCES = Path(__file__).parent.parent / "csrc" / "ops"
# Sources that are compiled for each instruction set.
_LOOPS = ("kernels", "plan_kernels")


def library() -> Path:
    """The library for this machine, built if need be (`CppLibrary.build`).

    Raises NativeError where there is no compiler, or where it fails, or MindSpore takes no file in the cache.
    """
    cache = cache_dir()
    # What it is given is `PATH:FUNCTION`.
    if ":" in str(cache) or not is_utf_8(cache):
        raise NativeError(f"MindSpore loads none from {cache} (a colon, or no UTF-8): give another MINDGHOST_HOME")
    return description().build()


def load(path: Path, threads: int) -> str:
    """Load the library into this process, to run on so many threads. Returns the instruction set that it chose.

    Raises NativeError where the file is no library of ours.
    """
    try:
        functions = ctypes.CDLL(str(path))
        functions.ghostnet_kernels.restype = functions.ghostnet_options.restype = ctypes.c_char_p
        shared = tuple(functions.ghostnet_options().decode().split()), functions.ghostnet_samples_together()
        functions.ghostnet_set_threads(threads)
        kernels = functions.ghostnet_kernels().decode()
    except (OSError, AttributeError) as error:
        raise NativeError(f"{path} cannot be loaded ({one_line(str(error))}); delete it") from error
    if shared != (OPTIONS, SAMPLES_TOGETHER):
        raise NativeError(f"{path} is of another version: its options are {' '.join(shared[0])}; delete it")
    return kernels


def check_bfloat16(path: Path | None, key: str = "amp_type") -> None:
    """Raise UserError where products in bfloat16, which `key` asks for, cannot be had. `path`: the library, or None."""
    advice = "leave amp_type and amp_level out" if key == "amp_type" else f"set {key} to O0"
    if path is None:
        raise UserError(f"{key}: bfloat16 takes our native operators, which cannot be had here; {advice}")
    if not ctypes.CDLL(str(path)).ghostnet_bfloat16():
        raise UserError(
            f"{key}: bfloat16 takes a processor with AMX (Intel Xeon, 4th generation or later), and this one has "
            f"none, or the system keeps it back; {advice}"
        )


def variants(machine: str = platform.machine()) -> dict[str, tuple[str, ...]]:
    """Instruction sets that the loops are compiled for -> their flags and macros; the best one is taken at run time."""
    found = {"baseline": _macros(4, 1, 4)}
    if machine in ("x86_64", "AMD64"):
        found["avx2"] = ("-mavx2", "-mfma", *_macros(8, 1, 8))
        # Sixteen floats where products are summed up: elsewhere maps are too small for them.
        found["avx512"] = ("-mavx2", "-mfma", "-mavx512f", "-mavx512vl", *_macros(8, 2, 16))
    return found


def _macros(width: int, pixels: int, vector: int) -> tuple[str, ...]:
    """See kernels.cpp and plan_kernels.cpp."""
    return f"-DGHOSTNET_WIDTH={width}", f"-DGHOSTNET_PIXELS={pixels}", f"-DGHOSTNET_VECTOR={vector}"


def description(machine: str = platform.machine()) -> CppLibrary:
    """What the library for a kind of machine is made of: the loops once for each instruction set, the rest once."""
    has = tuple(f"-DGHOSTNET_{name.upper()}" for name in variants(machine) if name != "baseline")
    units = {source.stem: (source, has) for source in sorted(SOURCES.glob("*.cpp")) if source.stem not in _LOOPS}
    for name, options in variants(machine).items():
        for loops in _LOOPS:
            macros = (*options, f"-DGHOSTNET_{loops.upper()}={loops}_{name}", f'-DGHOSTNET_NAME="{name}"')
            units[f"{loops}_{name}"] = (SOURCES / f"{loops}.cpp", macros)
    return CppLibrary("libghostnet", SOURCES, units, load=lambda path: load(path, 1))


def native_operators(config: Config, device: str, threads: int) -> Path | None:
    """The library of our C++ operators for float32 networks, loaded; says in the log whether it is.

    Args:
        config: reads `native_ops` and whether training or evaluation is in float32.
        device: "CPU", "Ascend" or "GPU".
        threads: that the operators may use.

    Returns None where `native_ops` is off, or auto and they cannot be had. Raises UserError where it is on and they
    cannot be had.
    """
    if config.native_ops == "off":
        return None
    try:
        if device != "CPU" or not {"O0", "bfloat16"} & {config.amp_level, config.val_amp_level}:
            raise NativeError(f"they are for float32 on a CPU, not for {device}, {config.amp_level}")
        return started(library(), threads)
    except NativeError as error:
        if config.native_ops == "on":
            raise UserError(f"native_ops: on, but {error}; give auto or off to do without them") from error
        if device == "CPU":
            log.info(f"MindSpore's own operators instead of the faster native ones: {error}")
        return None


def started(path: Path, threads: int) -> Path:
    """The library, loaded (`load`), which the log says."""
    log.info(f"native operators: {load(path, threads)}, {threads} thread(s)")
    return path
