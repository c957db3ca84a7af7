"""The records of a run's `metrics.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import json_text, paths
from .files import METRICS

# Of a record that a run of classification wrote.
KEYS = ("epoch", "train_loss", "val_loss", "top_1", "top_5", "lr")


# Of an epoch without validation, and of fewer than five classes.
MAY_BE_NONE = {"val_loss", "top_1", "top_5"}


# What a record of an older run may lack.
OPTIONAL = ("seconds", "images_per_second")
WHOLE = {"epoch"}


# Of numbers beyond, matplotlib cannot draw an axis.
LARGEST = 1e100
Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """The records of a `metrics.jsonl`, without a last line that is still being written.

    Raises UserError that names the file, and the line where there is one.
    """
    content = paths.read(path, f"give a run's folder, or its {METRICS}", json_text.MOST_BYTES)
    lines = content.decode("utf-8", "replace").split("\n")
    half_written = lines.pop()
    records = [_record(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
    if not records:
        raise UserError(f"{path}: no epoch is finished yet" + (", the first is being written" if half_written else ""))
    return records


def _record(line: str, where: str) -> Record:
    remedy = f"give the {METRICS} that train.py wrote"
    try:
        record = json_text.parse(line, where, remedy)
    except UserError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object; {remedy}")
    for key in (*KEYS, *(key for key in OPTIONAL if key in record)):
        value, whole = record.get(key), key in WHOLE
        fits = json_text.is_integer(value) if whole else json_text.is_number(value) and abs(value) <= LARGEST
        if not fits and not (key in record and value is None and key in MAY_BE_NONE):
            found = repr(value)[:60] if key in record else "nothing"
            raise UserError(f"{where}: {key}: expected {'an integer' if whole else 'a number'}, got {found}; {remedy}")
    return record
