"""Times -> the numbers of a benchmark, as a dict for JSON and as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from ..process import table
from . import CONTENDERS, COPY, OURS, Measured, Plan

DASH = "-"
# What a task is called, and what one of its steps is.
_TITLES = {
    "training": "Training, batches of {batch_size}",
    "inference": "Inference, batches of {batch_size}",
    "latency": "Inference, one image at a time",
    "pipeline": "Input pipeline, training: crop, flip, RandAugment, normalise, erase; {photos} photos of 500 x 375",
    "evaluation pipeline": "Input pipeline, evaluation: resize, crop, normalise; {photos} photos of 500 x 375",
    "startup": "Start of the process to the end of its first training step",
}


def numbers(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rounds of one contender come to; seconds, bytes.

    "images_per_second" is all images over all time; median and 90th percentile are over the steps of all rounds;
    the start-up of the first round, which may find no cache, stands beside the median of the others.
    """
    starts = [result["startup"] for result in results]
    peaks = [result["peak_memory"] for result in results if result["peak_memory"] is not None]
    found: dict[str, Any] = {
        "rounds": len(results),
        "first_startup": starts[0],
        "startup": median(starts[1:] or starts),
        "peak_memory": max(peaks) if peaks else None,
    }
    times = [time for result in results for time in result["times"]]
    if times:
        images = sum(result["images"] * len(result["times"]) for result in results)
        found |= {
            "steps": len(times),
            "images_per_second": images / sum(times),
            "median": median(times),
            "p90": float(np.percentile(times, 90)),
        }
    return found


def ratio(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> float | None:
    """How many times as fast ours is: median over the rounds of their seconds for an image over ours.

    Each round by itself, since its two processes ran one after the other, in about the same noise.
    """
    pairs = zip(ours, theirs, strict=False)
    speeds = [_of_an_image(other) / _of_an_image(own) for own, other in pairs if own["times"] and other["times"]]
    return median(speeds) if speeds else None


def _of_an_image(result: Mapping[str, Any]) -> float:
    return median(result["times"]) / result["images"]


def report(
    plan: Plan, facts: Mapping[str, Any], measured: Sequence[Measured], machine: Mapping[str, Any]
) -> dict[str, Any]:
    """All of a benchmark, for JSON.

    "tasks" holds, by task and contender, what `numbers` says with "ours_is_faster_by" (a factor) and the raw times of
    each round in "results", or a "note" on why there is nothing; "int8" what `integers` says, and "bandwidth" what
    `bandwidth` says.
    """
    tasks: dict[str, dict[str, Any]] = {}
    ours = {one.task: one.results for one in measured if one.contender == OURS}
    for one in measured:
        if one.contender == COPY:
            continue
        entry: dict[str, Any] = {"note": one.note} if one.note else {}
        if one.results:
            factor = ratio(ours.get(one.task, []), one.results)
            entry |= {**numbers(one.results), "ours_is_faster_by": factor, "results": one.results}
        tasks.setdefault(one.task, {})[one.contender] = entry
    _add_startup(plan, tasks)
    options = asdict(plan)
    return {
        "machine": dict(machine),
        "options": options,
        "network": dict(facts),
        "tasks": tasks,
        "int8": integers(measured),
        "bandwidth": bandwidth(facts, measured),
    }


def integers(measured: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """The fastest file of int8 beside PyTorch's fastest form, by their medians.

    "inference" and "latency", where both were measured -> "file" and "pytorch", names of contenders, and "factor", how
    many times as fast the file is (see `ratio`).
    """
    files = {one.name for one in CONTENDERS if one.variant.endswith("int8")}
    forms = {one.name for one in CONTENDERS if one.torch}
    found = {}
    for task in ("latency", "inference"):
        results = {one.contender: one.results for one in measured if one.task == task and one.results}
        fastest = [
            min(names & set(results), key=lambda name: numbers(results[name])["median"], default=None)
            for names in (files, forms)
        ]
        if None not in fastest:
            file, form = map(str, fastest)
            found[task] = {"file": file, "pytorch": form, "factor": ratio(results[file], results[form])}
    return found


def _add_startup(plan: Plan, tasks: dict[str, dict[str, Any]]) -> None:
    """The start of training is the start that is asked for, where training was measured."""
    if "startup" in plan.what and "training" in tasks:
        keys = ("note", "rounds", "first_startup", "startup", "peak_memory")
        tasks["startup"] = {
            name: {key: entry[key] for key in keys if key in entry} for name, entry in tasks["training"].items()
        }


def bandwidth(facts: Mapping[str, Any], measured: Sequence[Measured]) -> dict[str, float] | None:
    """How near our training step is to what memory allows; None where one of the two was not measured.

    "copy" is the speed of a copy in bytes a second (the best time of each round, median over rounds); "layers_alone"
    and "layers_fused" are the shares of the step's median time that moving the bytes of `contenders.prepare.traffic`
    would take at that speed.
    """
    by_name = {one.contender: one.results for one in measured if one.task == "training" and one.results}
    if OURS not in by_name or COPY not in by_name:
        return None
    speed = median(result["bytes"] / min(result["times"]) for result in by_name[COPY])
    step = median(time for result in by_name[OURS] for time in result["times"])
    return {
        "copy": speed,
        "layers_alone": facts["bytes"] / speed / step,
        "layers_fused": facts["fused_bytes"] / speed / step,
    }


def tables(found: Mapping[str, Any]) -> str:
    """A `report` as text: a table for each task, then the memory's part in our training step."""
    options = found["options"]
    parts = [
        f"{options['model']}, {options['image_size']} x {options['image_size']} pixels, "
        f"{found['network']['macs'] / 1e6:.0f} M MACs; {options['threads']} threads, {options['rounds']} round(s)",
        f"on this machine: {found['machine']['cpu']}, {found['machine']['cores']} cores, "
        + ", ".join(f"{package} {version}" for package, version in found["machine"]["versions"].items()),
    ]
    for task in ("training", "inference", "latency", "pipeline", "evaluation pipeline", "startup"):
        if task in found["tasks"]:
            parts += ["", _TITLES[task].format(**options), _table(task, found["tasks"][task], options["threads"])]
    if found["int8"]:
        parts += ["", "The fastest file of int8 beside PyTorch's fastest form:"]
        for task, pair in found["int8"].items():
            title = _TITLES[task].format(**options)
            parts.append(f"{title}: {pair['file']} is {_factor(pair['factor'])} as fast as {pair['pytorch']}")
    if found["bandwidth"]:
        parts += ["", _memory(found)]
    return "\n".join(parts)


def _table(task: str, entries: Mapping[str, Mapping[str, Any]], threads: int) -> str:
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]]
    if "pipeline" in task:
        columns = [
            ("images/s", lambda entry: f"{entry['images_per_second']:.1f}"),
            ("per core", lambda entry: f"{entry['images_per_second'] / threads:.1f}"),
        ]
    elif task == "startup":
        columns = [
            ("first", lambda entry: f"{entry['first_startup']:.1f} s"),
            ("later", lambda entry: f"{entry['startup']:.1f} s" if entry["rounds"] > 1 else DASH),
        ]
    else:
        columns = [
            ("images/s", lambda entry: f"{entry['images_per_second']:.1f}"),
            ("median", lambda entry: f"{entry['median'] * 1e3:.1f} ms"),
            ("p90", lambda entry: f"{entry['p90'] * 1e3:.1f} ms"),
        ]
    if task != "startup":
        columns.append(("ours is", lambda entry: _factor(entry["ours_is_faster_by"])))
        columns.append(("peak memory", lambda entry: _bytes(entry["peak_memory"])))
    lines = [[task, *(title for title, _ in columns)]]
    notes = []
    for name, entry in entries.items():
        there = "rounds" in entry
        lines.append([name, *(cell(entry) if there else DASH for _, cell in columns)])
        if "note" in entry:
            notes.append(f"{name}: {entry['note']}")
    return "\n".join([*table.lines(lines, right=True), *notes])


def _factor(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f} x"


def _bytes(value: int | None) -> str:
    return DASH if value is None else f"{value / 1e6:,.0f} MB"


def _memory(found: Mapping[str, Any]) -> str:
    """One paragraph on the memory's part in our training step."""
    memory, network = found["bandwidth"], found["network"]
    return (
        f"Memory copies {memory['copy'] / 1e9:.1f} GB/s. At that speed, the {network['bytes'] / 1e9:.2f} GB that the "
        f"layers of a training step move one by one take {memory['layers_alone']:.0%} of our step;\nthe "
        f"{network['fused_bytes'] / 1e9:.2f} GB of its convolutions and dense layers, all else done in their passes, "
        f"{memory['layers_fused']:.0%}."
    )
