"""Find labels that are probably wrong: a ranking with reasons, a page to look through, a list to train without.

DATA is a folder of data (DATA/train/CLASS, packs, shards, or DATA/CLASS), or a file of `mindghost embed` with labels,
which needs no --ckpt_path. A classifier on the vectors of the network, fitted for each fold to the others, says what
an image is, so the network need not know the classes; confident learning (Northcutt et al., 2021) says which labels are
suspects. A network that was trained on these very labels has learnt the wrong ones, too: take another one, such as
published weights. DIR gets suspects.html, labels.csv (all labels, ranked) and exclude.txt, for `mindghost train
--exclude_list`. Exit status: 1 where an image could not be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.arguments import Parser, add_overwrite, number, output_folder
from ..errors import RunError, UserError
from ..files import figures, intact, outputs, paths
from ..process import table
from ..process.display import say, shell, shown
from ..process.signals import importing
from . import network_arguments
from .embed import progress_bar

if TYPE_CHECKING:
    from ..search.label_errors import Judged, Ranking
    from ..search.label_page import Pixels

PROG = "mindghost label-errors"
FOLDER = Path("label-errors")
SCORES = ("self_confidence", "normalized_margin")
_SHOWN = 20  # suspects that are printed


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("data", metavar="DATA", help="folder of data, or a file of vectors with labels")
    network_arguments.add_arguments(parser, required=False)
    parser.add_argument(
        "-o", "--output", type=output_folder, default=FOLDER, metavar="DIR", help=f"folder for the files ({FOLDER})"
    )
    parser.add_argument("--split", default="", metavar="NAME", help="of a folder of data, this split alone (all)")
    parser.add_argument(
        "--folds",
        type=number(int, 0, 1000),
        default=5,
        metavar="K",
        help="parts of the images, each judged by the others (5); 0: judge by the network's own probabilities, which "
        "takes one that has these classes and was trained on other images",
    )
    parser.add_argument(
        "--order", choices=SCORES, default=SCORES[0], help="what labels are ranked by (self_confidence)"
    )
    parser.add_argument(
        "--seed", type=number(int, 0, 2**32 - 1), default=0, metavar="N", help="of how images are dealt into parts (0)"
    )
    network_arguments.add_batch_size(parser)
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Judge, rank, write, say."""
    args = make_parser().parse_args(arguments)
    if args.folds == 1:
        raise UserError("--folds: 1 part has no others to be judged by; give 2 or more, or 0")
    figures.check()
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..process.log import RunLog
        from ..search import label_errors, label_page

    _check_output(args, label_page.FILES)
    log = RunLog()
    try:
        judged, facts, pixels, problems = (_of_file if paths.is_file(args.data) else _of_data)(args)
        ranking = label_errors.ranked(judged, args.order)
        contents = label_page.contents(ranking, facts, pixels)
        paths.make_folder(args.output, "-o")
        _check_output(args, label_page.FILES)
        intact.write_all_atomically({args.output / name: contents[name] for name in label_page.FILES})
    finally:
        log.close()
    for line in (*_table(ranking), *_lines(args.output, ranking, label_page.PAGE, label_page.LIST)):
        say(line)
    for problem in problems:
        say(f"{PROG}: skipped: {problem}", sys.stderr)
    if problems:
        raise RunError(f"{len(problems):,} of {len(problems) + len(ranking):,} images could not be read")


def _check_output(args: argparse.Namespace, files: Sequence[str]) -> None:
    """Raise UserError where the folder cannot take the files, or has them, and they may not be replaced."""
    paths.check_output_folder(args.output, "-o")
    inputs = outputs.identities(name for name in (args.data, args.ckpt_path, args.config, args.class_names) if name)
    made = [outputs.Output(args.output / name, "-o", outputs.nothing, args.overwrite, inputs) for name in files]
    outputs.check_in(args.output, *made)


def _of_file(args: argparse.Namespace) -> tuple[Judged, dict[str, str], Pixels, list[str]]:
    """The labels in a file of vectors, judged; facts for the page, its images, and images that have no vector."""
    from ..search import label_errors, label_page, vector_file

    if args.ckpt_path or not args.folds or args.split:
        flag = "--ckpt_path" if args.ckpt_path else "--split" if args.split else "--folds 0"
        raise UserError(f"{flag}: {args.data} is a file of vectors, which are judged by one another; leave it out")
    vectors = vector_file.read(Path(args.data))
    with progress_bar(args.folds, "fold") as bar:
        judged = label_errors.by_folds(vectors, args.folds, args.seed, args.data, bar.update)
    return judged, _facts(args, str(vectors.origin or "vectors")), label_page.of_files, []


def _of_data(args: argparse.Namespace) -> tuple[Judged, dict[str, str], Pixels, list[str]]:
    """The labels of a folder of data, judged; facts for the page, its images, and why others cannot be read."""
    from ..search import embed, label_errors, label_page, reading

    paths.check_folder(Path(args.data), "give a folder of data, or a file of `mindghost embed`")
    if not args.ckpt_path:
        raise UserError("--ckpt_path: needed to judge images; give a weight file or an exported file")
    deployed = network_arguments.of_arguments(args)
    if not args.folds:
        label_errors.check_network(deployed)
    samples = reading.opened([args.data], deployed.config, args.split)
    count = sum(map(len, samples))
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(count))
        embedder = embed.Embedder.open(deployed, count, args.batch_size, logits=not args.folds)
        # What is done is kept: an interrupted run goes on.
        paths.make_folder(args.output, "-o")
        work = embed.work_of(args.output / ("vectors" if args.folds else "logits"))
        vectors, problems = embedder.vectors(samples, work, progress=bar.update)
        if args.folds:
            judged = label_errors.by_folds(vectors, args.folds, args.seed, args.data)
        else:
            judged = label_errors.by_network(vectors, deployed, args.data)
        embed.finish(work)
    return judged, _facts(args, str(embedder.origin)), label_page.of_samples(samples), list(problems.values())


def _facts(args: argparse.Namespace, model: str) -> dict[str, str]:
    """What the page says of how labels were judged."""
    way = "the network's own probabilities"
    if args.folds:
        way = f"logistic regression on the vectors, {args.folds} folds (seed {args.seed})"
    return {"model": model, "images": str(args.data), "judged by": way, "ranked by": args.order.replace("_", " ")}


def _table(ranking: Ranking) -> list[str]:
    """The first suspects, for people."""
    rows = [("rank", "given", "probable", "probability", "margin", "image")]
    for rank, index in enumerate(ranking.suspects[:_SHOWN].tolist(), 1):
        given, probable = (shown(ranking.classes[each[index]]) for each in (ranking.given, ranking.probable))
        share, margin = f"{ranking.probable_probability[index]:.4f}", f"{ranking.margin[index]:.4f}"
        rows.append((str(rank), given, probable, share, margin, shown(str(ranking.paths[index]))))
    return table.lines(rows) if len(rows) > 1 else []


def _lines(folder: Path, ranking: Ranking, page: str, listed: str) -> list[str]:
    count, total = len(ranking.suspects), len(ranking)
    found = [
        f"{count:,} of {total:,} labels are suspects ({100 * count / total:.2f} %)",
        *filter(None, [ranking.doubt]),
        f"wrote {folder / page}, to look through, and all labels in the order of their suspicion beside it",
    ]
    if count:
        found.append(f"next: mindghost train ... --exclude_list {shell(str(folder / listed))}")
    return found
