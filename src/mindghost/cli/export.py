"""Write a checkpoint for other runtimes: batch norms folded, branches fused, compared with the checkpoint.

A file is kept if its logits differ from the checkpoint's by no more than 1e-4 of their size, on images of the run's
data_dir where it is there. Class names and preprocessing are inside of it, and in STEM.json beside it. The network and
classes come from what training left beside the checkpoint. ONNX (opset 17) needs pip install onnx onnxruntime. AIR, the
format of Ascend's older tools, can be written on an Ascend machine only, and is not written here.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config.arguments import Parser, add_overwrite, input_folder, number, output_folder
from ..inference.formats import NAMES
from ..process.display import say
from . import network_arguments

PROG = "mindghost export"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    network_arguments.add_arguments(parser, exported=False)
    parser.add_argument(
        "--format",
        choices=(*NAMES, "all"),
        help="what to write; all: mindir and onnx (all; with --free_size onnx)",
    )
    parser.add_argument(
        "--out", type=output_folder, metavar="DIR", help="folder for the files (that of the checkpoint)"
    )
    parser.add_argument(
        "--batch_size", type=number(int, 1, 4096), metavar="N", help="images that a file takes at once (any number)"
    )
    parser.add_argument(
        "--free_size",
        action="store_true",
        help="a file (onnx or openvino) for images of any height and width, of a network that gives each pixel a class",
    )
    data_dir = input_folder("give one with images, or leave the option out")
    parser.add_argument("--data_dir", type=data_dir, metavar="D", help="images to compare on (those of the training)")
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, write, compare, report."""
    args = make_parser().parse_args(arguments)
    # After the command line is known to be good: importing MindSpore takes seconds.
    from ..deploy import export
    from ..process.log import RunLog
    from ..runtime import Runtime

    deployed = network_arguments.checkpoint_of(args)
    log = RunLog()
    try:
        Runtime.start(deployed.config)
        form = args.format or ("onnx" if args.free_size else "all")
        formats = export.USUAL if form == "all" else (form,)
        written = export.export(deployed, formats, args.out, args.batch_size, args.overwrite, args.free_size)
    finally:
        log.close()
    for file in written:
        if file.real == file.images:
            kind = f"{file.images} images of the run's data"
        elif file.real:
            kind = f"{file.real} images of the run's data and {file.images - file.real} made-up pictures"
        else:
            kind = f"{file.images} made-up pictures (no images in data_dir)"
        if len(file.sizes) > 1:
            kind += f", at {' and at '.join(f'{height} x {width}' for height, width in file.sizes)}"
        say(f"{file.path}: {file.size / 1e6:.1f} MB; logits within {file.difference:.1e} of the checkpoint's on {kind}")
    say(f"classes and preprocessing: {', '.join(dict.fromkeys(str(file.description) for file in written))}")
