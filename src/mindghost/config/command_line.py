"""The command line: one flag for each key, generated from the keys' types, and `--help`.

argparse does the parsing and the layout. Some of its habits (abbreviations, the last of two equal flags wins,
usage and exit on an error, `-1e-5` taken for a flag) are switched off here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo

from ..errors import UserError
from . import recipes, yaml_file
from .arguments import Parser
from .types import expected
from .wording import nearest_key

_EXAMPLES = """\
examples:
  {train} -c finetune --data_dir D
  {train} -c {recipes}ghostnet_050_cpu{ending} --data_dir D --num_classes 10 --epoch_size 30
  mpirun -n 8 {train} --config {recipes}ghostnet_100_ascend{ending} --data_dir /path/to/imagenet
  {validate} --ckpt_path ckpt/ghostnet_050_best.ckpt --data_dir D
  {train} -c my.yaml --scale 0.35 1.0 --auto_augment None --distribute False --print_config

A list is written --scale 0.08 1.0, --scale 0.08,1.0 or --scale "[0.08, 1.0]"; --distribute alone means True.
"""
# How the examples are written for our command, and for the programs in the project's root (MindCV's habit).
_COMMAND = {"train": "mindghost train", "validate": "mindghost validate", "recipes": "", "ending": ""}
_PROGRAMS = {
    "train": "python train.py",
    "validate": "python validate.py",
    "recipes": "configs/ghostnet/",
    "ending": ".yaml",
}
_BOOLEANS = {**yaml_file.BOOLEANS, "1": True, "0": False}
_NEGATIVE = re.compile(r"-[0-9.]")


class Arguments(NamedTuple):
    """What a command line says: the recipe of `-c`, `--print_config`, and the value of each key given."""

    config: Path | None
    print_config: bool
    values: dict[str, Any]


class _Once(argparse.Action):
    """Stores a value, and refuses a second one instead of letting the last win."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            parser.error(f"{option_string}: given twice")
        setattr(namespace, self.dest, values)


def parse(
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    groups: Mapping[str, Sequence[str]],
    fields: Mapping[str, FieldInfo],
) -> Arguments:
    """Reads the flags; checks that they exist and are given once, not what their values are.

    Args:
        argv: arguments without the program's name; None takes those of the process.
        prog: name of the program, for `--help`.
        description: what the program does, for `--help`.
        groups: heading -> keys, for `--help`.
        fields: key -> its type, default and description.

    Raises:
        UserError: an unknown or repeated flag, a flag without its value, a stray argument, a missing recipe; one line.
        SystemExit: with status 0 after `--help`.
    """
    parser = make_parser(prog, description, groups, fields)
    argv = sys.argv[1:] if argv is None else argv
    # A leading space tells argparse that a negative number is a value; _convert takes it away again.
    namespace, extras = parser.parse_known_args([f" {a}" if _NEGATIVE.match(a) else a for a in argv])
    for extra in extras:
        if extra.startswith("-") and extra.strip("-"):
            flag, flags = extra.split("=")[0], [*fields, "config", "print_config", "help"]
            raise UserError(f"{flag!r}: unknown flag; the nearest valid flag is --{nearest_key(flag, flags)}")
        raise UserError(f"unexpected argument {extra.removeprefix(' ')!r}; expected --key value")
    given = vars(namespace)
    config, print_config = given.pop("config", None), given.pop("print_config", False)
    values = {key: _convert(_kinds(fields[key].annotation), value) for key, value in given.items()}
    if config is None:
        return Arguments(None, print_config, values)
    recipe = recipes.find(config)
    recipes.check(recipe, "-c")
    return Arguments(recipe, print_config, values)


def make_parser(
    prog: str, description: str, groups: Mapping[str, Sequence[str]], fields: Mapping[str, FieldInfo]
) -> Parser:
    """The flags of a program, for `--help` and for a shell's completion; see `parse`, which reads them."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [-c RECIPE] [--key value ...]",
        description=description,
        epilog=_EXAMPLES.format(**(_PROGRAMS if prog.endswith(".py") else _COMMAND)),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=6, width=110),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="RECIPE",
        action=_Once,
        help="YAML file, or a name that `mindghost recipes` lists; flags override its values",
    )
    parser.add_argument("--print_config", action="store_true", help="print the resolved recipe as YAML and exit")
    for title, keys in groups.items():
        group = parser.add_argument_group(title)
        for key in keys:
            kinds = _kinds(fields[key].annotation)
            group.add_argument(
                f"--{key}",
                action=_Once,
                nargs="?" if bool in kinds else "+" if tuple in kinds else None,
                const="True" if bool in kinds else None,
                metavar=_metavar(kinds),
                help=_describe(fields[key]).replace("%", "%%"),
            )
    return parser


def _describe(field: FieldInfo) -> str:
    """Meaning, type or choices, and default of a key."""
    meaning = " ".join((field.description or "").split())
    default = "None" if field.default is None else yaml_file.dump(field.default)
    return f"{meaning} [{expected(field.annotation, field.metadata)}; default: {default}]"


def _metavar(kinds: set[type]) -> str:
    names = {bool: "BOOL", tuple: "LIST", str: "TEXT", float: "NUMBER", int: "INT"}
    return next(name for kind, name in names.items() if kind in kinds)


def _kinds(annotation: Any) -> set[type]:
    """The plain types that a key can hold: `{int, NoneType}` for an optional integer."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(arguments[0])
    if origin is Literal:
        return {type(choice) for choice in arguments}
    if origin is tuple or not arguments:
        return {origin or annotation}
    return set().union(*map(_kinds, arguments))


def choices(annotation: Any) -> list[str]:
    """The words that a key takes, of one that takes words of a list or True and False; else none."""
    if annotation is bool:
        return ["True", "False"]
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [word for part in get_args(annotation) for word in choices(part)]


def _convert(kinds: set[type], given: str | list[str]) -> Any:
    """The words of one flag as a value; what does not fit the type stays as it is, for Config to refuse."""
    words = [given] if isinstance(given, str) else given
    text = " ".join(word[1:] if word.startswith(" -") else word for word in words)
    if NoneType in kinds and text in ("None", "null"):
        return None
    if bool in kinds:
        return _BOOLEANS.get(text.lower(), text)
    if tuple not in kinds:
        return text if str in kinds else yaml_file.scalar(text)
    bracketed = re.fullmatch(r"\s*(?:\[(.*)\]|\((.*)\))\s*", text)
    inside = next(part for part in bracketed.groups() if part is not None) if bracketed else text
    items = [yaml_file.scalar(item) for item in re.split(r"\s*,\s*|\s+", inside.strip())]
    if str in kinds and not bracketed and not all(isinstance(item, (int, float)) for item in items):
        return text  # the path of a file may have spaces in it
    # Keys such as re_value take one plain value as well as a list.
    return items[0] if len(items) == 1 and not bracketed and kinds - {tuple, NoneType} else items
