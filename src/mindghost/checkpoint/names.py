"""Parameter names: ours, MindCV's, timm's, and what a file wraps around them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import UserError

# Parts of names that differ in PyTorch: ours, timm's. `#` stands for a number. All rows apply, in this order.
_RENAMED = (
    # The stage after the bottlenecks is one Conv-BN-ReLU cell here, a named block in PyTorch.
    ("blocks.#.features.0.", "blocks.#.0.conv."),
    ("blocks.#.features.1.", "blocks.#.0.bn1."),
    # GhostNetV3's branches stand, as one cell, where the fused convolution will. Their batch norm, `bn` for the authors
    # too, is `bn1` in timm.
    (".primary_conv.0.rpr_", ".primary_rpr_"),
    (".cheap_operation.0.rpr_", ".cheap_rpr_"),
    (".conv_dw.rpr_", ".dw_rpr_"),
    ("rpr_conv.#.bn.", "rpr_conv.#.bn1."),
    ("rpr_scale.bn.", "rpr_scale.bn1."),
)


_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


_STATISTICS = (".running_mean", ".running_var")


# Counters without a counterpart: of PyTorch's batch norm, and those that thop left in the authors' GhostNetV2 files
# (https://github.com/huawei-noah/Efficient-AI-Backbones/issues/175).
_COUNTERS = ("num_batches_tracked", "total_ops", "total_params")


# What wrappers put before each name: DistributedDataParallel, torch.compile, FSDP, Lightning and training scripts, and
# MindSpore's and MindCV's cells around a network (`_backbone` is nn.WithLossCell's).
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "model", "network", "train_network", "backbone", "net")
_WRAPPED = re.compile(rf"(?:_?(?:{'|'.join(_WRAPPERS)})\.)+")


def _rules(rows: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    """Rows of (template, template) as patterns and what replaces them."""
    rules = []
    for found, wanted in rows:
        pattern = re.escape(found).replace(re.escape("#"), r"(\d+)")
        first, *others = wanted.split("#")
        replacement = first + "".join(rf"\g<{number}>{other}" for number, other in enumerate(others, 1))
        rules.append((re.compile(pattern), replacement))
    return rules


_TO_THEIRS, _TO_OURS = _rules(_RENAMED), _rules((theirs, ours) for ours, theirs in _RENAMED)


def _rename(name: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def our_names(names: Collection[str]) -> dict[str, str]:
    """Names in a PyTorch state dict (the authors' code or timm) -> our names, without the counters.

    A layer with statistics is a batch norm.
    """
    norms = {name.rpartition(".")[0] for name in names if name.endswith(_STATISTICS)}
    found = {}
    for name in names:
        layer, _, kind = name.rpartition(".")
        if kind not in _COUNTERS:
            kind = _BATCH_NORM.get(kind, kind) if layer in norms else kind
            found[name] = _rename(f"{layer}.{kind}" if layer else kind, _TO_OURS)
    return found


def timm_names(names: Iterable[str]) -> dict[str, str]:
    """Our names -> those in the state dict of the same network of timm's (of its authors', where timm has none)."""
    kinds = {ours: theirs for theirs, ours in _BATCH_NORM.items()}
    found = {}
    for name in names:
        layer, dot, kind = _rename(name, _TO_THEIRS).rpartition(".")
        found[name] = f"{layer}{dot}{kinds.get(kind, kind)}"
    return found


def from_pytorch(state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Rename the entries of a PyTorch state dict to our names; arrays keep their shapes and values."""
    return {ours: state[theirs] for theirs, ours in our_names(state).items()}


def unwrapped(path: Path, found: Collection[str], wanted: Collection[str]) -> tuple[str, dict[str, str]]:
    """The prefix of a wrapper, such as `module.` or `model.module.`, and each name in a file without it.

    A trainer's file holds other entries, too, so those count that a network has: the prefix is taken off under which
    the most of them stand. It is empty where as many stand under none, or under two.

    Args:
        path: the file, for messages.
        found: the names in it, as ours.
        wanted: names of the network's parameters.

    Raises UserError where a parameter is there twice, under another prefix or none.
    """
    fitting = Counter(prefix for name in found for prefix in _prefixes(name) if name.removeprefix(prefix) in wanted)
    fitting[""] = sum(name in wanted for name in found)
    (prefix, count), *others = fitting.most_common()
    if others and others[0][1] == count:
        prefix = ""
    bare = {name: _without(prefix, name) for name in found}
    there = set(bare.values())
    for name, rest in bare.items():
        again = [rest.removeprefix(other) for other in _prefixes(rest)] if rest not in wanted else []
        if twice := next((other for other in again if other in wanted and other in there), None):
            raise UserError(f"{path}: holds {twice} twice, also as {name}; use another copy of the file")
    return prefix, bare


def _prefixes(name: str) -> list[str]:
    """`model.`, `model.module.` for model.module.x."""
    found = _WRAPPED.match(name)
    return [name[: dot.end()] for dot in re.finditer(r"\.", found[0])] if found else []


def _without(prefix: str, name: str) -> str:
    """A name without a prefix; that of a trainer's entry, moments.module.x, without what follows its first part."""
    if name.startswith(prefix):
        return name.removeprefix(prefix)
    kind, dot, rest = name.partition(".")
    return kind + dot + rest.removeprefix(prefix)


@dataclass(frozen=True)
class Selection:
    """The weights among the entries of a file.

    Attributes:
        names: our name -> name in the file.
        prefix: what was taken off the file's names.
        training: how many entries of a trainer (moments, averages, counts) are left out.
        averaged: whether the file's averaged weights (`ema.*`) were taken.
    """

    names: dict[str, str]
    prefix: str
    training: int
    averaged: bool


def select(path: Path, found: Collection[str], wanted: Collection[str], averaged: bool) -> Selection:
    """Choose from the names in a file, ours or PyTorch's.

    Args:
        path: the file, for messages.
        found: the names in it.
        wanted: names of the network's parameters.
        averaged: take the `ema.*` entries, where the file has them.

    Raises UserError where two entries of the file have one name here; see `unwrapped`.
    """
    renamed = our_names(found) if any(name.endswith(_STATISTICS) for name in found) else {name: name for name in found}
    prefix, bare = unwrapped(path, renamed.values(), wanted)
    names: dict[str, str] = {}
    for theirs, wrapped in renamed.items():
        ours = bare[wrapped]
        if ours in names:
            both = " and ".join(sorted((names[ours], theirs)))
            raise UserError(f"{path}: {both} are one parameter here; use another copy of the file")
        names[ours] = theirs
    take_average = averaged and any(name.startswith("ema.") for name in names)
    if take_average:
        # All or nothing, but for batch-norm statistics, which MindCV's older averages leave out.
        average = {name.removeprefix("ema."): theirs for name, theirs in names.items() if name.startswith("ema.")}
        statistics = (".moving_mean", ".moving_variance")
        raw = {name for name in names if name.startswith("ema.") or (name in wanted and not name.endswith(statistics))}
        names = {name: theirs for name, theirs in names.items() if name not in raw} | average
    weights = {n: theirs for n, theirs in names.items() if n in wanted or not _is_training_entry(n, names)}
    return Selection(weights, prefix, len(names) - len(weights), take_average)


def _is_training_entry(name: str, names: Collection[str]) -> bool:
    """True for what optimizers and trainers keep: `moments.<another entry>`, or a name outside of any layer."""
    return "." not in name or name.partition(".")[2] in names
