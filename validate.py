"""Evaluate a weight file or an exported file: `python validate.py --ckpt_path W --data_dir D [-c CONFIG]` (--help)."""

import sys

from mindghost.cli import validate
from mindghost.cli.command import run_program

PROG = "validate.py"


def main() -> None:
    """`mindghost validate`, under the name that it has in MindCV."""
    validate.main(sys.argv[1:], PROG)


if __name__ == "__main__":
    run_program(PROG, main)
