"""Evaluate a weight file or an exported file: `mindghost validate --ckpt_path W --data_dir D [-c RECIPE]`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..config import arguments_of, load
from ..config.arguments import Parser
from ..files.json_text import dumps
from ..inference.artifact import said
from ..process import launch
from ..process.display import say
from ..process.signals import importing

PROG = "mindghost validate"
DESCRIPTION = "Evaluate a weight file or an exported file on the validation images; the last line is one JSON object."


def make_parser() -> Parser:
    """The flags, for the shell's completion."""
    return arguments_of(PROG, DESCRIPTION)


def main(arguments: Sequence[str], prog: str = PROG) -> None:
    """Command line -> configuration -> evaluation -> lines for people and, as the last one, one JSON object."""
    with_model = any(word.partition("=")[0] == "--model" for word in arguments)
    config = load(arguments, prog=prog, description=DESCRIPTION, weights=partial(said, with_model=with_model))
    # After the configuration is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..evaluate.validate import validate

    result = validate(config)
    if launch.detect().rank > 0:
        return
    for line in result.lines():
        say(line)
    print(dumps(result.record()))
