"""JSON as strangers write it, read without trust, and JSON that every reader takes."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import UserError
from . import paths

# No file of a run, and no list of class names, comes near.
MOST_BYTES = 32_000_000
# Digits of the largest integer that is read: those of 64 bits.
_MOST_DIGITS = 19
_MOST_LEVELS = 50  # of lists and objects in each other


def read(path: Path, remedy: str) -> Any:
    """The value in a JSON file (see `parse`). Raises UserError where the file cannot be read, too."""
    content = paths.read(path, remedy, MOST_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); {remedy}") from error
    return parse(text, path, remedy)


def parse(text: str, source: str | Path, remedy: str) -> Any:
    """The value of a JSON text.

    NaN and infinities, as `metrics.jsonl` had them, come as None: no calculation ever meets them.

    Raises UserError (`SOURCE: not JSON (why); remedy`) for anything else, for a key that an object has twice, integers
    beyond 64 bits and values that are nested deeper than those of any file here.
    """
    try:
        value = json.loads(
            text, parse_constant=lambda _: None, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
        _check_depth(value)
    except RecursionError as error:
        raise UserError(f"{source}: nested too deep for what it should hold; {remedy}") from error
    except ValueError as error:
        raise UserError(f"{source}: not JSON ({' '.join(str(error).split())[:200]}); {remedy}") from error
    return value


def dumps(value: Any, indent: int | None = None) -> str:
    """A value as JSON, on one line without `indent`; what is not finite becomes null, since `NaN` is no JSON."""
    return json.dumps(_finite(value), allow_nan=False, indent=indent)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of `parse` is a number: True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value of `parse` is a whole number: True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_depth(value: Any) -> None:
    """Raise RecursionError for what Python may not be able to print or compare."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        lists = [item if isinstance(item, list) else item.values() for item in level if isinstance(item, list | dict)]
        level = [item for inner in lists for item in inner]
        if not level:
            return
    raise RecursionError


def _float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _int(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > _MOST_DIGITS:
        raise ValueError(f"a number of {digits} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice[:60]!r} is there twice")
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
