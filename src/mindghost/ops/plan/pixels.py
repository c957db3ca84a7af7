"""What networks for segmentation become in a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import nn
from numpy.typing import NDArray

from ...models.ghost_lraspp import GatedMaps, GhostLraspp, TwoScaleClassifier
from ...models.ghost_unet import GhostUnet, Level
from ...models.layers import MapMeans
from ...models.network import FeatureNetwork
from ...models.upsample import Enlarge, Upsample
from . import cells
from .program import Activation, Finished, Maps, Program, padded

NETWORKS = (GhostUnet, GhostLraspp)
# All that they may be made of, beside a backbone's cells.
CELLS = (*NETWORKS, FeatureNetwork, Level, GatedMaps, TwoScaleClassifier, Enlarge, Upsample, nn.Sigmoid)


def program_of(network: nn.Cell) -> Finished:
    """A network for segmentation in evaluation as a program, with its weights.

    Raises UnknownCell where a part of it is none that we know.
    """
    program, maps = _of_backbone(network.backbone)
    if type(network) is GhostUnet:
        *skips, x = maps
        for level, skip in zip(network.decoder, reversed(skips), strict=True):
            x = _level(program, level, x, skip)
        x = cells.run(program, [network.classifier], x)
    else:
        x = _two_scales(program, network, *maps)
    classes = network.num_classes
    x = program.enlarge(program.arranged(x, padded(np.arange(classes))), network.enlarge.factor, program.images)
    return program.finished(x, classes, is_dense=True)


def _of_backbone(backbone: FeatureNetwork) -> tuple[Program, list[Maps]]:
    """A program that begins with a backbone, and the maps that a decoder reads."""
    steps: list[nn.Cell] = []
    for name in backbone.body:
        cell = getattr(backbone, name)
        steps += list(cell) if name in backbone.fine else [cell]
    stem, body = steps[:3], steps[3:]
    program, x = cells.begin(stem, body)
    found = [x]
    for step in body:
        for cell in cells.blocks([step]):
            x = cells.of_block(program, cell, x)
        found.append(x)
    taken = [place - len(stem) + 1 for place in backbone.taken]
    if min(taken) < 0:
        raise cells.UnknownCell("maps within the stem")
    return program, [found[place] for place in taken]


def _level(program: Program, cell: Level, x: Maps, skip: Maps) -> Maps:
    """Coarser maps, enlarged, and finer ones, which lie one behind the other, and two convolutions of them."""
    cells.known(cell.enlarge, Enlarge)
    channels = int(x.lanes.max()) + 1
    joined = program.maps(np.concatenate([x.lanes, _later(skip.lanes, channels)]))
    program.enlarge(x, cell.enlarge.factor, skip, joined.part(0, len(x.lanes)))
    program.copy(skip, joined.part(len(x.lanes), len(skip.lanes)))
    return cells.like_convolution(program, cell.refine, cells.like_convolution(program, cell.fuse, joined))


def _later(lanes: NDArray[Any], channels: int) -> NDArray[Any]:
    """Lanes of maps that come behind so many channels."""
    return np.where(lanes < 0, -1, lanes + channels)


def _two_scales(program: Program, network: GhostLraspp, low: Maps, high: Maps) -> Maps:
    """Logits of fine maps, plus those of gated coarse ones."""
    decoder, classifier = network.decoder, network.classifier
    features = cells.like_convolution(program, decoder.features, high)
    means, convolution, sigmoid = decoder.gates._cells.values()
    cells.known(means, MapMeans)
    cells.known(sigmoid, nn.Sigmoid)
    (layer,) = cells.convolutions([convolution])
    layer = layer._replace(activation=Activation.SIGMOID)
    program.gate(features, program.dense(program.means(high), layer, program.maps(features.lanes)))
    fine = cells.run(program, [classifier.low], low)
    coarse = cells.run(program, [classifier.high], features)
    program.add(fine, program.enlarge(coarse, classifier.enlarge.factor, fine))
    return fine
