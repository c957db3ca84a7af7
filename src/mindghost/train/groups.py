"""Learning rates of parts of a network: which parameter has which multiple of the schedule's rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn

from ..config import Config
from ..models.depth import layers
from ..models.network import RegistryNetwork
from ..ops.scaled_rates import ScaledRates


def scales(config: Config, network: nn.Cell) -> dict[str, float]:
    """The multiple of each trainable parameter by name; empty where the configuration sets no factor.

    `layer_decay ** (last - layer)`, with timm's numbers of the layers (see `models.depth.layers`: the head is the last
    one), times `head_lr_factor` for the head and `backbone_lr_factor` for all else. The head is the classifier; of a
    network for segmentation, decoder and classifier.
    """
    decay = 1.0 if config.layer_decay is None else config.layer_decay
    if decay == config.head_lr_factor == config.backbone_lr_factor == 1:
        return {}
    assert isinstance(network, RegistryNetwork)  # of the registry
    numbers = layers(network)
    last = max(numbers.values())
    found = {}
    for parameter in network.trainable_params():
        layer = numbers[parameter.name]
        part = config.head_lr_factor if layer == last else config.backbone_lr_factor
        found[parameter.name] = part * decay ** (last - layer)
    return found


def parameter_groups(
    config: Config, parameters: Sequence[Parameter], scale_of: Mapping[str, float], rates: Sequence[float]
) -> list[dict[str, Any]]:
    """MindSpore's groups of parameters: those of one rate and one weight decay together, in the order of `parameters`.

    Args:
        config: `weight_decay` and `weight_decay_filter`, which means what it does without groups.
        parameters: of a network.
        scale_of: multiple of each, by name.
        rates: the schedule's, of each update.
    """
    table = Parameter(Tensor(np.array(rates, np.float32)), name="learning_rate", requires_grad=False)
    schedules: dict[float, ScaledRates] = {}
    groups: dict[tuple[float, float], list[Parameter]] = {}
    for parameter in parameters:
        decay = config.weight_decay if _decays(parameter.name, config.weight_decay_filter) else 0.0
        groups.setdefault((scale_of[parameter.name], decay), []).append(parameter)
    for scale, _ in groups:
        schedules.setdefault(scale, ScaledRates(table, scale))
    members: list[dict[str, Any]] = [
        {"params": found, "lr": schedules[scale], "weight_decay": decay} for (scale, decay), found in groups.items()
    ]
    return [*members, {"order_params": list(parameters)}]


def _decays(name: str, decay_filter: str) -> bool:
    """Whether weight decay applies to a parameter: MindCV's rules, and MindSpore's own for "auto"."""
    left_out = {"disable": (), "auto": ("beta", "gamma"), "norm_and_bias": ("beta", "gamma", "bias")}
    return not any(part in name for part in left_out[decay_filter])
