"""Weights for networks: those of the golden files, and random ones."""

import json
import zlib

import numpy as np

from tests.helpers.places import GOLDEN


def golden_state(name: str, num_classes: int = 1000) -> dict[str, np.ndarray]:
    """The state dict of golden/README's fill rule, by PyTorch names."""
    facts = json.loads((GOLDEN / f"{name}.json").read_text())
    state = {}
    for entry, shape, kind in facts["entries"]:
        if entry.startswith("classifier."):
            shape = [num_classes, *shape[1:]]
        rng = np.random.default_rng(zlib.crc32(entry.encode()))
        if kind == "weight":
            values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif kind == "gamma":
            values = rng.uniform(*facts["gamma_range"], shape)
        elif kind == "running_var":
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = 0.1 * rng.standard_normal(shape)
        state[entry] = values.astype(np.float32)
    return state


def randomise(network, seed: int = 0, gamma: tuple[float, float] = (0.5, 1.5)) -> None:
    """Random weights and batch-norm statistics, so that no parameter is at a value that hides a mistake.

    Values grow from layer to layer with a `gamma` around 1; a deep network with sigmoids needs a smaller one, or
    rounding decides which of them are open.
    """
    from mindspore import Tensor

    rng = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        kind = parameter.name.rpartition(".")[2]
        if kind == "gamma":
            values = rng.uniform(*gamma, parameter.shape)
        elif kind == "moving_variance":
            values = rng.uniform(0.5, 1.5, parameter.shape)
        elif kind == "weight":
            values = rng.standard_normal(parameter.shape) * np.sqrt(2 / np.prod(parameter.shape[1:]))
        else:
            values = 0.1 * rng.standard_normal(parameter.shape)
        parameter.set_data(Tensor(values.astype(np.float32)))
