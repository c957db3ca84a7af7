"""train.py or validate.py with GhostNet cut to four bottlenecks: `python tests/helpers/short.py train.py ARGUMENTS`.

Everything but the depth of the network is real. Its graph compiles in a fraction of the time, for tests that start many
processes and are about anything but the network.
"""

import contextlib
import runpy
import sys
from collections.abc import Iterator

from mindghost.process.signals import importing


def cut(table: tuple) -> tuple:
    """A table like GhostNet's with one bottleneck of each kind: plain, stride 2, squeeze-and-excitation, both."""
    return tuple((table[stage][0],) for stage in (0, 1, 3, 4))


def stages() -> tuple:
    """GhostNet's, cut."""
    from mindghost.models import ghostnet

    return cut(ghostnet.STAGES)


def all_strides() -> tuple:
    """GhostNet's table with one bottleneck of each stride from 1 to 32, for networks that read maps of all of them."""
    from mindghost.models import ghostnet

    return tuple((ghostnet.STAGES[stage][0],) for stage in (0, 1, 3, 5, 7))


@contextlib.contextmanager
def network() -> Iterator[None]:
    """GhostNet cut to four bottlenecks in this process, inside of `with`."""
    from mindghost.models import ghostnet

    whole, ghostnet.STAGES = ghostnet.STAGES, stages()
    try:
        yield
    finally:
        ghostnet.STAGES = whole


if __name__ == "__main__":
    with importing():
        from mindghost.models import ghostnet
    ghostnet.STAGES = all_strides() if "segmentation" in sys.argv else stages()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
