"""The file format of a recipe: one flat YAML mapping, read strictly and written back.

Reading uses PyYAML's event stream only, never its constructors, so a file can name no Python object. Tags,
anchors, aliases and merge keys are refused, which also rules out anchors that explode. Scalars follow YAML
1.2 (`1e-5` is a number) with the `yes/no/on/off` of YAML 1.1, by which MindCV's recipes are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..files import paths
from ..process.display import shown

# A recipe with every key is 3 kB. PyYAML needs 20 s for a list of 1 MB, so this bounds a hostile file to 2 s.
MAX_BYTES = 100_000

BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS = {"", "~", "null", "Null", "NULL", "None"}  # None: what a Python user writes
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*")
# int() refuses more digits than this (sys.int_info.default_max_str_digits); no key needs a tenth of it.
_MAX_DIGITS = 400


def scalar(text: str) -> bool | int | float | str | None:
    """The value that an unquoted `text` stands for, in a file and on the command line alike."""
    if text in _NULLS:
        return None
    if text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    if len(text) <= _MAX_DIGITS:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def dump(value: Any) -> str:
    """`value` (None, bool, int, finite float, str or tuple of them) as YAML that reads back equal."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(dump, value))}]"
    if isinstance(value, float):
        # YAML 1.1, and so MindCV, wants the dot: 1e-07 would be text there.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    if isinstance(value, str):
        if _PLAIN_TEXT.fullmatch(value) and isinstance(scalar(value), str):
            return value
        # Escapes for all beyond ASCII where a reader of the file would not see what is there.
        plain = shown(value) == value
        return yaml.safe_dump(value, default_style='"', allow_unicode=plain, width=math.inf).rstrip("\n")
    return str(value)


def read(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Reads one recipe.

    Returns:
        The value of each key (None, bool, int, float, str or a list of them), and its line, from 1.

    Raises:
        UserError: the file is missing, too large, no YAML, no flat mapping or has a key twice; `FILE:LINE`.
    """
    text = _text(path)
    try:
        return _Recipe(path, text).entries()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "syntax error"
        hint = "; use spaces, not tabs" if "\\t" in problem else ""
        at_line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{at_line}: not valid YAML: {problem}{hint}") from None
    except yaml.reader.ReaderError as error:
        line, character = text.count("\n", 0, error.position) + 1, f"U+{error.character:04X}"
        raise UserError(f"{path}:{line}: not valid YAML: {character} is not allowed; remove it") from None


def recipe(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a file by key, and what stands before a key's name in messages: `FILE:LINE: `. Raises as `read`."""
    values, lines = read(path)
    return values, {key: f"{path}:{line}: " for key, line in lines.items()}


def _text(path: Path) -> str:
    """The text of a regular file of bounded size."""
    content = paths.read(path, "give the path of a YAML recipe of `key: value` lines", MAX_BYTES)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None


class _Recipe:
    """Turns the events of one file into entries; nothing is nested deeper than a list of scalars."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.events: Iterator[yaml.Event] = map(self._checked, yaml.parse(text, Loader=yaml.SafeLoader))

    def entries(self) -> tuple[dict[str, Any], dict[str, int]]:
        next(self.events)  # the stream starts
        if isinstance(next(self.events), yaml.StreamEndEvent):
            raise UserError(f"{self.path}: the file is empty; expected `key: value` lines")
        top = next(self.events)
        if not isinstance(top, yaml.MappingStartEvent):
            what = "a list" if isinstance(top, yaml.SequenceStartEvent) else "a single value"
            raise self._error(top, f"expected `key: value` lines, got {what}")
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for event in iter(lambda: next(self.events), None):
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event)
            if key in lines:
                raise self._error(event, f"{key}: given twice, first on line {lines[key]}; remove one of them")
            lines[key] = _line(event)
            values[key] = self._value(key)
        next(self.events)  # the document ends
        extra = next(self.events)
        if not isinstance(extra, yaml.StreamEndEvent):
            raise self._error(extra, "a second document (---) starts here; a recipe is one document")
        return values, lines

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._error(event, "expected a key, got a list or a mapping")
        if event.value == "<<":
            raise self._error(event, "merge keys (<<) are not allowed; write the keys out")
        return event.value

    def _value(self, key: str) -> Any:
        event = next(self.events)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar_of(event)
        if isinstance(event, yaml.MappingStartEvent):
            raise self._error(event, f"{key}: expected a value or a list, got a mapping")
        items: list[Any] = []
        for item in iter(lambda: next(self.events), None):
            if isinstance(item, yaml.SequenceEndEvent):
                break
            if not isinstance(item, yaml.ScalarEvent):
                raise self._error(item, f"{key}: expected a flat list, got a list or a mapping inside it")
            items.append(_scalar_of(item))
        return items

    def _checked(self, event: yaml.Event) -> yaml.Event:
        """Passes on plain YAML and refuses the parts of it that a recipe has no use for."""
        if getattr(event, "anchor", None) is not None:  # an alias event carries its anchor, too
            raise self._error(event, f"anchors and aliases ({event.anchor!r}) are not allowed; write the value out")
        if getattr(event, "tag", None) is not None:
            raise self._error(event, f"tags ({event.tag!r}) are not allowed; write the plain value")
        return event

    def _error(self, event: yaml.Event, message: str) -> UserError:
        return UserError(f"{self.path}:{_line(event)}: {message}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1


def _scalar_of(event: yaml.ScalarEvent) -> Any:
    return scalar(event.value) if event.style is None else event.value
