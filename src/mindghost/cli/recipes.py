"""List the recipes: files of settings that train the networks as they were published, and `finetune` for your images.

`-c NAME` takes one, for any command that takes a recipe; what else is given goes before it. Most names end with the
device that a recipe is for. To change one, copy its file and name the copy: `-c ./my.yaml`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..config import recipe, recipes
from ..config.arguments import Parser
from ..process import table
from ..process.display import say

PROG = "mindghost recipes"
DEVICES = {"cpu": "CPU", "ascend": "Ascend"}
ANY = "any"


def make_parser() -> Parser:
    """The command line."""
    return Parser(PROG, __doc__)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    make_parser().parse_args(arguments)
    rows = [("name", "network", "device", "file")]
    for name, file in recipes.files().items():
        values, _ = recipe(file)
        device = values.get("device_target") or DEVICES.get(name.rpartition("_")[2], ANY)
        rows.append((name, str(values.get("model")), str(device), _short(file)))
    for line in table.lines(rows):
        say(line)


def _short(file: Path) -> str:
    """The path as a user would type it: from the current folder, where the file is below it."""
    try:
        return str(file.relative_to(os.path.realpath(os.curdir)))
    except ValueError:
        return str(file)
