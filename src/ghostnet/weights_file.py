"""MindSpore's `.ckpt` file format: named arrays on disk, written atomically, read without trust.

MindSpore's own writer deletes the old file before the new one is there, and its own reader copies whatever the file
claims into memory (FACTS: a crafted file corrupts the heap). The format is a sequence of protobuf `Checkpoint`
messages, then optionally "crc_num" and ten bytes of CRC-32; files written here are read by `mindspore.load_checkpoint`
and the other way round.
"""

from __future__ import annotations

import binascii
import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from .errors import RunError, UserError

_CRC_MARK = b"crc_num"
_CRC_BYTES = 10
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


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash at any moment leaves the old file or the new one.

    Raises RunError where the file system refuses (disk full, no permission); the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def not_written(path: Path, error: OSError) -> RunError:
    """What to raise where the file system refuses to write `path`."""
    return RunError(f"{path}: cannot be written ({error.strerror}); files saved earlier are kept")


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save named arrays as a `.ckpt` file with a CRC, atomically.

    Raises:
        RunError: the file cannot be written, or an array holds NaN or infinity (named); nothing is changed then.
    """
    parts = []
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise RunError(f"{path}: not saved, since {name} holds values that are not finite; earlier files are kept")
        message = Checkpoint()
        entry = message.value.add()
        entry.tag = name
        # MindSpore writes a scalar as shape [0].
        entry.tensor.dims.extend(array.shape or (0,))
        entry.tensor.tensor_type = _NAMES[array.dtype]
        entry.tensor.tensor_content = array.tobytes()
        parts.append(message.SerializeToString())
    content = b"".join(parts)
    crc = binascii.crc32(content).to_bytes(_CRC_BYTES, "big")
    write_atomically(path, content + _CRC_MARK + crc)


def copy(source: Path, target: Path) -> None:
    """Copy a file that was written here, atomically. Raises RunError where the file system refuses."""
    write_atomically(target, source.read_bytes())


def check_exists(path: str | Path) -> None:
    """Raise UserError where there is no such file: for callers with slow work to do before they read it."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a .ckpt file")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The named arrays of a `.ckpt` file, in the file's order. Text entries are left out.

    Raises:
        UserError: no such file, not a checkpoint, damaged (CRC, sizes), or values that are not finite.
    """
    path = Path(path)
    check_exists(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    content = _without_crc(path, content)
    message = Checkpoint()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{path}: not a MindSpore checkpoint, or a damaged one; give a .ckpt file") from error
    if not message.value:
        raise UserError(f"{path}: not a MindSpore checkpoint: it holds no parameters; give a .ckpt file")

    pieces: dict[str, list[bytes]] = {}
    headers = {}
    for entry in message.value:
        # Parameters over 512 MB are written in pieces under one name.
        pieces.setdefault(entry.tag, []).append(entry.tensor.tensor_content)
        headers[entry.tag] = (entry.tensor.tensor_type, tuple(entry.tensor.dims))
    return {
        name: _array(path, name, *headers[name], b"".join(parts))
        for name, parts in pieces.items()
        if headers[name][0] != "str"
    }


def _without_crc(path: Path, content: bytes) -> bytes:
    """Strip the CRC, if the file has one (MindCV's have none), and check it."""
    mark = len(content) - _CRC_BYTES - len(_CRC_MARK)
    if mark < 0 or content[mark : mark + len(_CRC_MARK)] != _CRC_MARK:
        return content
    expected = int.from_bytes(content[-_CRC_BYTES:], "big")
    if binascii.crc32(content[:mark]) != expected:
        raise UserError(f"{path}: damaged: its CRC does not match its content; use another copy of the file")
    return content[:mark]


def _array(path: Path, name: str, kind: str, dims: tuple[int, ...], content: bytes) -> np.ndarray:
    """One entry as an array, after its type, shape and length were compared."""
    if kind not in _TYPES:
        raise UserError(f"{path}: {name} has the type {kind!r}, which is not supported")
    dtype = np.dtype(_TYPES[kind])
    shape = () if dims == (0,) and len(content) == dtype.itemsize else dims
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(content):
        raise UserError(f"{path}: damaged: {name} claims shape {shape}, but holds {len(content)} bytes of {kind}")
    array = np.frombuffer(content, dtype).reshape(shape)
    if np.issubdtype(dtype, np.floating) and not np.isfinite(array).all():
        raise UserError(f"{path}: {name} holds values that are not finite (NaN or infinity); use another checkpoint")
    return array
