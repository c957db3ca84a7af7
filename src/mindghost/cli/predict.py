"""Name the classes of images or of their pixels: files, folders, patterns, videos, a camera; - reads a list.

The network, its classes and its preprocessing are those that training left beside the checkpoint, or those in the
exported file. Images are turned upright (EXIF). Exit status: 1 where an image could not be read.
"""

from __future__ import annotations

import argparse
import codecs
import csv
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..config.arguments import Parser, add_overwrite, number, output_folder
from ..errors import RunError, UserError
from ..files import json_text
from ..process.display import csv_cell, shown
from ..process.signals import importing
from . import network_arguments

if TYPE_CHECKING:
    from ..inference.class_activation import Explaining
    from ..inference.deployment import Deployment
    from ..inference.formats import Network
    from ..inference.pictures import Written
    from ..inference.predictor import Prediction
    from ..tasks.task import Task

PROG = "mindghost predict"
COUNT = number(int, 1, 1_000_000)
# Images run at once, of those that are not large.
MOST = 32
# From this many images on a person waits.
MANY = 64
METHOD = "layercam"
# In the table, of an image that gets no answer.
NONE = "none"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument(
        "sources", nargs="+", metavar="IMAGES", help="files, folders, patterns, videos, or a camera's number"
    )
    network_arguments.add_arguments(parser)
    parser.add_argument(
        "--top_k",
        type=COUNT,
        metavar="N",
        help="classes to name for each image (5; of several labels, all that reach their threshold; of pixels, all)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object a line, one line an image")
    form.add_argument("--csv", action="store_true", help="print comma-separated values, one line a class of an image")
    parser.add_argument(
        "--save_dir", type=output_folder, metavar="DIR", help="write each image with its classes below it (PNG)"
    )
    parser.add_argument(
        "--mask_dir",
        type=output_folder,
        metavar="DIR",
        help="write the class of each pixel: an index PNG as large as the image (task segmentation)",
    )
    parser.add_argument(
        "--explain",
        type=output_folder,
        metavar="DIR",
        help="write each image with a map over it of where the network saw its first class (PNG; .ckpt files)",
    )
    add_explain_options(parser)
    parser.add_argument(
        "--batch_size", type=COUNT, metavar="N", help=f"images run at once ({MOST}, fewer where they are large)"
    )
    parser.add_argument("--every", type=COUNT, default=1, metavar="N", help="of a video, take one frame in N (1)")
    add_overwrite(parser)
    return parser


def add_explain_options(parser: Parser) -> None:
    """`--explain_layer` and `--explain_method`, which are None where they are not given: see `explaining`."""
    parser.add_argument(
        "--explain_layer", metavar="NAME", help="layer whose maps are drawn (the last before they are pooled)"
    )
    parser.add_argument(
        "--explain_method",
        choices=("layercam", "gradcam"),
        help="how a layer's maps are weighed: each pixel by its own gradient, or all of a map by its mean (layercam)",
    )


class Table:
    """Rows for people: image, rank, probability, class."""

    def __init__(self, images: list[str]) -> None:
        self._width = max(map(len, [*map(shown, images), "image"]))
        self._line("image", "%", "class")

    def add(self, prediction: Prediction, written: Written) -> None:
        """The rows of an image."""
        if not prediction.answers and not prediction.problem:
            self._line(prediction.image, "", NONE)
        for rank, guess in enumerate(prediction.answers):
            self._line("" if rank else prediction.image, f"{100 * guess.probability:.2f}", guess.name)

    def _line(self, image: str, share: str, name: str) -> None:
        _print(f"{shown(image):{self._width}}  {share:>6}  {shown(name)}")


class JsonLines:
    """An object for each image; one that cannot be read has an "error".

    Args:
        value: what the number of an answer is (`Task.answer_value`).
    """

    def __init__(self, value: str) -> None:
        self._value = value

    def add(self, prediction: Prediction, written: Written) -> None:
        """The line of an image, of which some files were written."""
        found = prediction.answers
        guesses = [{"class": guess.name, "label": guess.label, self._value: guess.probability} for guess in found]
        record: dict[str, Any] = {"image": prediction.image, "predictions": guesses}
        files = {"mask": written.mask, "explanation": written.explanation}
        record |= {name: str(file) for name, file in files.items() if file is not None}
        _print(json_text.dumps({**record, "error": prediction.problem} if prediction.problem else record))


class Csv:
    """A line for each class of an image, under a heading; no cell is a formula to a spreadsheet.

    Args:
        value: what the number of an answer is (`Task.answer_value`).
    """

    def __init__(self, value: str) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(["image", "rank", "class", "label", value])

    def add(self, prediction: Prediction, written: Written) -> None:
        """The lines of an image; one without cells behind its name where there is no answer."""
        if not prediction.answers and not prediction.problem:
            self._writer.writerow([csv_cell(prediction.image), "", "", "", ""])
        for rank, guess in enumerate(prediction.answers, 1):
            names = csv_cell(prediction.image), rank, csv_cell(guess.name)
            self._writer.writerow([*names, guess.label, f"{guess.probability:.6g}"])


def listed() -> Iterator[str]:
    """The names on standard input, of any bytes: a line each, or with NUL after each, as `find -print0` does."""
    content = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    yield from map(os.fsdecode, content.split(b"\0") if b"\0" in content else content.splitlines())


def _print(line: str) -> None:
    # Past a progress bar, if there is one.
    tqdm.write(line, file=sys.stdout)


@contextmanager
def _progress(images: list[str]) -> Iterator[tqdm]:
    disable = len(images) < MANY or not sys.stderr.isatty()
    with tqdm(total=len(images), unit="image", leave=False, disable=disable) as bar:
        yield bar


def main(arguments: Sequence[str]) -> None:
    """Read, predict, print."""
    args = make_parser().parse_args(arguments)
    _check(args)
    # After the command line is known to be good: it takes its time.
    with importing():
        from .. import tasks
        from ..data import transforms
        from ..evaluate import batch
        from ..inference import predictor
        from ..inference.opening import explaining, opened
        from ..inference.pictures import Pictures
        from ..inference.sources import expand
        from ..process import resources

    images = expand(args.sources, listed())
    if not images:
        raise UserError("-: no image in the list on standard input")
    deployed = network_arguments.of_arguments(args)
    task = tasks.of(deployed.config)
    pictures = Pictures(deployed, images, args.save_dir, args.mask_dir, args.explain, args.overwrite)
    fitting = batch.fitting(math.prod(transforms.input_size(deployed.config)), resources.free_memory())
    notes = list(network_notes(args, deployed, task))
    network: Network | Explaining
    if args.explain:
        explainer = network = explaining(deployed, args.explain_layer, args.explain_method or METHOD)
        notes += explainer.notes()
    else:
        # Operator by operator: compiling a graph takes longer than most lists of images.
        network = batch.sparing(opened(deployed, mode=1))
    run = predictor.Predictor(deployed, network, args.batch_size or min(MOST, fitting))
    for note in notes:
        tqdm.write(shown(f"{PROG}: {note}"), file=sys.stderr)
    value = task.answer_value
    output = JsonLines(value) if args.json else Csv(value) if args.csv else Table(images)
    total, unreadable = 0, 0
    with _progress(images) as bar:
        for prediction in run.predict(images, args.top_k, args.every):
            output.add(prediction, pictures.write(prediction))
            total += 1
            bar.update()
            if prediction.problem:
                unreadable += 1
                tqdm.write(shown(f"{PROG}: skipped: {prediction.problem}"), file=sys.stderr)
    if unreadable:
        raise RunError(f"{unreadable} of {total} images could not be read")


def _check(args: argparse.Namespace) -> None:
    for option in ("explain_layer", "explain_method"):
        if getattr(args, option) and not args.explain:
            raise UserError(f"--{option}: give --explain DIR as well, the folder for the pictures")


def network_notes(args: argparse.Namespace, deployed: Deployment, task: Task) -> Iterator[str]:
    """What is not known of a network."""
    if deployed.numbered:
        yield (
            f"{args.ckpt_path}: no class names are known: classes are called by their labels; give --class_names FILE, "
            "or imagenet for its 1,000 classes"
        )
    if task.has_thresholds and deployed.thresholds is None:
        yield f"{args.ckpt_path}: no evaluation has left thresholds: labels are given from a probability of 0.5 on"
