"""The picture of a confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .pictures import DPI, as_png, fit, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

# Pixels: side of the matrix, and what a cell of it may measure; of a cell that a number or a name fits in.
MATRIX, SMALLEST_CELL, LARGEST_CELL = 720, 2, 90
NUMBER_CELL, NAME_CELL = 22, 11
SMALLEST_SQUARE = 5
# Inches of the matrix from which the titles of both bars fit side by side.
SIDE_BY_SIDE = 5
AXIS_LETTERS = 24  # of a class's name


@as_png
def confusion(matrix: NDArray[Any], names: Sequence[str], in_percent: bool = False) -> Figure:
    """The confusion matrix, a row for each true class: what was recognised in blue, mistakes in red.

    Args:
        matrix: int, (classes, classes).
        names: of the classes.
        in_percent: the numbers in the cells are shares of their rows, and not counts.
    """
    classes = len(matrix)
    cell = min(max(MATRIX // classes, SMALLEST_CELL), LARGEST_CELL)
    side = classes * cell / DPI
    figure = Figure((side, side), DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    true, predicted = np.nonzero(matrix)
    right = true == predicted
    # Single mistakes among a thousand classes have to be seen; the diagonal stays thin, so that it hides few of them.
    misses = _squares(axes, shares, true[~right], predicted[~right], max(cell, SMALLEST_SQUARE), "Reds")
    hits = _squares(axes, shares, true[right], predicted[right], cell, "Blues")
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    _name_axes(axes, names, cell)
    if cell >= NUMBER_CELL:
        _number_cells(axes, _percents(shares) if in_percent else matrix.astype(str), shares, cell)
    _explain_colors(figure, hits, misses, side)
    return figure


def _squares(
    axes: Axes, shares: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], side: int, colors: str
) -> PathCollection:
    """Cells as squares of `side` pixels; where they overlap, the largest shares are on top."""
    values = shares[rows, columns]
    order = np.argsort(values, kind="stable")
    return axes.scatter(
        columns[order],
        rows[order],
        (side * 72 / DPI) ** 2,
        values[order],
        marker="s",
        linewidths=0,
        cmap=colors,
        # The root shows single mistakes among many images.
        norm=PowerNorm(0.5, 0, 1),
        antialiased=False,
    )


def _name_axes(axes: Axes, names: Sequence[str], cell: int) -> None:
    """Names along both axes; of every few classes where not all of them fit."""
    step = next(n for n in (1, 2, 5, 10, 20, 50, 100) if n * cell >= NAME_CELL)
    at = range(0, len(names), step)
    size = min(10, 0.6 * cell * step)
    labels = [fit(names[n], AXIS_LETTERS) for n in at]
    upright = all(text_width(label) * size * 0.65 * DPI / 72 < cell * step for label in labels)
    axes.set_yticks(at, labels, fontsize=size)
    if upright:
        axes.set_xticks(at, labels, fontsize=size)
    else:
        axes.set_xticks(at, labels, fontsize=size, rotation=90)
    axes.tick_params(length=2, pad=2)
    more = f" (one name in {step})" if step > 1 else ""
    axes.set_xlabel(f"predicted class{more}", fontsize=11)
    axes.set_ylabel(f"true class{more}", fontsize=11)


def _number_cells(axes: Axes, texts: NDArray[Any], shares: NDArray[Any], cell: int) -> None:
    """The number of each cell that has any, as large as the longest one allows."""
    digits = max(map(len, texts.flat))
    size = min(11, 72 / DPI * cell * 0.9 / (0.64 * max(digits, 2)))
    for row, column in zip(*np.nonzero(shares), strict=True):
        dark = math.sqrt(shares[row, column]) > 0.6
        color = "white" if dark else "black"
        axes.text(column, row, texts[row, column], ha="center", va="center", fontsize=size, color=color)


def _percents(shares: NDArray[Any]) -> NDArray[Any]:
    """Shares in percent; nothing where they are next to none."""
    return np.array([[f"{100 * share:.1f}" if share >= 0.0005 else "" for share in row] for row in shares])


def _explain_colors(figure: Figure, hits: Any, misses: Any, side: float) -> None:
    """Two bars above the matrix."""
    width, height, gap = min(0.45, 2.2 / side), 0.12 / side, 0.1 / side
    for left, image, title in ((0, hits, "recognised"), (1 - width, misses, "mistaken")):
        if side < SIDE_BY_SIDE:
            # One above the other, where both titles do not fit side by side.
            left, width, bottom = 0, 1, 1 + gap + (0.62 / side if image is misses else 0)
        else:
            bottom = 1 + gap
        bar = figure.colorbar(image, cax=figure.add_axes((left, bottom, width, height)), orientation="horizontal")
        bar.ax.xaxis.set_ticks_position("top")
        bar.set_ticks([0, 0.1, 0.5, 1], labels=["0", "10 %", "50 %", "100 %"], fontsize=8)
        bar.ax.set_title(f"{title}, share of the true class", fontsize=9, pad=4)
