"""Put vectors into an index, which is asked for neighbours: `mindghost index build | add | remove | sync | info`.

An index is one file. It knows the network that made its vectors, and takes no others. A change takes its place whole;
of two processes that would write, the second is refused.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.arguments import Parser, add_overwrite, input_file, input_folder, output_file
from ..errors import RunError
from ..files import json_text, lock, outputs
from ..process import table
from ..process.display import say
from ..process.signals import importing
from . import network_arguments
from .embed import progress_bar

if TYPE_CHECKING:
    from ..search.index import Index
    from ..search.vectors import Vectors

PROG = "mindghost index"
_VECTORS = input_file("give a file of vectors, which `mindghost embed` makes")
_INDEX = input_file("give an index, which `mindghost index build` makes")


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        about = f"{summary[0].upper()}{summary[1:]}."
        return actions.add_parser(name, help=summary, prog=f"{PROG} {name}", about=about)

    build = action("build", "write an index of vectors")
    build.add_argument("vectors", type=_VECTORS, metavar="VECTORS", help="file of `mindghost embed`")
    build.add_argument("-o", "--output", type=output_file, required=True, metavar="INDEX", help="index to write")
    build.add_argument(
        "--approximate", action="store_true", help="search by a graph of neighbours, for millions of vectors (usearch)"
    )
    add_overwrite(build)
    add = action("add", "add vectors; one of a path that is there takes the old one's place")
    add.add_argument("index", type=_INDEX, metavar="INDEX", help="index to change")
    add.add_argument("vectors", type=_VECTORS, metavar="VECTORS", help="file of `mindghost embed`")
    remove = action("remove", "take images out")
    remove.add_argument("index", type=_INDEX, metavar="INDEX", help="index to change")
    remove.add_argument("paths", nargs="+", metavar="PATH", help="image as it was embedded, or a folder of such")
    sync = action("sync", "bring the images of a folder up to date: new, changed and gone ones")
    sync.add_argument("index", type=_INDEX, metavar="INDEX", help="index to change")
    sync.add_argument("folder", type=input_folder("give one with images"), metavar="DIR", help="as it was embedded")
    network_arguments.add_arguments(sync)
    network_arguments.add_batch_size(sync)
    info = action("info", "say what is in an index")
    info.add_argument("index", type=_INDEX, metavar="INDEX", help="index to look at")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Do what is asked for."""
    args = make_parser().parse_args(arguments)
    {"build": _build, "add": _add, "remove": _remove, "sync": _sync, "info": _info}[args.action](args)


def _build(args: argparse.Namespace) -> None:
    from ..process.log import on_stderr
    from ..search import index, vector_file

    read = outputs.identities([args.vectors])
    outputs.Output(args.output, "-o", outputs.nothing, args.overwrite, read).check()
    vectors = vector_file.read(args.vectors)
    _warn(args.vectors, vectors)
    with on_stderr(), progress_bar(len(vectors) if args.approximate else 0, "vector") as bar:
        built = index.build(args.output, vectors, args.approximate, args.overwrite, bar.update, name=str(args.vectors))
    say(f"{args.output}: {len(built):,} vectors of {vectors.dimensions} numbers, of {_network(vectors)}")


def _warn(path: Path, vectors: Vectors) -> None:
    if vectors.origin is None:
        say(f"{PROG}: {path}: does not say which network made its vectors: nothing keeps others out", sys.stderr)


def _network(vectors: Vectors) -> str:
    return "a network that is not known" if vectors.origin is None else str(vectors.origin)


def _add(args: argparse.Namespace) -> None:
    from ..process.log import on_stderr
    from ..search import index, vector_file

    vectors = vector_file.read(args.vectors)
    with on_stderr():
        changes = index.add(args.index, vectors, str(args.vectors))
    say(f"{args.index}: {changes}")


def _remove(args: argparse.Namespace) -> None:
    from ..process.log import on_stderr
    from ..search import index

    with on_stderr():
        changes = index.remove(args.index, args.paths)
    say(f"{args.index}: {changes}")


def _sync(args: argparse.Namespace) -> None:
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..process.log import RunLog
        from ..search import embed, reading, sync
        from ..search.index import Index
        from ..search.vectors import check_same

    deployed = network_arguments.of_arguments(args)
    work = embed.work_of(args.index)

    def vectors_of(files: list[str]) -> tuple[Vectors, dict[str, str]]:
        embedder = embed.Embedder.open(deployed, len(files), args.batch_size)
        with progress_bar(len(files)) as bar:
            # One new image that cannot be read keeps nothing else from being brought up to date.
            return embedder.vectors(
                [reading.of_files(files, deployed.config)], work, dtype, bar.update, needs_one=False
            )

    log = RunLog()
    try:
        with lock.writing(args.index):
            index = Index.open(args.index)
            check_same(index.origin, embed.origin_of(deployed), str(args.index), str(args.ckpt_path))
            dtype = index.content.vectors.dtype.name
            done = sync.sync(index, os.fspath(args.folder), vectors_of)
            embed.finish(work)
    finally:
        log.close()
    for problem in done.problems.values():
        say(f"{PROG}: skipped: {problem}", sys.stderr)
    say(f"{args.index}: {done.changes}; {done.embedded:,} images embedded")
    if done.problems:
        raise RunError(f"{len(done.problems):,} images could not be read")


def _info(args: argparse.Namespace) -> None:
    from ..search.index import Index

    index = Index.open(args.index)
    record = facts(index)
    if args.json:
        print(json_text.dumps(record))
        return
    preprocessing = record.pop("preprocessing") or {}
    shown = {key: value for key, value in preprocessing.items() if not isinstance(value, str) or key == "interpolation"}
    for line in table.lines([(key, _text(value)) for key, value in {**record, **shown}.items()]):
        say(line)


def facts(index: Index) -> dict[str, Any]:
    """What there is to say of an index."""
    content, origin = index.content, index.origin
    return {
        "index": str(index.path),
        "vectors": len(index),
        "dimensions": content.dimensions,
        "dtype": content.vectors.dtype.name,
        "bytes": index.path.stat().st_size,
        "approximate": index.approximate,
        "classes": len(content.classes),
        "model": origin and origin.model,
        "weights": origin and origin.weights,
        "precision": origin and origin.precision,
        "preprocessing": origin and dict(origin.preprocessing),
    }


def _text(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
