"""The one training step: forward, scale, accumulate, clip, update, average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from .. import tasks
from ..config import Config
from ..models.layers import Dropout, is_statistic
from ..models.parameters import assign
from ..ops import allreduce, rewrite
from ..runtime import Runtime
from . import optim
from .distill import DistillationLoss
from .update import PlainAverages, Update, averages_by, scaled, update_by

# Overflow-free updates after which a dynamic loss scale doubles (MindCV's window).
SCALE_WINDOW = 2000
# Updates over which the decay of the average warms up: decay * (1 - exp(-updates / EMA_WARMUP)), as in MindCV.
EMA_WARMUP = 2000.0


@dataclass(frozen=True)
class StepOptions:
    """How a step treats gradients, apart from the optimizer.

    Attributes:
        loss_scale: factor on the loss while gradients are computed; the first one when it is dynamic.
        dynamic_scale: halve the scale after an overflow, double it after `SCALE_WINDOW` updates without one.
        accumulation: steps whose gradients make one update.
        sum_gradients: add those gradients up, as a loss that is a sum over its batch wants, instead of averaging.
        clip_norm: largest global norm of the gradients of an update; None for no limit.
        ema_decay: decay of the averaged weights; None for no average.
    """

    loss_scale: float = 1.0
    dynamic_scale: bool = False
    accumulation: int = 1
    sum_gradients: bool = False
    clip_norm: float | None = None
    ema_decay: float | None = None

    @classmethod
    def from_config(cls, config: Config) -> StepOptions:
        """MindCV's keys -> options. `loss_scale_type: auto` is dynamic where float16 is used, else fixed."""
        float16 = config.amp_level != "O0" and config.amp_type == "float16"
        dynamic = config.loss_scale_type == "dynamic" or (config.loss_scale_type == "auto" and float16)
        return cls(
            loss_scale=config.loss_scale,
            dynamic_scale=dynamic,
            accumulation=config.gradient_accumulation_steps,
            sum_gradients=config.reduction == "sum",
            clip_norm=config.clip_value if config.clip_grad else None,
            ema_decay=config.ema_decay if config.ema else None,
        )


class ScaledLoss(nn.Cell):
    """Network -> float32 logits -> loss, together with the loss times the scale, which is what is differentiated."""

    def __init__(self, network: nn.Cell, loss: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss = loss

    def construct(self, image: Tensor, label: Tensor, scale: Tensor, *more: Tensor) -> tuple[Tensor, Tensor]:
        logits = ops.cast(self.network(image), ms.float32)
        loss = self.loss(logits, label, *more)
        return loss * scale, loss


_add_op = ops.MultitypeFuncGraph("add")
_clear_op = ops.MultitypeFuncGraph("clear")


@_add_op.register("Tensor", "Tensor")
def _add_tensor(total, gradient):
    return ops.assign_add(total, gradient)


@_clear_op.register("Tensor")
def _clear_tensor(total):
    return ops.assign(total, ops.zeros_like(total))


class TrainStep(nn.Cell):
    """One batch: gradients of the scaled loss; every `accumulation` steps an update, unless a gradient is not finite.

    Args:
        network: images (N, C, H, W) float32 -> logits (N, classes).
        loss: logits, labels (and what else a batch holds) -> scalar.
        update: of the network's trainable parameters; applied once an update, so that its schedule counts updates.
        options: see `StepOptions`.
        ranks: processes that make each update together, from gradients averaged (or summed up) over all of them.
        rank_sum: gradients -> their sums over the ranks; None for MindSpore's collectives, one call for each gradient.
        averages: moves the averaged weights (`averages_by`); None for MindSpore's operators.

    Calling it with a batch (images, labels, and what else the loss takes) returns three scalars: this rank's loss
    (float32, unscaled), whether all gradients of the update were finite (bool; true where no update was due), and the
    loss scale (float32). An update with a gradient that is not finite is skipped whole: weights, optimizer state and
    average stay as they were.
    """

    def __init__(
        self,
        network: nn.Cell,
        loss: nn.Cell,
        update: Update,
        options: StepOptions,
        ranks: int = 1,
        rank_sum: nn.Cell | None = None,
        averages: nn.Cell | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.update = update
        self.optimizer = update.optimizer
        self.options = options
        self.scaled_loss = ScaledLoss(network, loss)
        self.weights = self.optimizer.parameters
        self.gradients = ops.value_and_grad(self.scaled_loss, None, self.weights, has_aux=True)
        self.map = ops.HyperMap()

        self.accumulation = options.accumulation
        self.divisor = 1 if options.sum_gradients else options.accumulation * ranks
        self.rank_sum = rank_sum
        if ranks > 1 and rank_sum is None:
            self.rank_sum = nn.DistributedGradReducer(self.weights, mean=False, degree=ranks)
        self.one = Tensor(1, ms.float32)
        self.clip_norm = options.clip_norm
        self.ema_decay = options.ema_decay
        self.dynamic_scale = options.dynamic_scale
        self.scale = Parameter(Tensor(options.loss_scale, ms.float32), name="loss_scale", requires_grad=False)
        self.good_updates = Parameter(Tensor(0, ms.int32), name="good_updates", requires_grad=False)
        # No weights of the network. They have to be parameters of the step: a graph that is loaded knows of no others.
        dropouts = [cell for _, cell in network.cells_and_names() if isinstance(cell, Dropout)]
        for index, dropout in enumerate(dropouts):
            dropout.counter.name = f"dropout_counter_{index}"
        self.masks_drawn = ParameterTuple(dropout.counter for dropout in dropouts)
        if self.accumulation > 1:
            self.accumulated = self.weights.clone("accumulated", init="zeros")
            self.micro_step = Parameter(Tensor(0, ms.int32), name="micro_step", requires_grad=False)
        if self.ema_decay is not None:
            self.averaged = ParameterTuple(network.get_parameters())
            self.average = self.averaged.clone("ema", init="same")
            self.averages = averages or PlainAverages()
            self.updates = Parameter(Tensor(0, ms.float32), name="updates", requires_grad=False)

    def construct(self, image: Tensor, label: Tensor, *more: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale = self.scale.value()
        (_, loss), gradients = self.gradients(image, label, scale, *more)
        factor = 1.0 / (scale * self.divisor)
        if self.accumulation == 1:
            gradients, factor = self.update.scaled(gradients, self.one, factor)
            finite = self._update(gradients, factor)
        else:
            finite = self._accumulate(scaled(gradients, factor))
        return loss, finite, scale

    def _accumulate(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Add to the sum of this update's gradients; update with it when it is complete."""
        added = self.map(_add_op, self.accumulated, gradients)
        count = ops.depend(ops.assign_add(self.micro_step, Tensor(1, ms.int32)), added)
        finite = Tensor(True, ms.bool_)
        if count % self.accumulation == 0:
            finite = self._update(self.accumulated, self.one)
            finite = ops.depend(finite, self.map(_clear_op, self.accumulated))
        return finite

    def _update(self, gradients: tuple[Tensor, ...], factor: Tensor) -> Tensor:
        """Clip, change the weights, average: all or, where a gradient is not finite, nothing."""
        if self.rank_sum is not None:
            gradients = self.rank_sum(gradients)
        squares = self.update.square_sum(gradients, factor)
        finite = ops.isfinite(squares)
        if finite:
            if self.clip_norm is not None:
                norm = ops.sqrt(squares)
                clip = self.clip_norm / ops.maximum(norm, Tensor(self.clip_norm, ms.float32))
                gradients, factor = self.update.scaled(gradients, factor, clip)
            updated = self.update.apply(gradients, factor)
            finite = ops.depend(finite, updated)
            if self.ema_decay is not None:
                finite = ops.depend(finite, self._average(updated))
        if self.dynamic_scale:
            finite = ops.depend(finite, self._adjust_scale(finite))
        return finite

    def _average(self, updated: Tensor) -> Tensor:
        """Move the averaged weights (batch-norm statistics too) towards the new ones."""
        updates = ops.depend(ops.assign_add(self.updates, Tensor(1, ms.float32)), updated)
        decay = self.ema_decay * (1 - ops.exp(-updates / EMA_WARMUP))
        return self.averages(1 - decay, self.average, self.averaged)

    def _adjust_scale(self, finite: Tensor) -> Tensor:
        """Halve the loss scale after an overflow (not below 1); double it after a window without one."""
        good = ops.select(finite, self.good_updates + 1, ops.zeros_like(self.good_updates))
        grown = ops.select(good >= SCALE_WINDOW, self.scale * 2, self.scale * 1)
        scale = ops.select(finite, grown, ops.maximum(self.scale / 2, Tensor(1, ms.float32)))
        good = ops.select(good >= SCALE_WINDOW, ops.zeros_like(good), good)
        return ops.depend(ops.assign(self.scale, scale), ops.assign(self.good_updates, good))

    def evaluation_weights(self) -> dict[str, NDArray[Any]]:
        """The weights that are evaluated and shipped: the averaged ones where there are, else the network's own."""
        if self.ema_decay is None:
            return self.raw_weights()
        pairs = zip(self.averaged, self.average, strict=True)
        return {weight.name: average.asnumpy().copy() for weight, average in pairs}

    def raw_weights(self) -> dict[str, NDArray[Any]]:
        """The network's own weights, batch-norm statistics among them, by parameter name.

        Copies: `asnumpy` alone shares memory with the parameter on CPU.
        """
        return {parameter.name: parameter.asnumpy().copy() for parameter in self.network.get_parameters()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the next step depends on but its batch: weights, optimizer, average, loss scale, dropout."""
        return {name: parameter.asnumpy().copy() for name, parameter in self._all_parameters().items()}

    def shared_state(self) -> dict[str, NDArray[Any]]:
        """The part of `state()` that is the same on all ranks, between any two steps."""
        own = self.own_entries()
        return {name: array for name, array in self.state().items() if name not in own}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up a `state()`; entries beyond it are ignored.

        Raises KeyError for an entry that is missing and ValueError for one of another shape; nothing is changed then.
        """
        parameters = self._all_parameters()
        for name, parameter in parameters.items():
            if state[name].shape != tuple(parameter.shape):
                raise ValueError(f"{name} has shape {state[name].shape} instead of {tuple(parameter.shape)}")
        for name, parameter in parameters.items():
            assign(parameter, state[name])

    def optimizer_state(self) -> dict[str, NDArray[Any]]:
        """The part of `state()` that begins with an optimizer: its own, but for the count of updates, and gradients."""
        kept = {weight.name for weight in self.weights} | {self.optimizer.global_step.name}
        entries = {parameter.name for parameter in self.optimizer.get_parameters()} - kept
        return {name: array for name, array in self.state().items() if name in entries | self._totals()}

    def own_entries(self) -> set[str]:
        """Names in `state()` of what each rank has for itself: batch-norm statistics, gradients not yet summed up."""
        statistics = {p.name for p in self.network.get_parameters() if is_statistic(p.name)}
        if self.ema_decay is not None:
            statistics |= {average.name for average in self.average if is_statistic(average.name)}
        return statistics | self._totals()

    def _totals(self) -> set[str]:
        """Names of the gradients that are not yet summed up."""
        return {total.name for total in self.accumulated} if self.accumulation > 1 else set()

    def _all_parameters(self) -> dict[str, Parameter]:
        """Parameters by the names of their entries in `state()`. Learning rates come from the config, not from it."""
        parameters = {p.name: p for p in [*self.network.get_parameters(), *self.get_parameters()]}
        parameters.pop("learning_rate", None)
        return parameters


def training_loss(config: Config) -> nn.Cell:
    """The loss of the configuration's task; with a teacher, a `DistillationLoss` of it."""
    loss = tasks.of(config).loss(config)
    if config.teacher:
        return DistillationLoss(loss, config.distill_alpha, config.distill_temperature, config.reduction)
    return loss


def make_step(runtime: Runtime, network: nn.Cell, rates: Sequence[float]) -> TrainStep:
    """The training step of a run. Every rank has to call it.

    Args:
        runtime: its configuration says how the network is trained, and on which ranks.
        network: as it is trained (`build.training_precision`).
        rates: learning rate of each update.

    Raises UserError for an optimizer that the device cannot run.
    """
    config, ranks = runtime.config, runtime.ranks
    rank_sum = allreduce.rank_sum(network, runtime.operators, ranks)
    native = runtime.operators is not None
    optimizer = optim.optimizer(config, network, rates, runtime.device, native)
    update = update_by(optimizer, runtime.operators)
    loss = training_loss(config)
    if runtime.operators is not None:
        rewrite.use(loss, runtime.operators)
    averages = averages_by(list(network.get_parameters()), runtime.operators)
    return TrainStep(network, loss, update, StepOptions.from_config(config), ranks.size, rank_sum, averages)
