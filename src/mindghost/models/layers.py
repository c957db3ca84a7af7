"""Layers that the Ghost networks share. Feature maps are float tensors of shape (N, C, H, W) throughout."""

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common import dtype as mstype
from mindspore.common import initializer

from .parameters import assign


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` that is nearest to `value` (halves round up), at least `divisor`.

    One step larger where rounding down would lose more than 10 % (the rule of MobileNetV2 and its descendants).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int = 1,
    group: int = 1,
    bias: bool = False,
    **others: Any,
) -> nn.Conv2d:
    """A 2-D convolution padded by `kernel_size // 2` on every side, as in PyTorch, unless `others` say `pad_mode`.

    `pad_mode="same"` would pad stride 2 differently (more on the right and below), and published weights with it
    give other logits. A pair of kernel sizes is (height, width). `others` go to `nn.Conv2d`.
    """
    if "pad_mode" not in others:
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        others |= {"pad_mode": "pad", "padding": (height // 2, height // 2, width // 2, width // 2)}
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, group=group, has_bias=bias, **others)


def depthwise_convolution(
    channels: int,
    kernel_size: int | tuple[int, int],
    stride: int = 1,
    multiplier: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution of each of `channels` maps on its own, `multiplier` outputs each."""
    return convolution(channels, channels * multiplier, kernel_size, stride, group=channels, bias=bias)


class ConvBnAct(nn.Cell):
    """Convolution -> batch norm -> ReLU; the parameters live under `features.0` and `features.1` as in MindCV."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.features = nn.SequentialCell(
            convolution(in_channels, out_channels, kernel_size, stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.features(x)


class GhostMaps(nn.Cell):
    """The core of every Ghost module: few intrinsic maps, then the ghosts that are made of them.

    Args:
        out_channels: maps in all.
        ratio: one map in `ratio` is intrinsic.
        primary: called with a number of intrinsic maps, gives the cell that makes them of the input.
        cheap: called with that number and the number of ghosts, gives the cell that makes these of the intrinsic maps.

    Attributes:
        tail: does all that follows the first cell of `primary_conv`, if it is there; it takes that cell's maps and,
            where there are such, those to be added.
    """

    def __init__(
        self,
        out_channels: int,
        ratio: int,
        primary: Callable[[int], nn.Cell],
        cheap: Callable[[int, int], nn.Cell],
    ) -> None:
        super().__init__()
        intrinsic = math.ceil(out_channels / ratio)
        ghosts = intrinsic * (ratio - 1)
        self.primary_conv = primary(intrinsic)
        self.cheap_operation = cheap(intrinsic, ghosts)
        # Maps beyond out_channels are cut off. `split` costs a hundredth of a strided slice on CPU, and with the
        # widths of GhostNet there is nothing to cut.
        surplus = intrinsic + ghosts - out_channels
        self.cut = [out_channels, surplus] if surplus else None
        self.tail: Any = None

    def construct(self, x: Tensor) -> Tensor:
        if self.tail is not None:
            return self.fused(x)
        intrinsic = self.primary_conv(x)
        out = ops.concat((intrinsic, self.cheap_operation(intrinsic)), 1)
        if self.cut is not None:
            out = ops.split(out, self.cut, 1)[0]
        return out

    def fused(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """The same by `tail`, which has to be set; plus `other`, if it is given."""
        return self.tail(self.primary_conv[0](x), other)


class Around(nn.Cell):
    """A cell that takes the place of another one, which it holds.

    Attributes:
        cell: that one.
        tail: None, for bottlenecks, which ask their Ghost modules for one (`GhostMaps.tail`).
    """

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.tail = None


class MapMeans(nn.Cell):
    """The mean of every feature map: (N, C, H, W) -> (N, C, 1, 1)."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.mean(x, (2, 3), True)


class SqueezeExcite(nn.Cell):
    """Squeeze-and-excitation (Hu et al., 2018): mean -> 1x1 conv -> ReLU -> 1x1 conv -> hard sigmoid -> scale.

    Args:
        channels: channels in and out.
        reduction: the squeezed channels are `channels * reduction`, rounded to a multiple of 4.
    """

    def __init__(self, channels: int, reduction: float) -> None:
        super().__init__()
        squeezed = make_divisible(channels * reduction, 4)
        self.means = MapMeans()
        self.conv_reduce = convolution(channels, squeezed, 1, bias=True)
        self.act = nn.ReLU()
        self.conv_expand = convolution(squeezed, channels, 1, bias=True)
        self.gate = nn.HSigmoid()

    def construct(self, x: Tensor) -> Tensor:
        return x * self.gates(x)

    def gates(self, x: Tensor) -> Tensor:
        """What each map is scaled by, (N, C, 1, 1)."""
        return self.gate(self.conv_expand(self.act(self.conv_reduce(self.means(x)))))


class Dropout(nn.Cell):
    """Zeroes each element with probability `p` in training and scales the others by 1 / (1 - p).

    MindSpore 2.10's own `nn.Dropout` gives another mask in every process on CPU, whatever the seed, and its state
    cannot be saved. The masks here are a hash of (seed, how many masks came before, position): they depend on
    `mindspore.set_seed` before the layer is made and on `counter`, which a run can save and set.

    Attributes:
        counter: masks drawn so far, an int32 Parameter of shape (). It is no weight: `get_parameters` does not list
            it.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop rate: expected a number from 0 to below 1, got {p}")
        self.p = p
        # set_seed seeds numpy too.
        self.seed = int(np.random.randint(2**31))
        self.mask = Mask(p)
        counter = Parameter(Tensor(0, mstype.int32), name="dropout_counter", requires_grad=False)
        # Past nn.Cell's own setter, which would list it among the weights.
        object.__setattr__(self, "counter", counter)

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        count = ops.assign_add(self.counter, Tensor(1, mstype.int32))
        # Hashed on its own: added as it is, a count would only shift the positions by one.
        return self.mask(x, _hash(self.seed + count * _GOLDEN_RATIO))


class Mask(nn.Cell):
    """Zeroes each element with probability `p` and scales the others by 1 / (1 - p).

    Maps or vectors, and an int32 key of shape (), on which it depends with the position which elements these are.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def construct(self, x: Tensor, key: Tensor) -> Tensor:
        uniform = _hashed_uniform(ops.shape(x), key)
        return x * ops.cast(uniform >= self.p, x.dtype) / (1 - self.p)


def reseed_dropout(network: nn.Cell, rank: int) -> None:
    """Give the dropouts of one of several processes that train a network other masks than those of the others."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, Dropout):
            cell.seed = (cell.seed + rank * 0x9E3779B9) % 2**31


# 2^32 over the golden ratio, as int32: multiples of it are spread evenly.
_GOLDEN_RATIO = -1640531527


def _hashed_uniform(shape: tuple[int, ...], key: Tensor) -> Tensor:
    """Floats in [0, 1) of the given shape: a hash of key and position."""
    size = 1
    for length in shape:
        size = size * length
    bits = _hash(ops.reshape(ops.arange(size), shape).astype(mstype.int32) * _GOLDEN_RATIO + key)
    bits = ops.bitwise_and(bits, Tensor(2**24 - 1, mstype.int32))
    return ops.cast(bits, mstype.float32) / 2**24


def _hash(bits: Tensor) -> Tensor:
    """`lowbias32` (Chris Wellons, https://nullprogram.com/blog/2018/07/31/), on int32 with wrapping products."""
    for shift, factor in ((16, 0x7FEB352D), (15, -2073254261)):
        bits = _xor_shifted(bits, shift) * factor
    return _xor_shifted(bits, 16)


def _xor_shifted(bits: Tensor, shift: int) -> Tensor:
    """`bits ^ (bits >> shift)`, the shift bringing in zeros instead of the sign."""
    shifted = ops.bitwise_right_shift(bits, Tensor(shift, mstype.int32))
    return ops.bitwise_xor(bits, ops.bitwise_and(shifted, Tensor(2 ** (32 - shift) - 1, mstype.int32)))


def he_uniform_init(network: nn.Cell) -> None:
    """He-uniform weights and zero biases for convolutions and dense layers, as MindCV starts its GhostNet."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Conv2dTranspose, nn.Dense)):
            weight = cell.weight
            assign(weight, initializer.initializer(initializer.HeUniform(), weight.shape, weight.dtype))
            if cell.bias is not None:
                assign(cell.bias, initializer.initializer("zeros", cell.bias.shape, mstype.float32))


def he_normal_init(network: nn.Cell) -> None:
    """He-normal weights by fan-out for convolutions, as PyTorch's ResNets and RegNets start; dense layers stay."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Conv2dTranspose)):
            weight = cell.weight
            start = initializer.HeNormal(mode="fan_out", nonlinearity="relu")
            assign(weight, initializer.initializer(start, weight.shape, weight.dtype))


def pytorch_init(network: nn.Cell) -> None:
    """Weights and biases of convolutions and dense layers uniform within 1 / sqrt(fan-in), as PyTorch's layers start.

    timm's GhostNets and their authors' start so: neither draws weights anew. The weights are 1 / sqrt(6) = 0.41 of
    `he_uniform_init`'s.
    """
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Conv2dTranspose, nn.Dense)):
            bound = float(np.prod(cell.weight.shape[1:])) ** -0.5
            for parameter in (cell.weight, cell.bias):
                if parameter is not None:
                    start = initializer.Uniform(bound)
                    assign(parameter, initializer.initializer(start, parameter.shape, parameter.dtype))


def forget_graphs(network: nn.Cell) -> None:
    """Have a network that was compiled be compiled again: graph mode would go on to run cells that were replaced."""
    for _, cell in network.cells_and_names():
        cell.compile_cache.clear()


def freeze_batch_norm(network: nn.Cell, names: Collection[str] | None = None) -> None:
    """Make batch norms use their stored statistics in training too, and leave them as they are.

    Args:
        network: whose batch norms.
        names: of parameters; the norms that these belong to, or all without.
    """
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and (names is None or cell.moving_mean.name in names):
            cell.use_batch_statistics = False


def is_statistic(name: str) -> bool:
    """Whether a parameter is a running statistic, of a batch norm or a quantised map, which no gradient changes."""
    return name.endswith((".moving_mean", ".moving_variance", ".moving_minimum", ".moving_maximum"))
