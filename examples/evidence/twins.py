"""Train several variants of a recipe on the same photos with the same seeds, and compare.

PLAN is a JSON file: {"about": what is compared, "flags": flags of mindghost train for all, "variants": {name: flags}};
flags are a text or a list of them. {data} stands for --data_dir, {NAME} for the value of --with NAME=VALUE; {run of
VARIANT} for the best weights of that variant with the same seed, which has to stand before. Variants that --only does
not name are not trained.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import report
import runner
from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, input_file, input_folder
from mindghost.errors import UserError
from mindghost.files import json_text
from runner import MindghostRun, Results, Run

PROG = "twins.py"
_KEYS = {"about", "flags", "variants"}
_RUN_OF = "run of "


def read_plan(file: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The flags of all, and those of each variant. Raises UserError where the file is no plan."""
    remedy = "see --help"
    plan = json_text.read(file, remedy)
    if not isinstance(plan, dict) or not {"flags", "variants"} <= set(plan) <= _KEYS:
        raise UserError(f"{file}: expected an object with about, flags and variants; {remedy}")
    variants = plan["variants"]
    if not isinstance(variants, dict) or not variants:
        raise UserError(f"{file}: variants: expected an object of names and flags; {remedy}")
    return _words(file, "flags", plan["flags"]), {name: _words(file, name, flags) for name, flags in variants.items()}


def _words(file: Path, what: str, flags: Any) -> list[str]:
    texts = flags if isinstance(flags, list) else [flags]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{file}: {what}: expected flags as a text or a list of texts; see --help")
    # A name in braces may have spaces in it.
    return [word for text in texts for word in re.findall(r"(?:\{[^}]*\}|[^\s{])+", text)]


def filled(word: str, values: Mapping[str, str], run: Run, folder: Path) -> str:
    """A word with values in the places of names in braces. Raises UserError for a name without one."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name.startswith(_RUN_OF):
            return _best_weights(
                folder.parent / MindghostRun(name.removeprefix(_RUN_OF), run.seed, run.words).folder_name
            )
        if name not in values:
            raise UserError(f"{{{name}}}: has no value; give --with {name}=VALUE")
        return values[name]

    return re.sub(r"\{([^}]*)\}", value, word)


def _best_weights(folder: Path) -> str:
    """The best weights of a run that is done, or where they will be."""
    return str(next(folder.glob("*_best.ckpt"), folder / "*_best.ckpt"))


def plan_runs(file: Path, values: Mapping[str, str], seeds: list[int]) -> list[Run]:
    """The runs: for each seed, all variants."""
    common, variants = read_plan(file)

    def words_of(flags: list[str]):
        words = runner.merged(common, flags)
        return lambda run, folder: runner.trained_with(*[filled(word, values, run, folder) for word in words])(
            run, folder
        )

    return [MindghostRun(name, seed, words_of(flags)) for seed in seeds for name, flags in variants.items()]


def make_parser() -> Parser:
    parser = Parser(PROG, __doc__)
    parser.add_argument("plan", type=input_file("give a plan, see --help"), metavar="PLAN", help="what is compared")
    folder = input_folder("give what photos.py made")
    parser.add_argument("--data_dir", type=folder, required=True, metavar="D", help="folder of {train,val}/CLASS/*")
    parser.add_argument("--with", nargs="+", dest="given", default=[], metavar="NAME=VALUE", help="values of the plan")
    runner.add_options(parser, "1 2 3")
    return parser


def main() -> None:
    """Command line."""
    args = make_parser().parse_args()
    values = {"data": str(args.data_dir)}
    for text in args.given:
        name, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"--with: expected NAME=VALUE, got {text!r}")
        values[name] = value
    everything = plan_runs(args.plan, values, args.seeds)
    runs = runner.chosen(everything, args.only)
    if args.print_commands:
        runner.print_commands(args.output, runs)
        return
    results = Results(args.output, PROG)
    runner.do_all(results, runs)
    variants = runner.variants_of(everything)
    report.write_table(results, report.table(results, variants))
    report.write_curves(results, variants)


if __name__ == "__main__":
    run_program(PROG, main)
