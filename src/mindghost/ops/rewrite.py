"""A network's cells, replaced by those of our operators."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
from mindspore import Parameter, nn

from ..models.ghostnet import GhostBottleneck
from ..models.ghostnetv3 import ConvBn
from ..models.layers import GhostMaps, MapMeans, Mask, SqueezeExcite
from ..models.network import FeatureNetwork, Network
from ..models.quantized import Convolution, FakeQuantize, RoundedBias, RoundedWeight
from ..models.surgery import replace_cells
from ..models.upsample import Upsample
from .fused import Chain, Dense, Gated, NativeMask, OfMaps, RecordedConvolution, parameters, record
from .pixels import NativePixelLosses, NativeUpsample, PixelLosses
from .quantized import NativeDepthwise, NativeFakeQuantize, NativeRoundedBias, NativeRoundedWeight


def _is_norm(cell: nn.Cell | None) -> bool:
    """Whether this is a batch norm that our operators know: of maps, over the batch in training."""
    return (
        cell is not None
        and type(cell) is nn.BatchNorm2d
        and cell.use_batch_statistics is None
        and all(parameter.dtype == ms.float32 for parameter in parameters(cell))
    )


def _is_depthwise(cell: nn.Cell | None, biased: bool = False) -> bool:
    """Whether this is a convolution that our operators know: each map on its own, padded alike on opposite sides.

    `biased`: it may have a bias, which is added elsewhere.
    """
    if cell is None or type(cell) is not nn.Conv2d or cell.group != cell.in_channels or (cell.has_bias and not biased):
        return False
    return cell.stride[0] == cell.stride[1] and _is_plain(cell)


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is in float32, without gaps, and padded alike on opposite sides."""
    padding = convolution.padding if isinstance(convolution.padding, tuple) else (convolution.padding,) * 4
    symmetric = convolution.pad_mode == "valid" or (
        convolution.pad_mode == "pad" and padding[0] == padding[1] and padding[2] == padding[3]
    )
    return symmetric and set(convolution.dilation) == {1} and convolution.weight.dtype == ms.float32


def _is_dense(cell: nn.Cell) -> bool:
    """Whether this is a convolution that `Dense` knows."""
    return (
        type(cell) is nn.Conv2d and cell.group == 1 and not cell.has_bias and cell.stride == (1, 1) and _is_plain(cell)
    )


# With fewer channels, tiles of AMX are mostly zeros.
_FEW_CHANNELS = 16


def _dense(cell: nn.Conv2d, library: Path, bfloat16: bool) -> nn.Cell:
    """What takes the place of such a convolution."""
    if bfloat16 and min(cell.in_channels, cell.out_channels) >= _FEW_CHANNELS:
        return Dense(library, cell, bfloat16=True)
    # Those of one pixel are fast in MindSpore.
    return Dense(library, cell) if max(cell.kernel_size) > 1 else cell


def _is_max_pool(cell: nn.Cell) -> bool:
    """Whether this is the pooling that `OfMaps` knows."""
    return (
        type(cell) is nn.MaxPool2d
        and (cell.kernel_size, cell.stride) == (2, 2)
        and cell.pad_mode.lower() == "valid"
        and not cell.return_indices
    )


def use(network: nn.Cell, library: Path, bfloat16: bool = False) -> None:
    """Have what our operators know of a float32 network, or of a loss, computed by them.

    Args:
        network: is changed in place.
        library: file of the C++ operators.
        bfloat16: products of dense convolutions are those of values that were rounded to bfloat16.

    These are norms, depthwise and dense convolutions, pooling, means and gates of maps, together with what follows
    them, where that is known (ReLU, a Ghost module's concatenation, a bottleneck's sum); bilinear resizing, and the
    losses of pixels.
    Parameters stay the same objects under the same names, in the same order.
    """
    names = [(parameter, parameter.name) for parameter in network.get_parameters()]
    done = _fuse_ghosts(network, library)
    # A tail's cells renamed what they share with it, and `replace_cells` goes by names.
    _rename(names)
    replacements: dict[int, nn.Cell] = {}
    parents = [cell for _, cell in network.cells_and_names() if id(cell) not in done and not isinstance(cell, Chain)]
    for parent in parents:
        replacements |= _fused_runs(_run(parent), library)
    for parent in parents:
        rest = [child for child in parent._cells.values() if id(child) not in replacements]
        replacements |= _singles(rest, library)
    for _, cell in network.cells_and_names():
        # A convolution of a single map is a depthwise one, too, and may be part of a chain by now.
        if id(cell) in replacements:
            continue
        if _is_dense(cell):
            replacements[id(cell)] = _dense(cell, library, bfloat16)
        elif _is_max_pool(cell):
            replacements[id(cell)] = OfMaps(library, "max_pool")
        elif type(cell) is PixelLosses:
            replacements[id(cell)] = NativePixelLosses(library, cell)
        elif type(cell) is Mask:
            replacements[id(cell)] = NativeMask(library, cell)
        elif type(cell) is Upsample:
            replacements[id(cell)] = NativeUpsample(library)
        elif type(cell) is FakeQuantize:
            replacements[id(cell)] = NativeFakeQuantize(library, cell)
        elif type(cell) is RoundedWeight:
            replacements[id(cell)] = NativeRoundedWeight(library)
        elif type(cell) is RoundedBias:
            replacements[id(cell)] = NativeRoundedBias(library)
        elif type(cell) is Convolution and _is_depthwise(cell.like[0], biased=True):
            replacements[id(cell)] = NativeDepthwise(library, cell)
    replace_cells(network, replacements)
    _rename(names)


def freeze(network: nn.Cell) -> None:
    """Have our operators compute the gradients of a network's inputs alone in evaluation, not those of its weights.

    Outside of graphs those of convolutions, too. From now on the network runs in the mode of this moment.
    """
    is_graph = ms.get_context("mode") == ms.GRAPH_MODE
    cells = [cell for _, cell in network.cells_and_names()]
    chains = [cell for cell in cells if isinstance(cell, Chain)]
    for chain in chains:
        chain.freeze()
    if is_graph:
        return
    for cell in cells:
        record(cell)
    # Those that chains hold do not run.
    held = {id(chain.depthwise) for chain in chains}
    run = [cell for cell in cells if type(cell) is nn.Conv2d and id(cell) not in held]
    replace_cells(network, {id(cell): RecordedConvolution(cell) for cell in run})


def _rename(names: list[tuple[Parameter, str]]) -> None:
    for parameter, name in names:
        parameter.name = name


def _fuse_ghosts(network: nn.Cell, library: Path) -> set[int]:
    """Give every Ghost module whose parts we know a tail. Returns the ids of these parts, which do not run any more."""
    done = set()
    cells = [cell for _, cell in network.cells_and_names()]
    adds = {id(cell.ghost2) for cell in cells if isinstance(cell, GhostBottleneck)}
    for cell in cells:
        if not isinstance(cell, GhostMaps):
            continue
        primary, cheap = _parts(cell.primary_conv), _parts(cell.cheap_operation)
        if primary and cheap and _is_depthwise(cheap[0]):
            tail = Chain(
                library,
                norm1=primary[1],
                relu1=primary[2],
                depthwise=cheap[0],
                norm2=cheap[1],
                relu2=cheap[2],
                out_channels=cell.cut[0] if cell.cut is not None else None,
                adds=id(cell) in adds,
            )
            # An attribute that is no cell cannot become one.
            del cell.tail
            cell.tail = tail
            done |= {id(cell.primary_conv), id(cell.cheap_operation)}
    return done


def _parts(part: nn.Cell) -> tuple[nn.Cell, nn.BatchNorm2d, bool] | None:
    """A Ghost module's part as convolution, norm and whether a ReLU follows; None if it is made of anything else."""
    cells = list(part.name_cells().values()) if isinstance(part, nn.SequentialCell) else []
    if len(cells) not in (2, 3) or not _is_norm(cells[1]) or (len(cells) == 3 and type(cells[2]) is not nn.ReLU):
        return None
    return cells[0], cells[1], len(cells) == 3


def _run(parent: nn.Cell) -> list[nn.Cell]:
    """Children that run one after the other."""
    if isinstance(parent, nn.SequentialCell):
        return list(parent._cells.values())
    names: tuple[str, ...] = ()
    if isinstance(parent, (Network, FeatureNetwork)):
        # What a map is taken from ends a run: no ReLU follows it.
        names = parent.body
    elif isinstance(parent, GhostBottleneck):
        names = ("conv_dw", "bn_dw")
    elif isinstance(parent, ConvBn):
        names = ("conv", "bn")
    return [parent._cells[name] for name in names if name in parent._cells]


def _fused_runs(cells: list[nn.Cell], library: Path) -> dict[int, nn.Cell]:
    """What takes the place of each [depthwise convolution,] batch norm[, ReLU] among cells that follow each other."""
    replacements = {}
    place = 0
    while place < len(cells):
        start = place
        depthwise = cells[place] if _is_depthwise(cells[place]) else None
        place += depthwise is not None
        norm = cells[place] if place < len(cells) and _is_norm(cells[place]) else None
        if norm is None:
            place = start + 1
            continue
        place += 1
        relu = place < len(cells) and type(cells[place]) is nn.ReLU
        place += relu
        if depthwise is None:
            chain = Chain(library, norm1=norm, relu1=relu)
        else:
            chain = Chain(library, depthwise=depthwise, norm2=norm, relu2=relu)
        replacements[id(cells[start])] = chain
        replacements |= {id(cell): nn.Identity() for cell in cells[start + 1 : place]}
    return replacements


def _singles(cells: list[nn.Cell], library: Path) -> dict[int, nn.Cell]:
    """What takes the place of cells that are known, each on its own."""
    replacements = {}
    for cell in cells:
        if _is_norm(cell):
            replacements[id(cell)] = Chain(library, norm1=cell)
        elif _is_depthwise(cell):
            replacements[id(cell)] = Chain(library, depthwise=cell)
        elif type(cell) is SqueezeExcite and cell.conv_reduce.weight.dtype == ms.float32:
            replacements[id(cell)] = Gated(library, cell)
        elif type(cell) is MapMeans:
            replacements[id(cell)] = OfMaps(library, "means")
    return replacements
