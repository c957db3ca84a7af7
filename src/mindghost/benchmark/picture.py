"""Accuracy against what it costs, for a family of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name's beginning -> what the line is called.
_FAMILIES = {
    "ghostnet_": "GhostNet",
    "ghostnetv2_": "GhostNetV2",
    "ghostnetv3_": "GhostNetV3, fused",
    "repghostnet_": "RepGhostNet, fused",
}


def family_names() -> list[str]:
    """The networks that are drawn."""
    from ..models import list_models

    return [name for name in list_models() if name.startswith(tuple(_FAMILIES))]


def points(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Name -> seconds for one image, as "name", "family", "latency" (seconds), "macs" and published "top_1" (%)."""
    from ..models import card

    found = []
    for name, latency in seconds.items():
        facts = card(name)
        line = next(title for start, title in _FAMILIES.items() if name.startswith(start))
        macs = facts.macs if facts.fused_macs is None else facts.fused_macs
        found.append({"name": name, "family": line, "latency": latency, "macs": macs, "top_1": facts.paper_top_1})
    return found


def png(entries: Sequence[Mapping[str, Any]], machine: str) -> bytes:
    """A PNG file of two panels: top-1 against latency, and against multiply-accumulates.

    Args:
        entries: `points`.
        machine: that the latencies are of.
    """
    try:
        return figures.png(lambda: _draw(entries, machine), dpi=120)
    except ImportError as error:
        raise UserError(f"--plot: matplotlib draws it ({error}); pip install matplotlib") from error


def _draw(entries: Sequence[Mapping[str, Any]], machine: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    axes = (
        ("latency", 1e3, f"milliseconds for an image in ONNX Runtime\n({figures.label(machine)})"),
        ("macs", 1e-6, "million MACs"),
    )
    for panel, (key, unit, label) in zip(panels, axes, strict=True):
        for line in dict.fromkeys(entry["family"] for entry in entries):
            ours = sorted((e for e in entries if e["family"] == line), key=lambda e: e["top_1"])
            places = [(entry[key] * unit, entry["top_1"]) for entry in ours]
            panel.plot(*zip(*places, strict=True), marker="o", label=line)
            for entry, place in zip(ours, places, strict=True):
                width = int(entry["name"].rpartition("_")[2]) / 100
                panel.annotate(f"{width:g}x", place, textcoords="offset points", xytext=(5, -11), fontsize=8)
        panel.set_xlabel(label)
        panel.margins(x=0.12)  # room for the names of the points
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("published top-1 on ImageNet, %")
    panels[0].legend(loc="lower right")
    return figure
