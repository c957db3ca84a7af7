"""List files -> rows: which image has which label, read line by line, so that a list may be of any length.

| form | how it is known | a line |
| --- | --- | --- |
| CSV, TSV | `.csv`, or a first line of column names | cells under `path,label`, perhaps `split` and `weight` |
| JSON lines | `.jsonl`, `.ndjson`, `.json`, or a first line that begins with `{` | an object with the same names |
| text | anything else | `path label`, between them a tab, or a space |

In text a tab parts path and label, the last one where there are several. Without a tab, the path ends with the last
image ending that a space follows (`my cat.jpg tabby cat`); where no word has such an ending, as in MindCV's
annotation files (`0056978 Boeing 717`), with the first space; a `/` in such a label becomes `_`, as it does there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..errors import UserError
from ..files import json_text, paths
from ..process.display import shown, some
from .images import EXTENSIONS
from .walk import is_image

WANTED = 'give lines `path label`, CSV whose first line is `path,label`, or JSON lines {"path": ..., "label": ...}'

_BLOCK = 1 << 20  # bytes that are read at a time
_MOST_LINE = 1 << 18  # bytes; a path has up to 4,096
_LETTERS_SHOWN = 100
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OTHER_ENCODING = "not UTF-8 text (Latin-1 or Windows-1252, perhaps); save the list as UTF-8"
_ENDING = re.compile(rf"\.(?:{'|'.join(ending[1:] for ending in EXTENSIONS)})(?= )", re.IGNORECASE)
_JSON = {".jsonl", ".ndjson", ".json"}

# What people call the columns; of the first group that a list has one of, that one is taken.
_PATHS = (
    ("path", "paths", "filepath", "filepaths", "file_path", "image_path", "img_path", "image_file", "relative_path"),
    ("file_name", "filename", "filenames", "file", "image_name", "img_name", "image_filename", "fname"),
    ("image", "img", "images"),
    ("image_id", "img_id", "id"),
)
_LABELS = (
    ("label", "labels"),
    ("class", "classes", "class_name", "category", "category_name", "label_name", "target", "tags"),
    ("class_id", "label_id", "category_id", "class_idx", "label_idx", "class_label"),
)
_SPLITS = (("split", "splits"), ("subset", "partition", "phase"), ("set", "data_set", "dataset"))
_WEIGHTS = (("weight", "weights", "sample_weight"),)


class Row(NamedTuple):
    """What a line says.

    Attributes:
        line: its number; of a row over several lines, that of the first.
        path: of the image, as it is written.
        label: as it is written, without spaces around it; what JSON has as a list is a tuple.
        split: name of the split that it belongs to; None where the list has no such column.
        weight: as it is written; None where the list has no such column.
    """

    line: int
    path: str
    label: str | tuple[str, ...]
    split: str | None
    weight: object


def rows(file: Path, key: str) -> Iterator[Row]:
    """The rows of a list, in their order. `key` is what the list was given by.

    Bytes that are no UTF-8 are kept in paths, as Python keeps them in names of files.

    Raises UserError (`FILE:LINE: why; remedy`), at the row that is bad.
    """
    yield from _form(file, key)(file, key)


def has_splits(file: Path, key: str) -> bool:
    """Whether the rows of a list say which split they belong to, by the first of them. Raises UserError as `rows`."""
    first = next(rows(file, key), None)
    return first is not None and first.split is not None


def fail(file: Path, line: int, problem: str) -> NoReturn:
    """Raise UserError for a line of a list."""
    raise UserError(f"{file}:{line}: {problem}")


def is_bad_text(text: str) -> bool:
    """Whether a text holds bytes that are no UTF-8."""
    return not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text)


def refuse_encoding(file: Path, line: int) -> NoReturn:
    """Raise UserError for a line that is not in UTF-8."""
    fail(file, line, _OTHER_ENCODING)


# --- Lines


def _lines(file: Path, key: str) -> Iterator[str]:
    """The lines of a text file, without their ends, of which a few are in memory at a time.

    Ends are those of Linux and Windows; those of old Macs, where a file has no others.
    """
    number, rest, end = 1, b"", b"\n"
    with _opened(file, key) as content:
        while block := content.read(_BLOCK):
            if number == 1 and not rest:
                if block.startswith(_UTF_16):
                    raise UserError(f"{file}:1: UTF-16 text; save the list as UTF-8")
                block = block.removeprefix(_BOM)
                end = b"\r" if b"\r" in block and b"\n" not in block else end
            if b"\0" in block:
                line = number + block.count(end, 0, block.index(b"\0"))
                fail(file, line, f"no text (a binary file, or UTF-16 that does not say so); {WANTED}")
            whole, found, rest = (rest + block).rpartition(end)
            if len(rest) > _MOST_LINE:
                line = number + whole.count(end) + (1 if found else 0)
                fail(file, line, f"a line of over {_MOST_LINE:,} bytes; {WANTED}")
            if found:
                lines = whole.decode(errors="surrogateescape").split(end.decode())
                yield from (line.removesuffix("\r") for line in lines)
                number += len(lines)
    if rest:
        yield rest.decode(errors="surrogateescape").removesuffix("\r")


def _opened(file: Path, key: str) -> Any:
    try:
        return paths.open_file(file, "give a list of images")
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def _numbered(file: Path, key: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank. Blank ones at the end are fine, others are refused."""
    blank = 0
    for number, line in enumerate(_lines(file, key), 1):
        if line and not line.isspace():
            if blank:
                fail(file, blank, "an empty line; remove it, or write what is missing")
            yield number, line
        elif not blank:
            blank = number


# --- Forms


def _form(file: Path, key: str) -> Callable[[Path, str], Iterator[Row]]:
    first = next(_lines(file, key), "")
    ending = file.suffix.lower()
    if ending in _JSON or (ending not in (".csv", ".tsv") and first.lstrip().startswith("{")):
        return _of_json
    if ending == ".csv" or _delimiter(first):
        return _of_table
    return _of_text


def _of_text(file: Path, key: str) -> Iterator[Row]:
    for number, line in _numbered(file, key):
        path, label = parted(line)
        label = label.strip()
        if not path or not label:
            missing = "path" if label else "label"
            fail(file, number, f"no {missing} in {_cut(line)!r}; expected `path label`, between them a tab or a space")
        yield Row(number, path, label, None, None)


def parted(line: str) -> tuple[str, str]:
    """Path and label of a line of text; one of them is empty where the line lacks it."""
    if "\t" in line:
        path, _, label = line.rstrip().rpartition("\t")
        return path, label
    line = line.strip()
    if is_image(line):
        return line, ""
    end = 0
    for found in _ENDING.finditer(line):
        end = found.end()
    if end:
        return line[:end], line[end:]
    path, _, label = line.partition(" ")
    return path, label.replace("/", "_")


def _of_table(file: Path, key: str) -> Iterator[Row]:
    lines = _lines(file, key)
    first = next(lines, "")
    delimiter = _delimiter(first)
    if not delimiter:
        _refuse_header(file, first)
    header = next(csv.reader([first], delimiter=delimiter))
    columns = _columns(file, header)
    # What a blank row holds is nothing: spreadsheets write them behind the last one.
    blank = 0
    for number, cells in _cells(file, lines, delimiter):
        if not any(map(str.strip, cells)):
            blank = blank or number
            continue
        if blank:
            fail(file, blank, "an empty line; remove it, or write what is missing")
        if len(cells) != len(header):
            remedy = f"put a cell that holds {delimiter!r} in double quotes"
            fail(file, number, f"{len(cells)} cells, where the first line has {len(header)}; {remedy}")
        path, label = cells[columns.path], cells[columns.label].strip()
        if not path.strip():
            fail(file, number, "an empty path; write it, or remove the line")
        split = None if columns.split is None else cells[columns.split].strip()
        weight = None if columns.weight is None else cells[columns.weight]
        yield Row(number, path, label, split, weight)


def _cells(file: Path, lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each row behind the header, and its cells."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
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


def _of_json(file: Path, key: str) -> Iterator[Row]:
    known: dict[tuple[str, ...], _Columns] = {}
    weighted = split = False
    for count, (number, line) in enumerate(_numbered(file, key)):
        if not count and line.lstrip().startswith("["):
            fail(file, number, "a JSON list; write JSON lines instead, one object a line (`jq -c '.[]'` does)")
        value = json_text.parse(line, f"{file}:{number}", 'expected an object, such as {"path": ..., "label": ...}')
        if not isinstance(value, dict):
            fail(file, number, f'expected an object, such as {{"path": ..., "label": ...}}, got {_cut(line)}')
        names = tuple(value)
        columns = known.get(names)
        if columns is None:
            known.clear()  # every line may have other names
            columns = known[names] = _columns(file, names, number)
            here = columns.weight is not None, columns.split is not None
            if not count:
                weighted, split = here
            elif here != (weighted, split):
                which = "weight" if here[0] != weighted else "split"
                fail(file, number, f"a {which} is either in every line or in none; write it, or remove it")
        cells = list(value.values())
        path, label = cells[columns.path], cells[columns.label]
        if not isinstance(path, str) or not path.strip():
            fail(file, number, f"expected a path, got {_cut(json_text.dumps(path))}; write it, or remove the line")
        yield Row(
            number,
            path,
            _json_label(file, number, label),
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
        fail(file, line, f"expected a label (a name or a number), got {_cut(json_text.dumps(value))}")
    return str(value)


# --- Columns


class _Columns(NamedTuple):
    """Which cells of a row hold what."""

    path: int
    label: int
    split: int | None
    weight: int | None


def _columns(file: Path, header: Sequence[str], line: int = 1) -> _Columns:
    names = list(map(_plain, header))
    path, label = _column(file, line, names, _PATHS), _column(file, line, names, _LABELS)
    if path is None or label is None:
        lacks = "path" if path is None else "label"
        found = some([_cut(name) or "''" for name in header])
        fail(file, line, f"no column for the {lacks}; name one of these {lacks}: {found}")
    return _Columns(path, label, _column(file, line, names, _SPLITS), _column(file, line, names, _WEIGHTS))


def _column(file: Path, line: int, names: Sequence[str], groups: Sequence[Sequence[str]]) -> int | None:
    """Which of the columns is meant by one of these names; None where none is."""
    for group in groups:
        found = [index for index, name in enumerate(names) if name in group]
        if len(found) > 1:
            both = " and ".join(names[index] for index in found)
            fail(file, line, f"two columns for one thing, {both}; rename the one that is meant to {groups[0][0]}")
        if found:
            return found[0]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())


def _delimiter(first: str) -> str:
    """What parts the cells of a table, by its first line; empty where that has no names of columns."""
    for delimiter in ",\t;":
        try:
            names = list(map(_plain, next(csv.reader([first], delimiter=delimiter), [])))
        except csv.Error:
            continue
        if _has(names, _PATHS) or _has(names, _LABELS):
            return delimiter
    return ""


def _has(names: Sequence[str], groups: Sequence[Sequence[str]]) -> bool:
    return any(name in group for group in groups for name in names)


def _refuse_header(file: Path, first: str) -> NoReturn:
    if not first.strip():
        fail(file, 1, f"an empty first line; {WANTED}")
    fail(file, 1, f"the first line names no columns ({_cut(first)!r}); put `path,label` there")


def _cut(text: str) -> str:
    text = shown(text)
    return text if len(text) <= _LETTERS_SHOWN else f"{text[:_LETTERS_SHOWN]}..."
