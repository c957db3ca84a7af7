"""Ranks that train one network together: what must be equal on all of them, and what each has for itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError, UserError
from ..files import json_text
from .ranks import Ranks

# What to do where ranks have other images or weights.
SAME_FILES = "check data_dir, lists, exclude_list, class_names and ckpt_path on each host"

# How a run state names the entries of a rank beyond the first.
_OF_RANK = "rank{}/"


def check_told(ranks: Ranks, facts: Mapping[str, str], remedy: str) -> None:
    """Raise UserError, on all ranks, where one of these facts is not the same on all of them.

    Every rank has to call it. Ranks that go on by different keys or images wait for each other without end.

    Args:
        ranks: of the run.
        facts: name of what must be equal -> what this rank has of it, in words; the order is that of rank 0.
        remedy: what to do, for the message.
    """
    if ranks.size == 1:
        return
    own = json_text.dumps(dict(facts)).encode()
    told: list[dict[str, str]] = [json.loads(content) for content in ranks.gather_bytes(own)]
    for name in dict.fromkeys(name for each in told for name in each):
        found = [each.get(name, "nothing") for each in told]
        differing = [rank for rank, value in enumerate(found) if value != found[0]]
        if differing:
            raise UserError(
                f"{name}: rank 0 has {found[0]}, rank {', '.join(map(str, differing))} has {found[differing[0]]}; "
                f"all ranks need the same: {remedy}"
            )


def check_equal(ranks: Ranks, arrays: Mapping[str, NDArray[Any]], when: str) -> None:
    """Raise RunError, on all ranks, where named arrays are not the same on all of them, to the last bit."""
    if ranks.size == 1:
        return
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    digests = ranks.gather_bytes(digest.digest())
    differing = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if differing:
        raise RunError(
            f"{when}: the parameters of rank {', '.join(map(str, differing))} differ from those of rank 0; check that "
            "all hosts run the same versions on the same files"
        )


def averaged(ranks: Ranks, arrays: Mapping[str, NDArray[Any]], names: Collection[str]) -> dict[str, NDArray[Any]]:
    """A copy with the arrays of these names averaged over the ranks, in float64; equal ones stay what they are."""
    result = dict(arrays)
    for name, values in zip(names, _over_ranks(ranks, arrays, names), strict=True):
        mean = np.mean([value.astype(np.float64) for value in values], axis=0)
        result[name] = mean.astype(arrays[name].dtype).reshape(arrays[name].shape)
    return result


def gathered_state(ranks: Ranks, state: Mapping[str, NDArray[Any]], own: Collection[str]) -> dict[str, NDArray[Any]]:
    """The state of all ranks: rank 0's, and beside it each other rank's `own` entries as `rank1/NAME` and so on."""
    names = sorted(own)
    result = dict(state)
    for name, values in zip(names, _over_ranks(ranks, state, names), strict=True):
        result[name] = values[0]
        for rank, value in enumerate(values[1:], 1):
            result[_OF_RANK.format(rank) + name] = value
    return result


def own_state(ranks: Ranks, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """This rank's part of a `gathered_state`; rank 0's where the state knows of no such rank."""
    prefix = _OF_RANK.format(ranks.rank)
    own = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
    return {name: array for name, array in state.items() if "/" not in name} | own


def _over_ranks(ranks: Ranks, arrays: Mapping[str, NDArray[Any]], names: Collection[str]) -> list[list[NDArray[Any]]]:
    """For each name the arrays of all ranks, gathered in one message."""
    chosen = [np.ascontiguousarray(arrays[name]) for name in names]
    parts = ranks.gather(np.frombuffer(b"".join(array.tobytes() for array in chosen), np.uint8))
    ends = np.cumsum([array.nbytes for array in chosen])
    return [
        [np.frombuffer(part[end - array.nbytes : end].tobytes(), array.dtype).reshape(array.shape) for part in parts]
        for array, end in zip(chosen, ends, strict=True)
    ]
