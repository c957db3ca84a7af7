"""The records of a run's `metrics.jsonl`."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..files import json_text, paths
from .files import METRICS
from .record import KEYS, OPTIONAL, Record, score_keys

WHOLE = {"epoch"}


# Of numbers beyond, matplotlib cannot draw an axis.
LARGEST = 1e100


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
    scores = score_keys(record)
    for key in (*KEYS, *scores, *(key for key in OPTIONAL if key in record)):
        value, whole = record.get(key), key in WHOLE
        fits = json_text.is_integer(value) if whole else json_text.is_number(value) and abs(value) <= LARGEST
        # Of an epoch without validation; top_5 also of fewer than five classes.
        may_be_none = key == "val_loss" or key in scores
        if not fits and not (key in record and value is None and may_be_none):
            found = repr(value)[:60] if key in record else "nothing"
            raise UserError(f"{where}: {key}: expected {'an integer' if whole else 'a number'}, got {found}; {remedy}")
    return record
