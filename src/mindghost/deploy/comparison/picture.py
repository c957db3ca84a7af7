"""The picture of a comparison: score against the time for one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES, _DPI = (9, 6), 120
# Okabe and Ito's colours, and a sign for each precision, for whoever sees no colours.
_COLORS = {"mindir": "#0072B2", "onnx": "#D55E00", "openvino": "#009E73", "litert": "#CC79A7", "ncnn": "#E69F00"}
_SIGNS = {"float32": "o", "float16": "s", "int8": "^"}


def draw(record: Mapping[str, Any], task: Task) -> Figure:
    """The picture of what `Comparison.record` gives."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(_INCHES, _DPI, layout="constrained")
    panel = figure.subplots()
    for file in record["files"]:
        precision = file["precision"].split()[0]
        chosen = file["path"] == record["recommended"]
        panel.plot(
            file["latency_ms"],
            file[task.score],
            _SIGNS[precision],
            color=_COLORS[file["format"]],
            markersize=14 if chosen else 8,
            markeredgecolor="black" if chosen else "none",
        )
        panel.annotate(
            f"{file['size'] / 1e6:.1f} MB",
            (file["latency_ms"], file[task.score]),
            xytext=(8, -3),
            textcoords="offset points",
            fontsize=8,
        )
    lowest = record[task.score] - record["max_drop"]
    panel.axhline(record[task.score], color="black", lw=1, label="checkpoint")
    panel.axhline(lowest, color="black", lw=1, ls=":", label=f"{record['max_drop']:g} points less")
    panel.set_xlabel(f"one image, median (ms), {record['threads']} thread(s) of {record['machine']}")
    panel.set_ylabel(f"{task.score_title} ({task.score_unit.strip()})" if task.score_unit else task.score_title)
    panel.set_xlim(0, 1.15 * max(file["latency_ms"] for file in record["files"]))
    panel.grid(alpha=0.3)
    kinds = {file["format"] for file in record["files"]}
    precisions = {file["precision"].split()[0] for file in record["files"]}
    handles = [Line2D([], [], marker="o", ls="", color=_COLORS[kind], label=kind) for kind in _COLORS if kind in kinds]
    handles += [
        Line2D([], [], marker=sign, ls="", color="gray", label=name)
        for name, sign in _SIGNS.items()
        if name in precisions
    ]
    handles += panel.get_lines()[-2:]
    panel.legend(handles=handles, fontsize=8)
    return figure
