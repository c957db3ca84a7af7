"""Draw loss, accuracy and learning rate over the epochs of one or several runs, from their metrics.jsonl, to a PNG.

A run that is still being written is drawn as far as it is; a run without validation has its training loss and learning
rate drawn. Without --output, the picture of one run is metrics.png in its folder, that of several runs metrics.png in
the current folder. Needs matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import tasks
from ..config.arguments import Parser, add_overwrite, output_file
from ..files import figures, outputs, paths
from ..process.display import say
from ..runs.curves import names, png
from ..runs.files import METRICS
from ..runs.metrics import read_records

PROG = "mindghost plot"
# What it is called in files that it writes; the second is its name of the past.
MARKS = ("plot", "plot_metrics.py")


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help=f"a run's folder (ckpt_save_dir), or its {METRICS}"
    )
    parser.add_argument("--output", type=output_file, metavar="PNG", help="the picture to write")
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, draw, write."""
    args = make_parser().parse_args(arguments)
    files = [run / METRICS if paths.is_folder(run) else run for run in args.runs]
    output = args.output or (files[0].with_name("metrics.png") if len(files) == 1 else Path("metrics.png"))
    figures.check_ending(output, "--output")
    target = outputs.Output(output, "--output", outputs.png_of(*MARKS), args.overwrite, outputs.identities(files))
    runs = list(zip(names(files), map(read_records, files), strict=True))
    target.check()
    target.write(outputs.mark_png(png(runs, tasks.score_titles()), MARKS[0]))
    say(f"wrote {output}")
