"""Weights from a file into a network or an optimizer: strictly, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindspore import Tensor, nn
from numpy.typing import NDArray

from ..errors import UserError
from ..models.parameters import assign
from ..process.display import some
from . import weights as weights_file
from .fit import Differences, as_float32, check_fit
from .names import select, unwrapped


@dataclass(frozen=True)
class Loaded:
    """What a weight file gave to a network.

    Attributes:
        path: the file.
        parameters: how many were loaded.
        averaged: whether the file's averaged weights (`ema.*`) were taken.
        training_entries: entries of a trainer (moments, averages, counts) that were left out.
        part: of the network, which alone is filled; empty for all of it.
        fresh: parameters that keep their initial values (a classifier of another size; all beside the part).
        stem_summed: whether the filters of a 3-channel stem were summed for a 1-channel image.
        dropped: parameters of the whole network in the file that this part of it does without.
        prefix: of a wrapper, that was taken off the file's names.
    """

    path: Path
    parameters: int
    averaged: bool
    training_entries: int
    part: str = ""
    fresh: tuple[str, ...] = ()
    stem_summed: bool = False
    dropped: tuple[str, ...] = ()
    prefix: str = ""

    def __str__(self) -> str:
        of_part = f" of {self.part}" if self.part else ""
        text = f"loaded {self.parameters} parameters{of_part} from {self.path}"
        if self.averaged:
            text += ", the averaged ones (ema.*)"
        if self.prefix:
            text += f"; took off the prefix {self.prefix}"
        if self.training_entries:
            text += f"; left out {self.training_entries} entries of its trainer"
        if self.stem_summed:
            text += "; summed the stem's filters for 1-channel images"
        if self.fresh and not self.part:
            text += f"; fresh, since the number of classes differs: {', '.join(self.fresh)}"
        if self.dropped:
            text += f"; dropped {len(self.dropped)} that the network does without: {some(self.dropped)}"
        if self.fresh and self.part:
            cells = dict.fromkeys(name.partition(".")[0] for name in self.fresh)
            text += f"; everything else is fresh: {', '.join(cells)} ({len(self.fresh)} parameters)"
        return text


def fill_network(
    network: nn.Cell,
    path: str | Path,
    *,
    stem: str,
    classifier: str,
    averaged: bool = False,
    fresh_classifier: bool = False,
    prefix: str = "",
    key: str = "model",
) -> Loaded:
    """Fill a network from a `.ckpt` or `.safetensors` file: everything must fit, or nothing is changed.

    Files of MindCV's trainer load too: entries of its optimizer are counted and left out. Parameters may have PyTorch's
    names, and all of them a wrapper's prefix (see `convert`). A network without classifier, or of feature maps only,
    takes files of the whole network.

    Args:
        network: changed in place.
        path: the file.
        stem, classifier: names of the cells that depend on the image's channels and the number of classes.
        averaged: take the `ema.*` entries, where the file has them.
        fresh_classifier: leave the classifier as it is where its shape differs.
        prefix: what stands before the file's names in those of the network, which is a part of another one. A file of
            that other one is taken, too: the entries with the prefix.
        key: names the network, for messages.

    Raises:
        UserError: the file cannot be read, or parameters are missing, left over or of another shape (listed).
    """
    path = Path(path)
    arrays = weights_file.read(path)
    wanted = {parameter.name.removeprefix(prefix): parameter for parameter in network.get_parameters()}
    dropped: tuple[str, ...] = ()
    if prefix and f"{prefix}{stem}.weight" in arrays:
        dropped = tuple(name for name in arrays if not name.startswith(prefix))
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    selection = select(path, arrays, wanted, averaged)
    weights = {ours: arrays[theirs] for ours, theirs in selection.names.items()}
    dropped += tuple(name for name in getattr(network, "left_out", ()) if weights.pop(name, None) is not None)

    stem_summed = _sum_stem(weights, wanted, f"{stem}.weight")
    fresh = _drop_classifier(weights, wanted, classifier) if fresh_classifier else ()
    shapes = {name: p.shape for name, p in wanted.items() if name not in fresh}
    differences = Differences.between(weights, shapes)
    keys = {f"{classifier}.": "num_classes", f"{stem}.": "in_channels"}
    check_fit(path, differences, keys, selection.prefix, key)
    weights = {name: as_float32(path, name, array) for name, array in weights.items()}
    for name, array in weights.items():
        assign(wanted[name], array)
    return Loaded(
        path,
        len(weights),
        selection.averaged,
        selection.training,
        fresh=fresh,
        stem_summed=stem_summed,
        dropped=dropped,
        prefix=selection.prefix,
    )


def _sum_stem(weights: dict[str, NDArray[Any]], wanted: Mapping[str, Tensor], name: str) -> bool:
    """Sum the stem's filters over their input channels where the network takes one channel and the file three."""
    if name not in weights or weights[name].ndim != 4 or weights[name].shape[1] != 3 or wanted[name].shape[1] != 1:
        return False
    weights[name] = weights[name].sum(axis=1, keepdims=True)
    return True


def _drop_classifier(
    weights: dict[str, NDArray[Any]], wanted: Mapping[str, Tensor], classifier: str
) -> tuple[str, ...]:
    """Take a classifier of another size out of `weights`; the names that stay fresh."""
    names = tuple(name for name in wanted if name.startswith(f"{classifier}."))
    if all(name in weights and weights[name].shape == tuple(wanted[name].shape) for name in names):
        return ()
    if not all(name in weights and weights[name].shape[1:] == tuple(wanted[name].shape[1:]) for name in names):
        return ()
    for name in names:
        del weights[name]
    return names


def fill_optimizer(optimizer: nn.Optimizer, path: str | Path) -> int:
    """Fill an optimizer's moments from a file that holds them: one of MindCV's trainer, or a run state.

    Learning rates and the count of updates stay as they are: the schedule of a new run starts at its beginning.
    Returns how many entries were loaded.

    Raises:
        UserError: the file cannot be read, or holds not all of this optimizer's entries in their shapes.
    """
    path, weights = Path(path), {parameter.name for parameter in optimizer.parameters}
    arrays = weights_file.read(path)
    _, bare = unwrapped(path, arrays, weights)
    arrays = {bare[name]: array for name, array in arrays.items()}
    kept = {"learning_rate", "momentum", "global_step"} | weights
    slots = {parameter.name: parameter for parameter in optimizer.get_parameters() if parameter.name not in kept}
    unfit = [n for n, p in slots.items() if n not in arrays or arrays[n].shape != tuple(p.shape)]
    if unfit:
        raise UserError(
            f"{path}: resume_opt: holds no state of this optimizer ({len(unfit)} of {len(slots)} entries missing or of "
            f"another shape: {some(unfit)}); give a run_state.ckpt of a run with the same opt, or resume_opt "
            "False"
        )
    for name, parameter in slots.items():
        assign(parameter, arrays[name])
    return len(slots)
