"""What a shell is told when it completes `mindghost ...`: argcomplete's protocol, over the parser of one command."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Mapping

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.lexers import split_line

from ..config import Config, recipes
from ..config.arguments import Parser
from ..config.command_line import choices

Completer = Callable[..., list[str]]


def complete(prog: str, commands: Mapping[str, str]) -> None:
    """Answer the shell that has started this process, and end it.

    Args:
        prog: the program.
        commands: name -> what the command does. Only the one on the shell's line is imported.
    """
    parser = Parser(prog)
    parser.add_argument("--version", action="store_true")
    added = parser.add_subparsers()
    words = split_line(os.environ.get("COMP_LINE", ""), int(os.environ.get("COMP_POINT", "0")))[3]
    asked = next((word for word in words if word in commands), None)
    for name, summary in commands.items():
        parents = [_parser_of(name)] if name == asked else []
        added.add_parser(name, help=summary, parents=parents, add_help=not parents)
    argcomplete.autocomplete(parser, always_complete_options=False)


def _parser_of(command: str) -> Parser:
    """The parser of a command, with what its arguments may be."""
    module = importlib.import_module(f".{command.replace('-', '_')}", __package__)
    parser: Parser = module.make_parser()
    for action in parser._actions:
        if completer := _completer_of(action, command):
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete looks for it
    return parser


def _completer_of(action: argparse.Action, command: str) -> Completer | None:
    if action.dest == "config":
        return _recipes_and_files
    if action.dest == "model" and action.option_strings:
        return lambda **_: _networks()
    if command in ("train", "find-lr", "validate", "stats") and action.dest in Config.model_fields:
        words = choices(Config.model_fields[action.dest].annotation)
        return (lambda **_: words) if words else None
    return None


def _recipes_and_files(prefix: str, **_: object) -> list[str]:
    return [*recipes.files(), *FilesCompleter(("yaml", "yml"))(prefix)]


def _networks() -> list[str]:
    """The networks that recipes train: to ask the registry for all, MindSpore would have to be imported."""
    lines = (line for file in recipes.files().values() for line in file.read_text(encoding="utf-8").splitlines())
    return sorted({line.removeprefix("model:").strip() for line in lines if line.startswith("model:")})
