"""Measure how fast this project is, beside MindCV, PyTorch and the runtimes of exported files, where installed.

Training and inference (throughput, median and 90th percentile, peak memory), the input pipeline, and the time from the
start of a process to its first step. Every measurement is a process of its own, and the contenders take turns, so that
what else the machine does hits all alike: read the ratios. The numbers are of the machine that they were measured on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..benchmark import CONTENDERS, OWN_PYTORCH, TASKS, Plan
from ..config.arguments import Parser, add_overwrite, number, output_file
from ..errors import RunError, UserError
from ..files import json_text, outputs, paths
from ..process.display import say

PROG = "mindghost benchmark"
# What it is called in files that it writes; the second is its name of the past.
MARKS = ("benchmark", "benchmark.py")
# What --quick stands for, where nothing else is said.
QUICK = {
    "model": "ghostnet_050",
    "batch_size": 2,
    "image_size": 32,
    "num_classes": 10,
    "rounds": 1,
    "steps": 3,
    "photos": 16,
}
COUNT = number(int, 1, 4096)


def _words(allowed: tuple[str, ...], separator: str) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(word.strip() for word in text.split(separator))
        for word in words:
            if word not in allowed:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {f'{separator} '.join(allowed)}")
        return words

    return parse


def _module(text: str) -> str:
    """FILE:FUNCTION, with the whole path of the file."""
    file, _, function = text.rpartition(":")
    if not file or not function.isidentifier():
        raise argparse.ArgumentTypeError(f"expected FILE:FUNCTION, such as ghostnet.py:ghostnet, got {text!r}")
    return f"{Path(file).absolute()}:{function}"


def make_parser() -> Parser:
    """The command line."""
    default = Plan()
    parser = Parser(PROG, __doc__)
    parser.add_argument("--model", metavar="NAME", help=f"network ({default.model})")
    parser.add_argument("--batch_size", type=COUNT, metavar="N", help=f"images in a step ({default.batch_size})")
    parser.add_argument("--image_size", type=COUNT, metavar="PIXELS", help=f"height and width ({default.image_size})")
    parser.add_argument(
        "--num_classes",
        type=COUNT,
        metavar="N",
        help=f"outputs (as published; {default.model}: {default.num_classes})",
    )
    parser.add_argument("--rounds", type=COUNT, metavar="N", help=f"turns of each contender ({default.rounds})")
    parser.add_argument("--steps", type=COUNT, metavar="N", help=f"steps in a turn ({default.steps})")
    parser.add_argument(
        "--seconds", type=COUNT, metavar="S", help=f"no more steps after that, but three ({default.seconds:g})"
    )
    parser.add_argument("--threads", type=COUNT, metavar="N", help=f"cores for each contender ({default.threads})")
    parser.add_argument("--photos", type=COUNT, metavar="N", help=f"JPEG files to read ({default.photos})")
    parser.add_argument("--what", type=_words(TASKS, ","), metavar="A,B", help=f"of {','.join(TASKS)} (all)")
    names = tuple(contender.name for contender in CONTENDERS)
    parser.add_argument(
        "--contenders", type=_words(names, ";"), metavar="'A;B'", help=f"of {'; '.join(names)} (all that are installed)"
    )
    parser.add_argument("--torch_python", metavar="PATH", help="interpreter that has PyTorch, where this one has not")
    parser.add_argument(
        "--torch_module",
        type=_module,
        metavar="FILE:FUNCTION",
        help="measure a network in PyTorch of your own, too: FUNCTION() of the Python file, which is run",
    )
    parser.add_argument("--quick", action="store_true", help="a small network on small images, once: does it work?")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write everything there, each step's time too")
    parser.add_argument(
        "--plot",
        type=output_file,
        metavar="PNG",
        help="draw published accuracy against latency in ONNX Runtime, and MACs, of GhostNet, V2, V3, RepGhostNet",
    )
    add_overwrite(parser)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What a command line says."""
    args = make_parser().parse_args(arguments)
    default = Plan()
    if args.threads and args.threads > default.threads:
        raise UserError(f"--threads: {args.threads}, but there are {default.threads} cores; give at most that")
    if args.torch_module:
        paths.check_file(Path(args.torch_module.rpartition(":")[0]), "give a Python file", "--torch_module")
    if args.contenders:
        own = [one.name for one in CONTENDERS if one.own and one.name in args.contenders]
        if own and not args.torch_module:
            raise UserError(f"--contenders: {own[0]!r} is a network of yours; name it by --torch_module FILE:FUNCTION")
        if args.torch_module and not own:
            raise UserError(f"--torch_module: none of --contenders measures it; add {OWN_PYTORCH!r}")
    return args


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    args = parse(arguments)
    from dataclasses import fields

    from .. import benchmark, build
    from ..benchmark import picture, summary
    from ..runs import provenance

    given = {field.name: getattr(args, field.name) for field in fields(benchmark.Plan)}
    given = {name: value for name, value in given.items() if value is not None}
    given = {**(QUICK if args.quick else {}), **given}
    classes = build.facts(given.get("model", benchmark.Plan.model)).num_classes
    plan = benchmark.Plan(**{"num_classes": classes, **given})

    plot = args.plot and outputs.Output(args.plot, "--plot", outputs.png_of(*MARKS), args.overwrite)
    record = args.json and outputs.Output(args.json, "--json", outputs.json_of(*MARKS), args.overwrite)
    for output in filter(None, (plot, record)):
        output.check()

    def note(line: str) -> None:
        say(line, sys.stderr)

    facts, measured = benchmark.run(plan, note)
    machine = provenance.session("CPU")
    found = summary.report(plan, facts, measured, machine)
    for line in summary.tables(found).split("\n"):
        say(line)
    if plot:
        results = benchmark.family(plan, picture.family_names(), note)
        found["family"] = picture.points({name: summary.numbers(each)["median"] for name, each in results.items()})
        threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
        drawn = picture.png(found["family"], f"{machine['cpu']}, {threads}")
        plot.write(outputs.mark_png(drawn, MARKS[0]))
        say(f"wrote {args.plot}")
    if record:
        record.write(json_text.dumps(outputs.mark_json(found, MARKS[0]), indent=1).encode())
        say(f"wrote {args.json}")
    failed = [f"{one.contender} ({one.task})" for one in measured if one.failed]
    if failed:
        raise RunError(f"could not be measured: {', '.join(failed)}; the lines under the tables say why")
