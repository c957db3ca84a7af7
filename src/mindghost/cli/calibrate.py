"""Make a network's probabilities honest: fit one number, the temperature, that its logits are divided by.

It is fitted to the validation images by their cross-entropy (Guo et al., 2017), and kept beside the weights, in
STEM.temperature.json. From then on predict divides by it, validate says what it changes, and export puts it inside of
the files that it writes; the order of the classes, and so top-1, stays as it is. For networks that give an image one
class. The last line is one JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.arguments import Parser, input_file, input_folder
from ..errors import UserError
from ..files.json_text import dumps
from ..process.display import say, shell
from ..process.signals import importing

if TYPE_CHECKING:
    from ..evaluate.calibrate import Calibrated

PROG = "mindghost calibrate"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    folder = input_folder("give that of a run (its ckpt_save_dir)")
    parser.add_argument(
        "run", nargs="?", type=folder, metavar="RUN", help="a run's folder (ckpt_save_dir): its best weights"
    )
    weights = input_file("give the path of a .ckpt or .safetensors file")
    parser.add_argument(
        "--ckpt_path", type=weights, metavar="P", help="in place of RUN, a weight file with its config.yaml beside it"
    )
    images = input_folder("give one with images")
    parser.add_argument(
        "--data_dir", type=images, metavar="D", help="images to fit it to: D/val (those of the training's validation)"
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Evaluate, fit, write, say."""
    args = make_parser().parse_args(arguments)
    if (args.run is None) == (args.ckpt_path is None):
        raise UserError("RUN or --ckpt_path P: give one of them")
    # After the command line is known to be good: importing MindSpore takes seconds.
    with importing():
        from ..config import settled
        from ..deploy import run_facts
        from ..evaluate.calibrate import calibrate
        from ..inference import artifact

    weights: Path = run_facts.read(args.run).weights if args.run else args.ckpt_path
    config = settled({"ckpt_path": str(weights)}, {}, artifact.said(str(weights), False))
    found = calibrate(config.of_folder(args.data_dir) if args.data_dir else config)
    for line in _lines(found):
        say(line)
    print(dumps({"ckpt_path": str(found.weights), "file": str(found.file), **found.record()}))


def _lines(found: Calibrated) -> list[str]:
    before, after = found.before.result(), found.after.result()
    errors = [f"{numbers['calibration_error']:.2f} %" for numbers in (before, after)]
    return [
        f"{found.weights}: temperature {found.temperature:.4g}, fitted to {found.before.num_samples:,} images",
        f"calibration error (15 bins): {errors[0]} before, {errors[1]} after",
        f"loss: {before['loss']:.4f} before, {after['loss']:.4f} after",
        f"wrote {found.file}; files that were exported before do not have it:",
        f"next: mindghost export --ckpt_path {shell(str(found.weights))}",
    ]
