"""Print how large networks are: parameters, multiply-accumulates, activations, file size, published accuracy.

Everything but the accuracy is counted by building the network and running its own layers on one image. Activations
are the elements of the outputs of convolutions and dense layers, as fvcore and timm's tables count them. The accuracies
are those that others published, on ImageNet or (networks with 10 classes) CIFAR-10, whatever --input says. GhostNetV3
and RepGhostNet have two rows: as they are trained, and fused as they are deployed. So have networks for segmentation
with such a backbone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..config.arguments import Parser, number
from ..config.types import DECODER_WIDTHS
from ..errors import UserError
from ..files import json_text
from ..process import table as tables

PROG = "mindghost complexity"
# Of a larger image, one feature map alone takes gigabytes.
MAX_PIXELS = 2048
MAX_CLASSES = 1_000_000
DASH = "-"
# Keys of a network for segmentation.
DECODER = ("backbone", "decoder_width", "upsampling")
# Key of a row -> title, and how its number is printed.
COLUMNS = {
    "parameters": ("parameters", "{:,}"),
    "values": ("with statistics", "{:,}"),
    "macs": ("MACs", "{:,}"),
    "activations": ("activations", "{:,}"),
    "file_bytes": ("file, bytes", "{:,}"),
    "paper_top_1": ("top-1, paper", "{:.1f} %"),
    "mindcv_top_1": ("MindCV", "{:.2f} %"),
    "timm_top_1": ("timm", "{:.2f} %"),
}

Row = dict[str, Any]


def row(name: str, size: tuple[int, int] | None, num_classes: int | None, deploy: bool = False, **decoder: Any) -> Row:
    """What is known of one network, by the keys of COLUMNS and those of `asked` below.

    Args:
        name: of the network.
        size: height and width of the image; None is what the network was published with.
        num_classes: outputs; None likewise.
        deploy: the fused form.
        decoder: what a network for segmentation is built with, as `create_model` takes it.

    Raises UserError for a network that cannot take such an image.
    """
    from ..models import SEGMENTATION, backbone_name, card, create_model
    from ..models.complexity import complexity

    facts = card(name)
    height, width = size or (facts.input_size, facts.input_size)
    num_classes = num_classes or facts.num_classes
    network = create_model(name, num_classes=num_classes, deploy=deploy, **decoder)
    try:
        counts = complexity(network, height, width)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"--input: {name} cannot take {height} x {width} pixels ({reason}); give more") from error
    published = {key: getattr(facts, key) for key in ("paper_top_1", "mindcv_top_1", "timm_top_1")}
    asked = {"model": name, "height": height, "width": width, "num_classes": num_classes, "deploy": deploy}
    if facts.task == SEGMENTATION:
        asked |= {"backbone": backbone_name(name, decoder.get("backbone", ""))}
    return {**asked, **asdict(counts), "file_bytes": file_bytes(network), **published}


def file_bytes(network: Any) -> int:
    """Size of the weight file that training would write, by writing it."""
    from ..checkpoint import weights as weights_file
    from ..files import scratch

    with scratch.folder("complexity") as folder:
        path = folder / "weights.ckpt"
        weights_file.write(path, {p.name: p.asnumpy() for p in network.get_parameters()})
        return path.stat().st_size


def table(rows: list[Row]) -> str:
    """The rows as text, columns aligned; what is not known is a dash."""
    lines = [["model", "input", "classes", *(title for title, _ in COLUMNS.values())]]
    for entry in rows:
        cells = [DASH if entry[key] is None else form.format(entry[key]) for key, (_, form) in COLUMNS.items()]
        backbone = f" on {entry['backbone']}" if "backbone" in entry else ""
        name = entry["model"] + backbone + (", fused" if entry["deploy"] else "")
        lines.append([name, f"{entry['height']}x{entry['width']}", str(entry["num_classes"]), *cells])
    return "\n".join(tables.lines(lines, right=True))


def _pixels(text: str) -> list[int]:
    """`224` or `512x1024`."""
    try:
        return [int(part) for part in text.split("x")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; names of networks go before --input") from None


def make_parser() -> Parser:
    """The command line."""
    usage = (
        "%(prog)s [NAME ...] [--input HEIGHT [WIDTH]] [--num_classes N] [--backbone NAME] [--decoder_width X] "
        "[--upsampling WAY] [--json]"
    )
    parser = Parser(PROG, __doc__, usage=usage)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; without any, all that there are")
    parser.add_argument(
        "--input",
        nargs="+",
        type=_pixels,
        metavar="PIXELS",
        help=f"height and width of the image, 512 1024 or 512x1024, or one number for both, 1 to {MAX_PIXELS} "
        "(default: as published)",
    )
    parser.add_argument(
        "--num_classes", type=number(int, 1, MAX_CLASSES), metavar="N", help="outputs (default: as published)"
    )
    of_keys = "of the networks for segmentation, as in training"
    parser.add_argument("--backbone", metavar="NAME", help=f"backbone {of_keys} (default: the usual one)")
    parser.add_argument(
        "--decoder_width",
        type=number(float, *DECODER_WIDTHS),
        metavar="X",
        help=f"factor on the decoder's channels {of_keys} (1)",
    )
    parser.add_argument(
        "--upsampling", choices=("bilinear", "transposed"), help=f"how maps are enlarged {of_keys} (bilinear)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array of objects instead of the table")
    return parser


def parse(line: Sequence[str]) -> argparse.Namespace:
    """What a command line says."""
    arguments = make_parser().parse_args(line)
    sizes = arguments.input = [size for part in arguments.input or () for size in part]
    if sizes and (len(sizes) > 2 or not all(1 <= size <= MAX_PIXELS for size in sizes)):
        given = " ".join(map(str, sizes))
        raise UserError(f"--input: expected one or two numbers from 1 to {MAX_PIXELS} (height width), got {given}")
    return arguments


def main(arguments: Sequence[str]) -> None:
    """Count, print."""
    args = parse(arguments)
    # After the command line is known to be good: importing MindSpore takes seconds.
    from ..models import SEGMENTATION, backbone_name, card, list_models

    decoder = {key: value for key in DECODER if (value := getattr(args, key)) is not None}
    # What is said of decoders is no question about classifiers.
    names = args.names or list_models(SEGMENTATION if decoder else None)
    size = (args.input[0], args.input[-1]) if args.input else None
    try:
        trunks = {name: card(backbone_name(name, args.backbone or "")) for name in names}
        forms = [(name, deploy) for name in names for deploy in (False, True)]
        forms = [(name, deploy) for name, deploy in forms if not deploy or trunks[name].fused_parameters is not None]
        rows = [row(name, size, args.num_classes, deploy, **decoder) for name, deploy in forms]
    except ValueError as error:
        raise UserError(str(error)) from error
    print(json_text.dumps(rows, indent=2) if args.json else table(rows))
