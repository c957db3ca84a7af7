"""Make an exported file smaller and faster: int8 weights and activations, evaluated before it is kept.

Ranges are measured on real images; of all but LiteRT files, two ways to choose the scales are tried. Where the
better one loses more than --max_drop points of top-1 (of mAP, with several labels), the layers of an ONNX file that
cost most are left in float, as few as will do. Writes STEM_int8, with --float16 STEM_float16, in the format of the
file, and a .json with the description beside each; nothing where the goal is not reached. With --target mcu it writes
STEM_mcu.tflite, a LiteRT file of integers alone, from input to output: it is run by tflite-micro, held to --flash and
--ram, and its cycles on an Ethos-U are estimated.
Needs pip install onnx onnxruntime (.onnx), openvino nncf (.xml), ai-edge-litert ai-edge-quantizer (.tflite) or ncnn
(.param), and for --target mcu tflite-micro ethos-u-vela.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ..config.arguments import Parser, add_overwrite, input_file, input_folder, number, number_of_bytes, output_folder
from ..deploy.micro.target import ACCELERATORS, Target
from ..errors import UserError
from ..process import table
from ..process.display import shown

PROG = "mindghost quantize"
SHARE = number(float, 0, 100)
# Options of --target mcu, with what they are where nobody says (`deploy.micro.Target`).
MCU_OPTIONS = ("flash", "ram", "npu")


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    exported, images = input_file("give one that `mindghost export` wrote"), input_folder("give one with images")
    parser.add_argument(
        "model", type=exported, metavar="MODEL", help="file of `mindghost export`: .onnx, .xml, .tflite or .param"
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
    parser.add_argument(
        "--target", choices=("mcu",), help="mcu: of a .tflite file, one for microcontrollers (tflite-micro)"
    )
    parser.add_argument(
        "--flash", type=number_of_bytes, metavar="SIZE", help="with --target mcu: what the file may take (1MB)"
    )
    parser.add_argument(
        "--ram", type=number_of_bytes, metavar="SIZE", help="with --target mcu: what the arena may take (512kB)"
    )
    parser.add_argument(
        "--npu",
        choices=ACCELERATORS,
        metavar="NAME",
        help="with --target mcu: Ethos-U whose cycles are estimated, ethos-u55-32 to ethos-u85-2048 (ethos-u55-128)",
    )
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
    timed = record["files"][0]["latency_ms"] is not None
    heads = [f"median latency (batch {record['latency']['batch']}, 1 thread)"] if timed else []
    rows = [("", "size", *titles.values(), "loss", *heads)]
    first = record["files"][0]
    for file in record["files"]:
        scores = ["-" if file[key] is None else f"{file[key]:.2f}{unit}" for key in titles]
        size, latency = f"{file['size'] / 1e6:.2f} MB", []
        if timed:
            ratio = f"{first['latency_ms'] / file['latency_ms']:.2f} x"
            latency = [f"{file['latency_ms']:.2f} ms ({ratio} as fast)"]
        rows.append((file["kind"], size, *scores, f"{file['loss']:.4f}", *latency))
    lines = table.lines(rows)
    for file in record["files"][1:]:
        if file["float_layers"]:
            lines += [
                "",
                f"{len(file['float_layers'])} of {record['layers']} layers are in float; in int8, one alone changes",
            ]
            lines += ["the logits by (root mean square, of that of the logits):"]
            lines += [f"  {_cost(layer):>10}  {shown(layer['name'])}" for layer in file["float_layers"]]
    if "microcontroller" in record:
        lines += ["", *_of_micro(record["microcontroller"], record["files"][1]["size"])]
    images = record["images"]
    lines += ["", f"{images['calibrated']:,} images calibrated, {images['evaluated']:,} evaluated"]
    return "\n".join([*lines, *(shown(file["path"]) for file in record["files"][1:])])


def _of_micro(found: dict[str, Any], size: int) -> list[str]:
    """What there is to say of a file for microcontrollers; `size` is that of the file, in bytes."""
    arena, same, estimate = found["arena"], found["compared"], found["estimate"]
    off = f"within {same['difference']} step(s) of" if same["difference"] else "equal to"
    rows = [
        ("flash", f"{size:,} bytes of {found['flash']:,}: the file, with its description"),
        (
            "RAM",
            f"{arena['total']:,} bytes of {found['ram']:,}: the arena of {found['interpreter']}, "
            f"{arena['activations']:,} of it for activations",
        ),
        ("operators", ", ".join(f"{name} {count}" for name, count in found["operators"].items())),
        ("answers", f"{off} LiteRT's reference operators on {same['images']} images"),
    ]
    if estimate:
        operators = estimate["on_accelerator"] + estimate["on_processor"]
        rows += [
            (
                "estimate",
                f"{estimate['cycles']:,} cycles, {estimate['milliseconds']:.2f} ms at {estimate['clock'] / 1e6:g} MHz: "
                f"{estimate['accelerator']}, {estimate['system']}, {estimate['memory']} (Vela {estimate['version']}), "
                f"{estimate['on_accelerator']} of {operators} operators on it",
            )
        ]
    return table.lines(rows)


def _cost(layer: dict[str, Any]) -> str:
    return "unmeasured" if layer["cost"] is None else f"{layer['cost']:.2%}"


def _target(args: argparse.Namespace) -> Target | None:
    """The microcontroller that is asked for. Raises UserError for options that do not go with the others."""
    given = {name: value for name in MCU_OPTIONS if (value := getattr(args, name)) is not None}
    if args.target is None:
        if given:
            raise UserError(
                f"--{next(iter(given))}: it is for microcontrollers; give --target mcu, too, or leave it out"
            )
        return None
    if args.float16:
        raise UserError("--float16: a file for microcontrollers has integers alone; leave it out, or --target")
    accelerator = given.pop("npu", Target.accelerator)
    return Target(**given, accelerator=accelerator)


def main(arguments: Sequence[str]) -> None:
    """Calibrate, evaluate, write, report."""
    args = make_parser().parse_args(arguments)
    target = _target(args)
    # After the command line is known to be good: importing MindSpore takes seconds.
    from .. import tasks
    from ..config import settled
    from ..deploy import quantize
    from ..deploy.quantize.search import Goal
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
            target=target,
        )
    finally:
        if run_log:
            run_log.close()
    record = result.record()
    task = tasks.of(config)
    print(dumps(record) if args.json else tables(record, task.titles, task.score_unit))
