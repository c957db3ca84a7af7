"""A trained network -> an equal one for inference: fewer layers, and only such as exported files can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mindspore import Tensor, nn, ops

from ..models.folded import folded
from ..models.surgery import replace_cells
from ..models.upsample import Size, Upsample


def deployed_form(name: str, trained: nn.Cell, num_classes: int, in_channels: int = 3, **others: Any) -> nn.Cell:
    """A new network with the logits of a trained one, to rounding, of layers that exported files can have.

    Arguments as of `models.folded.folded`. The result is in evaluation mode.
    """
    return with_stand_ins(folded(name, trained, num_classes, in_channels, **others))


def with_stand_ins(network: nn.Cell) -> nn.Cell:
    """A network, changed: what no exported file takes is replaced by what gives the same."""
    replace_cells(network, {id(old): new for old, new in _stand_ins(network)})
    return network


def _stand_ins(network: nn.Cell) -> list[tuple[nn.Cell, nn.Cell]]:
    """Cells that no exported file takes as they are, each with one that gives the same: padded pools, resizing."""
    cells = [cell for _, cell in network.cells_and_names()]
    pools = [(cell, PaddedMaxPool(cell)) for cell in cells if isinstance(cell, nn.MaxPool2d) and cell.use_pad]
    return [*pools, *((cell, OneUpsample()) for cell in cells if type(cell) is Upsample)]


@contextmanager
def exportable(network: nn.Cell) -> Iterator[None]:
    """Inside of `with`, a network that is trained can be exported, with all of its own parameters; its logits stay."""
    stand_ins = _stand_ins(network)
    replace_cells(network, {id(old): new for old, new in stand_ins})
    try:
        with plain_operators(network):
            yield
    finally:
        replace_cells(network, {id(new): old for old, new in stand_ins})


@contextmanager
def plain_operators(network: nn.Cell) -> Iterator[None]:
    """Inside of `with`, a network uses only operators that MindSpore's ONNX exporter knows; its logits stay.

    Bilinear resizing, which it does not know, is marked in the file, for `onnx_fixes`.
    """
    found = [cell for _, cell in network.cells_and_names() if type(cell) in _PLAIN]
    plain = [_PLAIN[type(cell)]() for cell in found]
    replace_cells(network, {id(old): new for old, new in zip(found, plain, strict=True)})
    try:
        yield
    finally:
        replace_cells(network, {id(new): old for old, new in zip(found, plain, strict=True)})


class OnnxHardSigmoid(nn.Cell):
    """The hard sigmoid in operators that MindSpore's ONNX exporter knows; the shape stays."""

    def __init__(self) -> None:
        super().__init__()
        self.relu6 = nn.ReLU6()

    def construct(self, x: Tensor) -> Tensor:
        return self.relu6(x + 3.0) / 6.0


class OneUpsample(nn.Cell):
    """`Upsample` by one operator: `ops.interpolate` does not run in a MindIR file for any number of images."""

    def __init__(self) -> None:
        super().__init__()
        self.resize = ops.operations.image_ops.ResizeBilinearV2(align_corners=False, half_pixel_centers=True)

    def construct(self, x: Tensor, size: Size) -> Tensor:
        return self.resize(x, size)


class MarkedUpsample(nn.Cell):
    """In the place of `OneUpsample`: a resizing to the same size that MindSpore's ONNX exporter knows.

    Its corners are aligned, as those of no other one are: by that `onnx_fixes` tells it.
    """

    def construct(self, x: Tensor, size: Size) -> Tensor:
        return ops.ResizeNearestNeighbor((size[0], size[1]), True)(x)


_PLAIN: dict[type[nn.Cell], Callable[[], nn.Cell]] = {nn.HSigmoid: OnnxHardSigmoid, OneUpsample: MarkedUpsample}


class PaddedMaxPool(nn.Cell):
    """A padded max pool of maps without negative values.

    MindSpore's own is a 3-D operator: its ONNX exporter does not know it, and in a MindIR file for any number of images
    it does not run.

    Args:
        pool: the layer that this one takes the place of.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        _, height, width = pool.padding
        self.pad = nn.Pad(((0, 0), (0, 0), (height, height), (width, width)))
        self.pool = nn.MaxPool2d(pool.kernel_size, pool.stride)

    def construct(self, x: Tensor) -> Tensor:
        return self.pool(self.pad(x))
