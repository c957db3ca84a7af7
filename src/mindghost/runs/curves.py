"""A run's `metrics.jsonl`, and the picture of what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import figures, paths
from .record import Record, score_keys

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES, DPI = (9, 10), 120
# A curve: key of the records, name in the legend, line style.
Curve = tuple[str, str, str]
LOSSES: Sequence[Curve] = (("train_loss", "training", "--"), ("val_loss", "validation", "-"))
RATE: Sequence[Curve] = (("lr", "learning rate", "-"),)
STYLES = ("-", ":", "--")  # of scores
SCORES = "validation score (%)"  # the axis of scores that have none of their own, or several
# Entry of a record that is a score -> what it is called, and what its axis is called (`tasks.score_titles`).
Titles = Mapping[str, tuple[str, str]]
# Where the longest run has more epochs, curves are drawn without markers.
MAX_MARKERS = 40
# Characters of a run's name that fit.
MAX_NAME = 100
MARKERS = {"-": "o", "--": "s", ":": "^"}


def names(files: list[Path]) -> list[str]:
    """What to call the runs: their folders' names where these differ, the folders' paths otherwise."""
    short = [paths.real(file).parent.name for file in files]
    return short if len(set(short)) == len(short) else [str(file.parent) for file in files]


def png(runs: list[tuple[str, list[Record]]], titles: Titles) -> bytes:
    """The picture that `draw` makes, as a PNG file. Raises UserError where matplotlib is missing."""
    figures.check()
    return figures.png(lambda: draw(runs, titles))


def draw(runs: list[tuple[str, list[Record]]], titles: Titles) -> Figure:
    """Three panels over the epochs: loss, scores of the validation, learning rate; a colour for each run.

    Args:
        runs: name and records of each.
        titles: what scores are called; others are called by their entries.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(INCHES, DPI, layout="constrained")
    panels = figure.subplots(3, sharex=True)
    colormap: Any = matplotlib.colormaps["tab10" if len(runs) <= 10 else "tab20"]
    colors = colormap.colors
    short = max(len(records) for _, records in runs) <= MAX_MARKERS
    for panel, (title, curves) in zip(panels, _panels(runs, titles).items(), strict=True):
        panel.set_ylabel(title)
        panel.grid(alpha=0.3)
        for index, (_, records) in enumerate(runs):
            for key, name, style in curves:
                _draw_curve(panel, records, key, name, style, short, colors[index % len(colors)])
        _explain_styles(panel, len(curves) > 1)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.align_ylabels(panels)
    if len(runs) == 1:
        figure.suptitle(_text(runs[0][0]))
    else:
        _explain_colors(figure, [name for name, _ in runs], colors)
    return figure


def _panels(runs: list[tuple[str, list[Record]]], titles: Titles) -> dict[str, Sequence[Curve]]:
    """Title of each panel's y axis -> its curves: the scores are those that a run has, whatever its task."""
    records = [record for _, records in runs for record in records]
    keys = dict.fromkeys(key for record in records for key in score_keys(record))
    # Of five classes, the best five answers always have the right one: a line at the top would flatten the others.
    telling = [key for key in keys if {record.get(key) for record in records} - {None, 100}]
    known = {key: titles.get(key, (key.replace("_", " "), SCORES)) for key in telling or keys}
    scores = [(key, title, STYLES[place % len(STYLES)]) for place, (key, (title, _)) in enumerate(known.items())]
    axes = {axis for _, axis in known.values()}
    return {"loss": LOSSES, axes.pop() if len(axes) == 1 else SCORES: scores, "learning rate": RATE}


def _draw_curve(panel: Axes, records: list[Record], key: str, name: str, style: str, short: bool, color: Any) -> None:
    """One key of a run over the epochs that have it, with markers where the runs are short."""
    points = [(record["epoch"], record[key]) for record in records if record.get(key) is not None]
    if points:
        marker = MARKERS[style] if short or len(points) == 1 else None
        look = {"linestyle": style, "linewidth": 1.4, "marker": marker, "markersize": 4, "color": color}
        panel.plot(*zip(*points, strict=True), label=name, **look)


def _explain_styles(panel: Axes, several: bool) -> None:
    """What solid and dashed lines are, in grey since colours are the runs'; a note where there is no line."""
    from matplotlib.lines import Line2D

    styles = {line.get_label(): (line.get_linestyle(), line.get_marker()) for line in panel.lines}
    if not styles:
        panel.text(0.5, 0.5, "no validation", transform=panel.transAxes, ha="center", color="grey")
        panel.set_yticks([])
    elif several:
        grey = [Line2D([], [], color="0.3", linestyle=s, marker=m, label=name) for name, (s, m) in styles.items()]
        panel.legend(handles=grey)


def _explain_colors(figure: Figure, names: list[str], colors: Sequence[Any]) -> None:
    """Which colour is which run, above the panels, in as many columns as fit."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colors[i % len(colors)], linewidth=3, label=_text(name)) for i, name in enumerate(names)
    ]
    columns = max(1, min(4, 110 // (min(MAX_NAME, max(map(len, names))) + 8)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def _text(name: str) -> str:
    """A name that is not wider than the picture."""
    name = figures.label(name)
    return name if len(name) <= MAX_NAME else f"...{name[3 - MAX_NAME :]}"
