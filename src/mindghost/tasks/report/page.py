"""The parts of a report's HTML page: pictures inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...process.display import html as escape
from ...runs.files import Color
from .words import confused_pairs

_JPEG_QUALITY = 85
_PAIRS = 20  # of classes, that are listed as most frequent mistakes
MAPS = (
    "On the right, the brighter a place is, the more it spoke for the predicted class (LayerCAM). The network did not "
    "get what is dark around that."
)
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
.pair {{ display: flex; gap: .3em; align-items: flex-end; }}
.sheet {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 1em; }}
.pairs {{ grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); }}
figure {{ margin: 0; font-size: .85em; overflow-wrap: anywhere; }}
figure img {{ display: block; }}
.true {{ color: #1f5fa8; }}
.predicted {{ color: #b3261e; }}
.file {{ color: #777; font-size: .9em; }}
.swatch {{ display: inline-block; width: 1.6em; height: .8em; border: 1px solid #999; }}
.panels {{ margin: 1.2em 0; }}
.panels div {{ display: grid; grid-template-columns: repeat(4, minmax(0, 256px)); gap: .6em; margin-bottom: .3em; }}
.panels img {{ width: 100%; max-height: 256px; object-fit: contain; object-position: left top; }}
</style>
</head>
<body>
"""


def is_one(content: bytes) -> bool:
    """Whether bytes begin as a page that was written here."""
    return content.startswith(_HEAD.partition("{title}")[0].encode())


def document(title: str, facts: Mapping[str, str], parts: Sequence[str]) -> bytes:
    """A whole page in UTF-8: what is said of the evaluation (`facts`, by name; "model" heads it), and its parts."""
    rows = [f"<tr><td class=name>{escape(key)}</td><td class=name>{escape(facts[key])}</td></tr>" for key in facts]
    head = [_HEAD.format(title=escape(title)), f"<h1>{escape(facts['model'])}</h1>", f"<table>{''.join(rows)}</table>"]
    return "\n".join([*head, *parts, "</body>\n</html>\n"]).encode()


def tiles(numbers: Mapping[str, str]) -> str:
    """The numbers that sum up the others, by name."""
    return f"<div class=tiles>{''.join(f'<div>{name}<b>{value}</b></div>' for name, value in numbers.items())}</div>"


def share(value: float) -> str:
    """A share in percent; a dash where it would be 0 / 0."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], names: int, colors: Sequence[Color] | None = None
) -> str:
    """A table whose first `names` columns hold text; `colors` are shown before the rows, if they are given."""
    kind = ["class=name" if column < names else "" for column in range(len(headings))]
    head = "".join(f"<th {k}>{escape(text)}</th>" for k, text in zip(kind, headings, strict=True))
    cells = ["".join(f"<td {k}>{escape(text)}</td>" for k, text in zip(kind, row, strict=True)) for row in rows]
    if colors is not None:
        head = f"<th></th>{head}"
        cells = [f"<td>{swatch(color)}</td>{row}" for color, row in zip(colors, cells, strict=True)]
    body = "\n".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def swatch(color: Color) -> str:
    """A small field of a colour."""
    return f'<span class=swatch style="background: rgb{tuple(map(int, color))}"></span>'


def thumbnail_image(kind: str, what: str, pixels: NDArray[Any]) -> str:
    """A small picture of an image, uint8 (height, width, 1 or 3)."""
    from .pictures import thumbnail

    return image(kind, what, np.asarray(thumbnail(pixels)))


def image(kind: str, what: str, pixels: NDArray[Any], is_photo: bool = True) -> str:
    """A picture as large as it is, uint8 (height, width, 3); what is no photo keeps its exact colours."""
    file = io.BytesIO()
    if is_photo:
        Image.fromarray(pixels).save(file, format="JPEG", quality=_JPEG_QUALITY)
    else:
        Image.fromarray(pixels).save(file, format="PNG")
    return picture(kind, what, "image/jpeg" if is_photo else "image/png", file.getvalue())


def picture(kind: str, what: str, media: str, content: bytes) -> str:
    """A picture inside of the page: its CSS class, what it shows, its type and its bytes."""
    data = base64.b64encode(content).decode()
    return f'<img class={kind} alt="{escape(what)}" src="data:{media};base64,{data}">'


def pairs_section(matrix: NDArray[Any], names: Sequence[str], unit: str) -> str:
    """The most frequent mistakes of a confusion matrix, int (classes, classes), which counts what `unit` says."""
    support = matrix.sum(axis=1)
    rows = [
        (names[true], names[predicted], f"{count:,}", f"{100 * count / support[true]:.1f} %")
        for true, predicted, count in confused_pairs(matrix, _PAIRS)
    ]
    if not rows:
        return ""
    headings = ("true class", "taken for", unit, "share of the class")
    return f"<h2>Most frequent mistakes</h2>{table(headings, rows, 2)}"


def mistakes_section(figures: Sequence[str], none: str, note: str) -> str:
    """The section of the worst mistakes, each a `mistake_figure`; `none` is said where there are none."""
    heading = "<h2>Worst mistakes</h2>"
    if not figures:
        return f"{heading}<p class=note>{none}</p>"
    kind = '"sheet pairs"' if any("<div class=pair>" in figure for figure in figures) else "sheet"
    return f"{heading}<p class=note>{note}</p><div class={kind}>{''.join(figures)}</div>"


def mistake_figure(
    name: str, what: str, pixels: NDArray[Any], true: str, wrong: str, explained: NDArray[Any] | None = None
) -> str:
    """A picture, uint8 (height, width, 1 or 3), with what is true of it and what was said below, and its name.

    `explained`, the same picture with a map over it, stands beside it.
    """
    shown = thumbnail_image("mistake", what, pixels)
    if explained is not None:
        beside = thumbnail_image("map", f"where the network saw that: {what}", explained)
        shown = f"<div class=pair>{shown}{beside}</div>"
    return (
        f"<figure>{shown}<span class=true>{escape(true)}</span><br>"
        f"<span class=predicted>{escape(wrong)}</span><br><span class=file>{escape(name)}</span></figure>"
    )
