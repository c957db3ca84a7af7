"""A U-Net on a backbone of the family, with Ghost modules in the place of the decoder's convolutions.

U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., MICCAI 2015,
https://arxiv.org/abs/1505.04597). Its encoder is a classifier's, its two 3x3 convolutions of each size are Ghost
modules (Han et al., CVPR 2020, https://arxiv.org/abs/1911.11907).
"""

from functools import partial
from typing import Literal

from mindspore import Tensor, nn, ops

from .ghostnet import conv_bn_relu
from .layers import Dropout, convolution, make_divisible
from .network import Network
from .segmentation import SegmentationNetwork
from .upsample import Enlarge, Size, TransposedEnlarge

STRIDES = (2, 4, 8, 16, 32)
# Of the decoder's maps, from stride 16 to stride 2.
CHANNELS = (64, 40, 24, 16)


class Level(nn.Cell):
    """Coarser maps, enlarged, beside the backbone's maps of that size -> two 3x3 convolutions or Ghost modules.

    Args:
        in_channels: of the coarser maps.
        skip_channels: of the backbone's maps.
        out_channels: of the result.
        ratio: of the Ghost modules; 1 for plain convolutions.
        upsampling: "bilinear", or "transposed" for a learnt one, which also reduces the channels to `out_channels`.

    (N, in_channels, ceil(H / 2), ceil(W / 2)), (N, skip_channels, H, W) -> (N, out_channels, H, W)
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, ratio: int, upsampling: str) -> None:
        super().__init__()
        if upsampling == "transposed":
            self.enlarge = TransposedEnlarge(in_channels, out_channels)
            in_channels = out_channels
        else:
            self.enlarge = Enlarge(2)
        self.fuse = conv_bn_relu(in_channels + skip_channels, out_channels, ratio)
        self.refine = conv_bn_relu(out_channels, out_channels, ratio)

    def construct(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.enlarge(x, (skip.shape[2], skip.shape[3]))
        return self.refine(self.fuse(ops.concat((x, skip), 1)))


class GhostUnet(SegmentationNetwork):
    """Backbone -> four levels, from stride 32 to stride 2 -> dropout -> 1x1 convolution -> twice as large.

    Args:
        backbone: a classifier with maps of all of STRIDES.
        num_classes: outputs for each pixel.
        width: factor on the decoder's channels.
        upsampling: how the decoder's maps are enlarged, "bilinear" or "transposed". The logits always are bilinearly.
        drop_rate: probability of dropping an element of the last maps, in training.
        ratio: of the decoder's Ghost modules; 1 for plain convolutions.

    Input (N, in_channels, H, W), output logits (N, num_classes, H, W).
    """

    def __init__(
        self,
        backbone: Network,
        num_classes: int,
        width: float = 1.0,
        upsampling: Literal["bilinear", "transposed"] = "bilinear",
        drop_rate: float = 0.0,
        ratio: int = 2,
    ) -> None:
        super().__init__(backbone, STRIDES)
        if upsampling not in ("bilinear", "transposed"):
            raise ValueError(f"upsampling: expected bilinear or transposed, got {upsampling!r}")
        *skips, channels = self.backbone.out_channels
        levels = []
        for base, skip in zip(CHANNELS, reversed(skips), strict=True):
            out_channels = make_divisible(base * width, 4)
            levels.append(Level(channels, skip, out_channels, ratio, upsampling))
            channels = out_channels
        self.decoder = nn.CellList(levels)
        self.channels = channels
        self.dropout = Dropout(drop_rate)
        self.enlarge = Enlarge(2)
        self.finish(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Cell:
        return convolution(self.channels, num_classes, 1, bias=True)

    def construct(self, x: Tensor) -> Tensor:
        size: Size = (x.shape[2], x.shape[3])
        maps = self.backbone(x)
        x = maps[-1]
        for index, level in enumerate(self.decoder):
            x = level(x, maps[-2 - index])
        return self.enlarge(self.classifier(self.dropout(x)), size)


ghost_unet = partial(GhostUnet, ratio=2)
plain_unet = partial(GhostUnet, ratio=1)
