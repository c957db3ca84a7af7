"""A run's epochs, in parts that train the same parameters: network, step and batches of each, and what leads over."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import nn

from .. import build
from ..checkpoint.load import fill_optimizer
from ..config import Config
from ..data import loader
from ..errors import UserError
from ..evaluate.evaluator import WeightsEvaluator
from ..models.complexity import trainable_parameters
from ..models.layers import reseed_dropout
from ..models.surgery import synchronise_batch_norm
from ..ops.library import check_bfloat16
from ..parallel import replicas
from ..parallel.ranks import Ranks
from ..process.libc import give_back_memory
from ..process.signals import StopSignals
from ..runs.folder import RunFolder
from ..runs.state import Position, RunState
from ..runtime import Runtime
from . import distill, schedule
from .freeze import freeze, part_end, unfrozen
from .loop import Epochs
from .step import TrainStep, make_step
from .training_data import TrainingData

log = logging.getLogger("mindghost")


@dataclass(frozen=True)
class Part:
    """Epochs that train the same parameters, and what is made for them.

    Attributes:
        step: of the training.
        taught: the step, with a teacher where there is one.
        batches: of this rank, from where the run stands on.
        epochs: what happens around the steps.
    """

    step: TrainStep
    taught: nn.Cell
    batches: ds.Dataset
    epochs: Epochs


class Training:
    """A run from where it stands to its end. Every rank has to make and run it.

    Args:
        runtime: settled, with its classes.
        data: what the run learns from.
        evaluator: None where the run is not validated.
        folder: takes the files.
        signals: one that any rank got stops them all.
        saved: the state to go on from; None for a new run.

    Attributes:
        part: the one that the run is in.
    """

    def __init__(
        self,
        runtime: Runtime,
        data: TrainingData,
        evaluator: WeightsEvaluator | None,
        folder: RunFolder,
        signals: StopSignals,
        saved: RunState | None,
    ) -> None:
        self.runtime, self.data, self.evaluator = runtime, data, evaluator
        self.folder, self.signals = folder, signals
        self.epoch = saved.position.epoch if saved else 0
        self.part = self._made(saved)

    def run(self) -> None:
        """Train to the last epoch, or until the run's patience is at its end."""
        config = self.runtime.config
        if self.part.epochs.stopped_early:
            log.info(f"{self.part.epochs.why_early(self.epoch)}; to go on, give a patience above {config.patience}")
            return
        while self.epoch < config.epoch_size:
            until = part_end(config, self.epoch)
            ms.Model(self.part.taught).train(
                until,
                self.part.batches,
                callbacks=[self.part.epochs],
                dataset_sink_mode=config.dataset_sink_mode,
                initial_epoch=self.epoch,
            )
            if self.part.epochs.stopped_early:
                return
            self.epoch = until
            if until < config.epoch_size:
                self._go_over()

    def _go_over(self) -> None:
        """Make the next part, as a run does that is resumed here, once the memory of the last one is free."""
        saved = self.part.epochs.state(self.epoch, 0)
        self.runtime.graphs.forget(self.part.step)
        self.signals.save = None
        del self.part
        gc.collect()
        give_back_memory()
        self.part = self._made(saved)
        trained = trainable_parameters(self.part.step.network)
        log.info(f"from epoch {self.epoch + 1} on everything is trained: {trained:,} parameters")

    def _made(self, saved: RunState | None) -> Part:
        """What trains from a state on."""
        runtime, data = self.runtime, self.data
        config, ranks = runtime.config, runtime.ranks
        position = saved.position if saved else Position()
        net = network(runtime, position.epoch, starts=saved is None)
        rates = schedule.learning_rates(config, data.steps // config.gradient_accumulation_steps, ranks.size)
        step = make_step(runtime, net, rates)
        if config.resume_opt and saved is None:
            log.info(f"loaded {fill_optimizer(step.optimizer, config.ckpt_path)} entries of optimizer state")
        # After what takes shared memory, of which its workers get the rest.
        assert config.num_classes is not None  # the data has settled it
        batches = loader.train_batches(
            config, data.samples, config.num_classes, ranks.rank, ranks.size, position.epoch, position.step
        )
        cell = taught(step, config, len(data.samples))
        if saved:
            _load_state(step, saved, config, ranks)
        replicas.check_equal(ranks, {**step.shared_state(), "images": np.array(data.digest)}, "before the first step")
        epochs = Epochs(runtime, step, data, rates, self.evaluator, self.folder, position, self.signals)
        return Part(step, cell, batches, epochs)


def network(runtime: Runtime, epoch: int, starts: bool) -> nn.Cell:
    """The network as it is trained after so many epochs; where it `starts`, from scratch or weights.

    A saved state fills it later.
    """
    config, ranks = runtime.config, runtime.ranks
    if unfrozen(config, epoch):
        # Dropout draws its seed from what the process has drawn before, which is more where it began with other epochs.
        ms.set_seed(config.seed)
    net = build.network(config)
    if config.val_while_train:
        build.check_evaluation(net, config, runtime.operators)
    reseed_dropout(net, ranks.rank)
    if starts:
        loaded = build.load_weights(net, config, fine_tune=True)
        log.info(f"{config.model}: {loaded or 'starts from fresh weights'}")
    freeze(net, config, epoch)
    if config.sync_bn and ranks.size > 1:
        synchronise_batch_norm(net)
    if config.amp_type == "bfloat16":
        check_bfloat16(runtime.operators)
    return build.training_precision(net, config, runtime.operators)


def taught(step: TrainStep, config: Config, samples: int) -> nn.Cell:
    """The step, with a teacher where the configuration has one, which is tried on a batch as it will come."""
    if not config.teacher:
        return step
    return distill.TaughtStep(step, distill.load(config.replace(batch_size=min(config.batch_size, samples))))


def _load_state(step: TrainStep, saved: RunState, config: Config, ranks: Ranks) -> None:
    """Take up a state; one of frozen epochs, where all is trained from now on, leaves the optimizer at its start."""
    position, arrays = saved.position, replicas.own_state(ranks, saved.arrays)
    if position.step == 0 and unfrozen(config, position.epoch) and not unfrozen(config, position.epoch - 1):
        arrays |= step.optimizer_state()
    try:
        step.load_state(arrays)
    except (KeyError, ValueError) as error:
        raise UserError(f"resume: {saved.file} is the state of another network or optimizer ({error})") from error
