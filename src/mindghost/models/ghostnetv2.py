"""GhostNetV2: Enhance Cheap Operation with Long-Range Attention (Tang et al., NeurIPS 2022).

https://arxiv.org/abs/2211.12905. GhostNet whose bottlenecks, all but the first two, weigh what they expand by DFC
attention. Parameter names follow the official PyTorch code, so that
`checkpoint.convert.from_pytorch` needs no table for them.
"""

from functools import partial
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops

from .ghostnet import GhostBottleneck, GhostModule, GhostNet
from .layers import convolution, depthwise_convolution

PLAIN_BOTTLENECKS = 2


def halve(x: Tensor) -> Tensor:
    """Means of 2x2 pixels: (N, C, H, W) -> (N, C, H / 2, W / 2), rounded down, but never below one pixel.

    The original stops where a map is one pixel high or wide; here such an axis is left as it is (rounded up).
    """
    window = (min(2, x.shape[2]), min(2, x.shape[3]))
    # ops.avg_pool2d is twice as fast, but runs a 3-D pooling that cannot be exported to ONNX.
    return ops.AvgPool(window, window, "valid")(x)


@ops.constexpr
def _nearest(short: int, long: int) -> Tensor:
    """The 0/1 matrix (short, long) whose column j picks the element floor(j * short / long) of a row."""
    return Tensor((np.arange(long) * short // long == np.arange(short)[:, None]).astype(np.float32))


@ops.constexpr
def _nearest_twice(short: int, long: int) -> Tensor:
    """The same matrix twice, side by side: what it makes of a row is the resized row and a copy of it."""
    picks = np.arange(long) * short // long == np.arange(short)[:, None]
    return Tensor(np.concatenate((picks, picks), 1).astype(np.float32))


def resize_nearest(x: Tensor, height: int, width: int) -> Tensor:
    """The nearest pixel of (N, C, h, w) for each of (N, C, height, width), by floor(index * h / height).

    A product with 0/1 matrices is exact, and its gradient takes a fifth of the time of `ops.interpolate`'s on CPU,
    which would double the time of a training step.
    """
    channels, rows, columns = x.shape[1:]
    lines = ops.reshape(x, (-1, columns))
    if height == 2 * rows:
        wide = ops.matmul(lines, _nearest_twice(columns, width).astype(x.dtype))
    else:
        wide = ops.reshape(ops.matmul(lines, _nearest(columns, width).astype(x.dtype)), (-1, rows, width))
        wide = ops.matmul(_nearest(rows, height).astype(x.dtype).T, wide)
    return ops.reshape(wide, (-1, channels, height, width))


class DfcGhostModule(GhostModule):
    """A Ghost module whose maps are weighed by decoupled fully connected (DFC) attention.

    Attention, at half the resolution: mean of 2x2 -> 1x1 conv + BN -> depthwise 1x5 + BN (along rows) -> depthwise
    5x1 + BN (along columns) -> sigmoid -> nearest pixel.

    Takes the arguments and shapes of GhostModule.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, **options: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, **options)
        self.short_conv = nn.SequentialCell(
            convolution(in_channels, out_channels, kernel_size, stride),
            nn.BatchNorm2d(out_channels),
            depthwise_convolution(out_channels, (1, 5)),
            nn.BatchNorm2d(out_channels),
            depthwise_convolution(out_channels, (5, 1)),
            nn.BatchNorm2d(out_channels),
        )

    def construct(self, x: Tensor) -> Tensor:
        out = super().construct(x)
        weights = ops.sigmoid(self.short_conv(halve(x)))
        return out * resize_nearest(weights, out.shape[2], out.shape[3])


def expansion_at(index: int) -> type[GhostModule]:
    """The first Ghost module of the bottleneck at `index`: with attention from the third bottleneck on."""
    return GhostModule if index < PLAIN_BOTTLENECKS else DfcGhostModule


class GhostNetV2(GhostNet):
    """GhostNet with DFC attention; arguments and shapes are those of GhostNet."""

    def __init__(
        self, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3, drop_rate: float = 0.2
    ) -> None:
        super().__init__(
            width,
            num_classes,
            in_channels,
            drop_rate,
            bottleneck_at=lambda index: partial(GhostBottleneck, expand=expansion_at(index)),
        )


def ghostnetv2_100(**options: Any) -> GhostNetV2:
    """GhostNetV2 1.0x: 6.16 M parameters, 167 M multiply-accumulates at 224x224."""
    return GhostNetV2(width=1.0, **options)


def ghostnetv2_130(**options: Any) -> GhostNetV2:
    """GhostNetV2 1.3x: 8.96 M parameters, 269 M multiply-accumulates at 224x224."""
    return GhostNetV2(width=1.3, **options)


def ghostnetv2_160(**options: Any) -> GhostNetV2:
    """GhostNetV2 1.6x: 12.39 M parameters, 399 M multiply-accumulates at 224x224."""
    return GhostNetV2(width=1.6, **options)
