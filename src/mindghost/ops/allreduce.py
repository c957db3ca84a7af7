"""Gradients of all ranks on one machine, summed up in memory that they share.

MindSpore's CPU collectives send a message for each of a network's hundreds of gradients (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import logging
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn, ops

from ..errors import RunError
from ..files import scratch
from ..parallel.ranks import Ranks
from .fused import floats

log = logging.getLogger("mindghost")

_SHARED_MEMORY = Path("/dev/shm")


class SumOverRanks(nn.Cell):
    """Tensors -> their sums over all ranks, in the order of the ranks; every rank has to call it.

    Args:
        library: file of the C++ operators; `join` was called with it.
        count: of the tensors, all float32.
    """

    def __init__(self, library: Path, count: int) -> None:
        super().__init__()
        self.total = ops.Custom(f"{library}:ghostnet_sum_over_ranks", lambda *shapes: shapes, floats(count), "aot")

    def construct(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.total(*tensors)


def join(library: Path, ranks: Ranks, values: int) -> bool:
    """Share memory for tensors of so many values in all with the other ranks. Every rank has to call it.

    False on all ranks where they are not on one machine, or that has too little shared memory.
    """
    if len(ranks.neighbours) < ranks.size:
        return False
    functions = ctypes.CDLL(str(library))
    functions.ghostnet_shared_bytes.restype = ctypes.c_int64
    size = functions.ghostnet_shared_bytes(ranks.size, ctypes.c_int64(values))
    # Its folder goes when all have it open: whatever ends them later, nothing is left.
    with ExitStack() as stack:
        path = ranks.from_main(_shared_file(size, stack) if ranks.main else b"")
        own = bool(path) and functions.ghostnet_join_ranks(path, ranks.rank, ranks.size, ctypes.c_int64(values))
        return all(int(joined) for joined in ranks.gather(np.array(int(own))))


def _shared_file(size: int, stack: ExitStack) -> bytes:
    """Name of a new file in memory with all of its pages, for the time of `stack`; empty where there is no room."""
    try:
        path = stack.enter_context(scratch.folder("ranks", near=_SHARED_MEMORY)) / "sums"
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except (OSError, RunError):
        return b""
    return os.fsencode(path)


def rank_sum(net: nn.Cell, operators: Path | None, ranks: Ranks) -> nn.Cell | None:
    """Sums up the gradients of a network over ranks on one machine; None where that is left to MindSpore's collectives.

    Every rank has to call it, with our operators or without.
    """
    weights = net.trainable_params()
    # One of them alone may lack a compiler.
    if ranks.size == 1 or not all(int(has) for has in ranks.gather(np.array(int(operators is not None)))):
        return None
    assert operators is not None
    if not join(operators, ranks, sum(weight.size for weight in weights)):
        return None
    log.info("gradients are summed up over the ranks in shared memory")
    return SumOverRanks(operators, len(weights))
