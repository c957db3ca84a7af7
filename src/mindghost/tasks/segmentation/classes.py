"""Names and colours of classes, from the file of the key `class_names`."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from ...data import class_names
from ...errors import UserError
from ...files import json_text, paths
from ...files.text import decoded
from ...runs.files import Color
from ..names import Classes
from .colors import distinct

WANTED = (
    "give lines `name,r,g,b` or `r g b name`, one name a line, or JSON: a map of names to [r, g, b], a list of names, "
    'or a list of {"name": ..., "color": [r, g, b]}'
)
_LAST = 255
_COLOR_FIRST = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\S.*)")
_HEADING = ["r", "g", "b"]


def read(path: Path) -> Classes:
    """The classes of a file.

    Beside the forms that `data.class_names` reads, which have no colours: `name,r,g,b` (perhaps with such a first
    line), `r g b name` as CamVid's `label_colors.txt` has it, a JSON map of names to colours, a JSON list of objects.

    Raises UserError, which names the file and the line.
    """
    text = decoded(path, paths.read(path, WANTED, json_text.MOST_BYTES))
    if text.lstrip()[:1] in ("{", "["):
        found = _of_json(path, json_text.parse(text, path, WANTED))
    else:
        found = _of_table(path, text) or _color_first(path, text)
    if found is None:
        return Classes(class_names.read(path, WANTED, numbered=True))
    return Classes(class_names.checked([name for name, _ in found], path, WANTED), [color for _, color in found])


def palette(count: int) -> list[Color]:
    """Colours for so many classes where none are known."""
    return list(distinct(count))


def _of_json(path: Path, value: Any) -> list[tuple[str, Color]] | None:
    # Of a list of two, Keras's pair of a synset and a name, there is no colour to be had.
    if isinstance(value, dict) and value and all(isinstance(v, list) and len(v) != 2 for v in value.values()):
        return [(name, _color(f"{path}: {name[:60]}", color)) for name, color in value.items()]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [
            (item.get("name", ""), _color(f"{path}: entry {number}", item.get("color", item.get("colour"))))
            for number, item in enumerate(value, 1)
        ]
    return None


def _of_table(path: Path, text: str) -> list[tuple[str, Color]] | None:
    """Lines `name,r,g,b`; None for other text."""
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or len(rows[0]) != 4 or rows[0][0].strip().isdecimal():
        return None
    first = 1 if [cell.strip().lower() for cell in rows[0][1:]] == _HEADING else 0
    found = []
    for number, cells in enumerate(rows[first:], first + 1):
        if not any(map(str.strip, cells)) and number == len(rows):
            continue
        where = f"{path}: line {number}"
        if len(cells) != 4:
            raise UserError(f"{where}: {len(cells)} cell(s), expected name,r,g,b")
        numbers = [int(cell) if cell.strip().isdecimal() else cell for cell in cells[1:]]
        found.append((cells[0].strip(), _color(where, numbers)))
    return found


def _color_first(path: Path, text: str) -> list[tuple[str, Color]] | None:
    """Lines `r g b name`; None for other text."""
    matches = [_COLOR_FIRST.fullmatch(line.strip()) for line in text.strip().split("\n")]
    if not all(matches):
        return None
    found = [match.groups() for match in matches if match]
    return [
        (name, _color(f"{path}: line {number}", [int(part) for part in color]))
        for number, (*color, name) in enumerate(found, 1)
    ]


def _color(where: str, value: Any) -> Color:
    whole = isinstance(value, list) and all(map(json_text.is_integer, value))
    if not whole or len(value) != 3 or not all(0 <= part <= _LAST for part in value):
        raise UserError(f"{where}: expected a colour of three numbers from 0 to {_LAST}, got {str(value)[:60]}")
    return value[0], value[1], value[2]
