"""Serve a page that people can try a network on: drop an image, see what it is, where that was seen, what is like it.

The page is for this machine alone, unless --host says otherwise, and needs nothing from anywhere. A checkpoint has maps
of where it looked; --index adds the images of an index of the same network that are most like the one that was dropped.
Ctrl-C ends it. Needs pip install 'mindghost[demo]'.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.arguments import Parser, input_file, number
from ..demo import addresses, libraries
from ..demo.turns import Turns
from ..errors import Stopped, UserError
from ..process.display import say
from ..process.signals import StopSignals, importing, stop_reason
from . import network_arguments
from .embed import progress_bar
from .predict import COUNT, add_explain_options, network_notes

if TYPE_CHECKING:
    import argparse
    import socket

    from ..demo.answers import Answerer
    from ..demo.site import Site

PROG = "mindghost demo"
_MB = 1 << 20


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    network_arguments.add_arguments(parser)
    parser.add_argument(
        "--index",
        type=input_file("give an index, which `mindghost index build` makes"),
        metavar="INDEX",
        help="file of `mindghost index build`, made by this network: its images are shown that are most like one",
    )
    parser.add_argument(
        "--neighbours", type=number(int, 1, 100), default=8, metavar="K", help="images of the index to show (8)"
    )
    parser.add_argument(
        "--top_k",
        type=COUNT,
        metavar="N",
        help="classes to name for each image (5; of several labels, all that reach their threshold; of pixels, all)",
    )
    parser.add_argument("--no_explain", action="store_true", help="draw no maps of where the network saw its class")
    add_explain_options(parser)
    parser.add_argument(
        "--host", default=addresses.LOOPBACK, metavar="ADDRESS", help=f"address to listen at ({addresses.LOOPBACK})"
    )
    parser.add_argument(
        "--port",
        type=number(int, 0, 65_535),
        metavar="N",
        help="port to listen at (the first from 7860 on that is free); 0: any",
    )
    parser.add_argument(
        "--max_upload_mb",
        type=number(float, 0.001, 1_000),
        default=20,
        metavar="N",
        help="size of an image, at most (20)",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Open, listen, serve until a signal comes."""
    args = make_parser().parse_args(arguments)
    _check(args)
    # Before anything starts a thread: one that has a signal unblocked would end the process by it.
    with StopSignals(hang_up_stops=True) as signals:
        with importing():
            libraries.check()
        with addresses.listen(args.host, args.port) as listening:
            # After the command line is known to be good: importing MindSpore takes seconds.
            with importing():
                from ..demo.site import Site

            _serve(Site(_answerer(args), Turns(), args.host, round(args.max_upload_mb * _MB)), listening, signals)
    assert signals.received is not None
    raise Stopped(signals.received, stop_reason(signals.received))


def _check(args: argparse.Namespace) -> None:
    for option in ("explain_layer", "explain_method"):
        if getattr(args, option) and args.no_explain:
            raise UserError(f"--{option}: is of maps, which --no_explain leaves out; give one of the two")


def _serve(site: Site, listening: socket.socket, signals: StopSignals) -> None:
    """Serve the page until a signal comes."""
    # What comes from here on ends the page once the image that is looked at has its answer.
    signals.defer()
    with site.serve(listening) as uploads:
        if not addresses.is_loopback(listening):
            known = (
                f"--host {site.host}: all who can reach this machine can use the page; it asks nobody for a password"
            )
            say(f"{PROG}: {known}", sys.stderr)
        say(f"{addresses.address(listening)} is the page; Ctrl-C ends it")
        sys.stdout.flush()

        def is_over() -> bool:
            uploads.tidy()
            return signals.received is not None

        site.turns.serve(is_over)


def _answerer(args: argparse.Namespace) -> Answerer:
    """What answers, after its first answer; what is worth knowing of it is said."""
    from .. import tasks
    from ..demo.answers import Answerer, Wanted
    from ..search.index import Index

    index = Index.open(args.index) if args.index else None
    deployed = network_arguments.of_arguments(args)
    wanted = Wanted(
        args.top_k, not args.no_explain, args.explain_layer or "", args.explain_method or "", args.neighbours
    )
    answerer = Answerer(deployed, index, wanted)
    for note in (*network_notes(args, deployed, tasks.of(deployed.config)), *answerer.notes):
        say(f"{PROG}: {note}", sys.stderr)
    with progress_bar(0 if index is None else len(index), "vector") as bar:
        answerer.warm_up(bar.update)
    return answerer
