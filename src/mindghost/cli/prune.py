"""Remove channels of a trained network, whole groups at a time, until it costs no more than a share of what it did.

What stands or falls together is found on the network itself: the ghosts of a Ghost module go with the maps that they
are made of, and so do the partners in shortcuts and gates. The least important groups go first. What is left is an
ordinary network: its weights and a config.yaml that says its channels go to --out, to be fine-tuned, evaluated,
exported, quantised and pruned again. Needs pip install onnx.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config.arguments import Parser, input_folder, number, output_folder
from ..process.display import say, shell
from . import network_arguments

PROG = "mindghost prune"


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(PROG, __doc__)
    network_arguments.add_arguments(parser, exported=False)
    parser.add_argument(
        "--macs",
        type=number(float, 0.01, 0.99),
        required=True,
        metavar="X",
        help="share of the multiply-accumulates that may be left, such as 0.7",
    )
    parser.add_argument(
        "--importance",
        choices=("magnitude", "scale", "loss"),
        default="magnitude",
        help="of a group: mean length of its filters, or mean of its batch-norm scales, each beside its layer's mean; "
        "or what the loss of training images would change by, to first order (magnitude)",
    )
    parser.add_argument(
        "--multiple",
        type=number(int, 1, 64),
        default=8,
        metavar="N",
        help="channels that are alike go by N at a time: runtimes are slow with other numbers of them (8)",
    )
    images = input_folder("give one with images")
    parser.add_argument(
        "--data_dir", type=images, metavar="D", help="for --importance loss: images D/train (that of the training)"
    )
    parser.add_argument(
        "--batches", type=number(int, 1, 100_000), default=16, metavar="N", help="of training images for it (16)"
    )
    parser.add_argument(
        "--out",
        type=output_folder,
        required=True,
        metavar="DIR",
        help="folder to make for what is left, or an empty one",
    )
    return parser


def main(arguments: Sequence[str]) -> None:
    """Read, prune, write, say what to do next."""
    args = make_parser().parse_args(arguments)
    # After the command line is known to be good: importing MindSpore takes seconds.
    from ..deploy.prune import files
    from ..process.log import RunLog
    from ..runtime import Runtime

    deployed = network_arguments.checkpoint_of(args)
    log = RunLog()
    try:
        Runtime.start(deployed.config)
        weights, found = files.write(deployed, args.macs, args.importance, args.out, args.batches, args.multiple)
    finally:
        log.close()
    before, after = found.macs
    say(f"{before / 1e6:,.1f} M multiply-accumulates -> {after / 1e6:,.1f} M ({100 * after / before:.1f} %)")
    say(f"{found.parameters[0]:,} parameters -> {found.parameters[1]:,}")
    say(f"{found.groups[0]:,} of {found.groups[1]:,} groups of channels are gone")
    say(f"wrote {weights}")
    recipe = shell(str(weights.with_name("config.yaml")))
    say(f"next: mindghost train -c {recipe} --ckpt_path {shell(str(weights))} --ckpt_save_dir RUN")
