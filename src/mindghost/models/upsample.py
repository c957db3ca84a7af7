"""Feature maps made larger, and cut to the size that is asked for."""

from mindspore import Tensor, nn, ops

Size = tuple[int, int]


class Upsample(nn.Cell):
    """Bilinear resizing with half-pixel centres: `torch.nn.functional.interpolate(align_corners=False)`.

    (N, C, h, w), (H, W) -> (N, C, H, W). H and W are known when a graph is compiled.
    """

    def construct(self, x: Tensor, size: Size) -> Tensor:
        return ops.interpolate(x, size=size, mode="bilinear", align_corners=False)


def cut(x: Tensor, size: Size) -> Tensor:
    """The upper left (H, W) of maps (N, C, h, w) that are at least as large."""
    height, width = size
    # `split` costs a fraction of a strided slice on CPU.
    if x.shape[2] > height:
        x = ops.split(x, [height, x.shape[2] - height], 2)[0]
    if x.shape[3] > width:
        x = ops.split(x, [width, x.shape[3] - width], 3)[0]
    return x


class Enlarge(nn.Cell):
    """Bilinear maps `factor` times as large, cut to a size: (N, C, h, w), (H, W) -> (N, C, H, W).

    Strides round sizes up, so maps of an odd size do not come back as they were. Always the same factor, and the
    surplus cut off on the right and below, keeps every pixel where it was in the image, whatever the image's size.

    Args:
        factor: a whole number.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.upsample = Upsample()

    def construct(self, x: Tensor, size: Size) -> Tensor:
        larger = (x.shape[2] * self.factor, x.shape[3] * self.factor)
        return cut(self.upsample(x, larger), size)


class TransposedEnlarge(nn.Cell):
    """A 2x2 transposed convolution of stride 2, cut to a size: (N, in, h, w), (H, W) -> (N, out, H, W).

    Args:
        in_channels, out_channels: channels of the maps before and after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.transposed = nn.Conv2dTranspose(in_channels, out_channels, 2, 2, pad_mode="valid", has_bias=True)

    def construct(self, x: Tensor, size: Size) -> Tensor:
        return cut(self.transposed(x), size)
