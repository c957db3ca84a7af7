"""Samples -> batches of evaluation, on threads and without MindSpore; `loader` makes those of training."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..process import resources
from .examples import Labels
from .order import ORDER

if TYPE_CHECKING:
    from ..config import Config
    from .samples import Samples

_BATCHES_AHEAD = 2
_TASK = 16  # samples: handing a thread one tiny image at a time costs more than decoding it


def eval_batches(config: Config, samples: Samples, rank: int = 0, ranks: int = 1) -> EvalBatches:
    """Evaluation batches of one rank: batches rank, rank + ranks, ... of one process's; its last may be smaller.

    Whole batches, so that each is computed with the neighbours that it has in one process, and gives the same bits.
    """
    return EvalBatches(config, samples, rank, ranks)


class EvalBatches:
    """Numpy batches, iterable any number of times: images float32 (B, C, H, W), labels as `Samples.examples` has them.

    Attributes:
        order_over_ranks: indices of the samples of all ranks, rank after rank, in the order in which they come.
    """

    def __init__(self, config: Config, samples: Samples, rank: int, ranks: int) -> None:
        self._samples, self._batch_size = samples, config.batch_size
        self._examples = samples.examples(config, training=False)
        self._workers = workers_of(config.num_parallel_workers)
        order = np.arange(len(samples))
        if config.eval_shuffle:
            order = np.random.default_rng((config.seed, ORDER)).permutation(order)
        chunks = [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]
        self._chunks = chunks[rank::ranks]
        self.order_over_ranks = np.concatenate([chunk for other in range(ranks) for chunk in chunks[other::ranks]])

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._chunks)

    def __iter__(self) -> Iterator[tuple[NDArray[Any], Any]]:
        """Images, float32 (N, C, H, W), and labels of each batch, as many.

        Raises UserError for an image that can't be read, RunError where the machine lacks what reading takes.
        """
        chunks = iter(self._chunks)
        pool = ThreadPoolExecutor(self._workers)
        ahead: deque[tuple[NDArray[Any], Labels, list[Future[None]]]] = deque()
        try:
            while True:
                while len(ahead) < _BATCHES_AHEAD and (chunk := next(chunks, None)) is not None:
                    images = np.empty((len(chunk), *self._examples.shape), np.float32)
                    labels = self._examples.labels(chunk)
                    starts = range(0, len(chunk), _TASK)
                    tasks = [pool.submit(self._load, chunk, images, labels, start) for start in starts]
                    ahead.append((images, labels, tasks))
                if not ahead:
                    return
                images, labels, tasks = ahead.popleft()
                for task in tasks:
                    task.result()
                yield images, labels
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, chunk: NDArray[Any], images: NDArray[Any], labels: Labels, start: int) -> None:
        """Writes some samples of a batch, from one on, to `images` and `labels`."""
        for place in range(start, min(start + _TASK, len(chunk))):
            index = int(chunk[place])
            with resources.spent_on(self._samples.name(index)):
                self._examples.fill(index, images[place], labels, place)


def workers_of(wanted: int) -> int:
    """`num_parallel_workers`, but no more than there are cores (MindSpore would refuse them)."""
    return min(wanted, len(os.sched_getaffinity(0)))
