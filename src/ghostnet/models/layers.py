"""Layers that the Ghost networks share. Feature maps are float tensors of shape (N, C, H, W) throughout."""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common import dtype as mstype
from mindspore.common import initializer


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` that is nearest to `value` (halves round up), at least `divisor`.

    One step larger where rounding down would lose more than 10 % (the rule of MobileNetV2 and its descendants).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, group: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A 2-D convolution padded by `kernel_size // 2` on every side, as in PyTorch.

    `pad_mode="same"` would pad stride 2 differently (more on the right and below), and published weights with it
    give other logits.
    """
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        pad_mode="pad",
        padding=kernel_size // 2,
        group=group,
        has_bias=bias,
    )


def depthwise_convolution(channels: int, kernel_size: int, stride: int = 1, multiplier: int = 1) -> nn.Conv2d:
    """A convolution of each of `channels` maps on its own, `multiplier` outputs each."""
    return convolution(channels, channels * multiplier, kernel_size, stride, group=channels)


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


class SqueezeExcite(nn.Cell):
    """Squeeze-and-excitation (Hu et al., 2018): mean -> 1x1 conv -> ReLU -> 1x1 conv -> hard sigmoid -> scale.

    Args:
        channels: channels in and out.
        reduction: the squeezed channels are `channels * reduction`, rounded to a multiple of 4.
    """

    def __init__(self, channels: int, reduction: float) -> None:
        super().__init__()
        squeezed = make_divisible(channels * reduction, 4)
        self.conv_reduce = convolution(channels, squeezed, 1, bias=True)
        self.act = nn.ReLU()
        self.conv_expand = convolution(squeezed, channels, 1, bias=True)
        self.gate = nn.HSigmoid()

    def construct(self, x: Tensor) -> Tensor:
        scale = ops.mean(x, (2, 3), True)  # (N, C, 1, 1)
        scale = self.conv_expand(self.act(self.conv_reduce(scale)))
        return x * self.gate(scale)


class Dropout(nn.Cell):
    """Zeroes each element with probability `p` in training and scales the others by 1 / (1 - p).

    MindSpore 2.10's own `nn.Dropout` gives another mask in every process on CPU, whatever the seed. The masks drawn
    here depend on `mindspore.set_seed` before the layer is made, and on nothing else.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop rate: expected a number from 0 to below 1, got {p}")
        self.p = p
        # set_seed seeds numpy too; a seed of 0 would mean "any".
        self.uniform = ops.UniformReal(seed=int(np.random.randint(1, 2**31)))

    def construct(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = ops.cast(self.uniform(ops.shape(x)) >= self.p, x.dtype)
        return x * kept / (1 - self.p)


def he_uniform_init(network: nn.Cell) -> None:
    """He-uniform weights and zero biases for convolutions and dense layers, as MindCV starts its GhostNet."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            weight = cell.weight
            weight.set_data(initializer.initializer(initializer.HeUniform(), weight.shape, weight.dtype))
            if cell.bias is not None:
                cell.bias.set_data(initializer.initializer("zeros", cell.bias.shape, mstype.float32))


def freeze_batch_norm(network: nn.Cell) -> None:
    """Make every batch norm use its stored statistics in training too, and leave them as they are."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.use_batch_statistics = False
