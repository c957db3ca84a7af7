"""Weights from PyTorch: names and arrays of a state dict -> names and arrays of our networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_RENAMED = (
    # The stage after the bottlenecks is one Conv-BN-ReLU cell here, a named block in PyTorch.
    (re.compile(r"^(blocks\.\d+)\.0\.conv\."), r"\1.features.0."),
    (re.compile(r"^(blocks\.\d+)\.0\.bn1\."), r"\1.features.1."),
    # GhostNetV3's branches stand, as one cell, where the fused convolution will. Their batch norm is `bn1` in timm.
    (re.compile(r"\.primary_rpr_(conv|scale|skip)\."), r".primary_conv.0.rpr_\1."),
    (re.compile(r"\.cheap_rpr_(conv|scale|skip)\."), r".cheap_operation.0.rpr_\1."),
    (re.compile(r"\.dw_rpr_(conv|scale)\."), r".conv_dw.rpr_\1."),
    (re.compile(r"(\.rpr_(?:conv\.\d+|scale))\.bn1\."), r"\1.bn."),
)
# A counter of PyTorch's, and what the tool that counted the official networks left in their files.
_DROPPED = {"num_batches_tracked", "total_ops", "total_params"}
_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def from_pytorch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the entries of a PyTorch GhostNet's state dict (V1 to V3; official code or timm), or of an official
    G-Ghost-RegNet's, to ours.

    Arrays keep their shapes and values. A layer with a `running_mean` is a batch norm; `num_batches_tracked` and the
    counters `total_ops`, `total_params` have no counterpart and are left out.
    """
    renamed = {}
    for name, array in state.items():
        layer, _, kind = name.rpartition(".")
        if kind in _DROPPED:
            continue
        if f"{layer}.running_mean" in state:
            name = f"{layer}.{_BATCH_NORM[kind]}"
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        renamed[name] = array
    return renamed
