"""What all command lines have in common: errors in one line, numbers within bounds, files that options name."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..errors import UserError
from ..files import paths
from . import recipes


class _NamesPath:
    """The `type` of an argument that names a file or folder, which `Parser` checks once all are parsed."""

    def __init__(self, check: Callable[[Path, str], None], find: Callable[[str], Path] = Path) -> None:
        self.check, self.find = check, find

    def __call__(self, text: str) -> Path:
        return self.find(text)


def input_file(remedy: str) -> Callable[[str], Path]:
    """The `type` of an argument that names a file to read; `remedy` is what to do where it cannot be read."""
    return _NamesPath(lambda path, option: paths.check_file(path, remedy, option))


def input_folder(remedy: str) -> Callable[[str], Path]:
    """The `type` of an argument that names a folder to read from."""
    return _NamesPath(lambda path, option: paths.check_folder(path, remedy, option))


# The type of an argument that names a recipe: a file, or one of ours by name.
recipe_file = _NamesPath(recipes.check, recipes.find)
# The types of arguments that name a file, or a folder, to write.
output_file = _NamesPath(paths.check_output)
output_folder = _NamesPath(paths.check_output_folder)


class Parser(argparse.ArgumentParser):
    """Reports errors as UserError instead of printing the usage and leaving, and paths that cannot be used as well.

    Args:
        prog: name of the program.
        about: what it does, for `--help`: its first paragraph stands before the options, the others behind them. A
            module's docstring, which is None under `python -OO`.
        options: of argparse.
    """

    def __init__(self, prog: str, about: str | None = None, **options: Any) -> None:
        summary, _, rest = (about or "").partition("\n\n")
        super().__init__(**{"prog": prog, "description": summary, "epilog": rest.strip(), **options})

    def parse_args(  # type: ignore[override]  # of its three forms, the one that is used
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As argparse does. Raises UserError for a path of one of the types above that cannot be used."""
        found = super().parse_args(args, namespace)
        self._check(found)
        return found

    def _check(self, found: argparse.Namespace) -> None:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices[getattr(found, action.dest)]
                chosen._check(found)
            elif isinstance(action.type, _NamesPath):
                given = getattr(found, action.dest)
                option = action.option_strings[-1] if action.option_strings else ""
                for path in given if isinstance(given, list) else [given]:
                    if path is not None:
                        action.type.check(path, option)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's complaint as a UserError, without its page of usage."""
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


def number_of_bytes(text: str) -> int:
    """The `type` of an argument that is an amount of memory, such as 512kB, 1.5MB, 512KiB (of 1,024 bytes) or 4096."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(|k|m|ki|mi)b?", text.lower())
    if not found:
        raise argparse.ArgumentTypeError(f"expected a number of bytes, such as 512kB or 1MB, got {text!r}")
    units = {"": 1, "k": 1000, "m": 1000**2, "ki": 1024, "mi": 1024**2}
    return round(float(found[1]) * units[found[2]])


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """`--overwrite`: see `outputs`."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files, also those that this command did not make",
    )
