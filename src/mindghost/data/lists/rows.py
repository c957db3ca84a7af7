"""List files -> rows: which image has which label, read line by line, so that a list may be of any length.

| form | how it is known | a line |
| --- | --- | --- |
| CSV, TSV | `.csv`, or a first line of column names | cells under `path,label`, perhaps `split` and `weight` |
| JSON lines | `.jsonl`, `.ndjson`, `.json`, or a first line that begins with `{` | an object with the same names |
| text | anything else | `path label`, between them a tab, or a space |

In text a tab parts path and label, the last one where there are several. Without a tab, the path ends with the last
image ending that a space follows (`my cat.jpg tabby cat`); where no word has such an ending, as in MindCV's
annotation files (`0056978 Boeing 717`), with the first space; a `/` in such a label becomes `_`, as it does there. A
table may have a column for each class in place of one for the label, 1 for those that an image has.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...files import json_text
from ..images import EXTENSIONS
from ..walk import is_image
from . import columns as list_columns
from .columns import Columns
from .lines import cut, fail, lines

_ENDING = re.compile(rf"\.(?:{'|'.join(ending[1:] for ending in EXTENSIONS)})(?= )", re.IGNORECASE)
_JSON = {".jsonl", ".ndjson", ".json"}
_BLANK = "an empty line; remove it, or write what is missing"
_OBJECT = 'expected an object, such as {"path": ..., "label": ...}'


class Row(NamedTuple):
    """What a line says.

    Attributes:
        line: its number; of a row over several lines, that of the first.
        path: of the image, as it is written.
        label: as it is written, without spaces around it; several of JSON or of columns are a tuple.
        split: name of the split that it belongs to; None where the list has no such column.
        weight: as it is written; None where the list has no such column.
    """

    line: int
    path: str
    label: str | tuple[str, ...]
    split: str | None
    weight: object


def rows(file: Path, key: str, of_files: bool = False) -> Iterator[Row]:
    """The rows of a list, in their order. `key` is what the list was given by. `of_files`: labels are paths, too.

    Raises UserError (`FILE:LINE: why; remedy`), at the row that is bad.
    """
    form = _form(file, key)
    yield from _of_text(file, key, of_files) if form is _of_text else form(file, key)


def has_splits(file: Path, key: str) -> bool:
    """Whether the rows of a list say which split they belong to, by the first of them. Raises UserError as `rows`."""
    if _form(file, key) is _of_text:
        return False
    first = next(rows(file, key), None)
    return first is not None and first.split is not None


def _form(file: Path, key: str) -> Callable[[Path, str], Iterator[Row]]:
    first = next(lines(file, key), "")
    ending = file.suffix.lower()
    if ending in _JSON or (ending not in (".csv", ".tsv") and first.lstrip().startswith("{")):
        return _of_json
    if ending == ".csv" or list_columns.delimiter(first):
        return _of_table
    return _of_text


def _numbered(file: Path, key: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank. Blank ones at the end are fine, others are refused."""
    blank = 0
    for number, line in enumerate(lines(file, key), 1):
        if line and not line.isspace():
            if blank:
                fail(file, blank, _BLANK)
            yield number, line
        elif not blank:
            blank = number


# --- Text


def _of_text(file: Path, key: str, of_files: bool = False) -> Iterator[Row]:
    for number, line in _numbered(file, key):
        path, label = parted(line, of_files)
        label = label.strip()
        if not path or not label:
            missing = "path" if label else "label"
            fail(file, number, f"no {missing} in {cut(line)!r}; expected `path label`, between them a tab or a space")
        yield Row(number, path, label, None, None)


def parted(line: str, of_files: bool = False) -> tuple[str, str]:
    """Path and label of a line of text; one of them is empty where the line lacks it.

    Labels are paths, too, where the list is one `of_files`.
    """
    if "\t" in line:
        path, _, label = line.rstrip().rpartition("\t")
        return path, label
    line = line.strip()
    if is_image(line) and not of_files:
        return line, ""
    end = 0
    for found in _ENDING.finditer(line):
        end = found.end()
    if end:
        return line[:end], line[end:]
    path, _, label = line.partition(" ")
    return path, label if of_files else label.replace("/", "_")


# --- Tables


def _of_table(file: Path, key: str) -> Iterator[Row]:
    texts = lines(file, key)
    first = next(texts, "")
    delimiter = list_columns.delimiter(first)
    if not delimiter:
        list_columns.refuse_header(file, first)
    names = next(csv.reader([first], delimiter=delimiter))
    columns: Columns | None = None
    # What a blank row holds is nothing: spreadsheets write them behind the last one.
    blank = 0
    for number, cells in _cells(file, texts, delimiter):
        if not any(map(str.strip, cells)):
            blank = blank or number
            continue
        if blank:
            fail(file, blank, _BLANK)
        if len(cells) != len(names):
            remedy = f"put a cell that holds {delimiter!r} in double quotes"
            fail(file, number, f"{len(cells)} cells, where the first line has {len(names)}; {remedy}")
        columns = columns or list_columns.columns(file, names, first=cells)
        path = cells[columns.path]
        if not path.strip():
            fail(file, number, "an empty path; write it, or remove the line")
        split = None if columns.split is None else cells[columns.split].strip()
        weight = None if columns.weight is None else cells[columns.weight]
        yield Row(number, path, columns.labels(file, number, cells), split, weight)


def _cells(file: Path, texts: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each row behind the header, and its cells."""
    reader = csv.reader((f"{text}\n" for text in texts), delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 2
        try:
            cells = next(reader, None)
        except csv.Error as error:
            remedy = 'close the quotes; a double quote inside of them is written ""'
            fail(file, number, f"quotes that are not as in CSV ({error}); {remedy}")
        if cells is None:
            return
        yield number, cells


# --- JSON lines


def _of_json(file: Path, key: str) -> Iterator[Row]:
    known: dict[tuple[str, ...], Columns] = {}
    weighted = split = False
    for count, (number, line) in enumerate(_numbered(file, key)):
        if not count and line.lstrip().startswith("["):
            fail(file, number, "a JSON list; write JSON lines instead, one object a line (`jq -c '.[]'` does)")
        value = json_text.parse(line, f"{file}:{number}", _OBJECT)
        if not isinstance(value, dict):
            fail(file, number, f"{_OBJECT}, got {cut(line)}")
        names = tuple(value)
        columns = known.get(names)
        if columns is None:
            known.clear()  # every line may have other names
            columns = known[names] = list_columns.columns(file, names, number)
            here = columns.weight is not None, columns.split is not None
            if not count:
                weighted, split = here
            elif here != (weighted, split):
                which = "weight" if here[0] != weighted else "split"
                fail(file, number, f"a {which} is either in every line or in none; write it, or remove it")
        cells = list(value.values())
        path = cells[columns.path]
        if not isinstance(path, str) or not path.strip():
            fail(file, number, f"expected a path, got {cut(json_text.dumps(path))}; write it, or remove the line")
        assert columns.label is not None  # columns of classes are those of tables
        yield Row(
            number,
            path,
            _json_label(file, number, cells[columns.label]),
            None if columns.split is None else _text_of(cells[columns.split]),
            None if columns.weight is None else _weight(cells[columns.weight]),
        )


def _weight(value: Any) -> object:
    """A weight as it is written; what is no number in JSON is none here."""
    return "null" if value is None else value


def _text_of(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _json_label(file: Path, line: int, value: Any) -> str | tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_one_label(file, line, item) for item in value)
    return _one_label(file, line, value)


def _one_label(file: Path, line: int, value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(file, line, f"expected a label (a name or a number), got {cut(json_text.dumps(value))}")
    return str(value)
