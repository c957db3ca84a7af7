"""What all command lines have in common: errors in one line, numbers within bounds, files that options name."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError


class Parser(argparse.ArgumentParser):
    """Reports errors as UserError instead of printing the usage and leaving.

    Args:
        prog: name of the program.
        about: what it does, for `--help`: its first paragraph stands before the options, the others behind them. A
            module's docstring, which is None under `python -OO`.
        options: of argparse.
    """

    def __init__(self, prog: str, about: str | None = None, **options: Any) -> None:
        summary, _, rest = (about or "").partition("\n\n")
        super().__init__(**{"prog": prog, "description": summary, "epilog": rest.strip(), **options})

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; --help explains the command line")


def number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], int | float]:
    """The `type` of an argument that is a number from `low` to `high`."""

    def convert(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        # Not the other way round: nothing compares with NaN.
        if value is None or not low <= value <= high:
            noun = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {noun} from {low:,} to {high:,}, got {text!r}")
        return value

    return convert


def write(option: str, path: Path, content: bytes) -> None:
    """Write the file that an option names. Raises UserError where the file system refuses."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file with {option}") from error
