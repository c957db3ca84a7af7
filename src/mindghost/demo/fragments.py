"""The parts of the page as HTML: names and messages of strangers are escaped, pictures are inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import tasks
from ..data.imagenet import names as imagenet_names
from ..inference.deployment import Deployment
from ..process.display import html as escape
from ..process.display import some
from ..search import picture
from ..search.picture import Neighbour
from ..tasks.report import page
from ..tasks.show import NONE
from .answers import SMALLEST, Answer, Answerer

_NAMES = 6  # of classes, in the heading
# gradio's own colours, so that a dark page stays dark.
STYLE = """
.mg { color: var(--body-text-color); overflow-wrap: anywhere; }
.mg h1 { font-size: 1.5em; margin: .3em 0 .1em; }
.mg h2 { font-size: 1.05em; margin: 1.4em 0 .5em; }
.mg p { margin: .2em 0; max-width: 60em; }
.mg .note, .mg figcaption { font-size: .85em; opacity: .75; }
.mg .problem { border-left: 4px solid #d33; padding: .5em .8em; margin: .6em 0; background: #d331; }
.mg .pictures { display: flex; flex-wrap: wrap; gap: 1em; }
.mg figure { margin: 0; flex: 1 1 240px; max-width: 480px; }
.mg figure img { display: block; width: 100%; height: auto; max-height: 480px; object-fit: contain;
  object-position: left top; }
.mg figcaption { margin-top: .3em; }
.mg ol { list-style: none; margin: 0; padding: 0; max-width: 40em; }
.mg li.row { display: flex; align-items: center; gap: .6em; position: relative; padding: .3em .5em; margin: .2em 0; }
.mg li.row .bar { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--primary-500);
  opacity: .25; }
.mg li.row .name { flex: 1; position: relative; }
.mg li.row .number { position: relative; font-variant-numeric: tabular-nums; }
.mg .swatch { display: inline-block; width: 1.3em; height: .9em; border: 1px solid #888; position: relative;
  flex: none; }
.mg .like { display: grid; grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)); gap: .8em; }
.mg .like figure { max-width: 160px; }
footer { display: none !important; }
"""


def heading(answerer: Answerer, seconds: float) -> str:
    """What the network is, and what the page says of an image; `seconds`: how long a file stays."""
    deployed, index = answerer.deployed, answerer.index
    config, count = deployed.config, len(deployed.classes)
    height, width = deployed.input_shape[1:]
    # A number is no name.
    named = "" if deployed.numbered else f": {some(imagenet_names.shown_as(deployed.classes), _NAMES)}"
    lines = [f"{count:,} {'class' if count == 1 else 'classes'}{named}. It sees {height} x {width} pixels."]
    notes = []
    if deployed.exported and tasks.of(config).explains and answerer.wanted.explain:
        notes.append(
            f"No map of where it looked: {deployed.path.name} is an exported file, which has no gradients; a "
            "checkpoint has them."
        )
    if index is not None:
        notes.append(f"Images that are like yours come from {index.path.name}, which has {len(index):,} of them.")
    notes.append(f"Your image goes no further than this page's server, and is deleted within {seconds / 60:g} minutes.")
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    text += "".join(f"<p class=note>{escape(note)}</p>" for note in notes)
    return f"<div class=mg><h1>{escape(config.model)}</h1>{text}</div>"


def problem(message: str) -> str:
    """A message that is all there is to say of an image."""
    return f"<div class=mg><p class=problem role=alert>{escape(message)}</p></div>"


def said(answer: Answer, answerer: Answerer) -> str:
    """What is said of an image."""
    prediction = answer.prediction
    if prediction.problem or answer.picture is None:
        return problem(prediction.problem)
    parts = [f"<h2>{escape(prediction.image)}</h2>"]
    if answer.is_first:
        parts.append("<p class=note>The file holds several images; this is the first one.</p>")
    parts += [_answers(answer, answerer.deployed), _pictures(answer, answerer)]
    if answerer.index is not None:
        parts.append(_like(answer.neighbours))
    return f"<div class=mg>{''.join(parts)}</div>"


def _answers(answer: Answer, deployed: Deployment) -> str:
    """The answers of the network, each over a bar as long as its number."""
    task, found = tasks.of(deployed.config), answer.prediction.answers
    if not found:
        return f"<p>{NONE}: no label reaches its threshold</p>" if task.has_thresholds else f"<p>{NONE}</p>"
    rows = []
    for guess in found:
        swatch = page.swatch(deployed.colors[guess.label]) if deployed.colors is not None else ""
        width = f"{100 * min(max(guess.probability, 0), 1):.1f}%"
        rows.append(
            f'<li class=row><span class=bar style="width: {width}"></span>{swatch}<span class=name>{escape(guess.name)}'
            f"</span><span class=number>{page.share(guess.probability)}</span></li>"
        )
    return f'<ol aria-label="{escape(task.answer_value)}">{"".join(rows)}</ol>'


def _pictures(answer: Answer, answerer: Answerer) -> str:
    """The image, and what the network saw where."""
    assert answer.picture is not None
    pixels = answer.prediction.pixels
    assert pixels is not None
    height, width = pixels.shape[:2]
    figures = [_figure(answer.picture, "the image", f"{width:,} x {height:,} pixels")]
    if answer.overlay is not None:
        if answer.prediction.mask is not None:
            what = "the class of each pixel"
        else:
            first = answer.prediction.answers
            what = f"where it saw {first[0].name if first else 'the likeliest label'}: the brighter, the more"
        figures.append(_figure(answer.overlay, what, what))
    return f"<h2>What it saw</h2><div class=pictures>{''.join(figures)}</div>"


def _figure(pixels: NDArray[Any], what: str, caption: str) -> str:
    # A picture that was enlarged has hard edges.
    is_photo = max(pixels.shape[:2]) > 2 * SMALLEST
    return f"<figure>{page.image('shown', what, pixels, is_photo)}<figcaption>{escape(caption)}</figcaption></figure>"


def _like(neighbours: Sequence[Neighbour]) -> str:
    """The images of the index, each with its score and class."""
    figures = []
    for each in neighbours:
        pixels, note = picture.thumbnail(picture.tile_of(each.path, ""))
        name = note or Path(each.path).name
        caption = " ".join(filter(None, (f"{each.score:.4f}", each.name)))
        text = f"{escape(caption)}<br>{escape(name)}"
        figures.append(f"<figure>{page.image('like', name, pixels)}<figcaption>{text}</figcaption></figure>")
    return f"<h2>Most like it</h2><div class=like>{''.join(figures)}</div>"
