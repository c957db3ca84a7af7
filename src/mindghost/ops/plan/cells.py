"""What each kind of cell becomes in a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn
from numpy.typing import NDArray

from ...models import ghost_resnet, reparam
from ...models.g_ghost_regnet import Bottleneck, ChannelMeans, GGhostRegNet, GhostStage
from ...models.ghost_cifar import BasicBlock, CifarResNet, CifarVgg
from ...models.ghostnet import GhostBottleneck, GhostModule, GhostNet
from ...models.ghostnetv2 import DfcGhostModule, GhostNetV2
from ...models.ghostnetv3 import BranchedConvolution, ConvBn, GhostNetV3
from ...models.layers import ConvBnAct, Dropout, GhostMaps, MapMeans, Mask, SqueezeExcite
from ...models.network import Network
from ...models.repghostnet import RepGhostModule, RepGhostNet
from .program import LANES, Activation, Convolution, Finished, Maps, Program, padded

GHOSTNETS = (GhostNet, GhostNetV2, GhostNetV3, RepGhostNet)
# These begin with a convolution, batch norm and ReLU. `CifarAirbench` does, too, but is left out: nearly all of it are
# 3x3 convolutions of many channels, for which our operators have Winograd's. In batches it takes half of a plan's time.
OTHERS = (GGhostRegNet, ghost_resnet.GhostResNet, CifarResNet, CifarVgg)
NETWORKS = (*GHOSTNETS, *OTHERS)
# All that they may be made of.
CELLS = (
    *NETWORKS,
    *(GhostBottleneck, GhostMaps, GhostModule, DfcGhostModule, RepGhostModule, BranchedConvolution, ConvBn, ConvBnAct),
    *(SqueezeExcite, MapMeans, Dropout, GhostStage, Bottleneck, ChannelMeans),
    *(ghost_resnet.Bottleneck, BasicBlock, nn.MaxPool2d),
    *(nn.Conv2d, nn.BatchNorm2d, nn.Dense, nn.ReLU, nn.HSigmoid, nn.Identity, nn.SequentialCell, nn.CellList, Mask),
)


class UnknownCell(Exception):
    """A cell that no plan can be made of."""


def program_of(network: nn.Cell) -> Finished:
    """A network in evaluation as a program, with its weights.

    Raises UnknownCell where a part of it is none that we know: there are no plans of parts.
    """
    if type(network) not in NETWORKS:
        raise UnknownCell(type(network).__name__)
    cells = [getattr(network, name) for name in network.body]
    stem, body = cells[:3], cells[3:]
    program, x = begin(stem, body)
    program.mark({network.body[2]: _reductions(network).get(network.body[2], 0)}, x)
    x = _of_body(program, network, body, x)
    if type(network) in GHOSTNETS:
        return program.finished(*_of_head(program, network, [network.conv_head, network.act2], x))
    hidden = [network.hidden] if type(network) is CifarVgg else []
    return program.finished(*_of_head(program, network, hidden, x))


def begin(stem: Iterable[nn.Cell], body: Iterable[nn.Cell]) -> tuple[Program, Maps]:
    """A program that begins with a convolution and what follows it; its maps lie as the first block adds them."""
    (layer,) = convolutions(stem)
    first = next(blocks(body))
    adds = type(first) is GhostBottleneck and first.shortcut is None
    lanes = _lanes(first.ghost2) if adds else padded(np.arange(len(layer.weight)))
    program = Program(layer.weight.shape[1])
    return program, program.dense(program.images, layer, program.maps(lanes))


def _of_body(program: Program, network: Network, cells: Iterable[nn.Cell], x: Maps) -> Maps:
    """Cells that each read the maps of the one before alone; their maps are marked."""
    reductions = _reductions(network)
    names: dict[int, list[str]] = {}
    for name, cell in network.cells_and_names():
        names.setdefault(id(_end(cell)), []).append(name)
    for cell in blocks(cells):
        x = of_block(program, cell, x)
        # From the cell to what it ends: the last name of all is that of the body.
        ending = sorted(names[id(_end(cell))], key=len, reverse=True)
        program.mark({name: reductions.get(name, 0) for name in ending}, x)
    return x


def _reductions(network: Network) -> dict[str, int]:
    return {entry["name"]: entry["reduction"] for entry in network.feature_info}


def blocks(cells: Iterable[nn.Cell]) -> Iterator[nn.Cell]:
    """The cells of sequences, of which convolutions with what follows them are one."""
    for cell in cells:
        if type(cell) is nn.SequentialCell and type(cell[0]) is not nn.Conv2d:
            yield from blocks(cell._cells.values())
        else:
            yield cell


def _end(cell: nn.Cell) -> nn.Cell:
    """The cell that gives what a sequence gives."""
    while type(cell) is nn.SequentialCell and len(cell):
        cell = cell[-1]
    return cell


def of_block(program: Program, cell: nn.Cell, x: Maps) -> Maps:
    """A cell that is one of `blocks`."""
    if type(cell) is GhostBottleneck:
        return _bottleneck(program, cell, x)
    if type(cell) is ConvBnAct:
        return run(program, [cell.features], x)
    if type(cell) is Bottleneck:
        return _x_block(program, cell, x)
    if type(cell) is GhostStage:
        return _ghost_stage(program, cell, x)
    if type(cell) is ghost_resnet.Bottleneck:
        shortcut = x if cell.downsample is None else like_convolution(program, cell.downsample, x)
        return _residual(program, [cell.conv1, cell.conv2, cell.conv3], cell.relu, x, shortcut)
    if type(cell) is BasicBlock:
        shortcut = x if cell.subsample is None else _largest(program, cell.subsample, x)
        return _residual(program, [cell.conv1, cell.conv2], cell.relu, x, shortcut)
    if type(cell) is nn.MaxPool2d:
        return _largest(program, cell, x)
    if type(cell) in (nn.SequentialCell, GhostModule):
        return like_convolution(program, cell, x)
    raise UnknownCell(type(cell).__name__)


def _of_head(program: Program, network: Network, cells: Iterable[nn.Cell], x: Maps) -> tuple[Maps, int]:
    """Means, what the cells make of them, and the classifier: the last maps, and how many there are."""
    known(network.global_pool, MapMeans)
    x = run(program, cells, program.means(x))
    classifier = network.get_classifier()
    if type(classifier) is nn.Identity:
        return program.arranged(x, padded(np.arange(network.num_features))), network.num_features
    known(classifier, nn.Dense)
    weight = _values(classifier.weight)[:, :, None, None]
    bias = _values(classifier.bias) if classifier.has_bias else np.zeros(len(weight))
    if classifier.activation_flag:
        raise UnknownCell("activation of nn.Dense")
    return program.dense(x, Convolution(weight, bias)), len(weight)


def run(program: Program, cells: Iterable[nn.Cell], x: Maps, lanes: NDArray[Any] | None = None) -> Maps:
    """Convolutions, with what follows each, one after the other; from the last dense one on, maps have `lanes`."""
    layers = convolutions(cells)
    for place, layer in enumerate(layers):
        if layer.depthwise:
            if len(layer.weight) != np.count_nonzero(x.lanes >= 0):
                raise UnknownCell("depthwise convolution of several maps each")
            x = program.depthwise(x, layer)
        elif lanes is not None and all(later.depthwise for later in layers[place + 1 :]):
            x = program.dense(x, layer, program.maps(lanes))
        else:
            x = program.dense(x, layer)
    return x


def _bottleneck(program: Program, cell: GhostBottleneck, x: Maps) -> Maps:
    out = _ghost(program, cell.ghost1, x)
    if cell.stride > 1:
        out = run(program, [cell.conv_dw, cell.bn_dw], out)
    if cell.se is not None:
        _squeeze_excite(program, cell.se, out)
    lanes = _lanes(cell.ghost2)
    other = program.arranged(x, lanes) if cell.shortcut is None else run(program, [cell.shortcut], x, lanes)
    return _ghost(program, cell.ghost2, out, other)


def _x_block(program: Program, cell: Bottleneck, x: Maps, out: Maps | None = None) -> Maps:
    """The block of a RegNet."""
    known(cell.relu, nn.ReLU)
    (last,) = convolutions([cell.conv3, cell.bn3, cell.relu])
    hidden = run(program, [cell.conv1, cell.bn1, cell.relu, cell.conv2, cell.bn2, cell.relu], x)
    out = program.maps(padded(np.arange(len(last.weight)))) if out is None else out
    other = program.arranged(x, out.lanes) if cell.downsample is None else run(program, [cell.downsample], x, out.lanes)
    return program.dense(hidden, last, out, other)


def like_convolution(program: Program, cell: nn.Cell, x: Maps) -> Maps:
    """A Ghost module, or a convolution with what follows it."""
    return run(program, [cell], x) if type(cell) is nn.SequentialCell else _ghost(program, cell, x)


def _residual(program: Program, cells: list[nn.Cell], relu: nn.Cell, x: Maps, shortcut: Maps) -> Maps:
    """Cells that stand for convolutions, plus what comes by the shortcut, and a ReLU at the end."""
    known(relu, nn.ReLU)
    *first, last = cells
    for cell in first:
        x = like_convolution(program, cell, x)
    if type(last) is not nn.SequentialCell:
        return _ghost(program, last, x, program.arranged(shortcut, _lanes(last)), Activation.RELU)
    (layer,) = convolutions([last])
    made = program.maps(padded(np.arange(len(layer.weight))))
    other = program.arranged(shortcut, made.lanes)
    return program.dense(x, layer._replace(activation=Activation.RELU), made, other)


def _largest(program: Program, cell: nn.MaxPool2d, x: Maps) -> Maps:
    size, stride = (set(value) if isinstance(value, tuple) else {value} for value in (cell.kernel_size, cell.stride))
    padding = set(cell.padding[1:]) if cell.use_pad else {0}
    if cell.pad_mode not in ("PAD", "VALID") or any(len(each) > 1 for each in (size, stride, padding)):
        raise UnknownCell("max pool")
    return program.max_pool(x, size.pop(), stride.pop(), padding.pop())


def _ghost_stage(program: Program, cell: GhostStage, x: Maps) -> Maps:
    channel_means, *merge = cell.merge._cells.values()
    known(channel_means, ChannelMeans)
    known(channel_means.means, MapMeans)
    known(cell.relu, nn.ReLU)
    first, second = (padded(np.arange(channels)) for channels in cell.parts)
    lanes = np.concatenate([first, np.where(second < 0, -1, cell.parts[0] + second)])
    base = _x_block(program, cell.base, x, program.maps(lanes))
    intrinsic, cut = base.part(0, len(first)), base.part(len(first), len(second))
    joined = program.maps(lanes)
    # The means of the base, then those of each block between it and the end.
    blocks = list(cell.layers)
    starts = [len(lanes) - np.count_nonzero(lanes < 0) + place * cell.parts[0] for place in range(len(blocks))]
    of_all = program.maps(np.concatenate([lanes, *[np.where(first < 0, -1, start + first) for start in starts]]))
    program.means(base, of_all.part(0, len(lanes)))
    for place, block in enumerate(blocks):
        target = joined.part(0, len(first)) if place + 1 == len(blocks) else None
        intrinsic = _x_block(program, block, intrinsic, target)
        program.means(intrinsic, of_all.part(len(lanes) + place * len(first), len(first)))
    (cheap,) = convolutions([cell.cheap])
    ghosts = Maps(joined.index, joined.first + len(first) // LANES, second)
    program.dense(Maps(cut.index, cut.first, second), cheap, ghosts)
    program.shift(ghosts, run(program, merge, of_all), Activation.RELU)
    return _x_block(program, cell.end, joined, program.maps(lanes))


def _squeeze_excite(program: Program, cell: nn.Cell, x: Maps) -> None:
    known(cell, SqueezeExcite)
    for part, kind in ((cell.means, MapMeans), (cell.act, nn.ReLU), (cell.gate, nn.HSigmoid)):
        known(part, kind)
    squeezed = run(program, [cell.conv_reduce, cell.act], program.means(x))
    (expand,) = convolutions([cell.conv_expand])
    expand = expand._replace(activation=Activation.HARD_SIGMOID)
    program.gate(x, program.dense(squeezed, expand, program.maps(x.lanes)))


def _ghost(
    program: Program,
    cell: nn.Cell,
    x: Maps,
    other: Maps | None = None,
    activation: Activation = Activation.NONE,
) -> Maps:
    """A module that stands for a convolution, plus `other`, in the lanes of the result, and then `activation`."""
    if type(cell) is RepGhostModule:
        (primary,) = convolutions([cell.primary_conv])
        return program.depthwise(program.dense(x, primary), _rep_cheap(cell), other=other)
    known(cell, GhostMaps, GhostModule, DfcGhostModule)
    (primary,), (cheap,) = convolutions([cell.primary_conv]), convolutions([cell.cheap_operation])
    if activation is not Activation.NONE:
        cheap = cheap._replace(activation=activation)
    out = program.maps(_lanes(cell))
    intrinsic = out.part(0, len(padded(np.arange(len(primary.weight)))))
    program.dense(x, primary, intrinsic)
    for start in range(len(intrinsic.lanes), len(out.lanes), len(intrinsic.lanes)):
        ghosts = out.part(start, len(intrinsic.lanes))
        # Of the ghosts alone, without the intrinsic maps before them.
        own = Maps(ghosts.index, ghosts.first, np.where(ghosts.lanes < 0, -1, ghosts.lanes - len(primary.weight)))
        program.depthwise(intrinsic, cheap, own, other and other.part(start, len(intrinsic.lanes)))
    if other is not None:
        program.add(intrinsic, other.part(0, len(intrinsic.lanes)), activation)
    if type(cell) is DfcGhostModule:
        if other is not None:
            raise UnknownCell("attention at the end of a bottleneck")
        program.weigh(out, _attention(program, cell, x, out.lanes))
    return out


def _attention(program: Program, cell: DfcGhostModule, x: Maps, lanes: NDArray[Any]) -> Maps:
    first, rows, columns = convolutions([cell.short_conv])
    x = program.dense(program.halve(x), first, program.maps(lanes))
    return program.depthwise(program.depthwise(x, rows), columns._replace(activation=Activation.SIGMOID))


def _lanes(cell: nn.Cell) -> NDArray[Any]:
    """Where the maps of a module lie: the intrinsic ones, then those ghosts of theirs that are the first, and so on."""
    if type(cell) is RepGhostModule:
        (primary,) = convolutions([cell.primary_conv])
        return padded(np.arange(len(primary.weight)))
    known(cell, GhostMaps, GhostModule, DfcGhostModule)
    (primary,), (cheap,) = convolutions([cell.primary_conv]), convolutions([cell.cheap_operation])
    intrinsic, ghosts = len(primary.weight), len(cheap.weight)
    if cheap.weight.shape[1] != 1 or ghosts % intrinsic:
        raise UnknownCell("cheap_operation")
    kept = intrinsic + ghosts if cell.cut is None else cell.cut[0]
    if kept < intrinsic:
        raise UnknownCell("cut")
    times = ghosts // intrinsic
    parts = [np.arange(intrinsic)]
    parts += [intrinsic + np.arange(intrinsic) * times + ghost for ghost in range(times)]
    return np.concatenate([padded(np.where(part < kept, part, -1)) for part in parts])


def _rep_cheap(cell: RepGhostModule) -> Convolution:
    relu = Activation.RELU if type(cell.relu) is nn.ReLU else Activation.NONE
    if cell.fusion_bn is None:
        (cheap,) = convolutions([cell.cheap_operation])
        return cheap._replace(activation=relu)
    parts = (cell.cheap_operation, cell.fusion_bn)
    parameters = {p.name: _values(p) for part in parts for p in part.get_parameters()}
    return _fused(cell.cheap_operation[0], parameters)._replace(activation=relu)


def convolutions(cells: Iterable[nn.Cell]) -> list[Convolution]:
    """Cells that run one after the other as convolutions: batch norms folded, branches fused, activations taken up."""
    found: list[Convolution] = []
    for cell in _flat(cells):
        kind = type(cell)
        if kind is nn.Identity:
            continue
        if kind is nn.Conv2d:
            bias = _values(cell.bias) if cell.has_bias else np.zeros(cell.out_channels)
            found.append(_like(cell, _values(cell.weight), bias))
        elif kind is BranchedConvolution:
            found.append(_fused(cell.rpr_conv[0].conv, {p.name: _values(p) for p in cell.get_parameters()}))
        elif kind is nn.BatchNorm2d and found and found[-1].activation is Activation.NONE:
            found[-1] = _folded(found[-1], cell)
        elif kind is nn.ReLU and found:
            found[-1] = found[-1]._replace(activation=Activation.RELU)
        else:
            raise UnknownCell(kind.__name__)
    return found


def _fused(like: nn.Conv2d, parameters: dict[str, NDArray[Any]]) -> Convolution:
    fused = reparam.fuse(parameters)
    weight, bias = (next(fused[name] for name in fused if name.endswith(kind)) for kind in (".weight", ".bias"))
    return _like(like, weight, bias)


def _like(cell: nn.Conv2d, weight: NDArray[Any], bias: NDArray[Any]) -> Convolution:
    """Raises UnknownCell for a convolution that goes over maps in a way of its own."""
    padding = cell.padding if isinstance(cell.padding, tuple) else (cell.padding,) * 4
    if cell.pad_mode == "valid":
        padding = (0, 0, 0, 0)
    if (
        cell.pad_mode not in ("pad", "valid")
        or padding[0] != padding[1]
        or padding[2] != padding[3]
        or set(cell.dilation) != {1}
        or cell.stride[0] != cell.stride[1]
        or cell.stride[0] not in (1, 2)
        or cell.weight.dtype != ms.float32
    ):
        raise UnknownCell(f"{cell.kernel_size} convolution")
    depthwise = cell.group == cell.in_channels > 1
    groups = 1 if depthwise else cell.group
    return Convolution(weight, bias, cell.stride[0], (padding[0], padding[2]), depthwise=depthwise, groups=groups)


def _folded(layer: Convolution, norm: nn.BatchNorm2d) -> Convolution:
    if norm.eps != reparam.EPSILON:
        raise UnknownCell(f"batch norm with eps {norm.eps}")
    gamma, beta, mean, variance = map(_values, (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    weight, bias = reparam.fold_batch_norm(layer.weight, gamma, beta, mean - layer.bias, variance)
    return layer._replace(weight=weight, bias=bias)


def _flat(cells: Iterable[nn.Cell]) -> Iterator[nn.Cell]:
    for cell in cells:
        if type(cell) is nn.SequentialCell:
            yield from _flat(cell._cells.values())
        else:
            yield cell


def known(cell: nn.Cell, *kinds: type[nn.Cell]) -> None:
    """Raise UnknownCell for a cell of another kind."""
    if type(cell) not in kinds:
        raise UnknownCell(type(cell).__name__)


def _values(parameter: Any) -> NDArray[Any]:
    values: NDArray[Any] = parameter.asnumpy()
    return values
