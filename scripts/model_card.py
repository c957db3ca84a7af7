"""Write a run's model card: Markdown with the front matter of MindSpore Hub's cards, and its curves as a picture.

Every figure comes from the files of the run: config.yaml, classes.json, metrics.jsonl, run.json, the weights and their
sha256. Offered are the weights of the best epoch, and what was exported from them. Needs matplotlib.
"""

from __future__ import annotations

import sys

from mindghost.cli.command import run_command
from mindghost.config.arguments import Parser, input_folder, output_file
from mindghost.process.display import say

PROG = "model_card.py"


def main() -> None:
    """Command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "run",
        type=input_folder("give that of a run (its ckpt_save_dir)"),
        metavar="RUN",
        help="a run's folder (ckpt_save_dir)",
    )
    parser.add_argument("--output", type=output_file, metavar="FILE", help="the card; default: RUN/model_card.md")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that is there")
    parser.add_argument("--author", default="unknown", help="who made the weights; default: unknown")
    parser.add_argument("--link", default="", metavar="URL", help="web folder of the files; default: their names alone")
    parser.add_argument(
        "--license", default="Apache2.0", help="of the weights; default: Apache2.0, the hub takes no other"
    )
    parser.add_argument("--dataset", default="", metavar="NAME", help="name of the data; default: that of data_dir")
    parser.add_argument("--repository", default="", metavar="URL", help="address of the source; default: not said")
    arguments = parser.parse_args()
    # Importing MindSpore takes seconds.
    from mindghost.deploy.model_card import Given, write

    given = Given(arguments.author, arguments.link, arguments.license, arguments.dataset, arguments.repository)
    output = arguments.output or arguments.run / "model_card.md"
    write(arguments.run, output, given, arguments.overwrite)
    say(f"wrote {output} and {output.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(run_command(PROG, main))
