"""Settings whose sense shows once the data is known: batches of one image, runs without end."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from .. import build, tasks
from ..config import Config
from ..data import transforms
from ..data.order import EpochOrder
from ..data.samples import Samples
from ..errors import UserError
from ..models.complexity import smallest_norm
from .freeze import freeze

log = logging.getLogger("mindghost")

# Of a run: its learning rates are a list with one entry for each, and no machine here makes so many in a year.
_MOST_UPDATES = 100_000_000


def settled(config: Config, samples: Samples, ranks: int) -> Config:
    """The config with batches that a network can be trained on, and a line in the log for each doubt about them.

    The variance of one value is no number, and with it batch norm's statistics are lost: where a network's smallest
    map is a single pixel, a last batch of one image is dropped, and batches of one image are refused.

    Args:
        config: of the run, with its number of classes.
        samples: to train on.
        ranks: processes that share them.

    Raises UserError: batches of one image that cannot be, too few images for a batch, or a run without end.
    """
    order = EpochOrder(config, len(samples), 0, ranks)
    updates = config.epoch_size * (order.steps // config.gradient_accumulation_steps)
    if updates > _MOST_UPDATES:
        raise UserError(
            f"epoch_size: {config.epoch_size:,} epochs are {updates:,} updates; give a run of at most {_MOST_UPDATES:,}"
        )
    last = len(order) - (order.steps - 1) * config.batch_size
    if last == 1 and _smallest_norm(config) == 1:
        height, width = transforms.input_size(config, training=True)
        why = f"one image of {height} x {width} pixels, of which {config.model} leaves a single pixel to batch norm"
        if config.batch_size == 1:
            raise UserError(f"batch_size: 1: {why}: raise batch_size or image_resize")
        log.info(f"the last batch of an epoch would be {why}: it is dropped (drop_remainder: True)")
        config = config.replace(drop_remainder=True)
        order = EpochOrder(config, len(samples), 0, ranks)
    for line in [*tasks.doubts(config), *tasks.of(config).doubts(config, samples), *_doubts(config, order)]:
        log.info(line)
    return config


def _smallest_norm(config: Config) -> int | None:
    network = build.network(config)
    # What is frozen until an epoch is trained in the last one.
    freeze(network, config, config.epoch_size)
    return smallest_norm(network, (config.in_channels, *transforms.input_size(config, training=True)))


def _doubts(config: Config, order: EpochOrder) -> Iterator[str]:
    if config.batch_size > len(order):
        yield f"batch_size {config.batch_size}: there are only {len(order)} images for it, which are each step's"
    interval = config.ckpt_save_interval_steps
    if interval is not None and interval >= order.steps:
        yield f"ckpt_save_interval_steps {interval}: an epoch has {order.steps} steps, so none is saved inside of it"
