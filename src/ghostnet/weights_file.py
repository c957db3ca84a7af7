"""Weight files: named arrays on disk, written atomically, read without trust. MindSpore's `.ckpt`, and `.safetensors`.

MindSpore's own writer deletes the old file before the new one is there, and its own reader copies whatever the file
claims into memory (FACTS: a crafted file corrupts the heap). A `.ckpt` is a sequence of protobuf `Checkpoint`
messages, then optionally "crc_num" and ten bytes of CRC-32; files written here are read by `mindspore.load_checkpoint`
and the other way round. Which format a file has is read off its content; its name does not matter.

Beside a file that is written here lies its sidecar, `<file>.sha256`, in the format of `sha256sum`. While the file is
replaced it lists two digests, the old one and the new one: a file is intact if its digest is any of those listed, so
that a process that is killed between the two leaves nothing that looks damaged.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from mindspore.train.checkpoint_pb2 import Checkpoint

from . import pytorch_file, safetensors_file
from .errors import RunError, UserError

_CRC_MARK = b"crc_num"
_CRC_BYTES = 10
_SIDECAR_LINE = re.compile(rb"\\?([0-9a-f]{64}) [ *].+")
_TEMPORARY = re.compile(r"\..+\.\d+\.\d+\.tmp")
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
    _put(path, [(path, content)])


def write_all_atomically(files: Mapping[Path, bytes]) -> None:
    """Replace several files of one folder: all of them, or, where the file system refuses (RunError), none."""
    _put(next(iter(files)), list(files.items()))


def _put(path: Path, files: Sequence[tuple[Path, bytes | Path]]) -> None:
    """Put files into place, one after the other: bytes, or what another file holds at the call.

    All of them are on the disk before the first takes its place: a full disk changes nothing. Raises RunError, which
    names `path`; all files are in its folder.
    """
    temporaries = [target.with_name(f".{target.name}.{os.getpid()}.{n}.tmp") for n, (target, _) in enumerate(files)]
    try:
        for temporary, (_, content) in zip(temporaries, files, strict=True):
            # A killed process with our number may have left one, as a second name of a file that is in use.
            temporary.unlink(missing_ok=True)
            _fill(temporary, content)
        for temporary, (target, _) in zip(temporaries, files, strict=True):
            os.replace(temporary, target)
        # Once for all: file systems keep the order of what happened in a folder.
        _flush(path.parent)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _fill(temporary: Path, content: bytes | Path) -> None:
    """Make a temporary file of bytes, or a second name (where the file system has none, a copy) of a file."""
    if isinstance(content, Path):
        try:
            os.link(content, temporary)
        except OSError:
            shutil.copyfile(content, temporary)
            _flush(temporary)
        return
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete_leftovers(folder: Path) -> None:
    """Delete the temporary files of killed processes. Only for a folder that no other process writes to."""
    for file in folder.iterdir():
        if _TEMPORARY.fullmatch(file.name):
            file.unlink(missing_ok=True)


def not_written(path: Path, error: OSError) -> RunError:
    """What to raise where the file system refuses to write `path`."""
    return RunError(f"{path}: cannot be written ({error.strerror}); files saved earlier are kept")


def write(path: Path, arrays: Mapping[str, np.ndarray], keep_as: Path | None = None) -> None:
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
    crc = binascii.crc32(content).to_bytes(_CRC_BYTES, "big")
    _write_with_sidecar(path, content + _CRC_MARK + crc, keep_as)


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Save named arrays as a `.safetensors` file and its sidecar, atomically. Raises RunError as `write` does."""
    _refuse_not_finite(path, arrays)
    _write_with_sidecar(path, safetensors_file.encode(arrays))


def _refuse_not_finite(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise RunError(f"{path}: not saved, since {name} holds values that are not finite; earlier files are kept")


def copy(source: Path, target: Path) -> None:
    """Copy a file that was written here, atomically, with a sidecar. Raises RunError where the file system refuses."""
    _write_with_sidecar(target, source.read_bytes())


def delete(path: Path) -> None:
    """Delete a file and its sidecar, if they are there."""
    # In this order a crash leaves no sidecar alone, which nothing would delete.
    sidecar(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def sidecar(path: Path) -> Path:
    """Where the sha256 of a file is."""
    return path.with_name(f"{path.name}.sha256")


def _write_with_sidecar(path: Path, content: bytes, keep_as: Path | None = None) -> None:
    try:
        old = _digests_to_keep(path)
        steps = _steps(path, content, [hashlib.sha256(content).hexdigest()], old)
        if keep_as and old:
            steps += _steps(keep_as, path, old, _digests_to_keep(keep_as))
    except OSError as error:
        raise not_written(path, error) from error
    _put(path, steps)


def _steps(path: Path, content: bytes | Path, digests: list[str], old: list[str]) -> list[tuple[Path, bytes | Path]]:
    """What to put into place to replace a file and its sidecar: after each of them the file that is there is intact."""
    steps = [(path, content), (sidecar(path), _lines(path, digests))]
    if old or sidecar(path).exists():
        return [(sidecar(path), _lines(path, [*digests, *old])), *steps]
    return steps


def _lines(path: Path, digests: Sequence[str]) -> bytes:
    """Content of a sidecar."""
    return "".join(f"{digest}  {path.name}\n" for digest in digests).encode()


def _digests_to_keep(path: Path) -> list[str]:
    """The digest of the file at `path`, for it to stay intact while it is replaced; none if it is not intact."""
    if not path.exists():
        return []
    try:
        listed = _digests(path)
    except UserError:
        return []
    if listed is not None and len(listed) == 1:
        # Not hashed again: if the file was damaged since, its digest must not be listed.
        return listed
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return [found] if listed is None or found in listed else []


def _digests(path: Path) -> list[str] | None:
    """The digests that the sidecar of `path` lists; None if it has none. Raises UserError for one without any."""
    file = sidecar(path)
    if not file.is_file():
        return None
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    found = [_SIDECAR_LINE.fullmatch(line) for line in lines]
    if not found or None in found:
        raise UserError(
            f"{file}: not what sha256sum writes; restore it, or delete it if {path.name} is known to be good"
        )
    return [match[1].decode() for match in found if match]


def check_exists(path: str | Path) -> None:
    """Raise UserError where there is no such file: for callers with slow work to do before they read it."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give the path of a .ckpt or .safetensors file")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The named arrays of a `.ckpt` file, in its order, or of a `.safetensors` file. Text entries are left out.

    With a sidecar, any file but the one that was written is refused. Without one, so is all damage but a cut of a
    `.ckpt` between two parameters, which reads as a file with fewer parameters and is refused by
    `checkpoint.load_weights`, and flipped bits in the values of a file without CRC (`.safetensors`, MindCV's).

    Raises:
        UserError: no such file, of neither format, damaged (sha256, CRC, sizes), or values that are not finite.
    """
    path = Path(path)
    check_exists(path)
    return decode(path, read_intact(path))


def decode(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """The named arrays in the content of a weight file; bfloat16 as float32. Raises UserError, which names `path`."""
    if pytorch_file.is_one(content):
        raise UserError(
            f"{path}: a PyTorch file; convert it first: python scripts/convert_weights.py {path} OUT.ckpt --model NAME"
        )
    if safetensors_file.is_one(content):
        entries = safetensors_file.entries(path, content)
    else:
        entries = _checkpoint_entries(path, content)
    return {entry[0]: _array(path, *entry) for entry in entries}


def _checkpoint_entries(path: Path, content: bytes) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Name, type, shape and bytes of each entry of a `.ckpt` file."""
    content = _without_crc(path, content)
    message = Checkpoint()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise UserError(
            f"{path}: not a MindSpore checkpoint or .safetensors file, or a damaged one; give one of the two"
        ) from error
    if not message.value:
        raise UserError(f"{path}: not a MindSpore checkpoint: it holds no parameters; give a weight file")
    pieces: dict[str, list[bytes]] = {}
    headers = {}
    for entry in message.value:
        # Parameters over 512 MB are written in pieces under one name.
        pieces.setdefault(entry.tag, []).append(entry.tensor.tensor_content)
        headers[entry.tag] = (entry.tensor.tensor_type, tuple(entry.tensor.dims))
    return [(name, *headers[name], b"".join(parts)) for name, parts in pieces.items() if headers[name][0] != "str"]


def read_intact(path: Path) -> bytes:
    """The content of a file, compared with its sidecar if there is one. Raises UserError where it is another one."""
    while True:
        listed = _digests(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if listed is None or hashlib.sha256(content).hexdigest() in listed:
            return content
        # Another process may have replaced both in between; then the sidecar is another one now.
        if _digests(path) == listed:
            name = sidecar(path).name
            raise UserError(
                f"{path}: damaged: its sha256 is not that in {name}; restore another copy of it, or delete {name} "
                "if the file was replaced on purpose"
            )


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
