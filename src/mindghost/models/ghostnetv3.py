"""GhostNetV3: Exploring the Training Strategies for Compact Models (Liu et al., 2024).

https://arxiv.org/abs/2404.11202. GhostNetV2 whose Ghost modules and strided depthwise convolutions are trained as
sums of branches. `reparam.fuse` makes of them the single convolutions of the form that `deploy=True` builds.
"""

from functools import partial
from typing import Any

from mindspore import Tensor, nn

from .ghostnet import GhostBottleneck, GhostNet
from .ghostnetv2 import expansion_at
from .layers import convolution

BRANCHES = 3


class ConvBn(nn.Cell):
    """Convolution -> batch norm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, group: int) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel_size, stride, group)
        self.bn = nn.BatchNorm2d(out_channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class BranchedConvolution(nn.Cell):
    """A convolution with bias as it is trained: the sum of branches that each end with a batch norm.

    Three convolutions; one of 1x1, where the kernel is larger; the input itself, where the shapes allow it. The
    names begin with `rpr_` ("re-parameterised"), by which `reparam.fuse` knows them.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, group: int = 1) -> None:
        super().__init__()
        branch = partial(ConvBn, in_channels, out_channels, stride=stride, group=group)
        self.rpr_conv = nn.CellList([branch(kernel_size) for _ in range(BRANCHES)])
        self.rpr_scale = branch(1) if kernel_size > 1 else None
        self.rpr_skip = nn.BatchNorm2d(in_channels) if in_channels == out_channels and stride == 1 else None

    def construct(self, x: Tensor) -> Tensor:
        out = self.rpr_conv[0](x)
        # By index: a slice of a CellList is a new one, which gives the branches' parameters other names.
        for index in range(1, BRANCHES):
            out = out + self.rpr_conv[index](x)
        if self.rpr_scale is not None:
            out = out + self.rpr_scale(x)
        if self.rpr_skip is not None:
            out = out + self.rpr_skip(x)
        return out


def branched(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, group: int = 1
) -> tuple[nn.Cell, nn.Cell]:
    """What takes the place of a convolution and its batch norm in training."""
    return BranchedConvolution(in_channels, out_channels, kernel_size, stride, group), nn.Identity()


def fused(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, group: int = 1
) -> tuple[nn.Cell, nn.Cell]:
    """What the branches become when they are fused."""
    return convolution(in_channels, out_channels, kernel_size, stride, group, bias=True), nn.Identity()


class GhostNetV3(GhostNet):
    """GhostNetV2 with branches.

    Args:
        width, num_classes, in_channels: as for GhostNet.
        drop_rate: as for GhostNet; none by default, since the official code leaves its dropout out.
        deploy: the fused form: the weights are those that `reparam.fuse` makes of the training form's.
    """

    def __init__(
        self,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        deploy: bool = False,
    ) -> None:
        conv_bn = fused if deploy else branched
        super().__init__(
            width,
            num_classes,
            in_channels,
            drop_rate,
            bottleneck_at=lambda index: partial(GhostBottleneck, expand=expansion_at(index), conv_bn=conv_bn),
        )


def ghostnetv3_050(**options: Any) -> GhostNetV3:
    """GhostNetV3 0.5x: 3.40 M parameters and 118 M multiply-accumulates at 224x224 in training.

    Fused: 2.85 M and 49.6 M (the paper says 48).
    """
    return GhostNetV3(width=0.5, **options)


def ghostnetv3_100(**options: Any) -> GhostNetV3:
    """GhostNetV3 1.0x: 8.13 M parameters and 404 M multiply-accumulates at 224x224 in training.

    Fused: 6.15 M and 167 M (the paper says 170).
    """
    return GhostNetV3(width=1.0, **options)


def ghostnetv3_130(**options: Any) -> GhostNetV3:
    """GhostNetV3 1.3x: 12.22 M parameters and 655 M multiply-accumulates at 224x224 in training.

    Fused: 8.95 M and 269 M.
    """
    return GhostNetV3(width=1.3, **options)


def ghostnetv3_160(**options: Any) -> GhostNetV3:
    """GhostNetV3 1.6x: 17.28 M parameters and 972 M multiply-accumulates at 224x224 in training.

    Fused: 12.38 M and 399 M (the paper says 400).
    """
    return GhostNetV3(width=1.6, **options)
