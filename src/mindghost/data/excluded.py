"""The key `exclude_list`: images that a training leaves out, by a text file of their paths, one a line.

A line is a path, or what else messages call an image (`cifar10 train #17`). Relative ones begin in the list's own
folder, in `data_dir`, or where the program was started. One that holds a line break is written as a JSON string.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import UserError
from ..files import json_text
from ..process.display import shown, some
from .lists import lines as list_lines
from .samples import FileSamples, Samples

KEY = "exclude_list"
_Kind = TypeVar("_Kind", bound=Samples)

log = logging.getLogger("mindghost")


def encode(names: Iterable[str]) -> bytes:
    """A list of images by their names (`Samples.name`); paths are written so that they lead there from anywhere."""
    return b"".join(os.fsencode(_line(os.path.abspath(name) if os.sep in name else name)) + b"\n" for name in names)


def _line(name: str) -> str:
    plain = name and name == name.strip() and not name.startswith('"') and not {"\n", "\r"} & set(name)
    return name if plain else json_text.dumps(name)


def read(file: Path) -> list[str]:
    """The names in a list, in its order. Raises UserError (`FILE:LINE: why`) for a file that is none."""
    found = []
    for number, line in enumerate(list_lines.lines(file, KEY), 1):
        text = line.strip()
        if text.startswith('"'):
            name = json_text.parse(text, f"{file}:{number}", "write the path of an image")
            if not isinstance(name, str):
                list_lines.fail(file, number, "no path; write the path of an image")
            text = name
        if text:
            found.append(text)
    return found


def left_out(samples: _Kind, file: Path, data_dir: Path) -> _Kind:
    """The samples of a training without those that a list names; says how many these are.

    Raises UserError where it names none of them, though it has lines, or would leave a class without images.
    """
    names = read(file)
    bases = [file.parent, data_dir, Path()]
    wanted = {os.path.abspath(base / name): name for name in names for base in bases}
    places = [wanted.get(os.path.abspath(samples.name(index))) for index in range(len(samples))]
    kept = samples.take(np.flatnonzero([place is None for place in places]))
    found = {place for place in places if place is not None}
    if names and not found:
        raise UserError(
            f"{KEY}: {file} names no image of the training, such as {shown(samples.name(0))}; its first line is "
            f"{shown(names[0])}: correct the list, or leave the key out"
        )
    _check_classes(samples, kept, file)
    missed = sorted(set(names) - found)
    more = f" ({len(missed):,} of its lines name no image of the training: {some(missed, 2)})" if missed else ""
    log.info(f"{KEY}: {len(samples) - len(kept):,} of {len(samples):,} training images are left out{more}")
    if isinstance(kept, FileSamples):
        digest = hashlib.sha256("\0".join(sorted(found)).encode(errors="surrogateescape")).hexdigest()
        return replace(kept, scope=f"{kept.scope} without {digest}")
    return kept


def _check_classes(samples: Samples, kept: Samples, file: Path) -> None:
    before, after = (_images(each) for each in (samples, kept))
    gone = [name for name, had, has in zip(samples.classes, before, after, strict=True) if had and not has]
    if gone:
        raise UserError(f"{KEY}: {file} leaves no image of the class {shown(gone[0])}; take one of its lines out")


def _images(samples: Samples) -> list[int]:
    """How many images each class has."""
    if samples.labels.ndim == 2:
        return (samples.labels > 0).sum(axis=0).tolist()
    return np.bincount(samples.labels, minlength=len(samples.classes)).tolist()
