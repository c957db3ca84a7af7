"""Mean and deviation of the training images, as recipes want them: `mindghost stats --data_dir D [-c RECIPE] ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..config import Config, arguments_of, load
from ..config.arguments import Parser
from ..data.imagenet.names import shown_as
from ..files.json_text import dumps
from ..process import table
from ..process.display import say, shown
from ..process.log import on_stderr
from ..process.signals import importing

if TYPE_CHECKING:
    from ..data.samples import Samples
    from ..data.statistics import Sizes, Statistics
    from ..tasks.task import Task

PROG = "mindghost stats"
DESCRIPTION = """\
Count the training images: mean and standard deviation of the pixels that the network sees, as lines for a recipe,
images of each class, of masks also pixels, sizes. Takes the flags of train; --json prints one JSON object."""
# Classes beyond which only the largest and the smallest are listed, and how many of each.
_MOST_CLASSES, _LISTED = 50, 10


def make_parser() -> Parser:
    """The flags, for `--help` and for the shell's completion."""
    parser = arguments_of(PROG, DESCRIPTION)
    _add_own(parser)
    return parser


def _add_own(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line", default=False)


def main(arguments: Sequence[str]) -> None:
    """Command line -> configuration -> counts -> lines of YAML, which other lines are comments of, or of JSON."""
    if {"-h", "--help"} & set(arguments):
        make_parser().parse_args(["--help"])
    own = Parser(PROG, add_help=False, allow_abbrev=False)
    _add_own(own)
    options, rest = own.parse_known_args(arguments)
    config = load(rest, prog=PROG, description=DESCRIPTION)
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from .. import tasks
        from ..data import statistics
        from ..parallel.ranks import ALONE
        from ..runtime import Runtime
        from ..train import settle

    config.check_evaluation()
    task = tasks.of(config)
    with on_stderr():
        samples = task.open_split(config, "train")
        if {"image_resize", "crop_pct"} & set(config.open):
            config = settle.size_of_images(Runtime(config, "CPU", ALONE, 1, []), samples)
    with tqdm(total=len(samples), unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:
        found = statistics.of_samples(config, samples, task.eval_pixels(config), bar.update)
    if options.json:
        print(dumps(_record(config, samples, found, task.pixels(samples))))
        return
    for line in _lines(config, samples, found, task):
        say(line)


def _record(config: Config, samples: Samples, found: Statistics, pixels: Sequence[int] | None) -> dict[str, object]:
    return {
        "images": found.images,
        "mean": found.mean,
        "std": found.std,
        "image_resize": config.image_resize,
        "crop_pct": config.crop_pct,
        "height": vars(found.heights),
        "width": vars(found.widths),
        "classes": dict(zip(samples.classes, found.counts, strict=True)),
        **({} if pixels is None else {"pixels": dict(zip(samples.classes, pixels, strict=True))}),
    }


def _lines(config: Config, samples: Samples, found: Statistics, task: Task) -> list[str]:
    """The keys, as a recipe has them, and all else as comments."""
    size = config.image_resize if isinstance(config.image_resize, tuple) else (config.image_resize,) * 2
    place = getattr(samples, "title", config.data_dir)
    about = [f"{found.images:,} images of {shown(place)}, {size[0]} x {size[1]} {task.eval_words(config)}"]
    if config.dataset != "imagenet":
        about.append(f"{config.dataset} is always normalised as in MindCV: mean and std are not used")
    if not all(found.std):
        about.append("a channel has one value everywhere: its std of 0 is no value for the key")
    rows = [("", "smallest", "median", "largest"), _row("height", found.heights), _row("width", found.widths)]
    names = list(map(shown, shown_as(samples.classes)))
    about += ["", *table.lines(rows, right=True), "", *_classes(names, found.counts, task.pixels(samples))]
    keys = [f"{key}: [{', '.join(f'{value:.6g}' for value in getattr(found, key))}]" for key in ("mean", "std")]
    return [*keys, *(f"# {line}".rstrip() for line in about)]


def _row(name: str, sizes: Sizes) -> tuple[str, ...]:
    return name, f"{sizes.smallest}", f"{sizes.median:g}", f"{sizes.largest}"


def _classes(names: Sequence[str], images: Sequence[int], pixels: Sequence[int] | None) -> list[str]:
    """A table of the classes, and how unequal they are: by their pixels, where those are known."""
    counts, unit = (images, "images") if pixels is None else (pixels, "pixels")
    order = list(range(len(names)))
    left_out = 0
    if len(names) > _MOST_CLASSES:
        by_size = sorted(order, key=lambda label: -counts[label])
        order = [*by_size[:_LISTED], *by_size[-_LISTED:]]
        left_out = len(names) - len(order)
    total = sum(counts)
    columns = [images] if pixels is None else [images, pixels]
    rows = [("class", *("images", "pixels")[: len(columns)], "%")]
    for label in order:
        cells = (f"{column[label]:,}" for column in columns)
        rows.append((names[label], *cells, f"{100 * counts[label] / total:.2f}"))
    lines = table.lines(rows, right=True)
    if left_out:
        lines.insert(1 + _LISTED, f"... {left_out:,} more ...")
    smallest = min(counts)
    ratio = (
        f"{max(counts) / smallest:.1f} times the {unit} of the smallest" if smallest else f"{unit}, another has none"
    )
    return [*lines, f"{len(names):,} classes; the largest has {ratio}"]
