"""Config -> one learning rate for every update, made by mindcv's factory. Epochs become updates here only."""

from __future__ import annotations

import logging

from mindcv.scheduler import create_scheduler

from ..config import Config
from ..errors import UserError

_log = logging.getLogger("mindcv.scheduler.scheduler_factory")


def base_rate(config: Config, ranks: int = 1) -> float:
    """The rate that the schedule peaks at: `lr`, scaled linearly to the global batch where a reference is given.

    `lr * batch_size * ranks * gradient_accumulation_steps / lr_reference_batch` (Goyal et al., 2017,
    https://arxiv.org/abs/1706.02677).
    """
    if config.lr_reference_batch is None:
        return config.lr
    batch = config.batch_size * ranks * config.gradient_accumulation_steps
    return config.lr * batch / config.lr_reference_batch


def learning_rates(config: Config, updates_per_epoch: int, ranks: int = 1) -> list[float]:
    """The learning rate of every update of the run: `epoch_size * updates_per_epoch` numbers.

    Args:
        config: scheduler keys; `min_lr` is taken as it stands, whatever the batch.
        updates_per_epoch: optimizer updates in an epoch (steps / accumulation).
        ranks: processes that share a global batch.

    Raises:
        UserError: more cycles of the cyclic schedule than there are pairs of updates.
    """
    # mindcv warns through a logger of its own; Config.warnings() says the same in our words.
    _log.setLevel(logging.ERROR)
    total = config.epoch_size * updates_per_epoch
    rate = base_rate(config, ranks)
    if config.scheduler == "cyclic" and total < 2 * config.num_cycles:
        raise UserError(
            f"num_cycles: {config.num_cycles} cycles of the learning rate do not fit into {total} updates; "
            f"give at most {max(1, total // 2)}, or a larger epoch_size"
        )
    return create_scheduler(
        updates_per_epoch,
        # mindcv's name; its power is `decay_rate`.
        scheduler="polynomial_decay" if config.scheduler == "poly" else config.scheduler,
        lr=rate,
        min_lr=config.min_lr,
        warmup_epochs=config.warmup_epochs,
        warmup_factor=config.warmup_factor,
        # Step decay takes a fraction of an epoch, the cosine counts whole ones.
        decay_epochs=config.decay_epochs if config.scheduler == "step_decay" else int(config.decay_epochs),
        decay_rate=config.decay_rate,
        milestones=list(config.multi_step_decay_milestones),
        num_epochs=config.epoch_size,
        lr_epoch_stair=config.lr_epoch_stair,
        num_cycles=config.num_cycles,
        cycle_decay=config.cycle_decay,
    )
