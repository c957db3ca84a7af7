"""Tables as files: CSV, JSON lines or Parquet, by the ending of the name; made block by block, not whole in memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..process.display import csv_cell, shown
from . import json_text

ENDINGS = (".csv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Column:
    """A column of numbers, or of what numbers stand for.

    Attributes:
        name: its heading.
        dtype: of its numbers, as numpy writes types: "i4", "f4", "f8".
        names: where they are indices, the texts that stand in their place.
        parts: where a row has several numbers, what each of them is of. In a CSV file each has a column of its own,
            called NAME and what it is of; elsewhere the row has a list.
    """

    name: str
    dtype: str
    names: Sequence[str] = ()
    parts: Sequence[str] = ()


# Some rows: what each is called, and a structured array that has a field for each column.
Block = tuple[Sequence[str], NDArray[Any]]


def check_ending(path: str | Path, key: str) -> None:
    """Raise UserError, which names the key, for a name without a known ending, or one whose library is missing."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"{key}: {path}: expected a name that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if ending == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"{key}: {path}: pyarrow writes Parquet files ({error}); pip install pyarrow, or name a .csv or .jsonl "
                "file"
            ) from error


def dtype_of(columns: Sequence[Column]) -> np.dtype[Any]:
    """The type of the rows: a field for each column."""
    return np.dtype([(column.name, column.dtype, (len(column.parts),) if column.parts else ()) for column in columns])


def encode(
    path: Path,
    heading: str,
    columns: Sequence[Column],
    blocks: Iterable[Block],
    notes: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """The content of a file, piece by piece.

    Args:
        path: its name, of which the ending counts.
        heading: of the first column, which has what the rows are called.
        columns: the others.
        blocks: the rows.
        notes: texts about the table, for the metadata of a Parquet file; the others have no place for them.

    Numbers are written with as many digits as give the same number back. One that is not finite is null in JSON and
    empty in CSV.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet(heading, columns, blocks, notes or {})
    return (_csv if ending == ".csv" else _json_lines)(heading, columns, blocks)


def _csv(heading: str, columns: Sequence[Column], blocks: Iterable[Block]) -> Iterator[bytes]:
    headings = [
        name
        for column in columns
        for name in ([f"{column.name} {part}" for part in column.parts] if column.parts else [column.name])
    ]
    yield _csv_lines([[heading, *map(csv_cell, headings)]])
    for names, rows in blocks:
        cells: list[Sequence[str]] = [list(map(csv_cell, names))]
        for column in columns:
            if column.names:
                texts = list(map(csv_cell, column.names))
                cells.append([texts[index] for index in rows[column.name]])
            elif column.parts:
                cells += _numbers(rows[column.name].T, "")
            else:
                cells.append(_numbers(rows[column.name], ""))
        yield _csv_lines(zip(*cells, strict=True))


def _csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _json_lines(heading: str, columns: Sequence[Column], blocks: Iterable[Block]) -> Iterator[bytes]:
    keys = [json_text.dumps(name) for name in (heading, *(column.name for column in columns))]
    for names, rows in blocks:
        cells: list[Sequence[str]] = [list(map(json_text.dumps, names))]
        for column in columns:
            if column.names:
                texts = list(map(json_text.dumps, column.names))
                cells.append([texts[index] for index in rows[column.name]])
            elif column.parts:
                cells.append([f"[{', '.join(row)}]" for row in _numbers(rows[column.name], "null")])
            else:
                cells.append(_numbers(rows[column.name], "null"))
        lines = (", ".join(map(": ".join, zip(keys, row, strict=True))) for row in zip(*cells, strict=True))
        yield "".join(f"{{{line}}}\n" for line in lines).encode()


def _numbers(values: NDArray[Any], missing: str) -> list[Any]:
    """The shortest text of each number, in lists nested as the array is."""
    texts = values.astype(str)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        texts[~np.isfinite(values)] = missing
    return texts.tolist()


class Pieces(io.RawIOBase):
    """A file that hands on what was written to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, content: Any) -> int:
        """Keep a copy."""
        self._pieces.append(bytes(content))
        return len(self._pieces[-1])

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _parquet(
    heading: str, columns: Sequence[Column], blocks: Iterable[Block], notes: Mapping[str, str]
) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def type_of(column: Column) -> Any:
        if column.names:
            return pa.string()
        kind = pa.from_numpy_dtype(np.dtype(column.dtype))
        return pa.list_(kind) if column.parts else kind

    def array_of(column: Column, values: NDArray[Any]) -> Any:
        if column.names:
            texts = pa.array(list(map(_utf_8, column.names)), pa.string())
            return texts.take(pa.array(np.ascontiguousarray(values)))
        if column.parts:
            offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * len(column.parts))
            return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
        return pa.array(np.ascontiguousarray(values))

    fields = [(heading, pa.string()), *((column.name, type_of(column)) for column in columns)]
    schema = pa.schema(fields, metadata=dict(notes))
    pieces = Pieces()
    with pq.ParquetWriter(pieces, schema) as writer:
        for names, rows in blocks:
            arrays = [array_of(column, rows[column.name]) for column in columns]
            paths = pa.array(list(map(_utf_8, names)), pa.string())
            writer.write_table(pa.Table.from_arrays([paths, *arrays], schema=schema))
            yield pieces.take()
    yield pieces.take()


def _utf_8(text: str) -> str:
    """The text, with escapes for what is no UTF-8: the format takes nothing else."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return shown(text)
    return text
