"""Named arrays in one file, as `numpy.load` reads it, with a digest at its end that tells of any flipped bit."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import intact

_SEALED = "sealed"


def encode(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of a file of arrays of plain types, by name."""
    content = io.BytesIO()
    np.savez(content, **{_SEALED: np.array(True)}, **arrays)
    return intact.seal(content.getvalue())


def decode(content: bytes, older: bool = False) -> dict[str, NDArray[Any]]:
    """The arrays that `encode` was given. Raises ValueError, in one line, where the content is not as it was written.

    `older`: also take the files of older versions, which have no digest, with nothing but the ZIP format's CRC-32.
    """
    whole = intact.unseal(content)
    if whole is None and not older:
        raise ValueError("its sha256 is not that of its content")
    try:
        with np.load(io.BytesIO(content if whole is None else whole), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    # Damage has many names: zipfile's, zlib's, struct's, numpy's, and a lack of memory for sizes that are none.
    except Exception as error:
        raise ValueError(" ".join(f"{error}".split())[:100] or type(error).__name__) from error
    if arrays.pop(_SEALED, None) is not None and whole is None:
        raise ValueError("its sha256 is not that of its content")
    return arrays
