"""The learning-rate range test (Smith, 2015, https://arxiv.org/abs/1506.01186): which rate a training may start with.

The network is trained for some updates, each at a higher rate than the one before. While the rate is low, the loss
stays; then it falls; then it grows without bounds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from ..config import Config
from ..data import loader
from ..data.samples import Samples
from ..evaluate.evaluator import draws
from ..runtime import Runtime
from . import parts, schedule
from .loop import compile_step
from .rate_range import RangeTest, geometric
from .step import TrainStep, make_step
from .training_data import open_images

log = logging.getLogger("mindghost")


def range_test(config: Config, lowest: float, highest: float, steps: int) -> RangeTest:
    """Train as `config` says, but at rates from `lowest` to `highest` over `steps` updates, and keep nothing of it.

    It ends where the loss explodes. Every rank has to call it.

    Raises UserError for a key, file or image that has to be changed, RunError for a loss that is no number from the
    beginning.
    """
    # Nothing is evaluated, averaged or saved.
    config = config.replace(val_while_train=False, patience=None, ckpt_save_policy="latest_k", ema=False)
    config.check_new_run()
    runtime = Runtime.start(config)
    for line in runtime.notes:
        log.info(line)
    runtime, samples, _ = open_images(runtime)
    config, ranks = runtime.config, runtime.ranks
    accumulation = config.gradient_accumulation_steps
    batch = config.batch_size * accumulation * ranks.size
    rates = geometric(lowest, highest, steps)
    step = make_step(runtime, parts.network(runtime, 0, starts=True), rates).set_train(True)
    log.info(f"learning rates from {lowest:g} to {highest:g} in {steps} updates of {batch} images")
    losses: list[float] = []
    found = RangeTest((), (), batch, schedule.base_rate(config, ranks.size) / config.lr)
    bar = tqdm(total=steps, unit="update", leave=False, disable=not draws(ranks))
    steps_of_update = []
    for loss in _losses(runtime, samples, step, steps):
        steps_of_update.append(loss)
        if len(steps_of_update) < accumulation:
            continue
        losses.append(sum(steps_of_update) / accumulation)
        steps_of_update.clear()
        bar.update()
        found = replace(found, rates=tuple(rates[: len(losses)]), losses=tuple(losses))
        if found.exploded:
            break
    bar.close()
    return found.cut()


def _losses(runtime: Runtime, samples: Samples, step: TrainStep, updates: int) -> Iterator[float]:
    """The losses, over all ranks, of the steps of so many updates."""
    config, ranks = runtime.config, runtime.ranks
    assert config.num_classes is not None  # the data has settled it
    batches = loader.train_batches(config, samples, config.num_classes, ranks.rank, ranks.size)
    cell = parts.taught(step, config, len(samples))
    of_epoch = batches.get_dataset_size()
    left = updates * config.gradient_accumulation_steps
    epochs = -(-left // of_epoch)
    iterator = batches.create_tuple_iterator(num_epochs=epochs)
    for _ in range(epochs):
        for batch in iterator:
            compile_step(step, batch, config, runtime.graphs)
            loss = float(cell(*batch)[0].asnumpy())
            total = float(np.sum(ranks.gather(np.array([loss], np.float64))))
            yield total if config.reduction == "sum" else total / ranks.size
            left -= 1
            if left == 0:
                return
