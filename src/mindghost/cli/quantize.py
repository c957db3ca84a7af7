"""Make an exported file smaller and faster: int8 weights and activations, evaluated before it is kept.

Ranges are measured on real images; of ONNX and OpenVINO files, two ways to choose the scales are tried. Where the
better one loses more than --max_drop points of top-1 (of mAP, with several labels), the layers of an ONNX file that
cost most are left in float, as few as will do. Writes STEM_int8, with --float16 STEM_float16, in the format of the
file, and a .json with the description beside each; nothing where the goal is not reached.
Needs pip install onnx onnxruntime (.onnx), openvino nncf (.xml) or ai-edge-litert ai-edge-quantizer (.tflite).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.arguments import Parser, add_overwrite, input_file, input_folder, number, output_folder
from ..process import table
from ..process.display import shown

PROG = "mindghost quantize"
SHARE = number(float, 0, 100)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    exported, images = input_file("give one that `mindghost export` wrote"), input_folder("give one with images")
    parser.add_argument(
        "model", type=exported, metavar="MODEL", help=".onnx, .xml or .tflite file that `mindghost export` wrote"
    )
    parser.add_argument(
        "--calib_dir", type=images, required=True, metavar="D", help="images to measure ranges on: D/train of training"
    )
    parser.add_argument(
        "--calib_images", type=number(int, 1, 100_000), default=256, metavar="N", help="how many of them (256)"
    )
    parser.add_argument(
        "--data_dir", type=images, metavar="D", help="images to evaluate on: D/val (that of the training)"
    )
    parser.add_argument(
        "--max_drop", type=SHARE, default=0.5, metavar="P", help="points of the score that may be lost (0.5)"
    )
    parser.add_argument(
        "--max_float", type=SHARE, default=50.0, metavar="P", help="percent of the layers that may stay float (50)"
    )
    parser.add_argument("--write_anyway", action="store_true", help="write the best file where more is lost")
    parser.add_argument("--float16", action="store_true", help="write a float16 file, too")
    parser.add_argument("--out", type=output_folder, metavar="DIR", help="folder for the files (that of the model)")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the tables")
    add_overwrite(parser)
    return parser


def tables(record: dict[str, Any], titles: Mapping[str, str], unit: str) -> str:
    """The record of a result for people: the files, and the layers that were left in float.

    Args:
        record: of `Result.record`.
        titles, unit: those of the scores of the task.
    """
    timed = f"batch {record['latency']['batch']}, 1 thread"
    rows = [("", "size", *titles.values(), "loss", f"median latency ({timed})")]
    first = record["files"][0]
    for file in record["files"]:
        scores = ["-" if file[key] is None else f"{file[key]:.2f}{unit}" for key in titles]
        ratio = f"{first['latency_ms'] / file['latency_ms']:.2f} x"
        size, latency = f"{file['size'] / 1e6:.2f} MB", f"{file['latency_ms']:.2f} ms ({ratio} as fast)"
        rows.append((file["kind"], size, *scores, f"{file['loss']:.4f}", latency))
    lines = table.lines(rows)
    for file in record["files"][1:]:
        if file["float_layers"]:
            lines += [
                "",
                f"{len(file['float_layers'])} of {record['layers']} layers are in float; in int8, one alone changes",
            ]
            lines += ["the logits by (root mean square, of that of the logits):"]
            lines += [f"  {_cost(layer):>10}  {shown(layer['name'])}" for layer in file["float_layers"]]
    images = record["images"]
    lines += ["", f"{images['calibrated']:,} images calibrated, {images['evaluated']:,} evaluated"]
    return "\n".join([*lines, *(shown(file["path"]) for file in record["files"][1:])])


def _cost(layer: dict[str, Any]) -> str:
    return "unmeasured" if layer["cost"] is None else f"{layer['cost']:.2%}"


def main(arguments: Sequence[str]) -> None:
    """Calibrate, evaluate, write, report."""
    args = make_parser().parse_args(arguments)
    # After the command line is known to be good: importing MindSpore takes seconds.
    from .. import tasks
    from ..config import settled
    from ..deploy import quantize
    from ..deploy.quantize.search import Goal
    from ..errors import UserError
    from ..files.json_text import dumps
    from ..inference import artifact, formats
    from ..process import log
    from ..runtime import Runtime

    if not formats.is_exported(args.model):
        raise UserError(f"{args.model}: not an exported file; make one with `mindghost export`")
    deployed = artifact.of_file(args.model)
    config = settled({"ckpt_path": str(args.model), "mode": 1}, {}, artifact.said(str(args.model), False))
    if args.data_dir:
        config = config.of_folder(args.data_dir)
    run_log = None if args.json else log.RunLog()
    try:
        goal = Goal(args.max_drop, args.max_float, args.write_anyway)
        result = quantize.quantize(
            deployed,
            Runtime.start(config),
            args.calib_dir,
            args.calib_images,
            goal,
            args.float16,
            args.out,
            args.overwrite,
        )
    finally:
        if run_log:
            run_log.close()
    record = result.record()
    task = tasks.of(config)
    print(dumps(record) if args.json else tables(record, task.titles, task.score_unit))
