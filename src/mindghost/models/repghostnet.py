"""RepGhostNet: RepGhost, a Hardware-Efficient Ghost Module via Re-parameterization (Chen et al., 2022).

https://arxiv.org/abs/2211.06088. GhostNet whose Ghost modules add what they made of their maps to these maps, where
GhostNet's join both, and are trained as two branches. `reparam.fuse` makes of them the single convolution of the form
that `deploy=True` builds. Parameter names follow timm and the official PyTorch code.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from mindspore import Tensor, nn

from .ghostnet import GhostBottleneck, GhostNet, Table, conv_bn
from .layers import depthwise_convolution, pytorch_init


class RepGhostModule(nn.Cell):
    """1x1 convolution + BN [+ ReLU] -> depthwise (cheap) convolution + BN, plus BN of its input [-> ReLU].

    Fused, the two branches are one depthwise convolution with bias.

    Args:
        in_channels, out_channels: channels before and after; all of the latter are made by both convolutions.
        kernel_size: of the first convolution.
        dw_size: kernel size of the depthwise convolution.
        relu: end the first convolution and the sum with ReLU.
        deploy: the fused form.
        conv_bn: makes the first convolution and its batch norm.

    (N, in_channels, H, W) -> (N, out_channels, H, W)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        dw_size: int = 3,
        relu: bool = True,
        deploy: bool = False,
        conv_bn: Callable[..., tuple[nn.Cell, nn.Cell]] = conv_bn,
    ) -> None:
        super().__init__()
        first = conv_bn(in_channels, out_channels, kernel_size)
        self.primary_conv = nn.SequentialCell(*first, nn.ReLU()) if relu else nn.SequentialCell(*first)
        if deploy:
            self.fusion_bn = None
            self.cheap_operation = depthwise_convolution(out_channels, dw_size, bias=True)
        else:
            # timm's place in a list of branches, of which the published networks have this one.
            self.fusion_bn = nn.SequentialCell([nn.BatchNorm2d(out_channels)])
            self.cheap_operation = nn.SequentialCell(
                depthwise_convolution(out_channels, dw_size), nn.BatchNorm2d(out_channels)
            )
        self.relu = nn.ReLU() if relu else nn.Identity()
        # None of our operators ends this module as they end a Ghost module (`GhostMaps.tail`).
        self.tail: Any = None

    def construct(self, x: Tensor) -> Tensor:
        maps = self.primary_conv(x)
        out = self.cheap_operation(maps)
        if self.fusion_bn is not None:
            out = out + self.fusion_bn(maps)
        return self.relu(out)


# The columns are those of `ghostnet.STAGES`. Nothing is joined, so that half of GhostNet's channels do.
STAGES: Table = (
    ((3, 8, 16, 0, 1),),
    ((3, 24, 24, 0, 2),),
    ((3, 36, 24, 0, 1),),
    ((5, 36, 40, 0.25, 2),),
    ((5, 60, 40, 0.25, 1),),
    ((3, 120, 80, 0, 2),),
    (
        (3, 100, 80, 0, 1),
        (3, 120, 80, 0, 1),
        (3, 120, 80, 0, 1),
        (3, 240, 112, 0.25, 1),
        (3, 336, 112, 0.25, 1),
    ),
    ((5, 336, 160, 0.25, 2),),
    (
        (5, 480, 160, 0, 1),
        (5, 480, 160, 0.25, 1),
        (5, 480, 160, 0, 1),
        (5, 480, 160, 0.25, 1),
    ),
)


class RepGhostNet(GhostNet):
    """GhostNet of RepGhost modules.

    Args:
        width, num_classes, in_channels, drop_rate: as for GhostNet.
        deploy: the fused form: the weights are those that `reparam.fuse` makes of the training form's.
    """

    def __init__(
        self,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_rate: float = 0.2,
        deploy: bool = False,
    ) -> None:
        module = partial(RepGhostModule, deploy=deploy)
        super().__init__(
            width,
            num_classes,
            in_channels,
            drop_rate,
            bottleneck_at=lambda _: partial(GhostBottleneck, expand=module, project=module),
            stages=STAGES,
            widest=2,
        )

    def initialise_as_mindcv(self, cell: nn.Cell) -> None:
        """As PyTorch's layers start: MindCV has no such network, and timm and the authors draw nothing anew."""
        pytorch_init(cell)


def repghostnet_050(**options: Any) -> RepGhostNet:
    """RepGhostNet 0.5x: 2.31 M parameters (2.31 M fused), 43 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=0.5, **options)


def repghostnet_058(**options: Any) -> RepGhostNet:
    """RepGhostNet 0.58x: 2.55 M parameters (2.54 M fused), 60 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=0.58, **options)


def repghostnet_080(**options: Any) -> RepGhostNet:
    """RepGhostNet 0.8x: 3.28 M parameters (3.27 M fused), 96 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=0.8, **options)


def repghostnet_100(**options: Any) -> RepGhostNet:
    """RepGhostNet 1.0x: 4.07 M parameters (4.06 M fused), 142 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=1.0, **options)


def repghostnet_111(**options: Any) -> RepGhostNet:
    """RepGhostNet 1.11x: 4.54 M parameters (4.52 M fused), 170 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=1.11, **options)


def repghostnet_130(**options: Any) -> RepGhostNet:
    """RepGhostNet 1.3x: 5.48 M parameters (5.46 M fused), 231 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=1.3, **options)


def repghostnet_150(**options: Any) -> RepGhostNet:
    """RepGhostNet 1.5x: 6.58 M parameters (6.55 M fused), 301 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=1.5, **options)


def repghostnet_200(**options: Any) -> RepGhostNet:
    """RepGhostNet 2.0x: 9.80 M parameters (9.77 M fused), 516 M multiply-accumulates at 224x224."""
    return RepGhostNet(width=2.0, **options)
