"""Ghost-ResNet-50: ResNet-50 with Ghost modules for convolutions.

Han et al., CVPR 2020, https://arxiv.org/abs/1911.11907, section 4.2.

Every convolution but the first is a Ghost module, those of the shortcuts too. Unlike in the code that the authors
released later, which makes the batch norms and does not call them, each half of a module has its batch norm.

The paper's multiply-accumulates (2.2 G and 1.2 G) are those counted here, its parameters (13.0 M and 6.5 M) are about
1.0 M and 1.6 M below: as many as the classifier's 2.05 M would save if they too were divided by the ratio. Others who
built the network from the authors' code count what we count (huawei-noah/Efficient-AI-Backbones, issue 146).
"""

from typing import Any

from mindspore import Tensor, nn

from .ghostnet import GhostModule
from .layers import convolution
from .network import FeatureInfo, Network

EXPANSION = 4


class Bottleneck(nn.Cell):
    """1x1 Ghost module -> 3x3 Ghost module -> 1x1 Ghost module (four times the channels), plus shortcut.

    Args:
        in_channels: channels in.
        channels: channels of the first two modules; the last one has `4 * channels`.
        ratio: of the Ghost modules.
        stride: 1 or 2, of the 3x3 module.

    (N, in_channels, H, W) -> (N, 4 * channels, H / stride, W / stride), rounded up
    """

    def __init__(self, in_channels: int, channels: int, ratio: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.conv1 = GhostModule(in_channels, channels, 1, ratio)
        self.conv2 = GhostModule(channels, channels, 3, ratio, stride=stride)
        self.conv3 = GhostModule(channels, out_channels, 1, ratio, relu=False)
        self.relu = nn.ReLU()
        if in_channels == out_channels and stride == 1:
            self.downsample = None
        else:
            self.downsample = GhostModule(in_channels, out_channels, 1, ratio, stride=stride, relu=False)

    def construct(self, x: Tensor) -> Tensor:
        out = self.conv3(self.conv2(self.conv1(x)))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.relu(out + x)


# blocks, channels inside of a block, stride of the first block
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
STEM_CHANNELS = 64


class GhostResNet(Network):
    """7x7 conv -> max pool -> four stages of Ghost bottlenecks -> mean -> dropout -> classifier.

    Args:
        ratio: one map in `ratio` comes from an ordinary convolution.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        drop_rate: probability of dropping a feature before the classifier, in training.

    Input (N, in_channels, H, W), any H and W of at least 1 pixel; output logits (N, num_classes). The last feature maps
    are (N, 2048, H / 32, W / 32), each size rounded up.
    """

    body = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    classifier_name = "fc"

    def __init__(self, ratio: int, num_classes: int = 1000, in_channels: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, STEM_CHANNELS, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)
        stages, width, reduction = [], STEM_CHANNELS, 4
        maps = [("relu", STEM_CHANNELS, 2)]
        for depth, channels, stride in STAGES:
            blocks = []
            for index in range(depth):
                blocks.append(Bottleneck(width, channels, ratio, stride if index == 0 else 1))
                width = EXPANSION * channels
            stages.append(nn.SequentialCell(blocks))
            reduction *= stride
            maps.append((f"layer{len(stages)}", width, reduction))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.feature_info = FeatureInfo.last_of_each_stride(maps)
        self.add_head(width, num_classes, drop_rate)
        self.initialise(self)


def ghost_resnet50_s2(**options: Any) -> GhostResNet:
    """Ghost-ResNet-50, ratio 2: 13.95 M parameters (paper: 13.0), 2.15 G multiply-accumulates (2.2) at 224x224."""
    return GhostResNet(2, **options)


def ghost_resnet50_s4(**options: Any) -> GhostResNet:
    """Ghost-ResNet-50, ratio 4: 8.15 M parameters (paper: 6.5), 1.18 G multiply-accumulates (1.2) at 224x224."""
    return GhostResNet(4, **options)
