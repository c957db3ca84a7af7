"""What is wrong with a configuration: in one line, which names the key first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ..errors import UserError
from .types import INT_MAX, expected
from .wording import nearest_key, short


class Problem(NamedTuple):
    """One thing that is wrong: the keys involved, the one to name first, and one line about it."""

    keys: tuple[str, ...]
    message: str


class ConfigError(UserError):
    """One line about the first problem, and how many more there are."""

    def __init__(self, problem: Problem, more: int = 0, where: Mapping[str, str] | None = None) -> None:
        """`where` maps a key to what stands before its name: `"FILE:LINE: "` or `"--"`."""
        where = where or {}
        key = next((key for key in problem.keys if key in where), problem.keys[0])
        name = short(key if key.isprintable() else repr(key))
        super().__init__(f"{where.get(key, '')}{name}: {problem.message}{f' (and {more} more)' if more else ''}")
        self.problem, self.more = problem, more


def translate(error: ValidationError, values: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> ConfigError:
    """Pydantic's findings as one line: the first in the order of `values`, and how many more keys."""
    findings = reversed(error.errors(include_url=False))
    # A key that is no UTF-8 has no place of its own.
    found = {(*finding["loc"], finding["input"])[0]: finding for finding in findings}
    key = next(key for key in values if key in found)
    return ConfigError(Problem((key,), _message(key, found[key], values[key], fields)), len(found) - 1)


def _message(key: str, finding: Mapping[str, Any], value: Any, fields: Mapping[str, FieldInfo]) -> str:
    if key not in fields:
        return f"unknown key; the nearest valid key is {nearest_key(key, fields)} (--help lists them all)"
    context = finding.get("ctx", {})
    wanted = f"expected {expected(fields[key].annotation, fields[key].metadata)}"
    if context.get("le") == INT_MAX:
        wanted = f"expected at most {INT_MAX}"
    if finding["type"] == "value_error" and str(context["error"]):
        wanted = str(context["error"])
    unquoted = finding["type"] == "string_type" and isinstance(value, (bool, int, float))
    shown = short(repr(list(value) if isinstance(value, tuple) else value))
    return f"{wanted}, got {shown}{'; put it in quotes' if unquoted else ''}"


def contradiction(key: str, source: object, wanted: Any, got: Any) -> Problem:
    """A value other than the one that a file has, which settles it."""
    wanted, got = (list(value) if isinstance(value, tuple) else value for value in (wanted, got))
    return Problem((key,), f"{source} has {short(str(wanted))}, got {short(str(got))}; leave the key out")
