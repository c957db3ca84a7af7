"""Weight files: named arrays on disk, whole (`files.intact`) and read without trust: `.ckpt` and `.safetensors`.

MindSpore's own writer deletes the old file before the new one is there, and its own reader copies whatever the file
claims into memory (FACTS: a crafted file corrupts the heap). A `.ckpt` is a sequence of protobuf `Checkpoint`
messages, then optionally "crc_num" and ten bytes of CRC-32; files written here are read by `mindspore.load_checkpoint`
and the other way round. Which format a file has is read off its content; its name does not matter.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mindspore.train.checkpoint_pb2 import Checkpoint
from numpy.typing import NDArray

from ..errors import RunError, UserError
from ..files import paths
from ..files.intact import read_intact, write_with_sidecar
from . import ckpt
from . import pytorch as pytorch_file
from . import safetensors as safetensors_file
from .ckpt import CRC_BYTES, CRC_MARK

_TYPES = {
    "Int8": np.int8,
    "UInt8": np.uint8,
    "Int16": np.int16,
    "UInt16": np.uint16,
    "Int32": np.int32,
    "UInt32": np.uint32,
    "Int64": np.int64,
    "UInt64": np.uint64,
    "Float16": np.float16,
    "Float32": np.float32,
    "Float64": np.float64,
    "Bool": np.bool_,
}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}


def write(path: Path, arrays: Mapping[str, NDArray[Any]], keep_as: Path | None = None) -> None:
    """Save named arrays as a `.ckpt` file with a CRC, and its sidecar, atomically.

    Args:
        path: the file; one that is there is replaced.
        arrays: numbers of any of MindSpore's types by name.
        keep_as: takes the file that is replaced, if its sidecar is in order; in the same folder. What was kept there
            stays until the new file is in place.

    Raises:
        RunError: the file cannot be written, or an array holds NaN or infinity (named); nothing is changed then.
    """
    _refuse_not_finite(path, arrays)
    parts = []
    for name, array in arrays.items():
        message = Checkpoint()
        entry = message.value.add()
        entry.tag = name
        # MindSpore writes a scalar as shape [0].
        entry.tensor.dims.extend(array.shape or (0,))
        entry.tensor.tensor_type = _NAMES[array.dtype]
        entry.tensor.tensor_content = array.tobytes()
        parts.append(message.SerializeToString())
    content = b"".join(parts)
    crc = binascii.crc32(content).to_bytes(CRC_BYTES, "big")
    write_with_sidecar(path, content + CRC_MARK + crc, keep_as)


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Save named arrays as a `.safetensors` file and its sidecar, atomically. Raises RunError as `write` does."""
    _refuse_not_finite(path, arrays)
    write_with_sidecar(path, safetensors_file.encode(arrays))


def _refuse_not_finite(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise RunError(f"{path}: not saved, since {name} holds values that are not finite; earlier files are kept")


def check_exists(path: str | Path) -> None:
    """Raise UserError where there is no such file: for callers with slow work to do before they read it."""
    paths.check_file(path, "give the path of a .ckpt or .safetensors file")


def read(path: str | Path) -> dict[str, NDArray[Any]]:
    """The named arrays of a `.ckpt` file, in its order, or of a `.safetensors` file. Text entries are left out.

    With a sidecar, any file but the one that was written is refused. Without one, so is all damage but a cut of a
    `.ckpt` between two parameters, which reads as a file with fewer parameters and is refused by
    `load.fill_network`, and flipped bits in the values of a file without CRC (`.safetensors`, MindCV's).

    Raises:
        UserError: no such file, of neither format, damaged (sha256, CRC, sizes), or values that are not finite.
    """
    path = Path(path)
    check_exists(path)
    return decode(path, read_intact(path))


def decode(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    """The named arrays in the content of a weight file; bfloat16 as float32. Raises UserError, which names `path`."""
    if pytorch_file.is_one(content):
        raise UserError(f"{path}: a PyTorch file; convert it first: mindghost convert {path} OUT.ckpt --model NAME")
    if safetensors_file.is_one(content):
        found = safetensors_file.entries(path, content)
    else:
        found = ckpt.entries(path, content)
    return {entry[0]: _array(path, *entry) for entry in found}


def _array(path: Path, name: str, kind: str, dims: tuple[int, ...], content: bytes) -> NDArray[Any]:
    """One entry as an array, after its type, shape and length were compared."""
    if not name.isprintable():
        raise UserError(f"{path}: {name!r} is no name of a parameter; use another copy of the file")
    if kind not in _TYPES and kind != "BFloat16":
        raise UserError(f"{path}: {name} has the type {kind!r}, which is not supported")
    dtype = np.dtype(_TYPES.get(kind, np.uint16))
    shape = () if dims == (0,) and len(content) == dtype.itemsize else dims
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(content):
        raise UserError(f"{path}: damaged: {name} claims shape {shape}, but holds {len(content)} bytes of {kind}")
    try:
        array = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:  # more dimensions, or larger ones beside a zero, than numpy has
        raise UserError(f"{path}: damaged: {name} claims a shape that no array has ({error})") from error
    if kind == "BFloat16":
        # The upper half of a float32.
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise UserError(f"{path}: {name} holds values that are not finite (NaN or infinity); use another checkpoint")
    return array
