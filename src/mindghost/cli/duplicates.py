"""Find images that are there twice: equal pixels or nearly so, within a split, and in training as well as validation.

DATA is a folder of data with splits in any layout, or a folder for each class; files, folders and patterns are taken as
one set, and - reads a list. Near is an image that was resized, recompressed, mirrored, made a little brighter, or cut
by a hundredth or two. Larger crops are looked for by a network, where --ckpt_path gives one. Exit status: 1 where an
image could not be read.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..config.arguments import Parser, add_overwrite, number, output_file
from ..errors import RunError
from ..files import figures, json_text, outputs
from ..process import table
from ..process.display import csv_cell, say, shown
from ..process.log import on_stderr
from ..process.signals import importing
from . import network_arguments
from .embed import progress_bar
from .predict import listed

if TYPE_CHECKING:
    from ..data.samples import Samples
    from ..inference.deployment import Deployment
    from ..search.duplicates import Group, Looked, Member
    from ..search.vectors import Vectors

PROG = "mindghost duplicates"
DATASETS = ("imagenet", "cifar10", "cifar100", "mnist")
# Groups beyond which the table says only how many there are, and images of a group.
_MOST_GROUPS, _MOST_MEMBERS = 100, 20
# Share of the images beyond which a network that finds so many is not to be believed.
_TOO_MANY = 0.1


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("images", nargs="+", metavar="DATA", help="a folder of data, or files, folders, patterns")
    parser.add_argument("--split", default="", metavar="NAME", help="of a folder of data, this split alone (all)")
    parser.add_argument(
        "--dataset", choices=DATASETS, default=DATASETS[0], help="layout of DATA: image folders, or binary files"
    )
    distance = number(float, 0, 1)
    parser.add_argument(
        "--distance",
        type=distance,
        default=0.1,
        metavar="D",
        help="up to which two pictures are near: 0 alike, 1 unlike (0.1)",
    )
    parser.add_argument("--exact", action="store_true", help="look for equal pixels alone")
    network_arguments.add_arguments(parser, required=False)
    parser.add_argument(
        "--network_distance",
        type=distance,
        default=0.01,
        metavar="D",
        help="up to which the vectors of --ckpt_path are near: 1 - cosine (0.01)",
    )
    network_arguments.add_batch_size(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object a line, one line a group")
    form.add_argument("--csv", action="store_true", help="print comma-separated values, one line an image")
    parser.add_argument("--picture", type=output_file, metavar="PNG", help="draw the groups, a row each")
    parser.add_argument(
        "--leave_out",
        type=output_file,
        metavar="FILE",
        help="write the paths of the images that training can do without, one a line",
    )
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, compare, print."""
    args = make_parser().parse_args(arguments)
    picture_file, list_file = _outputs(args)
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..config import Config
        from ..search import duplicates, reading

    with on_stderr():
        deployed = network_arguments.of_arguments(args) if args.ckpt_path else None
        config = deployed.config if deployed else Config(dataset=args.dataset)
        if args.dataset != DATASETS[0]:
            config = config.replace(dataset=args.dataset)
        splits = reading.opened_by_split(args.images, config, args.split, listed())
        with progress_bar(sum(map(len, splits.values()))) as bar:
            looked = duplicates.look(splits, config, bar.update)
        vectors = None if deployed is None or args.exact else _vectors(deployed, splits, args.batch_size)
        with progress_bar(len(looked) * (1 if vectors is None else 2)) as bar:
            distance = -1 if args.exact else args.distance
            groups = duplicates.find(looked, distance, vectors, args.network_distance, bar.update)
    (_print_json if args.json else _print_csv if args.csv else _print_table)(groups, looked)
    _say_too_many(groups, looked, args.network_distance)
    if picture_file:
        picture_file.write(outputs.mark_png(_picture(groups, looked), "duplicates"))
        say(f"wrote {args.picture}", sys.stderr)
    if list_file:
        _write_list(list_file, groups)
    for problem in looked.problems.values():
        say(f"{PROG}: skipped: {problem}", sys.stderr)
    if looked.problems:
        raise RunError(f"{len(looked.problems):,} of {len(looked.images):,} images could not be read")


def _outputs(args: argparse.Namespace) -> tuple[outputs.Output | None, outputs.Output | None]:
    """The picture and the list that are to be written, once it is known that they may be."""
    picture_file = list_file = None
    if args.picture:
        figures.check_ending(args.picture, "--picture")
        picture_file = outputs.Output(args.picture, "--picture", outputs.png_of("duplicates"), args.overwrite)
        picture_file.check()
        figures.check()
    if args.leave_out:
        list_file = outputs.Output(args.leave_out, "--leave_out", outputs.nothing, args.overwrite)
        list_file.check()
    return picture_file, list_file


def _vectors(deployed: Deployment, splits: dict[str, Samples], batch_size: int | None) -> Vectors:
    from ..search.embed import Embedder

    count = sum(map(len, splits.values()))
    with progress_bar(count) as bar:
        embedder = Embedder.open(deployed, count, batch_size)
        return embedder.vectors(list(splits.values()), progress=bar.update)[0]


# --- What is printed


def _print_table(groups: Sequence[Group], looked: Looked) -> None:
    for line in _summary(groups, looked):
        say(line)
    rows = [("group", "distance", "how", "split", "class", "image")]
    for place, group in enumerate(groups[:_MOST_GROUPS], 1):
        for member in group.members[:_MOST_MEMBERS]:
            first = not member.like
            left = (str(place) if first else "", "" if first else f"{member.distance:.4f}", member.how or "-")
            rows.append((*left, shown(member.split) or "-", shown(member.name) or "-", shown(member.path)))
        if (more := len(group.members) - _MOST_MEMBERS) > 0:
            rows.append(("", "", "", "", "", f"... {more:,} more ..."))
    if groups:
        for line in ["", *table.lines(rows)]:
            say(line)
    if len(groups) > _MOST_GROUPS:
        say(f"... {len(groups) - _MOST_GROUPS:,} more groups: --csv and --json have all of them ...")


def _summary(groups: Sequence[Group], looked: Looked) -> list[str]:
    """Leaks first, then how many groups there are, then labels that contradict each other."""
    from ..search.duplicates import SAME, TRAIN

    lines = []
    counts = {name: looked.splits.count(name) for name in dict.fromkeys(looked.splits)}
    leaks = [group for group in groups if group.leaks]
    for split, count in counts.items():
        if TRAIN in counts and split != TRAIN:
            shared = [member for group in leaks for member in group.members if member.split == split]
            equal = looked.equal_in(TRAIN, [member.row for member in shared])
            lines.append(
                f"leakage: {len(shared):,} of {count:,} images of {split} are in train, too: {equal:,} with equal "
                f"pixels, {len(shared) - equal:,} nearly"
            )
    images = sum(len(group.members) for group in groups)
    exact = sum(all(member.how in ("", SAME) for member in group.members) for group in groups)
    lines.append(
        f"{len(groups):,} groups with {images:,} of {len(looked):,} images; {exact:,} of them have equal pixels only"
    )
    contradicting = [number for number, group in enumerate(groups, 1) if group.contradicts]
    if contradicting:
        some = ", ".join(map(str, contradicting[:20])) + (", ..." if len(contradicting) > 20 else "")
        lines.append(f"labels contradict each other in {len(contradicting):,} groups: {some}")
    return lines


def _print_json(groups: Sequence[Group], looked: Looked) -> None:
    for place, group in enumerate(groups, 1):
        record = {"group": place, "leaks": group.leaks, "contradicts": group.contradicts}
        print(json_text.dumps({**record, "images": list(map(_record, group.members))}))


def _record(member: Member) -> dict[str, Any]:
    return {
        "path": member.path,
        **({"split": member.split} if member.split else {}),
        **({"class": member.name, "label": member.label} if member.label >= 0 else {}),
        **({"like": member.like, "distance": round(member.distance, 6), "how": member.how} if member.like else {}),
    }


def _print_csv(groups: Sequence[Group], looked: Looked) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["group", "leaks", "contradicts", "image", "split", "class", "like", "distance", "how"])
    for place, group in enumerate(groups, 1):
        for member in group.members:
            distance = f"{member.distance:.6f}" if member.like else ""
            names = [csv_cell(text) for text in (member.path, member.split, member.name, member.like)]
            writer.writerow([place, int(group.leaks), int(group.contradicts), *names, distance, member.how])


def _say_too_many(groups: Sequence[Group], looked: Looked, distance: float) -> None:
    """Warn where a network takes many images for one: those of few classes put all images of a class in one place."""
    from ..search.duplicates import NETWORK

    count = sum(member.how == NETWORK for group in groups for member in group.members)
    if count > _TOO_MANY * len(looked):
        share = f"{100 * count / len(looked):.0f} % of the images are within {distance:g} of another one by the network"
        remedy = "give a lower --network_distance, a network of many classes, or none"
        say(f"{PROG}: {share}, which hardly tells images of one class apart: {remedy}", sys.stderr)


# --- What is written


def _picture(groups: Sequence[Group], looked: Looked) -> bytes:
    from ..search import picture

    def tile(member: Member, number: int) -> picture.Tile:
        title = f"{member.distance:.4f} {member.how}" if member.like else f"group {number}"
        known = f"{member.split} {member.name}".strip()
        return picture.Tile(title, known or member.path, lambda: looked.pixels(member.row))

    return picture.sheet([[tile(each, number) for each in group.members] for number, group in enumerate(groups, 1)])


def _write_list(file: outputs.Output, groups: Sequence[Group]) -> None:
    """Write the list of paths. One with a line break would be two, and is named instead."""
    found = [path for group in groups for path in group.superfluous]
    broken = [path for path in found if "\n" in path]
    for path in broken:
        say(f"{PROG}: not in {file.path}, for its name has a line break: {path}", sys.stderr)
    kept = [path for path in found if path not in broken]
    file.write(b"".join(os.fsencode(path) + b"\n" for path in kept))
    say(f"{file.path}: {len(kept):,} images that training can do without", sys.stderr)
