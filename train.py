"""Train a Ghost network: `python train.py -c configs/ghostnet/ghostnet_050_cpu.yaml --data_dir D ...` (--help)."""

import sys

from mindghost.cli import train
from mindghost.cli.command import run_program

PROG = "train.py"


def main() -> None:
    """`mindghost train`, under the name that it has in MindCV."""
    train.main(sys.argv[1:], PROG)


if __name__ == "__main__":
    run_program(PROG, main)
