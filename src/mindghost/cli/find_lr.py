"""Find a learning rate by a range test: `mindghost find-lr -c RECIPE --data_dir D ...`, with the flags of train."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..config import Config, arguments_of, load
from ..config.arguments import Parser, number, output_folder
from ..errors import RunError, UserError
from ..files import outputs, paths
from ..process import launch
from ..process.display import say
from ..process.log import RunLog
from ..process.signals import importing
from ..train import rate_range

PROG = "mindghost find-lr"
DESCRIPTION = """\
Train for some updates at ever higher learning rates, and suggest one: that at which the smoothed loss falls fastest.
Takes the flags of train, and writes the curve as find_lr.csv and find_lr.png (which needs matplotlib); no run."""
# What it is called in files that it writes.
MARK = "find-lr"
TABLE, PICTURE = "find_lr.csv", "find_lr.png"


def make_parser() -> Parser:
    """The flags, for `--help` and for the shell's completion."""
    parser = arguments_of(PROG, DESCRIPTION)
    _add_own(parser)
    return parser


def _add_own(parser: Parser) -> None:
    rate = number(float, 1e-12, 1e6)
    group = parser.add_argument_group("Range test")
    steps = number(int, 20, 100_000)
    group.add_argument("--steps", type=steps, default=100, metavar="N", help="updates, each at its own rate (100)")
    group.add_argument("--lowest", type=rate, default=1e-6, metavar="RATE", help="first rate (1e-6)")
    group.add_argument("--highest", type=rate, default=10.0, metavar="RATE", help="last rate (10)")
    group.add_argument(
        "--output", type=output_folder, default=Path(), metavar="DIR", help="folder for both files (the current one)"
    )


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags of this command, and the others, which are train's."""
    if {"-h", "--help"} & set(arguments):
        make_parser().parse_args(["--help"])
    parser = Parser(PROG, add_help=False, allow_abbrev=False)
    _add_own(parser)
    own, rest = parser.parse_known_args(arguments)
    # Only for the check of the folder.
    parser.parse_args(["--output", str(own.output)])
    if own.lowest >= own.highest:
        raise UserError(f"--lowest: {own.lowest:g} is not below --highest: {own.highest:g}")
    return own, rest


def main(arguments: Sequence[str]) -> None:
    """Command line -> configuration -> test -> table, picture, suggestion."""
    own, rest = _parse(arguments)
    config = load(rest, prog=PROG, description=DESCRIPTION)
    table, picture = _files(own.output, config.overwrite)
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..train.range_test import range_test

    run_log = RunLog()
    try:
        found = range_test(config, own.lowest, own.highest, own.steps)
    finally:
        run_log.close()
    if launch.detect().rank > 0:
        return
    paths.make_folder(own.output, "--output")
    table.write(rate_range.table(found).encode())
    written = [str(table.path)]
    try:
        picture.write(outputs.mark_png(rate_range.picture(found), MARK))
        written.append(str(picture.path))
    except ImportError as error:
        say(f"no picture: matplotlib draws it ({error}); pip install matplotlib")
    say(f"wrote {' and '.join(written)}")
    for line in _words(config, found):
        say(line)


def _files(folder: Path, overwrite: bool) -> tuple[outputs.Output, outputs.Output]:
    """Table and picture. Raises UserError where they may not be written."""
    is_table = outputs.starts_with(f"{rate_range.HEADING}\n".encode())
    table = outputs.Output(folder / TABLE, "--output", is_table, overwrite)
    picture = outputs.Output(folder / PICTURE, "--output", outputs.png_of(MARK), overwrite)
    outputs.check_in(folder, table, picture)
    return table, picture


def _words(config: Config, found: rate_range.RangeTest) -> list[str]:
    """What a person is told; the last line is to be pasted. Raises RunError where there is nothing to suggest."""
    suggestion = found.suggestion()
    if suggestion is None:
        raise RunError(
            f"the loss hardly falls at any rate from {found.rates[0]:.2g} to {found.rates[-1]:.2g}: there is nothing "
            "to suggest; give a lower --lowest, more --steps, or a larger --batch_size"
        )
    scaled = ""
    if config.lr_reference_batch is not None:
        scaled = f" = lr x {found.batch} / lr_reference_batch {config.lr_reference_batch:g}"
    return [
        f"smoothed loss {found.start:.4f} at the start, lowest {found.smoothed[found.lowest]:.4f} at "
        f"{found.rates[found.lowest]:.2g}, the last {found.smoothed[-1]:.4f} at {found.rates[-1]:.2g}",
        f"suggested learning rate {suggestion:g} for {found.batch} images an update{scaled}",
        f"--lr {suggestion / found.factor:.2g}",
    ]
