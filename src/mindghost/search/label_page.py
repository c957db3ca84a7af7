"""What is written of labels that are probably wrong: a page to look through, a table, a list for `exclude_list`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import excluded, images
from ..data.samples import Samples
from ..errors import UserError
from ..files import table_file
from ..files.table_file import Column
from ..tasks.report import page
from .label_errors import Ranking
from .reading import ReadImages

PAGE, TABLE, LIST = "suspects.html", "labels.csv", "exclude.txt"
FILES = (TABLE, LIST, PAGE)
MOST = 300  # suspects that the page shows
_PAIRS = 8  # of labels and classes, that it lists
_BLOCK = 10_000  # rows that are made into text at once
_SIDE = 64
_MISSING = np.full((_SIDE, _SIDE, 3), 225, np.uint8)  # of an image that cannot be read

Pixels = Callable[[str], NDArray[Any]]


def contents(ranking: Ranking, facts: Mapping[str, str], pixels: Pixels) -> dict[str, bytes]:
    """The files, by their names.

    Args:
        ranking: of all labels.
        facts: what the page says beside; "model" heads it.
        pixels: of an image by its name, uint8 (height, width, 1 or 3); it may raise UserError.
    """
    suspects = [str(name) for name in ranking.paths[ranking.suspects]]
    return {
        TABLE: b"".join(_table(ranking)),
        LIST: excluded.encode(suspects),
        PAGE: html(ranking, facts, pixels),
    }


def _table(ranking: Ranking) -> Iterable[bytes]:
    names = ranking.classes
    described = [
        Column("suspect", "i1", names=("no", "yes")),
        Column("given", "i4", names=names),
        Column("probable", "i4", names=names),
        Column("given_probability", "f4"),
        Column("probable_probability", "f4"),
        Column("margin", "f4"),
    ]
    dtype = table_file.dtype_of(described)

    def blocks() -> Iterable[table_file.Block]:
        for start in range(0, len(ranking), _BLOCK):
            part = slice(start, start + _BLOCK)
            rows = np.empty(len(ranking.paths[part]), dtype)
            for name in dtype.names or ():
                rows[name] = getattr(ranking, name)[part]
            yield ranking.paths[part].tolist(), rows

    return table_file.encode(Path(TABLE), "path", described, blocks())


def html(ranking: Ranking, facts: Mapping[str, str], pixels: Pixels) -> bytes:
    """The page, with the pictures inside; see `contents`."""
    suspects, total = ranking.suspects, len(ranking)
    numbers = {
        "labels": f"{total:,}",
        "suspects": f"{len(suspects):,}",
        "share of the labels": page.share(len(suspects) / total),
        "images taken for what their label says": page.share(ranking.recognised),
    }
    note = (
        "The label that was <span class=true>given</span>, and below it the <span class=predicted>probable</span> one, "
        "each with its probability. The first are the surest; look at them before you believe it."
    )
    if len(suspects) > MOST:
        note += f" The first {MOST} of {len(suspects):,}; all are in {LIST} and {TABLE}."
    folder = _folder_of([str(name) for name in ranking.paths[suspects[:MOST]]])
    figures = [
        _figure(ranking, index, pixels, f"{rank}.\xa0", folder)
        for rank, index in enumerate(suspects[:MOST].tolist(), 1)
    ]
    shown = f'<div class="sheet">{"".join(figures)}</div>' if figures else ""
    text = note if figures else "No label is a suspect."
    if ranking.doubt:
        text = f"{ranking.doubt[0].upper()}{ranking.doubt[1:]}. {text}"
    parts = [page.tiles(numbers), _pairs(ranking), f"<h2>Suspects</h2><p class=note>{text}</p>{shown}"]
    return page.document(f"{facts['model']}: {len(suspects):,} suspect labels", facts, parts)


def _pairs(ranking: Ranking) -> str:
    """How many suspects of each label are probably of which class."""
    suspects = ranking.suspects
    pairs = np.stack([ranking.given[suspects], ranking.probable[suspects]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_PAIRS]
    if not len(order):
        return ""
    names = ranking.classes
    rows = [(names[found[row, 0]], names[found[row, 1]], f"{counts[row]:,}") for row in order]
    return f"<h2>Most frequent</h2>{page.table(('given', 'probable', 'suspects'), rows, 2)}"


def _folder_of(names: Sequence[str]) -> str:
    """The folder that images share, with a slash behind it, which need not be said of each; empty where none is."""
    folders = {os.path.dirname(name) for name in names}
    if not folders or not all(folders) or len(set(map(os.path.isabs, folders))) > 1:
        return ""
    return os.path.join(os.path.commonpath(folders), "")


def _figure(ranking: Ranking, index: int, pixels: Pixels, rank: str, folder: str) -> str:
    from ..tasks.report.pictures import percent

    name = str(ranking.paths[index])
    try:
        picture = pixels(name)
    except UserError:
        picture = _MISSING
    given, probable = (ranking.classes[labels[index]] for labels in (ranking.given, ranking.probable))
    # No line ends between a number and its sign.
    own, other = (
        percent(float(each[index])).replace(" ", "\xa0")
        for each in (ranking.given_probability, ranking.probable_probability)
    )
    what = f"labelled {given}, probably {probable}"
    said = f"given: {given} ({own})", f"probable: {probable} ({other})"
    return page.mistake_figure(f"{rank}{name.removeprefix(folder)}", what, picture, *said)


def of_samples(samples: Sequence[Samples]) -> Pixels:
    """The pixels of samples by their names, upright."""
    whole = ReadImages.of(samples)
    place = {whole.name(index): index for index in range(len(whole))}
    return lambda name: whole.read(place[name])


def of_files(name: str) -> NDArray[Any]:
    """The pixels of an image file. Raises UserError where it cannot be read."""
    return images.read_image(name, upright=True)
