"""The rows of `predictions`: which labels each image has, the probability of each, and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.table_file import Column
from .metrics import Outcomes, probabilities


def columns(names: Sequence[str]) -> tuple[Column, ...]:
    """What a row has; `names` are those of all outputs."""
    return (Column("loss", "f8"), Column("true", "i4", parts=names), Column("probability", "f4", parts=names))


def values(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The columns of one batch: logits and labels, (N, classes) float32 each. The loss is in nats."""
    found = Outcomes(logits, labels > 0)
    return {"loss": found.losses, "true": labels.astype(np.int32), "probability": probabilities(logits)}
