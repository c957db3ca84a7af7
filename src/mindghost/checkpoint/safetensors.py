"""The `.safetensors` format: bytes -> entries, arrays -> bytes. Reading and writing is the library's.

Imports no MindSpore: the process that reads PyTorch files uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from ..errors import UserError

# The library's limit for the header, whose length is the first eight bytes.
_MAX_HEADER = 100_000_000
# The format's types -> MindSpore's names for them.
_KINDS = {
    "BOOL": "Bool",
    "I8": "Int8",
    "U8": "UInt8",
    "I16": "Int16",
    "U16": "UInt16",
    "I32": "Int32",
    "U32": "UInt32",
    "I64": "Int64",
    "U64": "UInt64",
    "F16": "Float16",
    "BF16": "BFloat16",
    "F32": "Float32",
    "F64": "Float64",
}


def is_one(content: bytes) -> bool:
    """Whether bytes begin as a `.safetensors` file does: the length of a JSON object, then that object."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= _MAX_HEADER


def entries(path: Path, content: bytes) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Name, type (as MindSpore calls it), shape and bytes of each entry of a `.safetensors` file, sorted by name.

    The library compares all lengths in the header with the file's (tests/checkpoint/test_weights.py holds it to that).
    Raises UserError, which names `path`, for a file that it refuses.
    """
    try:
        found = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        reason = str(error).rpartition("deserializing: ")[2]
        raise UserError(f"{path}: a damaged .safetensors file ({reason}); use another copy of it") from error
    return [
        (name, _KINDS.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in sorted(found, key=lambda entry: entry[0])  # the library's order is another one each time
    ]


def encode(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays as the content of a `.safetensors` file, the same bytes for the same arrays."""
    # The library writes an array's memory as it lies. `format` is what readers for PyTorch look for.
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata={"format": "pt"})
