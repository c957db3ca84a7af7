"""What a record of an epoch has: a line of `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files import json_text

# Of every record.
KEYS = ("epoch", "train_loss", "val_loss", "lr")
# What a record has beside those and the scores of its task; one of an older run may lack some.
OPTIONAL = ("seconds", "images_per_second")
OTHERS = (*OPTIONAL, "step", "base_lr")

Record = dict[str, Any]


def score_keys(record: Mapping[str, Any]) -> list[str]:
    """The entries of a record that are the scores of its task, such as "top_1"."""
    others = [(key, value) for key, value in record.items() if key not in KEYS and key not in OTHERS]
    return [key for key, value in others if value is None or json_text.is_number(value)]
