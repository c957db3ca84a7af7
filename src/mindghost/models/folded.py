"""A trained network -> an equal one for inference with fewer layers: branches fused, batch norms folded."""

from __future__ import annotations

from typing import Any

from mindspore import Tensor, nn

from . import backbone_name, card, create_model, pruned, reparam
from .complexity import forward_hooks, run
from .parameters import assign
from .surgery import convolution_like, name_of, named, replace_cells


def folded(name: str, trained: nn.Cell, num_classes: int, in_channels: int = 3, **others: Any) -> nn.Cell:
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
    rest = reparam.fold(weights, norms)
    for parameter in network.get_parameters():
        assign(parameter, rest.pop(parameter.name))
    if rest:
        raise ValueError(f"{name}: no place for {', '.join(rest)}")
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
