"""An update of the weights by the optimizer, operator by operator. `ops.updates.OnePassUpdate` has the same face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ..ops.updates import OnePassAverages, one_pass

_scale_op = ops.MultitypeFuncGraph("scaled")
_square_sum_op = ops.MultitypeFuncGraph("square_sum")
_average_op = ops.MultitypeFuncGraph("average")


@_scale_op.register("Tensor", "Tensor")
def _scaled_tensor(factor, gradient):
    return ops.cast(gradient, ms.float32) * factor


@_square_sum_op.register("Tensor")
def _square_sum_tensor(gradient):
    return ops.reduce_sum(ops.square(ops.cast(gradient, ms.float32)))


@_average_op.register("Tensor", "Tensor", "Tensor")
def _average_tensor(share, average, weight):
    # In this form an average of equal values stays what it is, to the last bit.
    return ops.assign(average, average + (weight - average) * share)


def scaled(gradients: tuple[Tensor, ...], factor: Tensor) -> tuple[Tensor, ...]:
    """Each gradient times a factor, in float32."""
    return ops.HyperMap()(ops.partial(_scale_op, factor), gradients)


class Update(Protocol):
    """What a training step does with the gradients of an update.

    Gradients stand for themselves times `factor`, a scalar that an update may keep apart until the weights change.

    Attributes:
        optimizer: whose weights and state change.
    """

    optimizer: nn.Optimizer

    def scaled(self, gradients: tuple[Tensor, ...], factor: Tensor, by: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The gradients and the factor that stand for the gradients times `by`."""

    def square_sum(self, gradients: tuple[Tensor, ...], factor: Tensor) -> Tensor:
        """The sum of squares of all gradients: a scalar."""

    def apply(self, gradients: tuple[Tensor, ...], factor: Tensor) -> Tensor:
        """Change the weights. Returns a tensor that is there when it is done."""


class PlainUpdate(nn.Cell):
    """An `Update` by MindSpore's operators. Its factor is always 1: the gradients themselves are scaled."""

    def __init__(self, optimizer: nn.Optimizer) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.map = ops.HyperMap()

    def scaled(self, gradients: tuple[Tensor, ...], factor: Tensor, by: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The gradients times `by`, and the factor as it was."""
        return self.map(ops.partial(_scale_op, by), gradients), factor

    def square_sum(self, gradients: tuple[Tensor, ...], factor: Tensor) -> Tensor:
        """The sum of squares of all gradients: a scalar float32."""
        return ops.addn(self.map(_square_sum_op, gradients))

    def apply(self, gradients: tuple[Tensor, ...], factor: Tensor) -> Tensor:
        """Have the optimizer change the weights."""
        return self.optimizer(gradients)


def update_by(optimizer: nn.Optimizer, operators: Path | None = None) -> Update:
    """The update that an optimizer makes: in one pass with our `operators`, where they know it."""
    update = one_pass(operators, optimizer) if operators is not None else None
    return PlainUpdate(optimizer) if update is None else update


class PlainAverages(nn.Cell):
    """Averages that follow their weights, by MindSpore's operators."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.map = ops.HyperMap()

    def construct(self, share: Tensor, averages: tuple[Parameter, ...], weights: tuple[Parameter, ...]) -> Any:
        """Move each average by `share` of the way to its weight. Returns what is there when it is done."""
        return self.map(ops.partial(_average_op, share), averages, weights)


def averages_by(weights: Sequence[Parameter], operators: Path | None = None) -> nn.Cell:
    """What moves the averages of weights: in one pass with our `operators`, where they know all of them."""
    if operators is not None and all(weight.dtype == ms.float32 for weight in weights):
        return OnePassAverages(operators, len(weights))
    return PlainAverages()
