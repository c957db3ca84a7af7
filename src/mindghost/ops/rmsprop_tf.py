"""RMSprop as TensorFlow defines it and timm offers it under the name `rmsproptf`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ..models.parameters import assign

_update_op = ops.MultitypeFuncGraph("rmsprop_tf")


@_update_op.register("Function", "Number", "Number", "Number", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _update_tensor(apply, alpha, momentum, shift, rate, weight, mean_square, moment, gradient):
    shifted = ops.assign(mean_square, mean_square + shift)
    return apply(weight, mean_square, moment, rate, ops.depend(gradient, shifted), alpha, momentum, 0.0)


class RMSpropTF(nn.Optimizer):
    """RMSprop in TensorFlow's form (Tieleman and Hinton, 2012; timm's `RMSpropTF`).

    An update with learning rate r of a weight w with the gradient g:

        g <- g + weight_decay * w
        s <- s + (1 - alpha) * (g * g - s)             s starts at 1
        m <- momentum * m + r * g / sqrt(s + eps)      m starts at 0
        w <- w - m

    It differs from PyTorch's RMSprop in where `eps` stands, in how s starts, and in the rate's place inside of m.

    `mindspore.nn.RMSProp` is meant to be the same, but its CPU kernel (2.7.2 to 2.10) divides by `sqrt(s) + eps` where
    it is vectorised, and by `sqrt(s + eps)` in the last few elements of a parameter: at the recipes' eps of 1e-3 these
    are different updates. Here the kernel, which is one operator instead of a dozen to compile for each parameter, gets
    an eps of 0 and keeps `s + eps`: that follows the same rule with `(1 - alpha) * eps` added at each step.

    Args:
        params: parameters, or MindSpore's groups of parameters (each with its weight decay and, where it says so, its
            rate).
        learning_rate: one rate, the rate of each update, or a schedule.
        alpha: decay of the running mean of squared gradients, above 0.
        momentum: decay of the running sum of updates.
        eps: added to the mean square, inside the root.
        weight_decay: factor of the L2 penalty, for parameters outside of groups.
    """

    def __init__(
        self,
        params: Sequence[Parameter] | Sequence[dict[str, Any]],
        learning_rate: float | Sequence[float],
        *,
        alpha: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, params, weight_decay)
        self.apply_update = ops.ApplyRMSProp()
        self.alpha = alpha
        self.momentum = momentum
        # The kernel multiplies what it finds by alpha.
        self.shift = eps * (1 - alpha) / alpha
        self.mean_square = self.parameters.clone(prefix="mean_square", init="ones")
        for mean_square in self.mean_square:
            assign(mean_square, np.full(mean_square.shape, 1 + eps))
        self.moment = self.parameters.clone(prefix="moment", init="zeros")

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        gradients = self.decay_weight(gradients)
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        if self.is_group_lr:
            update = ops.partial(_update_op, self.apply_update, self.alpha, self.momentum, self.shift)
            return self.hyper_map(update, rate, self.parameters, self.mean_square, self.moment, gradients)
        update = ops.partial(_update_op, self.apply_update, self.alpha, self.momentum, self.shift, rate)
        return self.hyper_map(update, self.parameters, self.mean_square, self.moment, gradients)
