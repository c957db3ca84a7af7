"""`mindghost` with GhostNet cut to four bottlenecks: `python tests/helpers/short_program.py COMMAND ARGUMENTS`.

A training is one epoch, of small images in small batches; all other arguments are those that are given.
"""

import sys
from typing import NoReturn

from mindghost.process.signals import importing

SMALL = {
    "--epoch_size": "1",
    "--warmup_epochs": "0",
    "--decay_epochs": "1",
    "--image_resize": "32",
    "--batch_size": "4",
    "--auto_augment": "None",
    "--num_parallel_workers": "1",
}


def small(arguments: list[str]) -> list[str]:
    """The arguments of a training with the values of SMALL, in place of those that are given."""
    kept = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if word not in SMALL and before not in SMALL
    ]
    return [*kept, *(word for pair in SMALL.items() for word in pair)]


def run(command: str, arguments: list[str]) -> NoReturn:
    """What the program does, with these words behind its name."""
    if not {"--help", "--print_config"} & {command, *arguments}:
        with importing():
            from mindghost.models import ghostnet
            from tests.helpers.short import stages
        ghostnet.STAGES = stages()
        if command == "train":
            arguments = small(arguments)
    from mindghost.cli.main import main

    sys.argv = ["mindghost", command, *arguments]
    main()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
