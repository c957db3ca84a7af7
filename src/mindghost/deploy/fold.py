"""A trained network -> an equal one for inference: fewer layers, and where wanted only operators that ONNX has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mindspore import Tensor, nn, ops

from ..models import backbone_name, card, create_model, pruned, reparam
from ..models.complexity import forward_hooks, run
from ..models.parameters import assign
from ..models.surgery import convolution_like, name_of, named, replace_cells
from ..models.upsample import Size, Upsample


def deployed_form(name: str, trained: nn.Cell, num_classes: int, in_channels: int = 3, **others: Any) -> nn.Cell:
    """A new network with the logits of a trained one, to rounding: branches fused, batch norms folded.

    Args:
        name: of the network, in the registry.
        trained: the network with its weights, which stays as it is.
        num_classes, in_channels: as it was built with.
        others: what else it was built with, as `create_model` takes it.

    The result is in evaluation mode: images (N, in_channels, H, W) -> logits (N, num_classes).
    """
    weights = {parameter.name: parameter.asnumpy() for parameter in trained.get_parameters()}
    fused = card(backbone_name(name, others.get("backbone", ""))).fused_parameters is not None
    if fused:
        weights = reparam.fuse(weights)
    narrow = others.pop("channels", ())
    network = create_model(name, num_classes, in_channels, deploy=fused, **others)
    if narrow:
        # Fused layers have names of their own.
        pruned.narrow(network, pruned.fitting(network, weights))
    norms = batch_norms(network, in_channels)
    _without_norms(network, norms)
    folded = reparam.fold(weights, norms)
    for parameter in network.get_parameters():
        assign(parameter, folded.pop(parameter.name))
    replace_cells(network, {id(old): new for old, new in _stand_ins(network)})
    if folded:
        raise ValueError(f"{name}: no place for {', '.join(folded)}")
    return network.set_train(False)


def batch_norms(network: nn.Cell, in_channels: int = 3) -> dict[str, str]:
    """Name of each convolution that a batch norm follows -> name of that batch norm, as their parameters have them.

    Found by running the network once on a small image: a batch norm follows the convolution whose output it is given.
    """
    source: dict[int, str] = {}
    found: dict[str, str] = {}
    # Kept until the end, so that no two of them have one id.
    outputs = []

    def note(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)
        if isinstance(cell, nn.Conv2d):
            source[id(output)] = name_of(cell)
        elif id(inputs[0]) in source:
            found[source[id(inputs[0])]] = name_of(cell)

    with forward_hooks(_convolutions_and_norms(network), note):
        run(network, (in_channels, 32, 32))
    return found


def _convolutions_and_norms(network: nn.Cell) -> list[nn.Cell]:
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, (nn.Conv2d, nn.BatchNorm2d))]


def _without_norms(network: nn.Cell, norms: dict[str, str]) -> None:
    """Give convolutions a bias, and put nothing in the place of the batch norms after them. Changes the network."""
    cells = {name_of(cell): cell for cell in _convolutions_and_norms(network)}
    replacements: dict[int, nn.Cell] = {}
    for convolution, norm in norms.items():
        old = cells[convolution]
        new = named(convolution_like(old, old.out_channels, old.in_channels, bias=True), convolution)
        replacements |= {id(old): new, id(cells[norm]): nn.Identity()}
    replace_cells(network, replacements)


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
