"""Train a network, or go on with a run: `mindghost train -c ghostnet_050_cpu --data_dir D ...`."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import arguments_of, load
from ..config.arguments import Parser
from ..process.signals import importing

PROG = "mindghost train"
DESCRIPTION = "Train a Ghost network on MindSpore."


def make_parser() -> Parser:
    """The flags, for the shell's completion."""
    return arguments_of(PROG, DESCRIPTION)


def main(arguments: Sequence[str], prog: str = PROG) -> None:
    """Command line -> configuration -> training."""
    config = load(arguments, prog=prog, description=DESCRIPTION)
    # After the configuration is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..train.trainer import train

    train(config)
