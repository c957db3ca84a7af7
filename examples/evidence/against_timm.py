"""Train the same networks on the same photos with this project and with timm's train.py, in turns, and compare.

Both have the same network, photos, image size, augmentation, schedule, batch, epochs and seeds: --settings prints what
stands for what. Accuracy is of the last epoch, and of the best; time is from start to end, compilation, evaluation and
saving included; memory is that of all processes.

timm and PyTorch are taken from --timm_python; without it, an environment for them is made in the cache folder.
train.py is no part of timm's package: --timm_checkout names a checkout of github.com/huggingface/pytorch-image-models,
or its git directory.

A training of ours that was stopped goes on where it was; one of timm's begins afresh, since timm would go on with other
random numbers.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import report
import runner
import timm_environment
from mindghost.cli.command import run_program
from mindghost.config.arguments import Parser, input_folder, number
from mindghost.errors import UserError
from mindghost.files import paths
from mindghost.process.display import say
from runner import Results, Run

PROG = "against_timm.py"
OURS, TIMMS = "ours", "timm"


class Setting(NamedTuple):
    """What is the same on both sides: its name, and the flags that say so to us and to timm."""

    what: str
    ours: str
    timms: str


SETTINGS = (
    Setting(
        "photos",
        "--data_dir {data} --num_classes {classes}",
        "--data-dir {data} --train-split train --val-split val --num-classes {classes}",
    ),
    Setting("network", "--model {model} --pretrained False", "--model {model}"),
    Setting("fresh weights", "--init {init}", ""),
    Setting("device", "--device_target CPU --distribute False --amp_level O0", "--device cpu"),
    Setting("pixels", "--image_resize {size}", "--img-size {size}"),
    Setting("resizing", "--interpolation bilinear", "--train-interpolation bilinear --interpolation bilinear"),
    Setting("random crops", "--scale 0.35 1.0 --ratio 0.75 1.333", "--scale 0.35 1.0 --ratio 0.75 1.333"),
    Setting("mirror images", "--hflip 0.5 --vflip 0", "--hflip 0.5 --vflip 0"),
    Setting(
        "no other augmentation",
        "--color_jitter None --auto_augment None --re_prob 0 --mixup 0 --cutmix 0",
        "--color-jitter 0 --reprob 0 --mixup 0 --cutmix 0",
    ),
    Setting("evaluation", "--crop_pct 0.875 --val_while_train True", "--crop-pct 0.875"),
    Setting("batch", "--batch_size {batch} --drop_remainder True", "--batch-size {batch}"),
    Setting("loss", "--loss CE --label_smoothing 0.1", "--smoothing 0.1"),
    Setting("dropout", "--drop_rate 0.2", "--drop 0.2"),
    Setting("optimizer", "--opt momentum --momentum 0.9 --use_nesterov False", "--opt momentum --momentum 0.9"),
    Setting("weight decay", "--weight_decay 1e-4 --weight_decay_filter norm_and_bias", "--weight-decay 1e-4"),
    Setting("rate", "--lr {rate} --lr_reference_batch 64", "--lr-base {rate} --lr-base-size 64 --lr-base-scale linear"),
    Setting(
        "schedule",
        "--scheduler cosine_decay --epoch_size {epochs} --warmup_epochs 1 --decay_epochs {decay} --min_lr 1e-6",
        "--sched cosine --sched-on-updates --epochs {decay} --min-lr 1e-6 "
        "--warmup-epochs 1 --warmup-prefix --warmup-lr 0",
    ),
    Setting("no average of weights", "--ema False", ""),
    Setting("processes that read", "--num_parallel_workers 2", "--workers 2"),
    Setting("weights kept", "--keep_checkpoint_max 1", "--checkpoint-hist 1"),
)


def flags(side: str, values: dict[str, object]) -> list[str]:
    """The flags of one side, with values in the places of their names."""
    texts = [setting.ours if side == OURS else setting.timms for setting in SETTINGS]
    return [word.format_map(values) for text in texts for word in text.split()]


class TimmRun(Run):
    """A training of timm's, whose `words` have `--output` and `--experiment`."""

    def to_go_on(self, folder: Path) -> list[str] | None:
        return None

    def records(self, folder: Path) -> list[runner.Record]:
        return read_summary(folder / "summary.csv")


def read_summary(file: Path) -> list[runner.Record]:
    """The epochs in the table that timm writes. Raises UserError for another one."""
    text = paths.read(file, "delete the run's folder to train again").decode(errors="replace")
    try:
        return [
            {
                "epoch": int(row["epoch"]) + 1,
                "top_1": float(row["eval_top1"]),
                "train_loss": float(row["train_loss"]),
                "val_loss": float(row["eval_loss"]),
                "lr": float(row["lr"]),
            }
            for row in csv.DictReader(text.splitlines())
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not the table that timm's train.py writes ({error})") from error


def plan(args, train_py: Path | None) -> list[Run]:
    """The runs: for each seed and network, ours and then timm's."""
    classes = len(
        [name for name in paths.names_in(args.data_dir / "train") if (args.data_dir / "train" / name).is_dir()]
    )
    if not classes or not paths.is_folder(args.data_dir / "val"):
        raise UserError(f"--data_dir: {args.data_dir}: no train/CLASS and val/CLASS in it; photos.py makes them")

    def ours(model: str) -> list[str]:
        return runner.merged(flags(OURS, values | {"model": model}), args.our_flags.split())

    def timms(model: str):
        given = runner.merged(flags(TIMMS, values | {"model": model}), args.timm_flags.split())
        return lambda run, folder: [
            *(str(args.timm_python), str(train_py)),
            *given,
            *("--seed", str(run.seed), "--output", str(folder.parent), "--experiment", folder.name),
        ]

    values = {
        "data": args.data_dir,
        "classes": classes,
        "size": args.size,
        "batch": args.batch_size,
        "rate": args.lr,
        "epochs": args.epochs,
        "decay": args.epochs - 1,
        "init": args.init,
    }
    runs: list[Run] = []
    for seed in args.seeds:
        for model in args.models:
            runs.append(runner.MindghostRun(f"{model}, {OURS}", seed, runner.trained_with(*ours(model))))
            runs.append(TimmRun(f"{model}, {TIMMS}", seed, timms(model)))
    return runs


def comparison(results: Results, models: Sequence[str]) -> str:
    """A line a network: by how much accuracy and time differ, of the seeds that both have."""
    lines = []
    for model in models:
        sides = [report.of_variant(results, f"{model}, {side}") for side in (OURS, TIMMS)]
        common = {entry["seed"] for entry in sides[0]} & {entry["seed"] for entry in sides[1]}
        if common:
            pairs = [[entry for entry in side if entry["seed"] in common] for side in sides]
            ours, timms = (report.mean([entry["last"] for entry in side]) for side in pairs)
            times = [report.mean([entry["cost"]["wall_seconds"] for entry in side]) for side in pairs]
            lines.append(
                f"- {model}: ours {ours - timms:+.2f} points in {times[0] / times[1]:.2f} of timm's time "
                f"({len(common)} seeds)"
            )
    return "\n".join(lines)


def settings_table() -> str:
    """What stands for what, as a Markdown table."""
    rows = [f"| {s.what} | {_code(s.ours)} | {_code(s.timms)} |" for s in SETTINGS]
    return "\n".join(["| | `mindghost train` | timm's `train.py` |", "| --- | --- | --- |", *rows])


def _code(text: str) -> str:
    return f"`{text}`" if text else "has no other"


def make_parser() -> Parser:
    parser = Parser(PROG, __doc__)
    folder = input_folder("give what photos.py made")
    parser.add_argument(
        "--data_dir", type=folder, required=True, metavar="D", help="folder of {train,val}/CLASS/*, see photos.py"
    )
    runner.add_options(parser, "1 2 3")
    models = ["ghostnet_050", "ghostnet_100"]
    parser.add_argument(
        "--models",
        nargs="+",
        default=models,
        metavar="NAME",
        help=f"networks ({' '.join(models)})",
    )
    parser.add_argument("--size", type=number(int, 32, 1024), default=128, metavar="N", help="pixels a side (128)")
    parser.add_argument(
        "--epochs", type=number(int, 2, 10_000), default=12, metavar="N", help="with one of warm-up (12)"
    )
    parser.add_argument("--batch_size", type=number(int, 1, 4096), default=64, metavar="N", help="images (64)")
    parser.add_argument("--lr", type=number(float, 1e-9, 1e3), default=0.1, metavar="R", help="of a batch of 64 (0.1)")
    parser.add_argument(
        "--init", choices=("pytorch", "mindcv"), default="pytorch", help="how our weights start (pytorch, as timm's)"
    )
    parser.add_argument("--our_flags", default="", metavar="TEXT", help="more flags of mindghost train, or others")
    parser.add_argument(
        "--timm_flags",
        default="--channels-last",
        metavar="TEXT",
        help="more flags of train.py (--channels-last), a single one as in --timm_flags=--torchcompile",
    )
    parser.add_argument("--timm_python", type=Path, metavar="P", help="Python of an environment that has timm")
    parser.add_argument("--timm_checkout", type=Path, metavar="DIR", help="checkout or git directory that has train.py")
    parser.add_argument("--settings", action="store_true", help="print what stands for what, and run nothing")
    return parser


def main() -> None:
    """Command line."""
    # Before the command line is parsed, as with --help: it needs no other option.
    if "--settings" in sys.argv[1:]:
        report.say_lines(settings_table())
        return
    args = make_parser().parse_args()
    everything = plan(args, args.output / timm_environment.TRAIN_PY)
    runs = runner.chosen(everything, args.only)
    with_timm = any(isinstance(run, TimmRun) for run in runs)
    if with_timm:
        args.timm_python = args.timm_python or timm_environment.default_python()
    if args.print_commands:
        runner.print_commands(args.output, runs)
        return
    results = Results(args.output, PROG)
    if with_timm and not all(map(results.is_done, runs)):
        needed = {word for setting in SETTINGS for word in setting.timms.split() if word.startswith("--")}
        say(timm_environment.prepare(args.timm_python, args.timm_checkout, args.output, needed))
    runner.do_all(results, runs)
    variants = runner.variants_of(everything)
    report.write_table(results, f"{report.table(results, variants)}\n\n{comparison(results, args.models)}")
    report.write_curves(results, variants)


if __name__ == "__main__":
    run_program(PROG, main)
