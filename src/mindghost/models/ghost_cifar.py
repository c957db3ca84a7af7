"""The CIFAR-10 networks of GhostNet's paper: VGG-16 and ResNet-56, plain and with Ghost modules.

Han et al., CVPR 2020, https://arxiv.org/abs/1911.11907, section 4.1; ratio 2, 3x3 depthwise convolutions.

Every convolution but the first is a Ghost module, as the paper's first author says of these experiments
(https://github.com/TingsongYu/ghostnet_cifar10/issues/1).

Counted here at 32x32, and in the paper (parameters M / multiply-accumulates M):

    VGG-16          14.99 / 313.5     15   / 313
    Ghost-VGG-16     7.65 / 158.7      7.7 / 158
    ResNet-56        0.853 / 125.5     0.85 / 125
    Ghost-ResNet-56  0.438 / 65.3      0.43 / 63

Ghost-ResNet-56's figures in the paper are what is left without the depthwise convolutions (0.429 / 63.0).
"""

from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from .ghostnet import conv_bn_relu
from .layers import convolution
from .network import FeatureInfo, Network
from .parameters import assign


class BasicBlock(nn.Cell):
    """3x3 conv -> 3x3 conv, plus a shortcut without parameters: every second pixel, and zeros for the new channels.

    Args:
        in_channels, out_channels: channels in and out.
        ratio: of the Ghost modules; 1 for plain convolutions.
        stride: 1 or 2, of the first convolution.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up
    """

    def __init__(self, in_channels: int, out_channels: int, ratio: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(in_channels, out_channels, ratio, stride)
        self.conv2 = conv_bn_relu(out_channels, out_channels, ratio, relu=False)
        self.relu = nn.ReLU()
        self.new_channels = out_channels - in_channels
        # A window of one pixel: the same as `x[:, :, ::2, ::2]`, whose gradient is slow.
        self.subsample = nn.MaxPool2d(1, stride) if stride > 1 else None

    def shortcut(self, x: Tensor) -> Tensor:
        """What is added to the convolutions' result, in its shape."""
        if self.subsample is not None:
            x = self.subsample(x)
        if self.new_channels:
            batch, _, height, width = x.shape
            x = ops.concat((x, ops.zeros((batch, self.new_channels, height, width), x.dtype)), 1)
        return x

    def construct(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResidualConv(nn.Cell):
    """The input plus a 3x3 convolution of it: (N, channels, H, W) -> the same shape.

    Args:
        channels: channels in and out.
        ratio: of the Ghost module; 1 for a plain convolution.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(channels, channels, ratio)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


# blocks of each stage; the channels and the first block's stride are those of He et al. (2016), section 4.2
RESNET56_DEPTH = 9
RESNET_STAGES = ((16, 1), (32, 2), (64, 2))


class CifarResNet(Network):
    """3x3 conv -> three stages of basic blocks -> mean -> dropout -> classifier.

    Args:
        depth: blocks of each stage; 9 for ResNet-56.
        ratio: of the Ghost modules; 1 for plain convolutions.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        drop_rate: probability of dropping a feature before the classifier, in training.

    Input (N, in_channels, H, W), any H and W of at least 1 pixel; output logits (N, num_classes). The last feature maps
    are (N, 64, H / 4, W / 4), each size rounded up.
    """

    body = ("conv1", "bn1", "relu", "layer1", "layer2", "layer3")
    classifier_name = "fc"

    def __init__(
        self, depth: int, ratio: int = 1, num_classes: int = 10, in_channels: int = 3, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        width = RESNET_STAGES[0][0]
        self.conv1 = convolution(in_channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        stages, maps, reduction = [], [], 1
        for channels, stride in RESNET_STAGES:
            blocks = []
            for index in range(depth):
                blocks.append(BasicBlock(width, channels, ratio, stride if index == 0 else 1))
                width = channels
            stages.append(nn.SequentialCell(blocks))
            reduction *= stride
            maps.append((f"layer{len(stages)}", width, reduction))
        self.layer1, self.layer2, self.layer3 = stages
        self.feature_info = FeatureInfo.last_of_each_stride(maps)
        self.add_head(width, num_classes, drop_rate)
        self.initialise(self)


# channels of each convolution; a max pool ends each row
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG_HIDDEN = 512


class CifarVgg(Network):
    """3x3 convs with a 2x2 max pool after each of five stages -> mean -> hidden layer -> dropout -> classifier.

    VGG-16's variant for CIFAR-10 with batch norm and one hidden layer of 512 (Zagoruyko, 2015,
    http://torch.ch/blog/2015/07/30/cifar.html); its dropout between convolutions is left out.

    Args:
        ratio: of the Ghost modules; 1 for plain convolutions.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        drop_rate: probability of dropping a feature before the classifier, in training.

    Input (N, in_channels, H, W), H and W of at least 32 pixels; output logits (N, num_classes). The last feature maps
    are (N, 512, H / 32, W / 32), each size rounded down.
    """

    body = ("conv1", "bn1", "relu", "features")
    classifier_name = "fc"

    def __init__(self, ratio: int = 1, num_classes: int = 10, in_channels: int = 3, drop_rate: float = 0.5) -> None:
        super().__init__()
        width = VGG16_STAGES[0][0]
        self.conv1 = convolution(in_channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        cells, maps = [], []
        for row, stage in enumerate(VGG16_STAGES):
            for channels in stage[1:] if row == 0 else stage:
                cells.append(conv_bn_relu(width, channels, ratio))
                width = channels
            maps.append((f"features.{len(cells) - 1}", width, 1 << row))
            cells.append(nn.MaxPool2d(2, 2))
            maps.append((f"features.{len(cells) - 1}", width, 2 << row))
        self.features = nn.SequentialCell(cells)
        self.feature_info = FeatureInfo.last_of_each_stride(maps)
        # As a convolution of 1x1 maps, so that the batch norm is one of images like all others.
        self.hidden = nn.SequentialCell(
            convolution(width, VGG_HIDDEN, 1, bias=True), nn.BatchNorm2d(VGG_HIDDEN), nn.ReLU()
        )
        self.add_head(VGG_HIDDEN, num_classes, drop_rate)
        self.initialise(self)

    def embed(self, x: Tensor) -> Tensor:
        """Mean over pixels -> hidden layer: the last feature maps -> embeddings (N, 512)."""
        x = self.hidden(self.global_pool(x))
        return ops.reshape(x, x.shape[:2])


# Channels of the first convolution, and of the stages after it
AIRBENCH_STEM = 32
AIRBENCH_STAGES = (128, 384, 384)

# Luminance and two differences of colours, of red, green and blue
_COLOURS = ((1, 1, 1), (1, 0, -1), (-1, 2, -1))


def cosine_patterns(in_channels: int) -> NDArray[Any]:
    """Orthonormal 3x3 filters: patterns of the discrete cosine transform, of luminance and two differences of colours.

    The smoothest and those of luminance come first. They are nearly the principal components of patches of natural
    images, so that batch norm, which scales each result to one variance, all but whitens such images.

    Args:
        in_channels: 3 for RGB; for other numbers each channel has patterns of its own.

    Returns float32 (9 * in_channels, in_channels, 3, 3).
    """
    size = 3
    places = np.arange(size)
    waves = np.array([np.cos(np.pi * (2 * places + 1) * frequency / (2 * size)) for frequency in range(size)])
    colours = np.array(_COLOURS, float) if in_channels == 3 else np.eye(in_channels)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    patterns = [
        # A difference of colours counts as a higher frequency.
        (row**2 + column**2 + 2 * (index > 0), np.einsum("c,y,x->cyx", colour, waves[row], waves[column]))
        for row in range(size)
        for column in range(size)
        for index, colour in enumerate(colours)
    ]
    return np.array([pattern for _, pattern in sorted(patterns, key=lambda each: each[0])], np.float32)


class CifarAirbench(Network):
    """3x3 conv -> three stages -> mean -> dropout -> classifier.

    A stage: 3x3 conv -> 2x2 max pool -> 3x3 conv -> residual 3x3 conv, each with batch norm and ReLU.

    After the networks of David Page ("How to train your ResNet", 2018, https://github.com/davidcpage/cifar10-fast),
    which has such shortcuts, and Keller Jordan ("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024,
    https://arxiv.org/abs/2404.00498), whose widths and three convolutions of a stage it has (those for 95 %), and a
    first convolution that whitens. His is computed from the images and stays; this one starts as the first of
    `cosine_patterns`, each with both signs, and learns.

    The last convolution of each stage is a Ghost module, the others are plain ones: with Ghost modules throughout, and
    without shortcuts, a smaller network was 1.3 points worse after three epochs (docs/cifar10.md).

    Args:
        ratio: of the residual Ghost modules; 1 for plain convolutions.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        drop_rate: probability of dropping a feature before the classifier, in training.

    Input (N, in_channels, H, W), H and W of at least 8 pixels; output logits (N, num_classes). The last feature maps
    are (N, 384, H / 8, W / 8), each size rounded down.
    """

    body = ("conv1", "bn1", "relu", "features")
    classifier_name = "fc"

    def __init__(self, ratio: int = 1, num_classes: int = 10, in_channels: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__()
        width = AIRBENCH_STEM
        self.conv1 = convolution(in_channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        cells, maps = [], []
        for row, channels in enumerate(AIRBENCH_STAGES):
            cells += [conv_bn_relu(width, channels, ratio=1), nn.MaxPool2d(2, 2)]
            maps.append((f"features.{len(cells) - 2}", channels, 1 << row))
            cells += [conv_bn_relu(channels, channels, ratio=1), ResidualConv(channels, ratio)]
            maps.append((f"features.{len(cells) - 1}", channels, 2 << row))
            width = channels
        self.features = nn.SequentialCell(cells)
        self.feature_info = FeatureInfo.last_of_each_stride(maps)
        self.add_head(width, num_classes, drop_rate)
        self.initialise(self)

    def initialise(self, cell: nn.Cell) -> None:
        """As the others start, but for the first filters: patterns."""
        super().initialise(cell)
        if cell is self:
            self._start_from_patterns()

    def _start_from_patterns(self) -> None:
        """Have the first filters be patterns and their negatives, as far as there are enough; others stay random."""
        weight = self.conv1.weight.asnumpy().copy()
        patterns = np.stack([pattern * sign for pattern in cosine_patterns(weight.shape[1]) for sign in (1, -1)])
        count = min(len(weight), len(patterns))
        weight[:count] = patterns[:count]
        assign(self.conv1.weight, weight)


def vgg16_cifar(**options: Any) -> CifarVgg:
    """VGG-16 for CIFAR-10: 14.99 M parameters, 313 M multiply-accumulates at 32x32."""
    return CifarVgg(**options)


def ghost_vgg16(**options: Any) -> CifarVgg:
    """Ghost-VGG-16: 7.65 M parameters, 159 M multiply-accumulates at 32x32 (paper: 7.7, 158)."""
    return CifarVgg(ratio=2, **options)


def resnet56_cifar(**options: Any) -> CifarResNet:
    """ResNet-56 for CIFAR-10: 0.85 M parameters, 125 M multiply-accumulates at 32x32."""
    return CifarResNet(RESNET56_DEPTH, **options)


def ghost_resnet56(**options: Any) -> CifarResNet:
    """Ghost-ResNet-56: 0.44 M parameters, 65 M multiply-accumulates at 32x32 (paper: 0.43, 63)."""
    return CifarResNet(RESNET56_DEPTH, ratio=2, **options)


def ghost_airbench(**options: Any) -> CifarAirbench:
    """Ghost-airbench: 6.02 M parameters, 453 M multiply-accumulates at 32x32."""
    return CifarAirbench(ratio=2, **options)
