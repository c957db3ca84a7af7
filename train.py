"""Train a Ghost network: `python train.py -c configs/ghostnet/ghostnet_050_cpu.yaml --data_dir D ...` (--help)."""

import sys

from mindghost.cli.command import run_command
from mindghost.config import load
from mindghost.process.signals import importing

PROG = "train.py"


def main() -> None:
    """Command line -> configuration -> training."""
    config = load(None, prog=PROG, description="Train a Ghost network on MindSpore.")
    # After the configuration is known to be good: importing MindSpore takes seconds.
    with importing():
        from mindghost.train.trainer import train

    train(config)


if __name__ == "__main__":
    sys.exit(run_command(PROG, main))
