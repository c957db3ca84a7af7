"""Flip labels at random, run `mindghost label-errors`, and count how many of the flips it ranks first.

Vectors do not depend on labels: `mindghost embed` runs once, and labels are flipped in copies of its file, each to
another class, drawn evenly. A line a seed; the last line is JSON: the share of the flips among the first of the ranking
(`found`), and among the suspects.

    python examples/evidence/flipped_labels.py DATA --ckpt_path W --output runs/flips --split train --seeds 1 2 3
"""

import argparse
import csv
import json
from dataclasses import replace

import numpy as np

from mindghost.cli import main as program
from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, input_file, number, output_folder
from mindghost.errors import RunError
from mindghost.files import intact
from mindghost.process.display import say
from mindghost.search import vector_file
from mindghost.search.vectors import Vectors

PROG = "flipped_labels.py"


def flipped(vectors: Vectors, share: float, seed: int) -> tuple[Vectors, set[str]]:
    """The vectors with a share of their labels flipped, and the paths of these."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(vectors), round(share * len(vectors)), replace=False)
    labels = vectors.labels.copy()
    count = len(vectors.classes)
    labels[chosen] = (labels[chosen] + rng.integers(1, count, len(chosen))) % count
    return replace(vectors, labels=labels), set(vectors.paths[chosen].tolist())


def mindghost(*words: object) -> None:
    if status := program.run(list(map(str, words))):
        raise RunError(f"mindghost {words[0]} ended with status {status}")


def measured(args: argparse.Namespace, vectors: Vectors, seed: int) -> dict[str, object]:
    """Flip, run, count."""
    given, flips = flipped(vectors, args.share, seed)
    file, folder = args.output / f"flipped-{seed}.npz", args.output / f"seed-{seed}"
    intact.write_atomically(file, vector_file.encode(file, given))
    mindghost("label-errors", file, "-o", folder, "--order", args.order, "--overwrite")
    with open(folder / "labels.csv", newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    first = {row["path"] for row in rows[: round(args.first * len(rows))]}
    suspects = {row["path"] for row in rows if row["suspect"] == "yes"}
    return {
        "seed": seed,
        "images": len(rows),
        "flips": len(flips),
        "found": round(len(flips & first) / len(flips), 4),
        "suspects": len(suspects),
        "found_among_suspects": round(len(flips & suspects) / len(flips), 4),
    }


def make_parser() -> Parser:
    parser = Parser(PROG, __doc__)
    parser.add_argument("data", metavar="DATA", help="folder of data")
    weights = input_file("give a weight file")
    parser.add_argument("--ckpt_path", type=weights, required=True, metavar="W", help="weights that make the vectors")
    parser.add_argument("--output", type=output_folder, required=True, metavar="DIR", help="folder for all files")
    parser.add_argument("--split", default="train", metavar="NAME", help="of the data (train)")
    share = number(float, 1e-6, 0.9)
    parser.add_argument("--share", type=share, default=0.05, metavar="F", help="of the labels that are flipped (0.05)")
    parser.add_argument("--first", type=share, default=0.06, metavar="F", help="of the ranking, to look at (0.06)")
    parser.add_argument("--order", default="self_confidence", metavar="SCORE", help="see `mindghost label-errors`")
    seeds = number(int, 0, 2**32 - 1)
    parser.add_argument("--seeds", type=seeds, nargs="+", default=[1, 2, 3], metavar="N", help="of flips (1 2 3)")
    return parser


def main() -> None:
    """Command line."""
    args = make_parser().parse_args()
    file = args.output / "vectors.npz"
    args.output.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        mindghost("embed", args.data, "--split", args.split, "--ckpt_path", args.ckpt_path, "-o", file)
    vectors = vector_file.read(file)
    results = [measured(args, vectors, seed) for seed in args.seeds]
    for result in results:
        say(f"seed {result['seed']}: {100 * result['found']:.1f} % of {result['flips']} flips among the first ones")
    print(json.dumps({"first": args.first, "order": args.order, "results": results}))


if __name__ == "__main__":
    run_program(PROG, main)
