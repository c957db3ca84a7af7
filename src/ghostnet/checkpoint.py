"""Weights from a file into a network or an optimizer: strictly, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from . import weights_file
from .errors import UserError

# A mismatch can name hundreds of parameters; a line names this many of each kind.
_NAMED = 4


@dataclass(frozen=True)
class Loaded:
    """What a weight file gave to a network.

    Attributes:
        path: the file.
        parameters: how many were loaded.
        averaged: whether the file's averaged weights (`ema.*`) were taken.
        training_entries: entries of a trainer (moments, averages, counts) that were left out.
        fresh: parameters that keep their initial values (a classifier of another size).
        stem_summed: whether the filters of a 3-channel stem were summed for a 1-channel image.
    """

    path: Path
    parameters: int
    averaged: bool
    training_entries: int
    fresh: tuple[str, ...] = ()
    stem_summed: bool = False

    def __str__(self) -> str:
        text = f"loaded {self.parameters} parameters from {self.path}"
        if self.averaged:
            text += ", the averaged ones (ema.*)"
        if self.training_entries:
            text += f"; left out {self.training_entries} entries of its trainer"
        if self.stem_summed:
            text += "; summed the stem's filters for 1-channel images"
        if self.fresh:
            text += f"; fresh, since the number of classes differs: {', '.join(self.fresh)}"
        return text


def load_weights(
    network: nn.Cell,
    path: str | Path,
    *,
    stem: str,
    classifier: str,
    averaged: bool = False,
    fresh_classifier: bool = False,
) -> Loaded:
    """Fill a network from a `.ckpt` file: everything must fit, or nothing is changed.

    Files of MindCV's trainer load too: entries of its optimizer are counted and left out.

    Args:
        network: changed in place.
        path: the file.
        stem, classifier: names of the cells that depend on the image's channels and the number of classes.
        averaged: take the `ema.*` entries, where the file has them.
        fresh_classifier: leave the classifier as it is where its shape differs.

    Raises:
        UserError: the file cannot be read, or parameters are missing, left over or of another shape (listed).
    """
    path = Path(path)
    arrays = weights_file.read(path)
    wanted = {parameter.name: parameter for parameter in network.get_parameters()}
    take_average = averaged and any(name.startswith("ema.") for name in arrays)
    if take_average:
        # All or nothing, but for batch-norm statistics, which MindCV's older averages leave out.
        average = {n.removeprefix("ema."): a for n, a in arrays.items() if n.startswith("ema.")}
        statistics = (".moving_mean", ".moving_variance")
        raw = {n for n in arrays if n.startswith("ema.") or (n in wanted and not n.endswith(statistics))}
        arrays = {n: a for n, a in arrays.items() if n not in raw} | average
    training = [name for name in arrays if name not in wanted and _is_training_entry(name, arrays)]
    weights = {name: array for name, array in arrays.items() if name not in training}

    stem_summed = _sum_stem(weights, wanted, f"{stem}.weight")
    fresh = _drop_classifier(weights, wanted, classifier) if fresh_classifier else ()
    shapes = {name: p.shape for name, p in wanted.items() if name not in fresh}
    _check_fit(path, weights, shapes, {f"{classifier}.": "num_classes", f"{stem}.": "in_channels"})
    weights = {name: _as_float32(path, name, array) for name, array in weights.items()}
    for name, array in weights.items():
        wanted[name].set_data(Tensor(array))
    return Loaded(path, len(weights), take_average, len(training), fresh, stem_summed)


def _as_float32(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """A copy in the networks' type. Raises UserError for what is no floating-point number, or too large for it."""
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path}: {name} holds {array.dtype}; expected floating-point weights")
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
    if not np.isfinite(converted).all():
        raise UserError(f"{path}: {name} holds values that float32 cannot; use another checkpoint")
    return converted


def _is_training_entry(name: str, arrays: Mapping[str, object]) -> bool:
    """True for what optimizers and trainers keep: `moments.<another entry>`, or a name outside of any layer."""
    return "." not in name or name.partition(".")[2] in arrays


def _sum_stem(weights: dict[str, np.ndarray], wanted: Mapping[str, Tensor], name: str) -> bool:
    """Sum the stem's filters over their input channels where the network takes one channel and the file three."""
    if name not in weights or weights[name].ndim != 4 or weights[name].shape[1] != 3 or wanted[name].shape[1] != 1:
        return False
    weights[name] = weights[name].sum(axis=1, keepdims=True)
    return True


def _drop_classifier(weights: dict[str, np.ndarray], wanted: Mapping[str, Tensor], classifier: str) -> tuple[str, ...]:
    """Take a classifier of another size out of `weights`; the names that stay fresh."""
    names = tuple(name for name in wanted if name.startswith(f"{classifier}."))
    if all(name in weights and weights[name].shape == tuple(wanted[name].shape) for name in names):
        return ()
    if not all(name in weights and weights[name].shape[1:] == tuple(wanted[name].shape[1:]) for name in names):
        return ()
    for name in names:
        del weights[name]
    return names


def _check_fit(
    path: Path, weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], keys: Mapping[str, str]
) -> None:
    """Raise UserError where names or shapes differ, listing all three kinds of difference.

    `keys` says which key of the config sets the shapes of which cells.
    """
    missing = [name for name in shapes if name not in weights]
    surplus = [name for name in weights if name not in shapes]
    unequal = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != tuple(shape)
    ]
    if not (missing or surplus or unequal):
        return
    kinds = (("missing", missing), ("not in the network", surplus), ("of another shape", unequal))
    differences = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names)
    to_blame = next((key for cell, key in keys.items() if all(text.startswith(cell) for text in unequal)), "model")
    if missing or surplus:
        to_blame = "model"
    raise UserError(
        f"{path}: does not fit the network ({differences}); give the {to_blame} that the file was made with"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def load_optimizer(optimizer: nn.Optimizer, path: str | Path) -> int:
    """Fill an optimizer's moments from a file that holds them: one of MindCV's trainer, or a run state.

    Learning rates and the count of updates stay as they are: the schedule of a new run starts at its beginning.
    Returns how many entries were loaded.

    Raises:
        UserError: the file cannot be read, or holds not all of this optimizer's entries in their shapes.
    """
    arrays = weights_file.read(path)
    kept = {"learning_rate", "momentum", "global_step"} | {parameter.name for parameter in optimizer.parameters}
    slots = {parameter.name: parameter for parameter in optimizer.get_parameters() if parameter.name not in kept}
    unfit = [n for n, p in slots.items() if n not in arrays or arrays[n].shape != tuple(p.shape)]
    if unfit:
        raise UserError(
            f"{path}: resume_opt: holds no state of this optimizer ({len(unfit)} of {len(slots)} entries missing or of "
            f"another shape: {_some(unfit)}); give a run_state.ckpt of a run with the same opt, or resume_opt False"
        )
    for name, parameter in slots.items():
        parameter.set_data(Tensor(arrays[name].copy(), dtype=parameter.dtype))
    return len(slots)
