"""Write a run's model card: Markdown with the front matter of MindSpore Hub's cards, and its curves as a picture.

Every figure comes from the files of the run: config.yaml, classes.json, metrics.jsonl, run.json, the weights and their
sha256. Offered are the weights of the best epoch, and what was exported from them. Needs matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.arguments import Parser, input_folder, output_file
from ..process.display import say

if TYPE_CHECKING:
    from ..deploy.model_card import Given

PROG = "mindghost model-card"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    add_run(parser)
    parser.add_argument("--output", type=output_file, metavar="FILE", help="the card; default: RUN/model_card.md")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that is there")
    add_given(parser)
    return parser


def add_run(parser: Parser) -> None:
    """The argument that names a run."""
    folder = input_folder("give that of a run (its ckpt_save_dir)")
    parser.add_argument("run", type=folder, metavar="RUN", help="a run's folder (ckpt_save_dir)")


def add_given(parser: Parser) -> None:
    """The arguments that say what no file of a run knows."""
    parser.add_argument("--author", default="unknown", help="who made the weights; default: unknown")
    parser.add_argument("--link", default="", metavar="URL", help="web folder of the files; default: their names alone")
    parser.add_argument(
        "--license", default="Apache2.0", help="of the weights; default: Apache2.0, the hub takes no other"
    )
    parser.add_argument("--dataset", default="", metavar="NAME", help="name of the data; default: that of data_dir")
    parser.add_argument("--repository", default="", metavar="URL", help="address of the source; default: not said")
    parser.add_argument(
        "--data_license", default="", metavar="TEXT", help="terms of the training images; default: not said"
    )


def given_in(args: argparse.Namespace) -> Given:
    """What they say."""
    from ..deploy.model_card import Given

    return Given(args.author, args.link, args.license, args.dataset, args.repository, args.data_license)


def main(arguments: Sequence[str]) -> None:
    """Read, draw, write."""
    args = make_parser().parse_args(arguments)
    # Importing MindSpore takes seconds.
    from ..deploy.model_card import write

    output = args.output or args.run / "model_card.md"
    write(args.run, output, given_in(args), args.overwrite)
    say(f"wrote {output} and {output.with_suffix('.png')}")
