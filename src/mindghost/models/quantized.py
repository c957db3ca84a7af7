"""Quantisation-aware training: a network whose weights and maps have the values that 8-bit integers stand for.

Every convolution and dense layer gets weights that are rounded per output channel, symmetric around 0, and each map is
rounded per tensor, with a zero point (Jacob et al., 2018, https://arxiv.org/abs/1712.05877). Gradients pass through the
rounding as if it were not there, and end where a value lies outside of its range.
"""

from __future__ import annotations

from typing import Any, cast

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from .complexity import forward_hooks, run
from .layers import Around
from .surgery import named, replace_cells

# Weights are integers of -63 to 63, 7 of the 8 bits: the 8-bit products of x86 processors without VNNI are added up in
# 16 bits, which full weights overflow. Maps are integers of 0 to 255.
WEIGHT_LEVELS, LEVELS = 63, 255
# What is left of the last range when a batch's is averaged into it.
KEPT = 0.99
# Smallest range of a map, and largest weight of a channel: what is 0 all over is divided by it.
TINY = 1e-6


class Rounded(nn.Cell):
    """Values -> those nearest to them that integers stand for: (integer - zero) * scale.

    float32 of any shape; `scale` and `zero` have shape (1,).
    """

    def construct(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        rounded = (ops.clamp(ops.round(x / scale) + zero, 0, LEVELS) - zero) * scale
        # What is not a number stays visible: a run that diverges has to be seen.
        return ops.select(x == x, rounded, x)

    def bprop(self, x: Tensor, scale: Tensor, zero: Tensor, out: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
        level = ops.round(x / scale) + zero
        inside = ops.cast(ops.logical_and(level >= 0, level <= LEVELS), x.dtype)
        return gradient * inside, ops.zeros_like(scale), ops.zeros_like(zero)


class RoundedWeight(nn.Cell):
    """A weight, output channels first -> the nearest one of integers times a scale for each channel."""

    def construct(self, weight: Tensor) -> Tensor:
        scale = weight_scale(weight)
        return ops.round(weight / scale) * scale

    def bprop(self, weight: Tensor, out: Tensor, gradient: Tensor) -> tuple[Tensor]:
        return (gradient,)


class RoundedBias(nn.Cell):
    """A bias -> the nearest one of 32-bit integers, which are what is summed up of a layer's products.

    One of them stands for the product of what a step of the weight's integers and one of the input's stand for.
    Evaluation only.
    """

    def construct(self, bias: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
        scale, _ = scale_and_zero(low, high)
        step = ops.reshape(weight_scale(weight), (-1,)) * scale
        return ops.round(bias / step) * step

    def bprop(
        self, bias: Tensor, weight: Tensor, low: Tensor, high: Tensor, out: Tensor, gradient: Tensor
    ) -> tuple[Tensor, ...]:
        return gradient, ops.zeros_like(weight), ops.zeros_like(low), ops.zeros_like(high)


def weight_scale(weight: Tensor) -> Tensor:
    """What one step of a weight's integers stands for, of each output channel; it has as many axes as the weight."""
    axes = tuple(range(1, weight.ndim))
    return ops.clamp(ops.amax(ops.abs(weight), axes, keepdims=True), TINY) / WEIGHT_LEVELS


class FakeQuantize(nn.Cell):
    """Maps of any shape -> their values as 8-bit integers hold them, between the smallest and largest of late batches.

    Attributes:
        moving_minimum, moving_maximum: of the batches, averaged, of shape (1,); equal before the first batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moving_minimum = Parameter(Tensor([0], ms.float32), requires_grad=False)
        self.moving_maximum = Parameter(Tensor([0], ms.float32), requires_grad=False)
        self.rounded = Rounded()

    def construct(self, x: Tensor) -> Tensor:
        low, high = self.moving_minimum.value(), self.moving_maximum.value()
        if self.training:
            low, high = self.updated(ops.stop_gradient(x), low, high)
        return self.rounded(x, *scale_and_zero(low, high))

    def updated(self, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The range once a batch has been averaged into it, which is kept. The first batch's is taken as it is."""
        kept = ops.select(high > low, ops.full_like(low, KEPT), ops.zeros_like(low))
        new_low = ops.reshape(ops.clamp(ops.amin(x), None, 0), (1,))
        new_high = ops.reshape(ops.clamp(ops.amax(x), 0, None), (1,))
        low, high = new_low + (low - new_low) * kept, new_high + (high - new_high) * kept
        high = ops.depend(high, (ops.assign(self.moving_minimum, low), ops.assign(self.moving_maximum, high)))
        return low, high


def scale_and_zero(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """What one step of a range's integers stands for, and the integer that 0 is. A range holds 0."""
    scale = ops.clamp(high - low, TINY) / LEVELS
    return scale, ops.round(-low / scale)


class Convolution(nn.Cell):
    """(N, C, H, W) and a weight -> the convolution with it, without a bias, as another layer has it.

    Args:
        like: that layer.
    """

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.like = (like,)  # no child: it is not run
        self.operator = like.conv2d

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.operator(x, weight)


class QuantizedLayer(nn.Cell):
    """A layer whose weight, and where asked for its input, is rounded; in evaluation its bias, too.

    Args:
        like: the layer that it takes the place of; its parameters are this one's.
        source: what rounds its input elsewhere; None has it rounded here.
    """

    def __init__(self, like: nn.Conv2d | nn.Dense, source: FakeQuantize | None) -> None:
        super().__init__(auto_prefix=False)
        self.weight, self.bias = like.weight, like.bias
        self.in_channels, self.out_channels = like.in_channels, like.out_channels
        self.rounded_weight = RoundedWeight()
        self.input = FakeQuantize() if source is None else nn.Identity()
        rounding = source or self.input
        # Past nn.Cell's own setter, which would name them after this layer: they belong to what rounds the input.
        object.__setattr__(self, "low", rounding.moving_minimum)
        object.__setattr__(self, "high", rounding.moving_maximum)
        self.bias_rounding, self.add = RoundedBias(), ops.BiasAdd()

    def rounded_bias(self) -> Tensor:
        """The bias, (out_channels,)."""
        if self.training:
            return self.bias
        return self.bias_rounding(self.bias, self.weight, self.low, self.high)


class QuantizedConv2d(QuantizedLayer):
    """A convolution, (N, C, H, W) -> (N, out_channels, H', W')."""

    def __init__(self, like: nn.Conv2d, source: FakeQuantize | None) -> None:
        super().__init__(like, source)
        self.convolution = Convolution(like)

    def construct(self, x: Tensor) -> Tensor:
        out = self.convolution(self.input(x), self.rounded_weight(self.weight))
        return out if self.bias is None else self.add(out, self.rounded_bias())


class QuantizedDense(QuantizedLayer):
    """A dense layer, (N, in_channels) -> (N, out_channels)."""

    def construct(self, x: Tensor) -> Tensor:
        out = ops.matmul(self.input(x), ops.transpose(self.rounded_weight(self.weight), (1, 0)))
        return out if self.bias is None else self.add(out, self.rounded_bias())


class Observed(Around):
    """A cell of a network, whose output is rounded."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(cell)
        self.quantized = FakeQuantize()

    def construct(self, *inputs: Tensor) -> Tensor:
        return self.quantized(self.cell(*inputs))


def is_range(name: str) -> bool:
    """Whether a parameter is an end of the range of a map."""
    return name.endswith((".moving_minimum", ".moving_maximum"))


_LAYERS: dict[type[nn.Cell], type[QuantizedConv2d] | type[QuantizedDense]] = {
    nn.Conv2d: QuantizedConv2d,
    nn.Dense: QuantizedDense,
}


def quantize_aware(network: nn.Cell, in_channels: int = 3) -> nn.Cell:
    """Have a network without batch norms (`models.folded`) trained and evaluated as 8-bit integers will run it.

    What is rounded is found by running the network once on a small image: the weight and the input of each convolution
    and dense layer, and what each cell gives, but for the logits, and for what only a ReLU reads. What a cell computes
    in between stays as it is. Changes the network; its parameters keep their names, and new ones are ranges of maps.
    """
    places = {id(cell): name for name, cell in network.cells_and_names()}
    calls = _calls(network, in_channels)
    rounded = _rounded_maps(calls)
    observers = {output: Observed(maker) for output, maker in rounded.items()}
    layers: dict[int, nn.Cell] = {}
    for cell, inputs, _ in calls:
        if layer := _LAYERS.get(type(cell)):
            source = observers.get(id(inputs[0]))
            layers[id(cell)] = new = layer(cast(Any, cell), source and source.quantized)
            named(new.input, f"{places[id(cell)]}.input")
    for observer in observers.values():
        named(observer.quantized, f"{places[id(observer.cell)]}.output")
    replace_cells(network, {id(observer.cell): observer for observer in observers.values()})
    # Layers that are observed are parts of their observers by now.
    replace_cells(network, layers)
    return network


_Call = tuple[nn.Cell, tuple[Tensor, ...], Tensor]


def _calls(network: nn.Cell, in_channels: int) -> list[_Call]:
    """Each cell with what it gets and gives for a small image, in the order in which they end: the network last."""
    calls: list[_Call] = []
    cells = [cell for _, cell in network.cells_and_names()]
    with forward_hooks(cells, lambda cell, inputs, output: calls.append((cell, inputs, output))):
        run(network, (in_channels, 64, 64))
    return calls


def _rounded_maps(calls: list[_Call]) -> dict[int, nn.Cell]:
    """Id of each map that is rounded -> the cell that makes it.

    A cell that hands on what it got, or what a part of it made, makes none; a backbone hands on several.
    """
    maker: dict[int, nn.Cell] = {}
    for cell, inputs, output in calls:
        if isinstance(output, Tensor) and id(output) not in map(id, inputs):
            maker.setdefault(id(output), cell)
    _, _, logits = calls[-1]
    to_relu = {id(inputs[0]) for cell, inputs, _ in calls if isinstance(cell, nn.ReLU)}
    return {output: cell for output, cell in maker.items() if output not in to_relu and output != id(logits)}
