"""Find the images of an index that are most like others: files, folders, patterns; - reads a list.

The score is the cosine of the angle between two vectors: 1 for equal ones. The weights have to be those that made the
index's vectors, or a file that was exported from them with --embedding. Exit status: 1 where an image could not be
read.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config.arguments import Parser, add_overwrite, input_file, number, output_file
from ..errors import RunError
from ..files import figures, json_text, outputs
from ..process import table
from ..process.display import csv_cell, say, shown
from ..process.signals import importing
from . import network_arguments
from .embed import progress_bar
from .predict import listed

if TYPE_CHECKING:
    from ..search.picture import Found

PROG = "mindghost search"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or patterns to find others like")
    parser.add_argument(
        "--index",
        type=input_file("give an index, which `mindghost index build` makes"),
        required=True,
        metavar="INDEX",
        help="file of `mindghost index build`",
    )
    network_arguments.add_arguments(parser)
    parser.add_argument(
        "--top_k", type=number(int, 1, 10_000), default=10, metavar="K", help="neighbours of each image (10)"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--exact", action="store_true", help="look at every vector (as the index was built)")
    way.add_argument("--approximate", action="store_true", help="look by a graph of neighbours, which may miss some")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object a line, one line an image")
    form.add_argument("--csv", action="store_true", help="print comma-separated values, one line a neighbour")
    parser.add_argument(
        "--picture", type=output_file, metavar="PNG", help="draw each image with its neighbours and their scores"
    )
    network_arguments.add_batch_size(parser)
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, embed, look for neighbours, print."""
    args = make_parser().parse_args(arguments)
    picture_file = None
    if args.picture:
        figures.check_ending(args.picture, "--picture")
        picture_file = outputs.Output(args.picture, "--picture", outputs.png_of("search"), args.overwrite)
        picture_file.check()
        figures.check()
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..search import picture, query
        from ..search.index import Index

    index = Index.open(args.index)
    deployed = network_arguments.of_arguments(args)
    approximate = True if args.approximate else False if args.exact else None
    with progress_bar(len(index), "vector") as bar:
        found = query.neighbours(
            index, deployed, args.images, args.top_k, approximate, args.batch_size, listed(), bar.update
        )
    (_print_json if args.json else _print_csv if args.csv else _print_table)(found)
    if picture_file:
        picture_file.write(outputs.mark_png(picture.png(found), "search"))
        say(f"wrote {args.picture}", sys.stderr)
    problems = [each.problem for each in found if each.problem]
    for problem in problems:
        say(f"{PROG}: skipped: {problem}", sys.stderr)
    if problems:
        raise RunError(f"{len(problems):,} of {len(found):,} images could not be read")


def _print_table(found: Sequence[Found]) -> None:
    rows = [("image", "rank", "score", "neighbour", "class")]
    for each in found:
        for rank, neighbour in enumerate(each.neighbours, 1):
            name = "" if rank > 1 else shown(each.image)
            rows.append((name, str(rank), f"{neighbour.score:.4f}", shown(neighbour.path), shown(neighbour.name)))
    for line in table.lines(rows if any(row[4] for row in rows[1:]) else [row[:4] for row in rows]):
        say(line)


def _print_json(found: Sequence[Found]) -> None:
    for each in found:
        print(json_text.dumps(_record(each)))


def _record(found: Found) -> dict[str, Any]:
    neighbours = [
        {"path": each.path, "score": each.score, **({"class": each.name, "label": each.label} if each.name else {})}
        for each in found.neighbours
    ]
    record = {"image": found.image, "neighbours": neighbours}
    return {**record, "error": found.problem} if found.problem else record


def _print_csv(found: Sequence[Found]) -> None:
    """A line for each neighbour, under a heading; no cell is a formula to a spreadsheet."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "score", "neighbour", "class"])
    for each in found:
        for rank, neighbour in enumerate(each.neighbours, 1):
            cells = csv_cell(each.image), rank, f"{neighbour.score:.6g}", csv_cell(neighbour.path)
            writer.writerow([*cells, csv_cell(neighbour.name)])
