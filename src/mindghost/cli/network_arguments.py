"""The arguments that name a network: a weight file or an exported file."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from ..config.arguments import input_file, recipe_file
from ..errors import UserError
from ..inference.artifact import IMAGENET, of_file
from ..inference.deployment import Deployment
from ..inference.formats import KINDS


def add_arguments(parser: ArgumentParser, exported: bool = True, required: bool = True) -> None:
    """Add what names a network on a command line; `of_arguments` reads it.

    `exported`: exported files are taken. `required`: the file has to be named.
    """
    kinds = KINDS if exported else ".ckpt or .safetensors"
    parser.add_argument(
        "--ckpt_path",
        type=input_file(f"give the path of a {kinds} file"),
        required=required,
        metavar="P",
        help=f"{kinds} file",
    )
    parser.add_argument(
        "-c",
        "--config",
        type=recipe_file,
        metavar="RECIPE",
        help="recipe, a file or a name, where no config.yaml is beside P",
    )
    parser.add_argument("--model", default="", metavar="NAME", help="network of a checkpoint with nothing beside it")
    parser.add_argument(
        "--class_names",
        type=_class_names,
        metavar="FILE",
        help="class names: text, one a line, or JSON; imagenet: ImageNet's 1,000 classes",
    )


def _class_names(text: str) -> Path:
    return Path(text) if text == IMAGENET else input_file("give one with class names")(text)


def of_arguments(arguments: Namespace) -> Deployment:
    """What a command line names (see `of_file`)."""
    return of_file(arguments.ckpt_path, arguments.config, arguments.model, arguments.class_names)


def checkpoint_of(arguments: Namespace) -> Deployment:
    """The checkpoint that a command line names, with the images of its `--data_dir`, if it gives one.

    Raises UserError as `of_file`, and for an exported file.
    """
    found = of_arguments(arguments)
    if found.exported:
        raise UserError(f"{arguments.ckpt_path}: exported already; give the checkpoint that it was made of")
    return replace(found, config=found.config.of_folder(arguments.data_dir)) if arguments.data_dir else found
