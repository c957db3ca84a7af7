"""`mindghost COMMAND ...`: finds the command and runs it. A command is a module here, imported when it is asked for."""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from .. import __version__
from ..config.arguments import Parser
from ..config.wording import nearest
from ..errors import UserError
from ..process import table
from .command import run_command, run_program

PROG = "mindghost"
# Name of a command -> what it does. Its module has the same name, with an underscore for a hyphen.
COMMANDS = {
    "train": "train a network, or go on with a run",
    "find-lr": "find a learning rate by a range test",
    "validate": "evaluate a weight file or an exported file",
    "calibrate": "fit what makes a network's probabilities honest: a temperature",
    "predict": "name the classes of images, videos, a camera's pictures",
    "embed": "make vectors of images: what a network knows of them",
    "index": "put vectors into an index, change it, bring it up to date",
    "search": "find the images of an index that are most like others",
    "duplicates": "find images that are there twice, in training and validation too",
    "demo": "serve a page that people can try a network on",
    "label-errors": "find labels that are probably wrong",
    "export": "write a checkpoint for MindSpore, ONNX Runtime, OpenVINO, LiteRT, ncnn",
    "quantize": "make an exported file int8 or float16, and measure what that costs",
    "deploy-report": "find which file to ship: make all, measure all, recommend one",
    "prune": "remove channels of a trained network, down to a budget",
    "convert": "convert weights from PyTorch, .safetensors or .ckpt",
    "stats": "mean, deviation, sizes and classes of the training images",
    "pack": "pack image folders into MindRecord shards",
    "benchmark": "measure speed, beside MindCV, PyTorch and ONNX Runtime",
    "model-card": "write the model card of a run",
    "release": "gather what others need of a run: small weights, card, digests",
    "plot": "draw the curves of runs",
    "complexity": "count parameters, multiply-accumulates and activations",
    "show-ghosts": "draw what a Ghost module makes of an image",
    "recipes": "list the recipes that -c takes by name",
}
ABOUT = """Train, evaluate and ship the GhostNet family on MindSpore.

commands:
{commands}

`mindghost COMMAND --help` explains a command.
A shell completes commands, flags and recipes after this line in ~/.bashrc, or behind compinit in ~/.zshrc:
  eval "$(register-python-argcomplete mindghost)"
"""


def main() -> NoReturn:
    """The program `mindghost`: runs its command line, or completes one for a shell that asks."""
    if "_ARGCOMPLETE" in os.environ:
        from .completion import complete

        complete(PROG, COMMANDS)
    run_program(*_find(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line in this process, and return its exit status (see `run_command`)."""
    return run_command(*_find(arguments))


def module_of(command: str) -> str:
    """The module of a command, for `import_module`."""
    return f"{__package__}.{command.replace('-', '_')}"


def _find(arguments: Sequence[str]) -> tuple[str, Callable[[], None]]:
    """What the command is called in messages, and the command."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", ())
    if name in COMMANDS:
        return f"{PROG} {name}", functools.partial(_run, name, rest)
    return PROG, functools.partial(_without_command, arguments)


def _run(name: str, arguments: Sequence[str]) -> None:
    importlib.import_module(module_of(name)).main(arguments)


def _without_command(arguments: Sequence[str]) -> None:
    """`--help`, which is what a line without words gives as well, `--version`, or the error that it is neither."""
    about = ABOUT.format(commands="\n".join(f"  {line}" for line in table.lines(list(COMMANDS.items()))))
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = Parser(PROG, about, usage="%(prog)s COMMAND ...", formatter_class=as_it_is)
    version = f"{PROG} {__version__}"
    parser.add_argument("--version", action="version", version=version, help="show the version and exit")
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help", "--version"):
        parser.parse_args([first])
    if first.startswith("-"):
        raise UserError(f"{first!r}: unknown flag, or one of a command, which comes first: {PROG} COMMAND ...")
    raise UserError(
        f"{first!r}: unknown command; the nearest is {nearest(first, COMMANDS)} (`{PROG} --help` lists all)"
    )
