"""Convert weights from PyTorch, .safetensors or .ckpt to .ckpt or .safetensors: all of them fit, or nothing is written.

IN is a PyTorch file (.pth, .pth.tar; needs pip install 'torch>=2.6'), a .safetensors or a .ckpt, by the names of timm,
the network's authors or MindCV; what it is, is read off its content. OUT ends in .ckpt (MindCV's names) or
.safetensors (timm's names). Where IN does not fit, every difference is listed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..config.arguments import Parser, add_overwrite, input_file, number, output_file
from ..errors import UserError
from ..files import outputs, paths
from ..process.display import say

PROG = "mindghost convert"
COUNT = number(int, 1, 1_000_000)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    parser.add_argument("source", type=input_file("give the weights to read"), metavar="IN", help="weights to read")
    parser.add_argument("target", type=output_file, metavar="OUT", help="file to write: .ckpt or .safetensors")
    parser.add_argument("--model", required=True, metavar="NAME", help="the network, such as ghostnet_100")
    parser.add_argument("--num_classes", type=COUNT, metavar="N", help="its outputs, where they are not 1000")
    parser.add_argument("--in_channels", type=COUNT, default=3, metavar="N", help="channels of its images (3)")
    parser.add_argument("--ema", action="store_true", help="take the averaged weights of a training state")
    parser.add_argument(
        "--deploy",
        action="store_true",
        help="fuse the branches that a network (GhostNetV3, RepGhostNet) was trained with, for deploy=True",
    )
    parser.add_argument(
        "--report", type=output_file, metavar="FILE", help="write what mapped to what, as a table with tabs"
    )
    add_overwrite(parser)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, compare, report, write."""
    args = make_parser().parse_args(arguments)
    # After the command line is known to be good: importing MindSpore takes seconds.
    from ..checkpoint import convert

    read = outputs.identities([args.source])
    target = outputs.Output(args.target, "OUT", outputs.nothing, args.overwrite, read)
    target.check()
    conversion = convert.plan(
        args.source,
        args.target,
        args.model,
        num_classes=args.num_classes,
        in_channels=args.in_channels,
        averaged=args.ema,
        fuse=args.deploy,
    )
    if args.report:
        if paths.real(args.report) in map(paths.real, (args.source, args.target)):
            raise UserError(f"{args.report}: is a weight file; give another --report")
        heading = outputs.starts_with(conversion.report().partition("\n")[0].encode())
        report = outputs.Output(args.report, "--report", heading, args.overwrite, read)
        report.write(conversion.report().encode())
    elif conversion.differences:
        lines = conversion.report().splitlines(keepends=True)
        sys.stdout.writelines(line for line in lines if not line.startswith(("mapped", "left out")))
    target.check()
    conversion.write()
    say(str(conversion))
