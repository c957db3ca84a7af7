"""Gather what others need of a run in a folder: its best weights in float16, their model card, digests, configuration.

The folder holds MODEL_best.ckpt (MindCV's names) and MODEL_best.safetensors (timm's names) with their sha256;
config.yaml and classes.json, so that validate, predict, export and --ckpt_path take the weights as they take the
run's; and model_card.md with its curves. All of it is there, or nothing. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config.arguments import Parser, output_folder
from ..process.display import say, shell
from .model_card import add_given, add_run, given_in

PROG = "mindghost release"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    add_run(parser)
    parser.add_argument(
        "--output", type=output_folder, required=True, metavar="DIR", help="folder to make, or an empty one"
    )
    parser.add_argument("--float32", action="store_true", help="leave the weights in float32, twice as large")
    add_given(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, round, write, say."""
    args = make_parser().parse_args(arguments)
    # Importing MindSpore takes seconds.
    from ..deploy.release import make

    weights = make(args.run, args.output, given_in(args), half=not args.float32)
    say(f"wrote {args.output}: {', '.join(sorted(file.name for file in args.output.iterdir()))}")
    say(f"next: mindghost validate --ckpt_path {shell(str(weights))}")
