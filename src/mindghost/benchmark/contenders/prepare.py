"""What the contenders share, written to a folder: weights, the network's table, files to ship; its costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# First: it sets what MindSpore's environment has to be.
import mindghost  # noqa: F401  isort: skip
import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from mindghost.checkpoint import weights as weights_file
from mindghost.checkpoint.names import timm_names
from mindghost.models import complexity, create_model
from mindghost.models.ghost_unet import GhostUnet
from mindghost.models.ghostnet import GhostBottleneck, GhostModule, GhostNet
from mindghost.models.upsample import Enlarge

from . import shipped
from .job import Job, answer
from .recipe import TABLE, TORCH_WEIGHTS, WEIGHTS

_FLOAT = 4  # bytes


def measure(job: Job) -> dict[str, Any]:
    """Write the files; returns the network's multiply-accumulates of an image, and `traffic` for a batch.

    The job's variant lists the kinds of files that are shipped, with a semicolon between them.
    """
    folder = Path(job.folder)
    network = create_model(job.model, num_classes=job.num_classes)
    weights = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    # Fresh weights make logits of some thousands, whose rounding the comparison of the exported file would not pass.
    weights |= {name: array / 2 for name, array in weights.items() if name.endswith(".gamma")}
    weights_file.write(folder / WEIGHTS, weights)
    np.savez(folder / TORCH_WEIGHTS, **for_torch(weights))
    found = known_table(network)
    if found is not None:
        (folder / TABLE).write_text(json.dumps(found), encoding="utf-8")
    if job.variant:
        shipped.write(job, job.variant.split(";"))
    size = job.image_size
    counts = complexity.complexity(network, size, size)
    alone, fused = traffic(network, size)
    return {"macs": counts.macs, "parameters": counts.parameters} | {
        "bytes": job.batch_size * alone,
        "fused_bytes": job.batch_size * fused,
    }


def for_torch(weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Our weights under the names of PyTorch's network, which are timm's."""
    names = timm_names(weights)
    return {names[name]: array for name, array in weights.items()}


def known_table(network: nn.Cell) -> dict[str, Any] | None:
    """The table of a network that is written in PyTorch, too; None of any other."""
    if type(network) is GhostNet and _is_plain(list(network.blocks)[:-1]):
        return table(network)
    if type(network) is GhostUnet and isinstance(network.decoder[0].fuse, GhostModule):
        stages = list(network.backbone.blocks) if "blocks" in network.backbone.body else []
        bilinear = all(isinstance(level.enlarge, Enlarge) for level in network.decoder)
        if bilinear and stages and _is_plain(stages):
            return unet_table(network, stages)
    return None


def _is_plain(stages: Sequence[nn.Cell]) -> bool:
    """Whether stages are GhostNet's own: its relatives have other bottlenecks, or other modules in them."""
    cells = [cell for stage in stages for cell in stage]
    return all(type(cell) is GhostBottleneck and type(cell.ghost1) is GhostModule for cell in cells)


def table(network: GhostNet) -> dict[str, Any]:
    """A GhostNet in numbers: channels of its stem, rows of its stages, and what ends it."""
    *stages, last = network.blocks
    return {
        "stem": network.conv_stem.out_channels,
        "stages": [[bottleneck(cell) for cell in stage] for stage in stages],
        "last": last.features[0].out_channels,
        "features": network.conv_head.out_channels,
        "classes": network.num_classes,
    }


def unet_table(network: GhostUnet, stages: Sequence[nn.Cell]) -> dict[str, Any]:
    """A `ghost_unet` in numbers, as `table`, with the stages whose maps are taken, and the channels of its levels."""
    return {
        "stem": network.backbone.conv_stem.out_channels,
        "stages": [[bottleneck(cell) for cell in stage] for stage in stages],
        "taken": [int(entry["name"].rpartition(".")[2]) for entry in network.backbone.feature_info],
        "levels": [[level.fuse.primary_conv[0].in_channels, ghosts(level.fuse)] for level in network.decoder],
        "classes": network.num_classes,
    }


def ghosts(module: nn.Cell) -> int:
    """The output channels of a Ghost module."""
    return module.primary_conv[0].out_channels + module.cheap_operation[0].out_channels


def bottleneck(cell: GhostBottleneck) -> dict[str, Any]:
    """A bottleneck in numbers: channels before, between and after its Ghost modules, kernel size, stride, and so on."""
    expand, project = cell.ghost1, cell.ghost2
    spatial = cell.conv_dw if cell.stride > 1 else cell.shortcut[0] if cell.shortcut is not None else None
    return {
        "in_channels": expand.primary_conv[0].in_channels,
        "expanded": project.primary_conv[0].in_channels,
        "out_channels": ghosts(project),
        # Without a stride or a shortcut there is nothing of that size.
        "kernel_size": spatial.kernel_size[0] if spatial is not None else 1,
        "stride": cell.stride,
        "squeezed": cell.se.conv_reduce.out_channels if cell.se is not None else 0,
        "shortcut": cell.shortcut is not None,
    }


def traffic(network: nn.Cell, size: int) -> tuple[int, int]:
    """Bytes of activations and their gradients that a training step moves for one image, at the least.

    Each layer reads its input and writes its output; backward it reads the input again and the output's gradient, and
    writes the input's gradient: 3 inputs and 2 outputs. The first number counts all layers, each by itself (batch norm
    reads its input once more each way, for its sums); the second convolutions and dense layers alone, as if all else
    were done in their passes. Joining, adding and scaling maps are in neither.
    """
    alone = fused = 0

    def count(cell: nn.Cell, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal alone, fused
        moved = _FLOAT * (3 * inputs[0].size + 2 * output.size)
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            fused += moved
        if isinstance(cell, nn.BatchNorm2d):
            moved += _FLOAT * (2 * inputs[0].size + output.size)
        alone += moved

    kinds = (nn.Conv2d, nn.Dense, nn.BatchNorm2d, nn.ReLU, nn.HSigmoid)
    layers = [cell for _, cell in network.cells_and_names() if isinstance(cell, kinds)]
    with complexity.forward_hooks(layers, count):
        complexity.run(network, (3, size, size))
    return alone, fused


if __name__ == "__main__":
    answer(measure)
