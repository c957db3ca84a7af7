"""Files of vectors, read without trust: .npz and .parquet, with the arrays or columns `vectors`, `paths`, `labels`.

What else is known (`Vectors`) stands beside those: `classes`, `sizes`, `times`, `digests`, and `facts`, JSON that says
what the file is and which network made the vectors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import UserError
from ..files import json_text, npz, paths, table_file
from ..files.npz import Column
from ..files.table_file import Block
from ..process import resources
from . import vectors as vector_checks
from .vectors import DIGEST_BYTES, DTYPES, UNKNOWN, Origin, Vectors

ENDINGS = (".npz", ".parquet")
FACTS = "facts"  # the array, or the entry of Parquet's metadata
_KEY = "mindghost"
_VECTORS, _FORMAT = "vectors", 1
_AGAIN = "make it again with `mindghost embed`"
# The columns beside the vectors.
_COLUMNS = ("paths", "labels", "classes", "sizes", "times", "digests")
_BLOCK = 10_000  # rows of a Parquet file that are made at once
_MOST_DIMENSIONS = 1 << 16


def check_ending(path: Path, key: str) -> None:
    """Raise UserError, which names the key, for a name without a known ending, or one whose library is missing."""
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"{key}: {path}: expected a name that ends in {' or '.join(ENDINGS)}")
    if path.suffix.lower() == ".parquet":
        table_file.check_ending(path, key)


def encode(path: Path, found: Vectors) -> Iterator[bytes]:
    """The content of a file of vectors, piece by piece; the ending of its name says of which kind."""
    facts = record(found.origin, _VECTORS)
    if path.suffix.lower() == ".parquet":
        return _parquet(path, found, facts)
    return npz.encode({_VECTORS: Column.of(found.vectors), **columns([found]), **facts_column(facts)})


def record(origin: Origin | None, kind: str) -> dict[str, Any]:
    """What a file says of itself."""
    network = None if origin is None else origin.record()
    return {"made_by": f"{_KEY} {__version__}", "kind": kind, "format": _FORMAT, "network": network}


def facts_column(facts: Mapping[str, Any]) -> dict[str, Column]:
    """Facts as an array."""
    return {FACTS: Column.of(np.frombuffer(json_text.dumps(dict(facts)).encode(), np.uint8))}


def columns(parts: Iterable[Vectors]) -> dict[str, Column]:
    """All but the vectors, of parts that follow one another and have the same classes."""
    parts = list(parts)
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS if name != "classes"}
    return {name: Column.of(array) for name, array in {**joined, "classes": _texts(parts[0].classes)}.items()}


def _texts(names: Iterable[str]) -> NDArray[Any]:
    """Names as an array; without any, of texts all the same."""
    return np.array(list(names), str)


def _parquet(path: Path, found: Vectors, facts: Mapping[str, Any]) -> Iterator[bytes]:
    parts, digest_parts = (list(map(str, range(count))) for count in (found.dimensions, DIGEST_BYTES))
    described = [
        table_file.Column("labels", "i4"),
        table_file.Column(_VECTORS, found.vectors.dtype.str[1:], parts=parts),
        table_file.Column("sizes", "i8"),
        table_file.Column("times", "i8"),
        table_file.Column("digests", "u1", parts=digest_parts),
    ]
    dtype = table_file.dtype_of(described)

    def blocks() -> Iterator[Block]:
        for start in range(0, len(found), _BLOCK):
            part = slice(start, start + _BLOCK)
            rows = np.empty(len(found.paths[part]), dtype)
            for name in dtype.names or ():
                rows[name] = getattr(found, name)[part]
            yield found.paths[part].tolist(), rows

    notes = {FACTS: json_text.dumps({**facts, "classes": list(found.classes)})}
    return table_file.encode(path, "paths", described, blocks(), notes)


# --- Reading


def read(path: Path) -> Vectors:
    """The vectors in a file, which were checked (`vectors.check`); those of an .npz file are mapped where they can be.

    Of a stranger's file `vectors` and `paths` are needed, and `labels` may be there.

    Raises UserError, in one line that names the file, where it is damaged, holds Python objects, or does not fit.
    """
    paths.check_file(path, f"give a file of vectors; {_AGAIN}")
    if path.suffix.lower() == ".parquet":
        arrays, facts = _read_parquet(path)
    else:
        arrays, facts = read_arrays(path, _AGAIN)
    return settled(path, arrays, facts, _AGAIN)


def read_arrays(path: Path, remedy: str, more: tuple[str, ...] = ()) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of an .npz file, `more` among them, and its facts: none where it has none. Raises UserError."""
    arrays = npz.read(path, (_VECTORS, *_COLUMNS, *more, FACTS), remedy)
    said = arrays.pop(FACTS, None)
    if said is None:
        return arrays, {}
    if said.dtype != np.uint8 or said.ndim != 1 or said.nbytes > json_text.MOST_BYTES:
        raise UserError(f"{path}: its facts are no text; {remedy}")
    return arrays, _facts(path, said.tobytes(), remedy)


def _facts(path: Path, said: bytes, remedy: str) -> dict[str, Any]:
    found = json_text.parse(said.decode(errors="replace"), f"{path}: its facts", remedy)
    if not isinstance(found, dict):
        raise UserError(f"{path}: its facts are no JSON object; {remedy}")
    if found.get("format") != _FORMAT:
        raise UserError(f"{path}: format {str(found.get('format'))[:20]} of such files, {_FORMAT} is known; {remedy}")
    return found


def settled(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], remedy: str) -> Vectors:
    """The vectors that the arrays of a file are. Raises UserError where they are not fit."""

    def refused(why: str) -> UserError:
        return UserError(f"{path}: {why}; {remedy}")

    for name in (_VECTORS, "paths"):
        if name not in arrays:
            raise refused(f"has no array {name!r}")
    found = arrays[_VECTORS]
    if found.dtype.name not in DTYPES or found.ndim != 2 or not 1 <= found.shape[1] <= _MOST_DIMENSIONS:
        raise refused(
            f"its vectors are {found.dtype} {found.shape}, expected (images, dimensions) of {' or '.join(DTYPES)}"
        )
    count = len(found)
    classes = _names(arrays.get("classes", _texts(())), refused)
    labels, classes = _labels(arrays.get("labels"), classes, count, refused)
    shapes = {
        "sizes": ((count,), np.int64),
        "times": ((count,), np.int64),
        "digests": ((count, DIGEST_BYTES), np.uint8),
    }
    others = {}
    for name, (shape, dtype) in shapes.items():
        if name in arrays:
            if arrays[name].shape != shape or arrays[name].dtype != dtype:
                raise refused(f"its {name} are not one for each of {count:,} vectors")
            others[name] = arrays[name]
    called = arrays["paths"]
    if called.shape != (count,):
        raise refused(f"{called.size:,} paths for {count:,} vectors")
    origin = Origin.of_record(facts.get("network"), str(path))
    vector_checks.check(found, str(path))
    return Vectors(found, _called(called, refused), labels, classes, **others, origin=origin)


def _called(array: NDArray[Any], refused: Any) -> NDArray[Any]:
    """What images are called, as text."""
    if array.dtype.kind == "S":
        return np.array([os.fsdecode(name) for name in array.tolist()], str)
    if array.dtype.kind != "U":
        raise refused(f"its paths are {array.dtype}, expected text")
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
    if array.view(np.uint32).max(initial=0) > sys.maxunicode:
        raise refused("its paths are no text")
    return array


def _names(array: NDArray[Any], refused: Any) -> tuple[str, ...]:
    if array.ndim != 1:
        raise refused("its classes are no list of names")
    names = tuple(_called(array, refused).tolist()) if len(array) else ()
    if len(set(names)) < len(names):
        raise refused("two of its classes have one name")
    return names


def _labels(
    array: NDArray[Any] | None, classes: tuple[str, ...], count: int, refused: Any
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Labels, int32 (n,), and the names that they index: numbers, or names themselves."""
    if array is None:
        return np.full(count, UNKNOWN, np.int32), classes
    if array.shape != (count,):
        raise refused(f"labels of shape {array.shape} for {count:,} vectors")
    if array.dtype.kind == "U" and not classes:
        names, indices = np.unique(_called(array, refused), return_inverse=True)
        return indices.astype(np.int32), tuple(names.tolist())
    if array.dtype.kind not in "iu":
        raise refused(f"its labels are {array.dtype}, expected whole numbers")
    if count and not (int(array.min()) >= UNKNOWN and int(array.max()) < (len(classes) or 1 << 31)):
        raise refused(f"its labels go from {array.min()} to {array.max()}, and it has {len(classes)} class names")
    return array.astype(np.int32), classes


def _read_parquet(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays in the columns of a Parquet file, and its facts."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(
            f"{path}: pyarrow reads Parquet files ({error}); pip install pyarrow, or give a .npz file"
        ) from error
    try:
        with paths.open_file(path, _AGAIN) as file:
            opened = pq.ParquetFile(file, pre_buffer=False)
            names = [name for name in (_VECTORS, *_COLUMNS) if name in opened.schema_arrow.names]
            table = opened.read(columns=names, use_threads=False)
            noted = (opened.schema_arrow.metadata or {}).get(FACTS.encode())
            arrays = {name: _array(table.column(name).combine_chunks(), table.num_rows) for name in names}
    except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
        resources.check(error, path)
        raise UserError(
            f"{path}: not a Parquet file of vectors ({' '.join(str(error).split())[:160]}); {_AGAIN}"
        ) from error
    if noted is None:
        return arrays, {}
    facts = _facts(path, noted, _AGAIN)
    classes = facts.pop("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{path}: its classes are no list of names; {_AGAIN}")
    return {**arrays, "classes": _texts(classes)}, facts


def _array(column: Any, rows: int) -> NDArray[Any]:
    """A column as an array: (n,), or (n, m) of lists of one length. Raises ValueError for anything else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        raise ValueError("a value is missing")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _texts(column.to_pylist())
    if not hasattr(column, "flatten") or pa.types.is_struct(column.type):
        return column.to_numpy(zero_copy_only=False)
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    flat = column.flatten()
    if flat.null_count or len(lengths) > 1:
        raise ValueError("lists of several lengths, or with a value missing")
    return flat.to_numpy(zero_copy_only=False).reshape(rows, lengths[0] if lengths else 1)
