"""Class names in label order, from the files that people have: text, and JSON as several libraries write it.

A file is read rightly or refused in one line. What is refused could shift the labels: a blank line, a name that is
there twice, labels with a gap.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import json_text, paths
from ..files import text as texts

WANTED = "give one name a line, or JSON: a list of names, or a map of labels to names (or of names to labels)"

_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
_MOST_NAMES = 1_000_000
_MOST_LETTERS = 1_000  # of a name
_MARKUP = re.compile(r"<(?:!doctype|html|\?xml)", re.IGNORECASE)
_NUMBERED = re.compile(r"([0-9]{1,7})[\s.,:;=)|]+\S.*")
_LABEL_BEFORE = re.compile(r"([0-9]{1,7})[\s:,]\s*(\S.*)")
_NUMBERED_AT_END = re.compile(r".*\S\s*[,;\t]\s*([0-9]{1,7})")
_SYNSET = re.compile(r"n[0-9]+")
# Under which key libraries keep the names: Hugging Face, torchvision (in `meta`), timm, our description of a file.
_HOLDERS = ("id2label", "label2id", "categories", "class_to_idx", "label_names", "classes", "class_names", "names")


def read(path: Path, remedy: str = WANTED, numbered: bool = False) -> list[str]:
    """The class names in a file, in label order; at least one, all different.

    Text has one name a line, behind its label where they may be `numbered` (`0 cat`, as PaddleClas has it). JSON is a
    list of names, or a map: label -> name, label -> [synset, name] (Keras), name -> label; or an object that holds one
    of these (Hugging Face's config.json, torchvision's meta, timm's).

    Raises UserError, which names `path` and ends with `remedy`.
    """
    text = texts.decoded(path, paths.read(path, remedy, json_text.MOST_BYTES))
    value = _json(path, text, remedy)
    names = _lines(path, text, remedy, numbered) if value is None else _of_json(path, value, remedy)
    return checked(names, path, remedy)


def held(path: Path, remedy: str = WANTED) -> list[str] | None:
    """The class names in a JSON file that may hold them among other things, as `_info.json`; None where it has none."""
    value = json_text.read(path, remedy)
    found = isinstance(value, list) or (isinstance(value, dict) and any(key in value for key in _HOLDERS))
    return read(path, remedy) if found else None


def checked(names: Any, source: str | Path, remedy: str) -> list[str]:
    """A list of class names, if it is one: texts of some letters, all different. Raises UserError otherwise."""
    if not isinstance(names, list | tuple) or not names:
        raise UserError(f"{source}: expected a list of class names; {remedy}")
    if len(names) > _MOST_NAMES:
        raise UserError(f"{source}: {len(names):,} class names, more than any network has; {remedy}")
    first: dict[str, int] = {}
    for label, name in enumerate(names):
        if not isinstance(name, str):
            kind = _KINDS.get(type(name), "something else")
            raise UserError(f"{source}: label {label}: expected a class name, got {kind}; {remedy}")
        if not name:
            raise UserError(f"{source}: label {label}: its name is empty; {remedy}")
        if len(name) > _MOST_LETTERS:
            raise UserError(f"{source}: label {label}: a name of {len(name):,} letters; {remedy}")
        if first.setdefault(name, label) != label:
            raise UserError(
                f"{source}: labels {first[name]} and {label} have one name, {name[:60]!r}; give each its own"
            )
    return list(names)


def _json(path: Path, text: str, remedy: str) -> Any:
    """The list or map of a JSON text; None for text of another kind.

    Which it is the parser decides, so that a first line `[unknown]` is a name. What was meant to be JSON is no text.
    """
    try:
        value = json_text.parse(text, path, remedy)
    except UserError:
        if path.suffix.lower() == ".json" or _meant_as_json(text.strip()):
            raise
        return None
    if isinstance(value, list | dict):
        return value
    if path.suffix.lower() == ".json":
        raise UserError(f"{path}: expected a list or a map of class names; {remedy}")
    return None  # a line such as 7 or true is a name


def _meant_as_json(text: str) -> bool:
    """Whether a text that is no JSON was meant to be: an object, or a list that is not one bracketed word a line."""
    line, *others = text.split("\n")
    if not line.startswith("["):
        return line.startswith("{")
    closed = "]" in line
    return not closed or line[1:].lstrip()[:1] in tuple("\"'[{,") or (not others and "," in line)


def _lines(path: Path, text: str, remedy: str, numbered: bool) -> list[str]:
    if path.suffix.lower() in (".yaml", ".yml") or _MARKUP.match(text.lstrip()):
        raise UserError(f"{path}: neither plain text nor JSON; {remedy}")
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{path}: empty; {remedy}")
    if "" in lines:
        raise UserError(
            f"{path}: line {lines.index('') + 1} is blank, so which labels the later names have is not known; remove it"
        )
    if numbered:
        matches = [_LABEL_BEFORE.fullmatch(line) for line in lines]
        if [int(match[1]) for match in matches if match] == list(range(len(lines))):
            return [match[2] for match in matches if match]
    if _are_numbered(lines) or _are_numbered(lines[1:]):
        raise UserError(
            f"{path}: its lines are numbered ({lines[-1][:60]!r}); drop the numbers, or give a JSON list if they are "
            "part of the names"
        )
    if len(lines) > 1 and all(line.startswith("- ") for line in lines):
        raise UserError(f"{path}: a YAML list; {remedy}")
    return lines


def _are_numbered(lines: Sequence[str]) -> bool:
    """Whether lines count themselves, as `0 cat`, `1 dog` or `cat,0`, `dog,1`: no name holds these numbers."""
    for pattern in (_NUMBERED, _NUMBERED_AT_END):
        numbers = [int(match[1]) for match in map(pattern.fullmatch, lines) if match]
        if len(numbers) == len(lines) > 1 and numbers in (list(range(len(lines))), list(range(1, len(lines) + 1))):
            return True
    return False


def _of_json(path: Path, value: Any, remedy: str) -> Any:
    """The names in a JSON value, in label order."""
    found = _of_plain(path, value, remedy)
    return _of_object(path, value, remedy) if found is None else found


def _of_plain(path: Path, value: Any, remedy: str) -> list[Any] | None:
    """The names of a list, or of a map from or to labels; None for another object."""
    if isinstance(value, list):
        return _of_list(value)
    if value and all(map(json_text.is_integer, value.values())):
        return _of_labels(path, value, remedy)
    if value and all(map(_is_label, value)):
        return _of_list(_in_order(path, {int(key): name for key, name in value.items()}, remedy))
    if value and all(isinstance(label, str) and _is_label(label) for label in value.values()):
        # As Hugging Face's example writes label2id.
        return _of_labels(path, {name: int(label) for name, label in value.items()}, remedy)
    return None


def _of_object(path: Path, value: Mapping[str, Any], remedy: str) -> list[str]:
    """The names that a larger object holds."""
    if isinstance(value.get("meta"), dict):
        value = {**value["meta"], **value}
    found = {}
    for key in _HOLDERS:
        names = _of_plain(path, value[key], remedy) if isinstance(value.get(key), list | dict) else None
        if names is not None:
            found[key] = checked(names, f"{path}: {key}", remedy)
    if not found:
        raise UserError(f"{path}: expected a list or a map of class names; {remedy}")
    (first, names), *others = found.items()
    for key, other in others:
        if other != names:
            raise UserError(f"{path}: {first} and {key} do not agree; correct one of them")
    return names


def _of_list(names: Sequence[Any]) -> list[Any]:
    """Names as they are; of Keras's pairs of a synset and a name, the name (with its synset, where two have it)."""
    pairs = all(isinstance(n, list) and len(n) == 2 and all(isinstance(part, str) for part in n) for n in names)
    if not pairs or not all(_SYNSET.fullmatch(synset) for synset, _ in names):
        return list(names)
    times = Counter(name for _, name in names)
    return [f"{name} ({synset})" if times[name] > 1 else name for synset, name in names]


def _of_labels(path: Path, labels: Mapping[str, int], remedy: str) -> list[str]:
    """The names of a map name -> label."""
    found: dict[int, str] = {}
    for name, label in labels.items():
        if label in found:
            raise UserError(f"{path}: {found[label][:60]!r} and {name[:60]!r} have one label, {label}; correct it")
        found[label] = name
    return _in_order(path, found, remedy)


def _in_order(path: Path, found: Mapping[int, Any], remedy: str) -> list[Any]:
    missing = next((label for label in range(len(found)) if label not in found), None)
    if missing is not None:
        raise UserError(f"{path}: {len(found)} class names, none for label {missing}: labels count from 0; {remedy}")
    return [found[label] for label in range(len(found))]


def _is_label(text: str) -> bool:
    """Whether a text is a label as a program writes it: 7, and not 07, +7 or a 7 in another script."""
    return text.isascii() and text.isdecimal() and len(text) <= 7 and (text == "0" or text[0] != "0")
