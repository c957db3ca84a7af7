"""Flip labels at random, run `mindghost label-errors`, and count how many of the flips it ranks first.

For each seed a share of the labels in DATA/train/CLASS is flipped, each to another class, drawn evenly: in a folder of
links, of which the list of a training is made. What judges the labels is one of

--ckpt_path W: vectors of a network that is there, in folds;
--train FLAGS: vectors, in folds, of a network that is trained with these flags on the flipped labels;
--train FLAGS --folds 0: the probabilities of networks that are trained so, each on all --parts of the images but one,
    of which it then judges the labels.

Writes results.json (of the trainings) and flips.json: for each seed the share of the flips among the first of the
ranking (`found`), and among the suspects. The last line is flips.json again.

    python examples/evidence/flipped_labels.py --data_dir data/cifar10 --train "-c ghost_airbench" --output runs/flips
"""

import argparse
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

import runner
from mindghost.cli import main as program
from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, input_file, input_folder, number, output_folder
from mindghost.errors import RunError, UserError
from mindghost.files import intact, json_text, outputs, paths
from mindghost.process.display import say
from runner import MindghostRun, Results

PROG = "flipped_labels.py"
FOUND = "flips.json"


class Image(NamedTuple):
    """An image of the data, with the label that it is given, and the part that it is in."""

    file: Path
    label: str
    part: int

    def name(self, index: int) -> str:
        """What its link is called in the folder of flipped labels; there are others of the file's name."""
        return f"part-{self.part}/{self.label}/{index}-{self.file.name}"


def flipped(data: Path, share: float, seed: int, parts: int) -> list[Image]:
    """The images DATA/train/CLASS/*, a share of them with another label. Raises UserError where there are none."""
    files = sorted((paths.real(data) / "train").glob("*/*"))
    classes = sorted({file.parent.name for file in files})
    if len(classes) < 2:
        raise UserError(f"--data_dir: {data}: expected images of two and more classes, train/CLASS/*")
    rng = np.random.default_rng(seed)
    labels = np.array([classes.index(file.parent.name) for file in files])
    chosen = rng.choice(len(files), round(share * len(files)), replace=False)
    labels[chosen] = (labels[chosen] + rng.integers(1, len(classes), len(chosen))) % len(classes)
    part = rng.permutation(len(files)) % parts
    return [Image(file, classes[label], int(at)) for file, label, at in zip(files, labels, part, strict=True)]


def is_flip(link: Path) -> bool:
    """Whether an image has another label than its file has in the data."""
    return link.parent.name != Path(os.readlink(link)).parent.name


class Flips:
    """The flipped labels of a seed: a folder of links, part-P/LABEL/*, and lists of all images but those of part P."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.seed, self.parts = seed, args.parts if args.train and not args.folds else 1
        self.name = f"{args.data_dir.name}, {100 * args.share:g} % flipped"
        self.folder = args.output / "data" / f"{args.share:g}-seed-{seed}-parts-{self.parts}"

    def make(self, data: Path, share: float) -> None:
        """Have the folder."""
        if paths.exists(self.folder):
            return
        images = flipped(data, share, self.seed, self.parts)
        with outputs.new_folder(self.folder, "--output") as made:
            for index, image in enumerate(images):
                link = made / image.name(index)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(image.file)
            for part in range(self.parts):
                text = io.StringIO()
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(["path", "label"])
                names = [(image.name(at), image.label) for at, image in enumerate(images)]
                others = [image.part != part or self.parts == 1 for image in images]
                writer.writerows(row for row, is_other in zip(names, others, strict=True) if is_other)
                intact.write_atomically(made / self._list(part), text.getvalue().encode(errors="surrogateescape"))

    def _list(self, part: int) -> str:
        return f"train-{part}.csv"

    def runs(self, data: Path, flags: list[str]) -> Iterator[MindghostRun]:
        """The trainings on the lists, in the order of the parts."""
        for part in range(self.parts):
            of_lists = ["--data_dir", str(data), "--train_list", str(self.folder / self._list(part))]
            variant = f"{self.name}, without part {part} of {self.parts}" if self.parts > 1 else self.name
            yield MindghostRun(variant, self.seed, runner.trained_with(*runner.merged(flags, of_lists)))


def last_weights(folder: Path) -> Path:
    """The weights of a run's last epoch: the best would be chosen by labels that are known to be right."""
    found = next(folder.glob("*_last.ckpt"), None)
    if found is None:
        raise RunError(f"{folder}: holds no weights of its last epoch; delete it, and train again")
    return found


def judged(args: argparse.Namespace, flips: Flips, weights: list[Path]) -> dict[str, object]:
    """Run `label-errors` on each part by the weights for it, and count."""
    counts = np.zeros(5, int)
    for part, file in enumerate(weights):
        folder = args.output / "found" / f"{flips.folder.name}-{part}"
        command = ["label-errors", flips.folder, "--split", f"part-{part}", "--ckpt_path", file, "-o", folder]
        command += ["--folds", args.folds, "--order", args.order, "--overwrite"]
        if status := program.run(list(map(str, command))):
            raise RunError(f"mindghost label-errors ended with status {status}")
        with open(folder / "labels.csv", newline="", encoding="utf-8") as table:
            rows = [(is_flip(Path(row["path"])), row["suspect"] == "yes") for row in csv.DictReader(table)]
        is_wrong, is_suspect = np.array(rows).T
        first = is_wrong[: round(args.first * len(rows))]
        counts += [len(rows), is_wrong.sum(), first.sum(), is_suspect.sum(), (is_wrong & is_suspect).sum()]
    images, wrong, found, suspects, found_among_suspects = counts.tolist()
    return {
        "seed": flips.seed,
        "images": images,
        "flips": wrong,
        "found": round(found / wrong, 4),
        "suspects": suspects,
        "found_among_suspects": round(found_among_suspects / wrong, 4),
    }


def make_parser() -> Parser:
    parser = Parser(PROG, __doc__)
    folder = input_folder("give what photos.py made")
    parser.add_argument("--data_dir", type=folder, required=True, metavar="D", help="folder of {train,val}/CLASS/*")
    way = parser.add_mutually_exclusive_group(required=True)
    weights = input_file("give a weight file")
    way.add_argument("--ckpt_path", type=weights, metavar="W", help="weights that judge, of other images or labels")
    way.add_argument("--train", metavar="FLAGS", help="of `mindghost train`, in quotes: '-c ghost_airbench'")
    parser.add_argument("--output", type=output_folder, required=True, metavar="DIR", help="folder for all files")
    folds = number(int, 0, 1000)
    parser.add_argument("--folds", type=folds, default=5, metavar="K", help="see `mindghost label-errors` (5)")
    parts = number(int, 2, 100)
    parser.add_argument("--parts", type=parts, default=2, metavar="N", help="of the images, of --train --folds 0 (2)")
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
    results = Results(args.output, PROG)
    every = [Flips(args, seed) for seed in args.seeds]
    found = []
    for flips in every:
        flips.make(args.data_dir, args.share)
        weights = [args.ckpt_path]
        if args.train:
            runs = list(flips.runs(args.data_dir, args.train.split()))
            runner.do_all(results, runs)
            weights = [last_weights(results.place(run)) for run in runs]
        found.append(judged(args, flips, weights))
    for result in found:
        say(f"seed {result['seed']}: {100 * result['found']:.1f} % of {result['flips']} flips among the first ones")
    options = {key: getattr(args, key) for key in ("train", "folds", "share", "first", "order")}
    content = json_text.dumps(outputs.mark_json({**options, "results": found}, PROG))
    intact.write_atomically(args.output / FOUND, f"{content}\n".encode())
    say(content)


if __name__ == "__main__":
    run_program(PROG, main)
