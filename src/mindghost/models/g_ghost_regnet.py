"""G-Ghost-RegNet: RegNet whose stages make part of their channels cheaply.

Han et al., "GhostNets on Heterogeneous Devices via Cheap Operations", IJCV 2022, https://arxiv.org/abs/2201.03297.

The redundancy is sought in a stage, not in a layer: only part of its channels pass through all of its blocks, the
others come from the first block's output by one 1x1 convolution. No depthwise convolutions, which GPUs run slowly.

Names of cells are those of the official PyTorch code, whose state dicts `checkpoint.convert.from_pytorch` takes.
"""

from typing import Any

from mindspore import Tensor, nn, ops

from .layers import MapMeans, convolution
from .network import FeatureInfo, Network


class Bottleneck(nn.Cell):
    """1x1 conv -> grouped 3x3 conv -> 1x1 conv, each with batch norm, plus shortcut: the X block of RegNet.

    Args:
        in_channels, out_channels: channels in and out; those between are `out_channels`.
        group_width: channels of a group of the 3x3 convolution; one group where there are fewer channels.
        stride: 1 or 2, of the 3x3 convolution.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up
    """

    def __init__(self, in_channels: int, out_channels: int, group_width: int, stride: int = 1) -> None:
        super().__init__()
        groups = out_channels // min(out_channels, group_width)
        self.conv1 = convolution(in_channels, out_channels, 1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 3, stride, group=groups)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv3 = convolution(out_channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        if in_channels == out_channels and stride == 1:
            self.downsample = None
        else:
            self.downsample = nn.SequentialCell(
                convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
            )

    def construct(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(out + x)


class ChannelMeans(nn.Cell):
    """Feature maps (N, C_i, H, W) -> the mean of every channel of all of them, (N, sum of C_i, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.means = MapMeans()

    def construct(self, maps: tuple[Tensor, ...]) -> Tensor:
        # The original joins the maps first: the same numbers from much more memory.
        return ops.concat([self.means(x) for x in maps], 1)


class GhostStage(nn.Cell):
    """First block (all channels) -> blocks of few channels beside a cheap 1x1 conv -> last block (all channels).

    The cheap maps are shifted by what the means of all blocks' outputs say (`merge`), since they skipped the blocks.

    Args:
        in_channels, out_channels: channels of the stage.
        depth: blocks, at least 3.
        group_width: as in Bottleneck, for the first and the last block; three quarters of it for those between.

    (N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2), rounded up
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, group_width: int) -> None:
        super().__init__()
        self.base = Bottleneck(in_channels, out_channels, group_width, stride=2)
        self.end = Bottleneck(out_channels, out_channels, group_width)
        narrow_group = group_width * 3 // 4
        # Half of the channels, rounded down to whole groups.
        intrinsic = out_channels // 2 // narrow_group * narrow_group
        ghosts = out_channels - intrinsic
        self.parts = [intrinsic, ghosts]
        self.layers = nn.CellList([Bottleneck(intrinsic, intrinsic, narrow_group) for _ in range(depth - 2)])
        self.merge = nn.SequentialCell(
            ChannelMeans(),
            convolution(out_channels + intrinsic * (depth - 2), ghosts, 1),
            nn.BatchNorm2d(ghosts),
            nn.ReLU(),
            convolution(ghosts, ghosts, 1),
            nn.BatchNorm2d(ghosts),
        )
        self.cheap = nn.SequentialCell(convolution(ghosts, ghosts, 1), nn.BatchNorm2d(ghosts))
        self.relu = nn.ReLU()

    def construct(self, x: Tensor) -> Tensor:
        x = self.base(x)
        maps = (x,)
        intrinsic, ghosts = ops.split(x, self.parts, 1)
        for layer in self.layers:
            intrinsic = layer(intrinsic)
            maps = (*maps, intrinsic)
        ghosts = self.relu(self.cheap(ghosts) + self.merge(maps))
        return self.end(ops.concat((intrinsic, ghosts), 1))


def plain_stage(in_channels: int, out_channels: int, depth: int, group_width: int) -> nn.SequentialCell:
    """A stage of RegNet: `depth` blocks, the first with stride 2. Arguments and shapes as for GhostStage."""
    first = Bottleneck(in_channels, out_channels, group_width, stride=2)
    return nn.SequentialCell([first, *(Bottleneck(out_channels, out_channels, group_width) for _ in range(depth - 1))])


STEM_CHANNELS = 32


class GGhostRegNet(Network):
    """Stem -> four stages, those of more than two blocks as Ghost stages -> mean -> dropout -> classifier.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
        group_width: channels of a group of the 3x3 convolutions.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        drop_rate: probability of dropping a feature before the classifier, in training.

    Input (N, in_channels, H, W), any H and W of at least 1 pixel; output logits (N, num_classes). The last feature maps
    are (N, last width, H / 32, W / 32), each size rounded up.
    """

    body = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3", "layer4")
    classifier_name = "fc"

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        group_width: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_rate: float = 0.2,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, STEM_CHANNELS, 3, stride=2)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU()
        stages, channels = [], STEM_CHANNELS
        for depth, width in zip(depths, widths, strict=True):
            make_stage = GhostStage if depth > 2 else plain_stage
            stages.append(make_stage(channels, width, depth, group_width))
            channels = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        maps = [(f"layer{index}", width, 2 << index) for index, width in enumerate(widths, 1)]
        self.feature_info = FeatureInfo.last_of_each_stride([("relu", STEM_CHANNELS, 2), *maps])
        self.add_head(channels, num_classes, drop_rate)
        self.initialise(self)


def g_ghost_regnetx_032(**options: Any) -> GGhostRegNet:
    """G-Ghost-RegNetX-3.2G: 10.5 M parameters, 1.80 G multiply-accumulates at 224x224, as published."""
    return GGhostRegNet((2, 6, 15, 2), (96, 192, 432, 1008), 48, **options)


def g_ghost_regnetx_040(**options: Any) -> GGhostRegNet:
    """G-Ghost-RegNetX-4.0G: 15.7 M parameters, 2.23 G multiply-accumulates at 224x224, as published."""
    return GGhostRegNet((2, 5, 14, 2), (80, 240, 560, 1360), 40, **options)


def g_ghost_regnetx_080(**options: Any) -> GGhostRegNet:
    """G-Ghost-RegNetX-8.0G: 24.6 M parameters, 4.15 G multiply-accumulates at 224x224 (published as 4.2 G)."""
    return GGhostRegNet((2, 5, 15, 1), (80, 240, 720, 1920), 120, **options)


def g_ghost_regnetx_160(**options: Any) -> GGhostRegNet:
    """G-Ghost-RegNetX-16G: 32.4 M parameters, 9.00 G multiply-accumulates at 224x224, as published."""
    return GGhostRegNet((2, 6, 13, 1), (256, 512, 896, 2048), 128, **options)
