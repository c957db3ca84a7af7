"""Make vectors of images: what a network knows of them, for search, duplicates and your own programs.

The file has the arrays (.npz) or columns (.parquet) vectors, L2-normalised, paths and labels. Labels come from a folder
of data: DATA/train/CLASS, DATA/val/CLASS, packs and shards, or DATA/CLASS. A run that was interrupted goes on when it
is started again. Images are turned upright (EXIF). Exit status: 1 where an image could not be read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from ..config.arguments import Parser, add_overwrite, output_file
from ..errors import RunError
from ..files import outputs
from ..process.display import say
from ..process.signals import importing
from . import network_arguments
from .predict import listed

PROG = "mindghost embed"
DTYPES = ("float32", "float16")


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders, patterns, or a folder of data")
    network_arguments.add_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=output_file,
        required=True,
        metavar="FILE",
        help="file to write: vectors.npz or vectors.parquet",
    )
    parser.add_argument("--split", default="", metavar="NAME", help="of a folder of data, this split alone (all)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the vectors (float32)")
    network_arguments.add_batch_size(parser)
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, embed, write."""
    args = make_parser().parse_args(arguments)
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..process.log import RunLog
        from ..search import embed, reading, vector_file

    vector_file.check_ending(args.output, "-o")
    target = outputs.Output(args.output, "-o", outputs.nothing, args.overwrite)
    target.check()
    log = RunLog()
    try:
        deployed = network_arguments.of_arguments(args)
        samples = reading.opened(args.images, deployed.config, args.split, listed())
        count = sum(map(len, samples))
        embedder = embed.Embedder.open(deployed, count, args.batch_size)
        work = embed.work_of(args.output)
        with progress_bar(count) as bar:
            vectors, problems = embedder.vectors(samples, work, args.dtype, bar.update)
        target.write(vector_file.encode(args.output, vectors))
        embed.finish(work)
    finally:
        log.close()
    for problem in problems.values():
        say(f"{PROG}: skipped: {problem}", sys.stderr)
    say(f"{args.output}: {len(vectors):,} vectors of {vectors.dimensions} numbers ({args.dtype}), by {embedder.origin}")
    if problems:
        raise RunError(f"{len(problems):,} of {count:,} images could not be read")


@contextmanager
def progress_bar(images: int, unit: str = "image") -> Iterator[tqdm]:
    """A bar on standard error, if that is a terminal."""
    with tqdm(total=images, unit=unit, leave=False, disable=not sys.stderr.isatty()) as bar:
        yield bar
