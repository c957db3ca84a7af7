"""What the tests share."""

import gc
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ghostnet  # noqa: F401  (environment defaults, before MindSpore is imported)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def graph_mode() -> Iterator[None]:
    """Where MindSpore is in use, a test starts in graph mode with a fixed seed, and its networks are collected."""
    ms = sys.modules.get("mindspore")
    if ms is None:
        yield
        return
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(1)
    yield
    gc.collect()


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


def randomise(network, seed: int = 0) -> None:
    """Random weights and batch-norm statistics, so that no parameter is at a value that hides a mistake."""
    from mindspore import Tensor

    rng = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        kind = parameter.name.rpartition(".")[2]
        if kind in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, parameter.shape)
        elif kind == "weight":
            values = rng.standard_normal(parameter.shape) * np.sqrt(2 / np.prod(parameter.shape[1:]))
        else:
            values = 0.1 * rng.standard_normal(parameter.shape)
        parameter.set_data(Tensor(values.astype(np.float32)))
