"""Fine-tune a backbone on a share of the training images, and train from scratch on the same, and compare.

For each folder of photos, share and seed, `mindghost train -c finetune` runs twice: from fresh weights, and from those
of --ckpt_path. What the recipe settles for the first (epochs, batch) the second has, too; its rates are the recipe's
for trained weights. Neither ends early. The images of a share are drawn anew for each seed, and those of a smaller one
are among those of a larger one; all are evaluated on the same images.

Writes results.json, table.md, images.png (accuracy over images) and epochs.png (accuracy over epochs at --epochs_at).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import photos
import report
import runner
from mindghost.cli.command import run_program
from mindghost.config import Config
from mindghost.config.arguments import Parser, input_file, input_folder, number
from mindghost.errors import UserError
from mindghost.files import figures
from mindghost.process.display import say
from mindghost.runs.files import RunFiles
from runner import MindghostRun, Results, Run

PROG = "few_images.py"
SCRATCH, TUNED = "from scratch", "fine-tuned"
INCHES, DPI = (7, 4.5), 120


def share_text(share: float) -> str:
    return f"{100 * share:g} %"


def variant(data: Path, share: float, way: str) -> str:
    return f"{data.name}, {share_text(share)}, {way}"


def part(output: Path, data: Path, share: float, seed: int) -> Path:
    """The folder of a share of the images: the photos' own, for all of them."""
    return data if share == 1 else output / "data" / f"{data.name}-{share:g}-{seed}"


def plan(args: argparse.Namespace) -> list[Run]:
    """The runs: for each folder, share and seed, from scratch and then fine-tuned."""
    names = [data.name for data in args.data_dir]
    if len(set(names)) < len(names):
        raise UserError(f"--data_dir: {', '.join(names)}: two of the same name; rename one of them, or make a link")
    places = [(data, share, seed) for data in args.data_dir for share in sorted(args.shares) for seed in args.seeds]
    return [run for data, share, seed in places for run in _pair(args, data, share, seed)]


def _pair(args: argparse.Namespace, data: Path, share: float, seed: int) -> tuple[Run, Run]:
    """The trainings on a share of the images: from scratch, and fine-tuned."""
    source = str(part(args.output, data, share, seed))
    base = ["-c", "finetune", "--data_dir", source, "--model", args.model, "--patience", "None"]
    more = args.flags.split()
    fresh = runner.trained_with(*runner.merged([*base, "--pretrained", "False"], more))
    scratch = MindghostRun(variant(data, share, SCRATCH), seed, fresh)
    flags = runner.merged([*base, "--ckpt_path", str(args.ckpt_path)], more)
    return scratch, MindghostRun(variant(data, share, TUNED), seed, _as_long(flags, runner.place(args.output, scratch)))


def _as_long(flags: list[str], scratch: Path) -> Callable[[Run, Path], list[str]]:
    """Command line of a training with the epochs and the batch of the one from scratch, which is done before."""

    def words(run: Run, folder: Path) -> list[str]:
        file = RunFiles(scratch).config
        # Not done yet, while commands are printed.
        epochs, batch = "THAT_FROM_SCRATCH", "THAT_FROM_SCRATCH"
        if file.exists():
            config = Config.from_file(file)
            epochs, batch = str(config.epoch_size), str(config.batch_size)
        same = runner.merged(["--epoch_size", epochs, "--batch_size", batch], flags)
        return runner.trained_with(*same)(run, folder)

    return words


def make_parts(args: argparse.Namespace) -> None:
    """Have the folders of all shares."""
    for data in args.data_dir:
        for share in args.shares:
            for seed in args.seeds if share < 1 else ():
                folder = part(args.output, data, share, seed)
                say(photos.make("folder", data, folder, photos.Options(fraction=share, seed=seed)))


def gains(results: Results, args: argparse.Namespace) -> str:
    """A line a folder and share: how much more fine-tuning gives, of the last epochs."""
    lines = []
    for data in args.data_dir:
        for share in sorted(args.shares):
            tuned, scratch = (scores(results, variant(data, share, way)) for way in (TUNED, SCRATCH))
            if tuned and scratch:
                gain = report.mean(tuned) - report.mean(scratch)
                lines.append(f"- {data.name}, {share_text(share)} of the images: fine-tuning gives {gain:+.2f} points")
    return "\n".join(lines)


def scores(results: Results, name: str) -> list[float]:
    return [entry["last"] for entry in report.of_variant(results, name)]


def draw_images(results: Results, args: argparse.Namespace) -> Any:
    """Accuracy over the number of training images: a panel a folder, a line a way, bars for the standard deviation."""

    def curve(panel: Any, data: Path, way: str) -> None:
        points = []
        for share in sorted(args.shares):
            if found := scores(results, variant(data, share, way)):
                points.append((100 * share, report.mean(found), report.deviation(found)))
        if points:
            x, y, bars = zip(*points, strict=True)
            panel.errorbar(x, y, yerr=bars, marker="o", capsize=3, label=way)
        panel.set_xscale("log")
        panel.set_xticks(
            [100 * share for share in sorted(args.shares)], [share_text(share) for share in sorted(args.shares)]
        )
        panel.minorticks_off()

    return _panels(args.data_dir, "share of the training images", curve)


def draw_epochs(results: Results, args: argparse.Namespace) -> Any:
    """Accuracy over the epochs at one share: the mean over the seeds, and the range of them."""

    def curve(panel: Any, data: Path, way: str) -> None:
        entries = report.of_variant(results, variant(data, args.epochs_at, way))
        runs = [{r["epoch"]: r["top_1"] for r in entry["epochs"] if r["top_1"] is not None} for entry in entries]
        epochs = sorted(set.intersection(*map(set, runs))) if runs else []
        if epochs:
            (line,) = panel.plot(epochs, [report.mean([run[epoch] for run in runs]) for epoch in epochs], label=way)
            low, high = ([end(run[epoch] for run in runs) for epoch in epochs] for end in (min, max))
            panel.fill_between(epochs, low, high, alpha=0.2, color=line.get_color(), linewidth=0)

    figure = _panels(args.data_dir, f"epoch, with {share_text(args.epochs_at)} of the training images", curve)
    for panel in figure.axes:
        panel.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _panels(folders: Sequence[Path], x: str, curve: Callable[[Any, Path, str], None]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure((INCHES[0], INCHES[1] * len(folders)), DPI, layout="constrained")
    for panel, data in zip(figure.subplots(len(folders), squeeze=False)[:, 0], folders, strict=True):
        for way in (SCRATCH, TUNED):
            curve(panel, data, way)
        panel.set_title(figures.label(data.name))
        panel.set_xlabel(x)
        panel.set_ylabel("top-1 (%)")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    return figure


def make_parser() -> Parser:
    parser = Parser(PROG, __doc__)
    folder = input_folder("give what photos.py made")
    parser.add_argument("--data_dir", type=folder, nargs="+", required=True, metavar="D", help="folders of photos")
    weights = input_file("give the weights of a backbone")
    parser.add_argument("--ckpt_path", type=weights, required=True, metavar="W", help="weights to start from")
    runner.add_options(parser, "1 2 3")
    share = number(float, 1e-6, 1)
    shares = [0.01, 0.1, 1.0]
    parser.add_argument(
        "--shares", type=share, nargs="+", default=shares, metavar="F", help="of the training images (0.01 0.1 1)"
    )
    parser.add_argument("--epochs_at", type=share, default=0.1, metavar="F", help="share of epochs.png (0.1)")
    parser.add_argument("--model", default="ghostnet_100", metavar="NAME", help="(ghostnet_100)")
    parser.add_argument("--flags", default="", metavar="TEXT", help="more flags of both, such as '--image_resize 64'")
    return parser


def main() -> None:
    """Command line."""
    args = make_parser().parse_args()
    everything = plan(args)
    runs = runner.chosen(everything, args.only)
    if args.print_commands:
        runner.print_commands(args.output, runs)
        return
    results = Results(args.output, PROG)
    make_parts(args)
    runner.do_all(results, runs)
    report.write_table(results, f"{report.table(results, runner.variants_of(everything))}\n\n{gains(results, args)}")
    report.write_picture(results, "images.png", report.picture(lambda: draw_images(results, args)))
    report.write_picture(results, "epochs.png", report.picture(lambda: draw_epochs(results, args)))


if __name__ == "__main__":
    run_program(PROG, main)
