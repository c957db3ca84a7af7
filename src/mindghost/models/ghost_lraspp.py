"""LR-ASPP on a backbone of the family.

Lite Reduced Atrous Spatial Pyramid Pooling is the segmentation head of Searching for MobileNetV3 (Howard et al., ICCV
2019, https://arxiv.org/abs/1905.02244, section 6.4). As in torchvision, the gates come from the mean of the whole map.

Two things differ from both. The backbone is not dilated, so the last maps have stride 32 instead of 16 and a quarter
of the pixels. And the 1x1 convolution of these maps is a Ghost module, whose depthwise half sees 3x3 pixels.
"""

from functools import partial

from mindspore import Tensor, nn

from .ghostnet import conv_bn_relu
from .layers import Dropout, MapMeans, convolution, make_divisible
from .network import Network
from .segmentation import SegmentationNetwork
from .upsample import Enlarge, Size

STRIDES = (8, 32)
CHANNELS = 128


class GatedMaps(nn.Cell):
    """1x1 convolution or Ghost module, scaled by gates: mean of each map -> 1x1 convolution -> sigmoid.

    Args:
        in_channels, out_channels: channels of the maps before and after.
        ratio: of the Ghost module; 1 for a plain convolution.

    (N, in_channels, H, W) -> (N, out_channels, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int, ratio: int) -> None:
        super().__init__()
        self.features = conv_bn_relu(in_channels, out_channels, ratio, kernel_size=1)
        self.gates = nn.SequentialCell(MapMeans(), convolution(in_channels, out_channels, 1), nn.Sigmoid())

    def construct(self, x: Tensor) -> Tensor:
        return self.features(x) * self.gates(x)


class TwoScaleClassifier(nn.Cell):
    """The sum of logits of maps of stride 8 and of maps of stride 32, each by a 1x1 convolution.

    The logits are enlarged, not the maps that they are made of: the sum is the same, with fewer channels to enlarge.

    Args:
        low_channels, high_channels: of the maps of stride 8 and 32.
        num_classes: outputs for each pixel.

    (N, low_channels, H, W), (N, high_channels, ceil(H / 4), ceil(W / 4)) -> (N, num_classes, H, W)
    """

    def __init__(self, low_channels: int, high_channels: int, num_classes: int) -> None:
        super().__init__()
        self.low = convolution(low_channels, num_classes, 1, bias=True)
        self.high = convolution(high_channels, num_classes, 1, bias=True)
        self.enlarge = Enlarge(4)

    def construct(self, low: Tensor, high: Tensor) -> Tensor:
        return self.low(low) + self.enlarge(self.high(high), (low.shape[2], low.shape[3]))


class GhostLraspp(SegmentationNetwork):
    """Backbone -> gated maps of stride 32 -> dropout -> logits, with those of the maps of stride 8 -> 8 times as large.

    Args:
        backbone: a classifier with maps of STRIDES.
        num_classes: outputs for each pixel.
        width: factor on the 128 channels of the gated maps.
        drop_rate: probability of dropping an element of the gated maps, in training.
        ratio: of the decoder's Ghost module; 1 for a plain convolution, as in the paper.

    Input (N, in_channels, H, W), output logits (N, num_classes, H, W).
    """

    def __init__(
        self,
        backbone: Network,
        num_classes: int,
        width: float = 1.0,
        drop_rate: float = 0.0,
        ratio: int = 2,
    ) -> None:
        super().__init__(backbone, STRIDES)
        self.low_channels, channels = self.backbone.out_channels
        self.high_channels = make_divisible(CHANNELS * width, 4)
        self.decoder = GatedMaps(channels, self.high_channels, ratio)
        self.dropout = Dropout(drop_rate)
        self.enlarge = Enlarge(8)
        self.finish(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Cell:
        return TwoScaleClassifier(self.low_channels, self.high_channels, num_classes)

    def construct(self, x: Tensor) -> Tensor:
        size: Size = (x.shape[2], x.shape[3])
        low, high = self.backbone(x)
        high = self.dropout(self.decoder(high))
        return self.enlarge(self.classifier(low, high), size)


ghost_lraspp = partial(GhostLraspp, ratio=2)
plain_lraspp = partial(GhostLraspp, ratio=1)
