"""The epochs of a schedule when `epoch_size` is changed alone: in the proportion that they had.

A warm-up, a decay and milestones belong to the `epoch_size` that they were written for: those of a recipe to the
recipe's, the defaults to the default. Whoever names another `epoch_size` without them gets them shorter or longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .yaml_file import dump

# Digits behind the point of a step that takes a fraction of an epoch.
_DIGITS = 4

# What this module works out; `num_cycles` and `scheduler` it reads.
KEYS = ("warmup_epochs", "decay_epochs", "multi_step_decay_milestones")


def scaled(defaults: Mapping[str, Any], *layers: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The values of `KEYS` that follow from an `epoch_size` given without them.

    - `warmup_epochs`: `epoch_size` times its share of the epochs that it was written for, rounded.
    - `decay_epochs` of a cosine: of the epochs behind the warm-up, the share that it had, and never more than all (of
      several cycles, all together).
    - `decay_epochs` of `step_decay`, milestones: as much shorter or longer as the epochs behind the warm-up.

    Other schedulers have no lengths to change: they take what epochs there are.

    Args:
        defaults: every key's default.
        layers: the values given by each source, the one that goes before all others last; not checked yet.

    Returns:
        The values, none where nothing changes or a value is not what it should be, and a line about them.
    """
    everything = dict(defaults)
    for layer in layers:
        everything |= layer
    shape = {key: everything[key] for key in ("scheduler", "num_cycles")}
    now, written_for = dict(defaults), dict.fromkeys(KEYS, defaults["epoch_size"])
    as_written = dict(defaults)
    for layer in layers:
        before, now = now, {**now, **layer}
        for key in set(KEYS) & set(layer):
            written_for[key], as_written[key] = now["epoch_size"], layer[key]
        fits = _is_schedule(before) and _is_schedule(now) and before["warmup_epochs"] < before["epoch_size"]
        if fits and now["epoch_size"] != before["epoch_size"]:
            now |= _stretched(before, {**now, **shape}, set(KEYS) - set(layer))
    changed = {key: now[key] for key in KEYS if now[key] != everything[key]}
    if not changed:
        return {}, ""
    parts = [
        f"{key} {_plain(value)} ({_plain(as_written[key])} of {written_for[key]})" for key, value in changed.items()
    ]
    ending = "give it to have another" if len(changed) == 1 else "give them to have others"
    return changed, f"epoch_size {now['epoch_size']}: {' and '.join(parts)}, in proportion; {ending}"


def _stretched(before: Mapping[str, Any], now: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """New values of some keys for the `epoch_size` of `now`, from those that they had `before`."""
    found: dict[str, Any] = {}
    epochs = now["epoch_size"]
    warmup = now["warmup_epochs"]
    if "warmup_epochs" in keys:
        share = before["warmup_epochs"] / before["epoch_size"]
        warmup = found["warmup_epochs"] = min(_rounded(epochs * share), epochs - 1)
    # Behind the warm-up.
    had, rest = before["epoch_size"] - before["warmup_epochs"], epochs - warmup
    if rest < 1:
        return found
    if "decay_epochs" in keys and now["scheduler"] == "cosine_decay":
        most = max(1, rest // now["num_cycles"])
        found["decay_epochs"] = min(max(1, _rounded(rest * before["decay_epochs"] / had)), most)
    if "decay_epochs" in keys and now["scheduler"] == "step_decay":
        step = round(before["decay_epochs"] * rest / had, _DIGITS) or 10**-_DIGITS
        found["decay_epochs"] = int(step) if step == int(step) else step
    milestones = before["multi_step_decay_milestones"]
    if "multi_step_decay_milestones" in keys and now["scheduler"] == "multi_step_decay":
        found["multi_step_decay_milestones"] = tuple(max(1, _rounded(epoch * rest / had)) for epoch in milestones)
    return found


def _is_schedule(values: Mapping[str, Any]) -> bool:
    """Whether these are numbers of epochs; what else may be given has its message elsewhere."""
    epochs, warmup, decay = (values[key] for key in ("epoch_size", "warmup_epochs", "decay_epochs"))
    cycles, milestones = values["num_cycles"], values["multi_step_decay_milestones"]
    whole = isinstance(milestones, (list, tuple)) and all(type(n) is int for n in (epochs, warmup, cycles, *milestones))
    return (
        whole and type(decay) in (int, float) and warmup >= 0 and min(epochs, cycles) > 0 and 0 < decay < float("inf")
    )


def _rounded(number: float) -> int:
    """To the nearest whole number, a half up."""
    return int(number + 0.5)


def _plain(value: Any) -> str:
    return dump(tuple(value) if isinstance(value, list) else value)
