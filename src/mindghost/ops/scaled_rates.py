"""Multiples of one table of learning rates, for optimizers whose groups of parameters learn at several rates."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops


class ScaledRates(nn.learning_rate_schedule.LearningRateSchedule):
    """A multiple of the schedule's rate, float32 (1,).

    Args:
        table: rate of each update, float32; the groups of an optimizer share one.
        scale: the multiple.
    """

    def __init__(self, table: Parameter, scale: float) -> None:
        super().__init__()
        self.table = table
        self.scale = scale

    def construct(self, global_step: Tensor) -> Tensor:
        """The rate of the update that comes after so many."""
        return ops.gather(self.table, global_step, 0) * ops.cast(self.scale, ms.float32)
