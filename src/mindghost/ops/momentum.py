"""Gradient descent with momentum: all weights of a network in one pass over memory.

MindSpore runs some six kernels for each of a network's hundreds of weights (docs/performance.md).
"""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.signature import make_sig, sig_rw

from .fused import floats
from .scaled_rates import ScaledRates

_HEADS = 5  # inputs before the gradients


class MomentumUpdate(nn.Cell):
    """A `train.update.Update` that does what an optimizer of `covers` does, on its own parameters.

    The operator changes weights and moments in place, and tells MindSpore so: without that it would at times be given
    copies, and nothing would be learnt.

    Args:
        library: file of the C++ operators.
        optimizer: `covers` is true for it.
    """

    def __init__(self, library: Path, optimizer: nn.Momentum | nn.SGD) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.weights = optimizer.parameters
        # SGD's `stat` says of each weight whether its moment has begun.
        starts = isinstance(optimizer, nn.SGD)
        self.state = (*optimizer.accum, *optimizer.stat) if starts else tuple(optimizer.moments)
        nesterov = starts and optimizer.nesterov
        self.settings = Tensor([float(nesterov), float(starts)], ms.float32)
        self.decays = Tensor(_decays(optimizer), ms.float32)
        self.scaled_rates = optimizer.is_group_lr
        if self.scaled_rates:
            self.table = optimizer.learning_rate[0].table
            self.scales = Tensor([each.scale for each in optimizer.learning_rate], ms.float32)
        count = len(self.weights)
        self.squares = ops.Custom(f"{library}:ghostnet_square_sum", lambda *_: ([1],), floats(1), "aot")
        self.update = ops.Custom(f"{library}:ghostnet_momentum", lambda *_: ([1],), floats(1), "aot")
        self.squares.add_prim_attr("kind", [count])
        self.update.add_prim_attr("kind", [count, int(nesterov), int(starts)])
        self.update.add_prim_attr("side_effect_mem", True)
        read = [make_sig(f"read{index}", sig_rw.RW_READ) for index in range(_HEADS + count)]
        written = [make_sig(f"written{index}", sig_rw.RW_WRITE) for index in range(count + len(self.state))]
        self.update.set_signatures((*read, *written))

    def scaled(self, gradients: tuple[Tensor, ...], factor: Tensor, by: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The gradients as they are, and the factor times `by`."""
        return gradients, factor * by

    def square_sum(self, gradients: tuple[Tensor, ...], factor: Tensor) -> Tensor:
        """The sum of squares of all gradients times `factor`: a scalar."""
        return ops.reshape(self.squares(factor, *gradients)[0], ())

    def apply(self, gradients: tuple[Tensor, ...], factor: Tensor) -> Tensor:
        """Update the weights by their gradients times `factor`. Returns a tensor that is there when it is done."""
        optimizer = self.optimizer
        # The optimizer itself would look the table up for each weight, which takes long to compile.
        rate = (
            self.scales * ops.gather(self.table, optimizer.global_step, 0) if self.scaled_rates else optimizer.get_lr()
        )
        heads = (self.settings, rate, factor, optimizer.momentum, self.decays)
        done = self.update(*heads, *gradients, *self.weights, *self.state)[0]
        counted = optimizer.assignadd(optimizer.global_step, optimizer.global_step_increase_tensor)
        return ops.depend(done, counted)


def covers(optimizer: nn.Optimizer) -> bool:
    """Whether `MomentumUpdate` knows an optimizer: weights in float32, multiples of one rate, constant weight decay."""
    if type(optimizer) is nn.Momentum:
        # MindSpore's kernel for the CPU knows no other.
        known = not optimizer.use_nesterov
    elif type(optimizer) is nn.SGD:
        known = optimizer.dampening == 0 and float(optimizer.momentum.asnumpy()) > 0
    else:
        known = False
    return (
        known
        and not (optimizer.is_group_lr and not all(isinstance(each, ScaledRates) for each in optimizer.learning_rate))
        and not (optimizer.dynamic_weight_decay or optimizer.need_scale)
        and not (optimizer.is_group and any(optimizer.grad_centralization_flags))
        and not optimizer.grad_centralization
        and all(parameter.dtype == ms.float32 for parameter in optimizer.parameters)
    )


def _decays(optimizer: nn.Optimizer) -> list[float]:
    """The decay of each weight."""
    flags, decay = optimizer.decay_flags, optimizer.weight_decay
    each = [decay] * len(flags) if isinstance(decay, (Tensor, float)) else decay
    return [float(np.asarray(value)) if flag else 0.0 for value, flag in zip(each, flags, strict=True)]
