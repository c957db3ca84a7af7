"""Updates of all weights of a network in one pass over memory.

MindSpore runs some six kernels for each of a network's hundreds of weights for momentum, some twenty for AdamW
(docs/performance.md), and has none for LAMB on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindcv.optim.adamw import AdamW
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.signature import make_sig, sig_rw

from .fused import floats
from .rmsprop_tf import RMSpropTF
from .scaled_rates import ScaledRates

_HEADS = 4  # inputs before the gradients
# LAMB's: MindSpore's kernel for GPUs has this limit, too.
_MOST_TRUST = 10.0


class OnePassUpdate(nn.Cell):
    """A `train.update.Update` that does what an optimizer does, on its own parameters.

    The operator changes weights and the optimizer's numbers in place, and tells MindSpore so: without that it would at
    times be given copies, and nothing would be learnt.

    Args:
        library: file of the C++ operators.
        optimizer: `covers` is true for it.
        operator: name of the one that updates.
        state: the optimizer's numbers of each weight: all first ones, then all second ones.
        settings: what else the operator is told, of the kind of update; see csrc/ops/bindings.cpp.
    """

    def __init__(
        self,
        library: Path,
        optimizer: nn.Optimizer,
        operator: str,
        state: Sequence[Parameter],
        settings: Sequence[float],
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.weights = optimizer.parameters
        self.state = tuple(state)
        self.settings = Tensor(settings, ms.float32)
        self.decays = Tensor(_decays(optimizer), ms.float32)
        self.scaled_rates = optimizer.is_group_lr
        if self.scaled_rates:
            self.table = optimizer.learning_rate[0].table
            self.scales = Tensor([each.scale for each in optimizer.learning_rate], ms.float32)
        count = len(self.weights)
        self.squares = ops.Custom(f"{library}:ghostnet_square_sum", lambda *_: ([1],), floats(1), "aot")
        self.update = ops.Custom(f"{library}:{operator}", lambda *_: ([1],), floats(1), "aot")
        self.squares.add_prim_attr("kind", [count])
        self.update.add_prim_attr("kind", [count, len(self.state)])
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
        heads = (self.current_settings(), self._rate(), factor, self.decays)
        done = self.update(*heads, *gradients, *self.weights, *self.state)[0]
        counted = optimizer.assignadd(optimizer.global_step, optimizer.global_step_increase_tensor)
        return ops.depend(done, counted)

    def current_settings(self) -> Tensor:
        """What the operator is told at this update."""
        return self.settings

    def _rate(self) -> Tensor:
        """The rate of all weights, or those of each."""
        optimizer = self.optimizer
        # The optimizer itself would look the table up for each weight, which takes long to compile.
        if self.scaled_rates:
            return self.scales * ops.gather(self.table, optimizer.global_step, 0)
        # And AdamW's `get_lr` would count the update.
        return optimizer.learning_rate(optimizer.global_step) if optimizer.dynamic_lr else optimizer.learning_rate


class MomentumUpdate(OnePassUpdate):
    """That of `nn.Momentum` and `nn.SGD`."""

    def __init__(self, library: Path, optimizer: nn.Momentum | nn.SGD) -> None:
        # SGD's `stat` says of each weight whether its moment has begun.
        starts = isinstance(optimizer, nn.SGD)
        state = (*optimizer.accum, *optimizer.stat) if starts else optimizer.moments
        settings = (float(optimizer.momentum.asnumpy()), float(starts and optimizer.nesterov))
        super().__init__(library, optimizer, "ghostnet_momentum", state, settings)


class RMSpropUpdate(OnePassUpdate):
    """That of `RMSpropTF`."""

    def __init__(self, library: Path, optimizer: RMSpropTF) -> None:
        state = (*optimizer.mean_square, *optimizer.moment)
        settings = (optimizer.alpha, optimizer.momentum, optimizer.shift)
        super().__init__(library, optimizer, "ghostnet_rmsprop", state, settings)


class AdamUpdate(OnePassUpdate):
    """That of mindcv's `AdamW`, and of `nn.Lamb`.

    LAMB is You et al.'s, 2020 (https://arxiv.org/abs/1904.00962), as MindSpore describes it: each tensor's rate is
    multiplied by its own length over that of the direction it is to go, weight decay included.
    """

    def __init__(self, library: Path, optimizer: AdamW | nn.Lamb) -> None:
        state = (*optimizer.moments1, *optimizer.moments2)
        numbers = [float(number.asnumpy()[0]) for number in (optimizer.beta1, optimizer.beta2, optimizer.eps)]
        is_lamb = isinstance(optimizer, nn.Lamb)
        super().__init__(library, optimizer, "ghostnet_lamb" if is_lamb else "ghostnet_adam", state, numbers)
        self.is_lamb = is_lamb
        self.betas = Tensor(numbers[:2], ms.float32)
        self.most = Tensor([_MOST_TRUST], ms.float32)

    def current_settings(self) -> Tensor:
        """With what corrects means that began at 0, and the largest ratio."""
        optimizer = self.optimizer
        if self.is_lamb:
            powers = ops.pow(self.betas, ops.cast(optimizer.global_step, ms.float32) + 1.0)
        else:
            # AdamW keeps them, and a run may go on without our operators.
            power1 = optimizer.beta1_power * optimizer.beta1
            power2 = optimizer.beta2_power * optimizer.beta2
            stored = (ops.assign(optimizer.beta1_power, power1), ops.assign(optimizer.beta2_power, power2))
            powers = ops.depend(ops.concat((power1, power2)), stored)
        return ops.concat((self.settings, 1.0 - powers, self.most))


class OnePassAverages(nn.Cell):
    """Averages that follow their weights, as `train.update.PlainAverages` has them, in one pass over memory.

    Args:
        library: file of the C++ operators.
        count: of the averages, float32 each.
    """

    def __init__(self, library: Path, count: int) -> None:
        super().__init__(auto_prefix=False)
        self.move = ops.Custom(f"{library}:ghostnet_average", lambda *_: ([1],), floats(1), "aot")
        self.move.add_prim_attr("kind", [count])
        self.move.add_prim_attr("side_effect_mem", True)
        read = [make_sig(f"read{index}", sig_rw.RW_READ) for index in range(1 + count)]
        written = [make_sig(f"written{index}", sig_rw.RW_WRITE) for index in range(count)]
        self.move.set_signatures((*read, *written))

    def construct(self, share: Tensor, averages: tuple[Parameter, ...], weights: tuple[Parameter, ...]) -> Tensor:
        """See `PlainAverages`."""
        return self.move(share, *weights, *averages)[0]


def one_pass(library: Path, optimizer: nn.Optimizer) -> OnePassUpdate | None:
    """The update that an optimizer makes, in one pass; None for one that our operators do not know.

    They know weights in float32, multiples of one rate, and constant weight decay.
    """
    if not _is_plain(optimizer):
        return None
    for kinds, update, knows in _UPDATES:
        if type(optimizer) in kinds and knows(optimizer):
            return update(library, optimizer)
    return None


def _is_momentum(optimizer: Any) -> bool:
    if type(optimizer) is nn.Momentum:
        # MindSpore's kernel for the CPU knows no other.
        return not optimizer.use_nesterov
    return optimizer.dampening == 0 and float(optimizer.momentum.asnumpy()) > 0


def _is_adam(optimizer: Any) -> bool:
    return type(optimizer) is nn.Lamb or (not optimizer.clip and float(optimizer.reciprocal_scale.asnumpy()) == 1)


_UPDATES: tuple[Any, ...] = (
    ((nn.Momentum, nn.SGD), MomentumUpdate, _is_momentum),
    ((RMSpropTF,), RMSpropUpdate, lambda _: True),
    ((AdamW, nn.Lamb), AdamUpdate, _is_adam),
)


def _is_plain(optimizer: nn.Optimizer) -> bool:
    return (
        not (optimizer.is_group_lr and not all(isinstance(each, ScaledRates) for each in optimizer.learning_rate))
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
