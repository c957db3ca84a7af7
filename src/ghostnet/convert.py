"""Weights from PyTorch: names and arrays of a state dict -> names and arrays of our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

# The stage after the bottlenecks is one Conv-BN-ReLU cell here, a named block in PyTorch.
_RENAMED = (
    (re.compile(r"^(blocks\.\d+)\.0\.conv\."), r"\1.features.0."),
    (re.compile(r"^(blocks\.\d+)\.0\.bn1\."), r"\1.features.1."),
)
_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def from_pytorch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the entries of a PyTorch GhostNet's state dict (official code or timm) to MindCV's names, those of an
    official G-Ghost-RegNet's to ours, which differ in the batch norms only.

    Arrays keep their shapes and values. A layer with a `running_mean` is a batch norm; `num_batches_tracked` has no
    counterpart and is left out.
    """
    renamed = {}
    for name, array in state.items():
        layer, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            continue
        if f"{layer}.running_mean" in state:
            name = f"{layer}.{_BATCH_NORM[kind]}"
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        renamed[name] = array
    return renamed
