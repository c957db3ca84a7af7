"""Samples -> batches.

Training runs in MindSpore's pipeline, in worker processes (mindcv's policies and many small operators hold the GIL).
A work item is a whole batch, named by one integer, its step from the start of the run: passing samples one by one
costs 0.8 to 2 ms each. Workers keep no state, so batches don't depend on how many there are, and a run resumes at any
step without reading what it skips. Evaluation needs neither (`evaluation`).
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mindspore.dataset as ds
import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, Stopped, UserError
from ..files import paths, scratch
from ..process import resources
from ..process.display import shown
from . import mix
from .evaluation import workers_of
from .examples import Labels
from .order import MIX, SAMPLE, EpochOrder

if TYPE_CHECKING:
    from ..config import Config
    from .samples import Samples

# MindSpore looks for a worker's batch ten times a second, once there was none: what it makes in between wants a place.
_IMAGES_READY = 128
# Batches that each worker and each stage of the pipeline holds ready; MindSpore's own 16 would be gigabytes.
_FEWEST_READY, _MOST_READY = 2, 4
_SPARE_SEGMENTS = 2  # of shared memory, each of one batch, that MindSpore gives a worker beyond those
_FILES_OF_QUEUES = 3  # open ones, of a worker
_SHARED_MEMORY = "/dev/shm"
_LARGEST_SEED = 2**32 - 1

_OUR_ERROR = re.compile(r"^(?:mindghost\.errors\.)?(UserError|RunError): (?!Traceback)(.+)$", re.MULTILINE)

_logger = logging.getLogger("mindghost")


def train_batches(
    config: Config,
    samples: Samples,
    num_classes: int,
    rank: int = 0,
    ranks: int = 1,
    start_epoch: int = 0,
    start_step: int = 0,
) -> ds.Dataset:
    """Training batches of one rank: columns "image" float32 (B, C, H, W) and "label" int32 (B,).

    With mixup or cutmix (and a batch_size over 1), or where samples have several labels, "label" is float32 (B,
    num_classes). Where samples have weights there is a third column, "weight" float32 (B,): over the split its mean is
    1. `get_dataset_size()` is the
    number of steps of a whole epoch, the same on every rank. An iterator over several epochs
    (`create_tuple_iterator(num_epochs=n)`, as `mindspore.train.Model` makes one) starts at `start_epoch`, its
    first epoch at `start_step`; nothing before that is read. Each new iterator starts there again.

    Raises:
        UserError: too few samples for a batch, or for the batches of one update.
    """
    order = EpochOrder(config, len(samples), rank, ranks, samples.labels)
    columns = ["image", "label"] if samples.weights is None else ["image", "label", "weight"]
    source = _TrainSource(config, samples, order, num_classes)
    workers, ready = _fitting_workers(config, ranks, len(columns), source.batch_bytes)
    ds.config.set_prefetch_size(ready)
    if workers > 1:
        _prepare_for(workers, config.seed)
    dataset = ds.GeneratorDataset(
        source,
        columns,
        sampler=_StepSampler(order.steps, start_epoch),
        num_parallel_workers=workers,
        python_multiprocessing=workers > 1,
    )
    # MindSpore takes these off the sampler's first epoch, before anything is read.
    dataset.set_init_step(start_step)
    return dataset


def error_from(error: BaseException) -> UserError | RunError | Stopped | None:
    """The error of ours behind what MindSpore's pipeline raised, which may be it, or None.

    The pipeline turns every exception of a worker into a RuntimeError that quotes the worker's traceback.
    """
    if isinstance(error, (UserError, RunError, Stopped)):
        return error
    found = _OUR_ERROR.findall(str(error))
    if not found:
        return None
    kind, message = found[-1]
    return UserError(message) if kind == "UserError" else RunError(message)


class _StepSampler(ds.Sampler):
    """Names the batches of an epoch by their steps from the start of the run."""

    def __init__(self, steps: int, start_epoch: int) -> None:
        self._steps, self._epoch = steps, start_epoch
        super().__init__()

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[int]:
        """The steps of the next epoch; MindSpore asks once an epoch, each of its iterators its own copy."""
        first = self._epoch * self._steps
        self._epoch += 1
        return iter(range(first, first + self._steps))


class _TrainSource:
    """Step from the start of the run -> batch: what a worker runs."""

    def __init__(self, config: Config, samples: Samples, order: EpochOrder, num_classes: int) -> None:
        self._config, self._samples, self._order = config, samples, order
        self._num_classes = num_classes
        self._examples = samples.examples(config, training=True)
        self.batch_bytes = 4 * config.batch_size * (math.prod(self._examples.shape) + self._examples.label_size)
        self._mixing = config.mixup + config.cutmix > 0 and config.batch_size > 1
        self._weights = relative_weights(samples)
        self._known_epoch: tuple[int, tuple[NDArray[Any], NDArray[Any]]] | None = None

    def __len__(self) -> int:
        return self._order.steps

    def __getitem__(self, step: int) -> tuple[NDArray[Any], ...]:
        epoch, step = divmod(int(step), self._order.steps)
        batch = slice(step * self._config.batch_size, (step + 1) * self._config.batch_size)
        indices, copies = (column[batch] for column in self._epoch_order(epoch))
        images = np.empty((len(indices), *self._examples.shape), np.float32)
        labels: Any = self._examples.labels(indices)
        for place, (image, index, copy) in enumerate(zip(images, indices, copies, strict=True)):
            rng = np.random.default_rng((self._config.seed, SAMPLE, epoch, int(index), int(copy)))
            self._make_sample(int(index), image, labels, place, rng)
        weights = None if self._weights is None else self._weights[indices]
        if self._mixing:
            return self._mixed(images, labels, weights, epoch, step)
        return (images, labels) if weights is None else (images, labels, weights)

    def _epoch_order(self, epoch: int) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._known_epoch is None or self._known_epoch[0] != epoch:
            self._known_epoch = epoch, self._order.epoch(epoch)
        return self._known_epoch[1]

    def _make_sample(
        self, index: int, image: NDArray[Any], labels: Labels, place: int, rng: np.random.Generator
    ) -> None:
        try:
            with resources.spent_on(self._samples.name(index)):
                self._examples.fill(index, image, labels, place, rng)
        except (UserError, RunError) as error:
            # The pipeline hands on a text, of which the last line that begins like an error of ours is taken.
            raise type(error)(shown(str(error))) from error

    def _mixed(
        self, images: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any] | None, epoch: int, step: int
    ) -> tuple[NDArray[Any], ...]:
        config = self._config
        return mix.mix_batch(
            images,
            labels,
            np.random.default_rng((config.seed, MIX, epoch, step, self._order.rank)),
            num_classes=self._num_classes,
            mixup=config.mixup,
            cutmix=config.cutmix,
            probability=config.cutmix_prob,
            weights=weights,
        )


def relative_weights(samples: Samples) -> NDArray[Any] | None:
    """The weights of samples, float32 (n,), as multiples of their mean; None where they have none."""
    if samples.weights is None:
        return None
    weights = samples.weights.astype(np.float64)
    return (weights / weights.mean()).astype(np.float32)


def _fitting_workers(config: Config, ranks: int, columns: int, batch_bytes: int) -> tuple[int, int]:
    """Worker processes, and batches that each holds ready: as many as there are shared memory and open files for.

    One worker stands for none: it takes a thread. Without the check a container's 64 MB would end the run with a bus
    error, and with too few files MindSpore waits for ever.
    """
    workers = workers_of(config.num_parallel_workers)
    if workers < config.num_parallel_workers and "num_parallel_workers" in config.given:
        _logger.info(
            "num_parallel_workers: %d cut down to the %d core(s) that there are", config.num_parallel_workers, workers
        )
    ready = min(max(_IMAGES_READY // config.batch_size, _FEWEST_READY), _MOST_READY)
    if workers == 1:
        return workers, ready
    if problem := _no_shared_memory():
        _logger.info("%s: cannot be used (%s): one worker", _SHARED_MEMORY, problem)
        return 1, ready
    free = shutil.disk_usage(_SHARED_MEMORY).free
    segments = free // (ranks * batch_bytes)
    ready = max(min(ready, segments // workers - _SPARE_SEGMENTS), _FEWEST_READY)
    fitting = max(1, segments // (ready + _SPARE_SEGMENTS))
    if fitting < workers:
        _logger.info("%s: %d MB free, enough for %d worker(s)", _SHARED_MEMORY, free >> 20, fitting)
        workers = fitting
    # A segment for each column of a batch, and the queues between the processes.
    fitting = max(1, resources.free_descriptors() // (columns * (ready + _SPARE_SEGMENTS) + _FILES_OF_QUEUES))
    if fitting < workers:
        _logger.info("ulimit -n: few files may be open, enough for %d worker(s); raise the limit", fitting)
        workers = fitting
    return workers, ready


def _no_shared_memory() -> str | None:
    """Why workers cannot share memory with this process; None where they can."""
    try:
        # A lock is a file there.
        multiprocessing.Lock()
    except (OSError, ImportError) as error:
        return paths.reason(error)
    return None if os.path.isdir(_SHARED_MEMORY) else "it is not there"


def _prepare_for(workers: int, seed: int) -> None:
    """What MindSpore's worker processes need of this one."""
    # Each gets the seed after that of the one before. Nothing of ours draws from their generators.
    if seed + workers > _LARGEST_SEED:
        ds.config.set_seed(_LARGEST_SEED - workers)
    # Python has them make sockets in a folder of its own in TMPDIR, whose name may be too long for a socket, and which
    # stays behind where a worker is killed.
    settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if not settings.get("tempdir"):
        settings["tempdir"] = str(scratch.until_exit("workers", near=Path(_SHARED_MEMORY)))
