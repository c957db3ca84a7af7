"""A runtime without a launcher, a device to set up or a command line."""

from mindghost.config import Config
from mindghost.parallel.ranks import ALONE, Ranks
from mindghost.runtime import Runtime


def runtime_of(config: Config, ranks: Ranks = ALONE, threads: int = 1) -> Runtime:
    """This process, which runs by a configuration."""
    return Runtime(config, "CPU", ranks, threads, [])
