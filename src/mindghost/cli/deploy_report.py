"""Which file do I ship? Makes every format and precision of a run that can be made here, and measures each.

Formats: MindIR, ONNX, OpenVINO, LiteRT and ncnn in float32, all but MindIR in float16 and int8, too. Each is evaluated
on the run's validation images and timed, in turns, for one image and for many. The fastest file for one image that
loses no more than --max_drop points is recommended. The files, deploy_report.json and deploy_report.png go to --out. A
runtime that is not here is left out, with the line that says why. Needs pip install 'mindghost[edge,plot]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.arguments import Parser, add_overwrite, input_folder, number, output_folder
from ..files import figures, json_text, outputs
from ..inference.formats import NAMES
from ..process import table
from ..process.display import say
from .model_card import add_run

if TYPE_CHECKING:
    from pathlib import Path

    from ..deploy.comparison import Comparison

PROG = "mindghost deploy-report"
MARK = "deploy-report"  # in what it writes


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    add_run(parser)
    images = input_folder("give one with images")
    parser.add_argument("--out", type=output_folder, metavar="DIR", help="folder for the files (RUN/deploy)")
    parser.add_argument(
        "--formats", nargs="+", choices=NAMES, default=NAMES, metavar="F", help=f"of {', '.join(NAMES)} (all)"
    )
    parser.add_argument(
        "--data_dir", type=images, metavar="D", help="images to evaluate on: D/val (that of the training)"
    )
    parser.add_argument(
        "--calib_dir", type=images, metavar="D", help="images to measure int8's ranges on (D/train of the training)"
    )
    parser.add_argument(
        "--calib_images", type=number(int, 1, 100_000), default=256, metavar="N", help="how many of them (256)"
    )
    parser.add_argument("--no_int8", action="store_true", help="make files in float32 alone, which takes less time")
    parser.add_argument(
        "--max_drop", type=number(float, 0, 100), default=1.0, metavar="P", help="points that may be lost (1)"
    )
    parser.add_argument("--threads", type=number(int, 1, 1024), metavar="N", help="of each runtime (one a core)")
    parser.add_argument(
        "--batch_size", type=number(int, 1, 4096), default=32, metavar="N", help="images of the throughput (32)"
    )
    parser.add_argument(
        "--seconds", type=number(float, 1, 36_000), default=120.0, metavar="S", help="that the clock may take (120)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Make, measure, recommend."""
    args = make_parser().parse_args(arguments)
    # After the command line is known to be good: importing MindSpore takes seconds.
    from dataclasses import replace
    from pathlib import Path

    from ..config import settled
    from ..deploy import comparison, run_facts
    from ..deploy.comparison import picture
    from ..deploy.comparison.files import Settings
    from ..inference import artifact
    from ..process.log import RunLog
    from ..runtime import Runtime

    figures.check()
    folder = args.out or args.run / "deploy"
    record, drawing = _outputs(folder, args.overwrite)
    weights = run_facts.read(args.run).weights
    deployed = artifact.of_file(weights)
    config = settled({"ckpt_path": str(weights), "mode": 1}, {}, artifact.said(str(weights), False))
    if args.data_dir:
        config = config.of_folder(args.data_dir)
        deployed = replace(deployed, config=deployed.config.of_folder(args.data_dir))
    calib_dir = args.calib_dir or Path(config.data_dir) / "train"
    settings = Settings(
        folder=folder,
        formats=tuple(args.formats),
        calib_dir=None if args.no_int8 else calib_dir,
        calib_images=args.calib_images,
        max_drop=args.max_drop,
        threads=args.threads,
        batch=args.batch_size,
        seconds=args.seconds,
        overwrite=args.overwrite,
    )
    log = None if args.json else RunLog()
    try:
        found = comparison.compare(deployed, Runtime.start(config), settings)
    finally:
        if log:
            log.close()
    facts = found.record()
    record.write(json_text.dumps(outputs.mark_json(facts, MARK), indent=1).encode())
    drawing.write(outputs.mark_png(figures.png(lambda: picture.draw(facts, found.task)), MARK))
    if args.json:
        print(json_text.dumps(facts))
    else:
        for line in text(found):
            say(line)
        say(f"wrote {record.path} and {drawing.path}")


def _outputs(folder: Path, overwrite: bool) -> tuple[outputs.Output, outputs.Output]:
    """Record and picture. Raises UserError where they may not be written."""
    record = outputs.Output(folder / "deploy_report.json", "--out", outputs.json_of(MARK), overwrite)
    drawing = outputs.Output(folder / "deploy_report.png", "--out", outputs.png_of(MARK), overwrite)
    outputs.check_in(folder, record, drawing)
    return record, drawing


def text(found: Comparison) -> list[str]:
    """The comparison for people, line by line."""
    task = found.task
    rows = [("", "size", task.score_title, "one image, median", "90 %", f"{found.batch} at once", "file")]
    for file in sorted(found.files, key=lambda file: file.speed.median):
        candidate, speed = file.candidate, file.speed
        rows.append(
            (
                f"{candidate.form.runtime}, {candidate.precision}",
                f"{candidate.size / 1e6:.2f} MB",
                f"{file.metrics.score:.2f}{task.score_unit}",
                f"{speed.median:.2f} ms",
                f"{speed.p90:.2f} ms",
                f"{speed.images_per_second:.1f} images/s",
                candidate.path.name,
            )
        )
    lines = table.lines(rows)
    lines += ["", f"{found.threads} thread(s) of {found.machine}, {found.metrics.num_samples:,} images"]
    lines += [f"left out: {kind}: {why}" for kind, why in found.missing.items()]
    chosen = "none" if found.chosen is None else str(found.chosen.candidate.path)
    return [*lines, f"ship: {chosen}", f"since {found.reason()}"]
