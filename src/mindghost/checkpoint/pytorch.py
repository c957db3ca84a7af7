"""PyTorch's files (`.pth`, `.pth.tar`), read by torch in a process of their own.

Such a file is a pickle, which can name any function to be called, and torch's reader is C++ that was not written for
hostile input. So nothing here is unpickled but by `torch.load(weights_only=True)`, of a torch that is known to keep to
that (2.6 and later), in a process with limits on time and memory; what comes out of it is a `.safetensors` file, which
is read without trust.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import UserError
from ..files import scratch
from . import safetensors as safetensors_file

_OLDEST_TORCH = (2, 6)
# For importing torch and reading, on a busy machine with a cold disk.
_SECONDS = 300
# For reading alone: seconds of computing, and bytes beyond those that torch itself takes; more for larger files.
_CPU_SECONDS, _BYTES_PER_SECOND = 20, 20_000_000
_SPARE_MEMORY, _MEMORY_PER_BYTE = 1 << 29, 4
# Where training scripts keep a state dict: timm's and those of the Ghost networks' authors.
_RAW, _AVERAGED = ("state_dict", "model"), ("state_dict_ema", "model_ema")
_REMEDY = "use another copy of it, or have its author save it as .safetensors"


def is_one(content: bytes) -> bool:
    """Whether bytes begin as a file of `torch.save` does, in its format of today (zip) or its old one (pickle)."""
    pickled = content[:1] == b"\x80" and content[1:2] <= b"\x05"
    # A length in front of a `.safetensors` header may look like the beginning of a pickle.
    return content.startswith(b"PK\x03\x04") or (pickled and not safetensors_file.is_one(content))


def to_safetensors(path: Path, averaged: bool) -> tuple[bytes, str]:
    """The state dict in a PyTorch file, as the content of a `.safetensors` file, and where in the file it was.

    Args:
        path: the file.
        averaged: take the averaged weights beside the others.

    Returns the content, and the key of the state dict ("" where the file is one itself).

    Raises:
        UserError: no torch, a file that holds more than tensors and plain values, a damaged one, none of the weights
            asked for, or one that takes too long.
    """
    with scratch.folder("convert") as folder:
        target = folder / "weights.safetensors"
        choice = ["--averaged"] if averaged else []
        command = [sys.executable, "-m", __name__, *choice, "--", str(path), str(target)]
        try:
            done = subprocess.run(
                command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{path}: torch did not read it in {_SECONDS} seconds; {_REMEDY}") from error
        if done.returncode == -signal.SIGXCPU:
            raise UserError(f"{path}: takes torch far longer to read than weights do; {_REMEDY}")
        try:
            answer = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise UserError(
                f"{path}: the process that read it with torch died (status {done.returncode}); {_REMEDY}"
            ) from error
        if "error" in answer:
            raise UserError(answer["error"])
        return target.read_bytes(), answer["key"]


def _environment() -> dict[str, str]:
    """The environment of the process that reads: it finds this package, and nothing else in the current folder."""
    package = str(Path(__file__).parents[2])
    # torch's own switch to unpickle everything.
    kept = {name: value for name, value in os.environ.items() if name != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return kept | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _main() -> None:
    """The process that reads: FILE TARGET [--averaged] -> TARGET, and one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--averaged", action="store_true")
    args = parser.parse_args()
    try:
        key, state = _choose(args.file, _load(args.file), args.averaged)
        args.target.write_bytes(safetensors_file.encode(_arrays(args.file, state)))
        answer = {"key": key}
    except UserError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


def _load(path: Path) -> Any:
    """What torch makes of a file, with `weights_only=True` and no other way. Raises UserError."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: a PyTorch file, which only torch can read, and there is none ({error}); pip install 'torch>=2.6'"
        ) from error
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < _OLDEST_TORCH:
        raise UserError(
            f"{path}: a PyTorch file, which torch reads safely from 2.6 on, and this one is {torch.__version__}; "
            "pip install 'torch>=2.6'"
        )
    try:
        _check_archive(path)
        _limit_resources(path)
        # The command line that timm's training keeps beside the weights: names and values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no type of its own for what it refuses
        raise UserError(f"{path}: {_reason(error)}; {_REMEDY}") from error


def _check_archive(path: Path) -> None:
    """Compare the CRCs of a zip file, which torch leaves out. Raises BadZipFile for what torch never writes."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise zipfile.BadZipFile("compressed members")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise zipfile.BadZipFile("members that overlap")
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"a wrong CRC of {broken!r}")


def _limit_resources(path: Path) -> None:
    """Let this process compute for as long, and grow by as much, as a file of this size needs with ease."""
    size = path.stat().st_size
    seconds = math.ceil(time.process_time()) + _CPU_SECONDS + size // _BYTES_PER_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    status = Path("/proc/self/status")
    if status.exists():  # Linux
        used = int(re.findall(r"VmData:\s+(\d+) kB", status.read_text())[0]) * 1024
        limit = used + _SPARE_MEMORY + _MEMORY_PER_BYTE * size
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _reason(error: Exception) -> str:
    """One short clause for an exception of torch's, whose messages fill a page."""
    name = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
    if name:
        return f"refused, since it asks for {name[1]}, and only tensors and plain values are read"
    if isinstance(error, pickle.UnpicklingError):
        return "refused, since it holds more than tensors and plain values"
    what = (str(error).splitlines() or [""])[0][:120]
    return f"damaged, or no file of torch.save ({type(error).__name__}: {what})"


def _choose(path: Path, loaded: Any, averaged: bool) -> tuple[str, Mapping[Any, Any]]:
    """The state dict in what a file holds, and its key there. Raises UserError where there is none of the kind."""
    if not isinstance(loaded, Mapping):
        raise UserError(f"{path}: holds a {type(loaded).__name__}; expected a state dict")
    found = [key for key in _RAW + _AVERAGED if isinstance(loaded.get(key), Mapping)]
    key = next((key for key in found if key in (_AVERAGED if averaged else _RAW)), None)
    if key is not None:
        return key, loaded[key]
    if averaged:
        raise UserError(f"{path}: holds no averaged weights ({' or '.join(_AVERAGED)}); leave --ema out")
    if found:
        raise UserError(f"{path}: holds averaged weights alone ({found[0]}); give --ema")
    return "", loaded


def _arrays(path: Path, state: Mapping[Any, Any]) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict. Raises UserError for what is no dense tensor."""
    import torch

    arrays: dict[str, NDArray[Any]] = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path}: {name!r} holds a {type(value).__name__}, not a tensor; expected a state dict, on its own or "
                f"as {' or '.join(_RAW)}"
            )
        arrays[name] = _array(path, name, value)
    return arrays


def _array(path: Path, name: str, tensor: Any) -> NDArray[Any]:
    """A tensor's values. Raises UserError for tensors that hold less than they claim, and kinds that numpy lacks."""
    import torch

    try:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError("fewer values than its shape claims")
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        return tensor.detach().contiguous().numpy()
    except Exception as error:  # sparse, quantised and other tensors each have their own
        what = (str(error).splitlines() or [""])[0][:120]
        raise UserError(f"{path}: {name!r} is no plain tensor ({what}); {_REMEDY}") from error


if __name__ == "__main__":
    _main()
