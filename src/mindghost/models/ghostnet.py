"""GhostNet: More Features from Cheap Operations (Han et al., CVPR 2020, https://arxiv.org/abs/1911.11907).

Parameter names are those of MindCV's GhostNet, so its `.ckpt` files load without a map, and ours load in MindCV.
"""

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

from mindspore import Tensor, nn, ops

from .layers import (
    ConvBnAct,
    GhostMaps,
    SqueezeExcite,
    convolution,
    depthwise_convolution,
    he_uniform_init,
    make_divisible,
)
from .network import FeatureInfo, Network


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, group: int = 1, **others: Any
) -> tuple[nn.Cell, nn.Cell]:
    """A convolution and the batch norm that follows it; what GhostNetV3 replaces by branches."""
    convolved = convolution(in_channels, out_channels, kernel_size, stride, group, **others)
    return convolved, nn.BatchNorm2d(out_channels)


class GhostModule(GhostMaps):
    """A drop-in for a convolution: few intrinsic maps by convolution, the rest by depthwise convolutions of them.

    Args:
        in_channels, out_channels: channels of the convolution that it stands for.
        kernel_size, stride: of the primary convolution.
        ratio: one map in `ratio` is intrinsic.
        dw_size: kernel size of the depthwise (cheap) convolution.
        relu: end both parts with ReLU.
        conv_bn: makes the convolution and batch norm of each part.
        others: what else the primary convolution takes (`group`, `dilation`, `pad_mode` with `padding`), so that the
            module can stand for any `nn.Conv2d`; without `pad_mode` it is padded by `kernel_size // 2`.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        ratio: int = 2,
        dw_size: int = 3,
        stride: int = 1,
        relu: bool = True,
        conv_bn: Callable[..., tuple[nn.Cell, nn.Cell]] = conv_bn,
        **others: Any,
    ) -> None:

        def part(*arguments: int, **options: object) -> nn.Cell:
            cells = conv_bn(*arguments, **options)
            return nn.SequentialCell(*cells, nn.ReLU()) if relu else nn.SequentialCell(*cells)

        super().__init__(
            out_channels,
            ratio,
            primary=lambda intrinsic: part(in_channels, intrinsic, kernel_size, stride, **others),
            cheap=lambda intrinsic, ghosts: part(intrinsic, ghosts, dw_size, group=intrinsic),
        )


def conv_bn_relu(
    in_channels: int, out_channels: int, ratio: int, stride: int = 1, relu: bool = True, kernel_size: int = 3
) -> nn.Cell:
    """Convolution -> batch norm [-> ReLU] for ratio 1, the Ghost module in its place for others.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up
    """
    if ratio > 1:
        return GhostModule(in_channels, out_channels, kernel_size, ratio, stride=stride, relu=relu)
    cells = [*conv_bn(in_channels, out_channels, kernel_size, stride)]
    return nn.SequentialCell([*cells, nn.ReLU()] if relu else cells)


class GhostBottleneck(nn.Cell):
    """Ghost module (expand, ReLU) -> [depthwise stride 2 + BN] -> [SE] -> Ghost module (project), plus shortcut.

    Args:
        in_channels, expanded, out_channels: channels before, between and after the two Ghost modules.
        kernel_size: of the strided depthwise convolutions.
        stride: 1 or 2.
        se_ratio: squeeze-and-excitation reduction; 0 for none.
        expand, project: make the two Ghost modules, called as `GhostModule` is.
        conv_bn: makes the convolutions with batch norm of all parts but the shortcut.
    """

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        se_ratio: float,
        expand: Callable[..., nn.Cell] = GhostModule,
        project: Callable[..., nn.Cell] = GhostModule,
        conv_bn: Callable[..., tuple[nn.Cell, nn.Cell]] = conv_bn,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.ghost1 = expand(in_channels, expanded, relu=True, conv_bn=conv_bn)
        if stride > 1:
            self.conv_dw, self.bn_dw = conv_bn(expanded, expanded, kernel_size, stride, group=expanded)
        self.se = SqueezeExcite(expanded, se_ratio) if se_ratio > 0 else None
        self.ghost2 = project(expanded, out_channels, relu=False, conv_bn=conv_bn)
        if in_channels == out_channels and stride == 1:
            self.shortcut = None
        else:
            self.shortcut = nn.SequentialCell(
                depthwise_convolution(in_channels, kernel_size, stride),
                nn.BatchNorm2d(in_channels),
                convolution(in_channels, out_channels, 1),
                nn.BatchNorm2d(out_channels),
            )

    def construct(self, x: Tensor) -> Tensor:
        out = self.ghost1(x)
        if self.stride > 1:
            out = self.bn_dw(self.conv_dw(out))
        if self.se is not None:
            out = self.se(out)
        if self.shortcut is not None:
            x = self.shortcut(x)
        if self.ghost2.tail is not None:
            return self.ghost2.fused(out, x)
        return self.ghost2(out) + x


# One row a bottleneck, one list a stage (the index in `blocks`).
# kernel size, expanded channels, output channels, squeeze-and-excitation reduction, stride
Table: TypeAlias = tuple[tuple[tuple[int, int, int, float, int], ...], ...]

# Table 1 of the paper.
STAGES: Table = (
    ((3, 16, 16, 0, 1),),
    ((3, 48, 24, 0, 2),),
    ((3, 72, 24, 0, 1),),
    ((5, 72, 40, 0.25, 2),),
    ((5, 120, 40, 0.25, 1),),
    ((3, 240, 80, 0, 2),),
    (
        (3, 200, 80, 0, 1),
        (3, 184, 80, 0, 1),
        (3, 184, 80, 0, 1),
        (3, 480, 112, 0.25, 1),
        (3, 672, 112, 0.25, 1),
    ),
    ((5, 672, 160, 0.25, 2),),
    (
        (5, 960, 160, 0, 1),
        (5, 960, 160, 0.25, 1),
        (5, 960, 160, 0, 1),
        (5, 960, 160, 0.25, 1),
    ),
)
HEAD_FEATURES = 1280


class GhostNet(Network):
    """Stem -> 16 Ghost bottlenecks -> 1x1 conv -> mean -> 1x1 conv -> dropout -> classifier.

    Args:
        width: factor on all channels but the last 1280.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        drop_rate: probability of dropping a feature before the classifier, in training.
        bottleneck_at: index of a bottleneck, from 0 to 15 -> what makes it, called as GhostBottleneck is.
        stages: a table like STAGES, which is taken without.
        widest: channels of the 1x1 convolution after the bottlenecks, for each one that the last of them expands to.

    Input (N, in_channels, H, W), any H and W of at least 1 pixel; output logits (N, num_classes). The last feature maps
    are (N, 960 * width, H / 32, W / 32), each size rounded up.

    `feature_info` ends with the last bottleneck: the 1x1 convolution after it is the classifier's.
    """

    body = ("conv_stem", "bn1", "act1", "blocks")

    def __init__(
        self,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_rate: float = 0.2,
        bottleneck_at: Callable[[int], Callable[..., nn.Cell]] = lambda _: GhostBottleneck,
        stages: Table | None = None,
        widest: int = 1,
    ) -> None:
        super().__init__()
        channels = make_divisible(16 * width, 4)
        self.conv_stem = convolution(in_channels, channels, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU()

        parts: list[nn.Cell] = []
        maps, reduction = [], 2
        indices = itertools.count()
        for rows in STAGES if stages is None else stages:
            blocks = []
            for kernel_size, expanded, out, se_ratio, stride in rows:
                out = make_divisible(out * width, 4)
                bottleneck = bottleneck_at(next(indices))
                hidden = make_divisible(expanded * width, 4)
                blocks.append(bottleneck(channels, hidden, out, kernel_size, stride, se_ratio))
                channels, reduction = out, reduction * stride
            maps.append((f"blocks.{len(parts)}", channels, reduction))
            parts.append(nn.SequentialCell(blocks))
        last = make_divisible(expanded * width * widest, 4)
        parts.append(ConvBnAct(channels, last, 1))
        self.blocks = nn.SequentialCell(parts)
        self.feature_info = FeatureInfo.last_of_each_stride(maps)

        self.conv_head = convolution(last, HEAD_FEATURES, 1, bias=True)
        self.act2 = nn.ReLU()
        self.add_head(HEAD_FEATURES, num_classes, drop_rate)
        self.initialise(self)

    def initialise_as_mindcv(self, cell: nn.Cell) -> None:
        """As MindCV starts its GhostNet."""
        he_uniform_init(cell)

    def embed(self, x: Tensor) -> Tensor:
        """Mean over pixels -> 1x1 conv -> ReLU: the last feature maps -> embeddings (N, 1280)."""
        x = self.act2(self.conv_head(self.global_pool(x)))
        return ops.reshape(x, x.shape[:2])


def ghostnet_050(**options: Any) -> GhostNet:
    """GhostNet 0.5x: 2.59 M parameters, 42 M multiply-accumulates at 224x224."""
    return GhostNet(width=0.5, **options)


def ghostnet_100(**options: Any) -> GhostNet:
    """GhostNet 1.0x: 5.18 M parameters, 141 M multiply-accumulates at 224x224."""
    return GhostNet(width=1.0, **options)


def ghostnet_130(**options: Any) -> GhostNet:
    """GhostNet 1.3x: 7.36 M parameters, 226 M multiply-accumulates at 224x224."""
    return GhostNet(width=1.3, **options)
