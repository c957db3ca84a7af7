"""The report as one HTML page: pictures inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ....process.display import html as escape
from .tables import Calibration, Mistake, Scores, confused_pairs

if TYPE_CHECKING:
    from ..metrics import Metrics

PAIRS = 20
_JPEG_QUALITY = 85
# The policy has the browser itself refuse scripts, and anything that is not in the page.
_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }}
h1 {{ font-size: 1.5em; margin-bottom: .2em; }}
h2 {{ font-size: 1.15em; margin: 2em 0 .5em; border-bottom: 1px solid #ddd; }}
p.note {{ color: #555; max-width: 46em; }}
img {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .15em .8em .15em 0; text-align: right; vertical-align: top; font-variant-numeric: tabular-nums; }}
th {{ position: sticky; top: 0; background: #fff; border-bottom: 1px solid #bbb; }}
.name {{ text-align: left; overflow-wrap: anywhere; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: .6em; margin: 1em 0; }}
.tiles div {{ background: #f3f5f8; border-radius: 6px; padding: .5em .9em; }}
.tiles b {{ display: block; font-size: 1.35em; }}
.scroll {{ max-height: 30em; overflow: auto; border: 1px solid #ddd; padding: 0 .8em .4em; }}
.sheet {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 1em; }}
figure {{ margin: 0; font-size: .85em; overflow-wrap: anywhere; }}
figure img {{ display: block; }}
.true {{ color: #1f5fa8; }}
.predicted {{ color: #b3261e; }}
.file {{ color: #777; font-size: .9em; }}
</style>
</head>
<body>
"""


def is_one(content: bytes) -> bool:
    """Whether bytes begin as a page that was written here."""
    return content.startswith(_HEAD.partition("{title}")[0].encode())


def html(
    metrics: Metrics,
    scores: Scores,
    matrix: NDArray[Any],
    names: Sequence[str],
    calibration: Calibration,
    mistakes: Sequence[Mistake],
    figures: Mapping[str, bytes],
    facts: Mapping[str, str],
) -> bytes:
    """The report as an HTML page that needs no other file, in UTF-8.

    Args:
        metrics, scores, matrix, calibration: the numbers (see `tables`).
        names: of the classes.
        mistakes: the worst ones.
        figures: PNG files by name: `confusion.png` and `reliability.png` are shown.
        facts: what is said about the evaluation beside its numbers, by name.
    """
    title = f"{facts['model']}: top-1 {metrics.top_1:.2f} %"
    rows = [f"<tr><td class=name>{escape(key)}</td><td class=name>{escape(facts[key])}</td></tr>" for key in facts]
    parts = [
        _HEAD.format(title=escape(title)),
        f"<h1>{escape(facts['model'])}</h1>",
        f"<table>{''.join(rows)}</table>",
        _tiles(metrics, scores, calibration),
        _classes(scores, names),
        "<h2>Confusion matrix</h2>",
        "<p class=note>A row for each true class, a column for what it was taken for; colours are shares of the row. "
        "The counts are in confusion.csv.</p>",
        _picture("confusion", "confusion matrix", "image/png", figures["confusion.png"]),
        _pairs(matrix, names),
        _mistakes(mistakes),
        "<h2>Calibration</h2>",
        "<p class=note>How often the network is right where it is so sure. On the dashed line, probabilities can be "
        "taken at their word; below it, the network is too sure.</p>",
        _picture("reliability", "reliability diagram", "image/png", figures["reliability.png"]),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts).encode()


def _tiles(metrics: Metrics, scores: Scores, calibration: Calibration) -> str:
    """The numbers that sum up the others."""
    tiles = {"top-1": f"{metrics.top_1:.2f} %"}
    if metrics.top_5 is not None:
        tiles["top-5"] = f"{metrics.top_5:.2f} %"
    tiles |= {
        "loss (nats)": f"{metrics.loss:.4f}",
        "images": f"{metrics.num_samples:,}",
        "mean precision": f"{100 * scores.mean('precision'):.2f} %",
        "mean recall": f"{100 * scores.mean('recall'):.2f} %",
        "mean F1": f"{100 * scores.mean('f1'):.2f} %",
        "calibration error": f"{100 * calibration.error:.2f} %",
    }
    return f"<div class=tiles>{''.join(f'<div>{name}<b>{value}</b></div>' for name, value in tiles.items())}</div>"


def _classes(scores: Scores, names: Sequence[str]) -> str:
    """A line a class, the weakest first."""
    order = sorted(range(len(names)), key=lambda label: (np.nan_to_num(scores.f1[label], nan=2), label))
    rows = [
        (
            names[label],
            f"{scores.support[label]:,}",
            f"{scores.predicted[label]:,}",
            f"{scores.correct[label]:,}",
            *(_share(column[label]) for column in (scores.precision, scores.recall, scores.f1)),
        )
        for label in order
    ]
    headings = ("class", "images", "predicted", "correct", "precision", "recall", "F1")
    note = (
        "<p class=note>The classes with the lowest F1 first; in label order in per_class.csv. Means are over the "
        "classes that have images; a precision of a class that was never predicted counts as 0 in them.</p>"
    )
    return f"<h2>Classes</h2>{note}<div class=scroll>{_table(headings, rows, 1)}</div>"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def _pairs(matrix: NDArray[Any], names: Sequence[str]) -> str:
    """The most frequent mistakes."""
    support = matrix.sum(axis=1)
    rows = [
        (names[true], names[predicted], f"{count:,}", f"{100 * count / support[true]:.1f} %")
        for true, predicted, count in confused_pairs(matrix, PAIRS)
    ]
    if not rows:
        return ""
    headings = ("true class", "taken for", "images", "share of the class")
    return f"<h2>Most frequent mistakes</h2>{_table(headings, rows, 2)}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> str:
    """A table whose first `names` columns hold text."""
    kind = ["class=name" if column < names else "" for column in range(len(headings))]
    head = "".join(f"<th {k}>{escape(text)}</th>" for k, text in zip(kind, headings, strict=True))
    body = "\n".join(
        f"<tr>{''.join(f'<td {k}>{escape(text)}</td>' for k, text in zip(kind, row, strict=True))}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    """The worst mistakes: the pictures of the image sheet, with captions that can be selected."""
    heading = "<h2>Worst mistakes</h2>"
    if not mistakes:
        return f"{heading}<p class=note>No image was taken for another class.</p>"
    note = (
        "<p class=note>The images whose <span class=true>true class</span> got the lowest probability; below it the "
        "<span class=predicted>predicted class</span>. Wrong labels are often among them.</p>"
    )
    return f"{heading}{note}<div class=sheet>{''.join(map(_mistake, mistakes))}</div>"


def _mistake(mistake: Mistake) -> str:
    from .pictures import percent, thumbnail

    file = io.BytesIO()
    thumbnail(mistake.pixels).save(file, format="JPEG", quality=_JPEG_QUALITY)
    image = _picture("mistake", f"{mistake.true}, taken for {mistake.predicted}", "image/jpeg", file.getvalue())
    true = f"true: {escape(mistake.true)} ({percent(mistake.true_probability)})"
    predicted = f"taken for: {escape(mistake.predicted)} ({percent(mistake.predicted_probability)})"
    return (
        f"<figure>{image}<span class=true>{true}</span><br><span class=predicted>{predicted}</span><br>"
        f"<span class=file>{escape(mistake.name)}</span></figure>"
    )


def _picture(kind: str, what: str, media: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return f'<img class={kind} alt="{escape(what)}" src="data:{media};base64,{data}">'
