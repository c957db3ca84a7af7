"""Paths in a list -> files: where relative ones begin, and what is meant by one that leads nowhere as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import paths
from ..images import EXTENSIONS

_LONGEST, _LETTERS_SHOWN = 4_096, 100  # of a path
OWN, BASE, ABSOLUTE = range(3)  # where a path begins: in the list's own folder, in data_dir, at the top
# MindCV's annotation files leave the ending out, and mean .jpg.
_ENDINGS = (".jpg", ".jpeg", ".png", *sorted(EXTENSIONS - {".jpg", ".jpeg", ".png"}))


class ListPaths:
    """Where the paths of a list may begin: in the list's own folder, else in `data_dir`."""

    def __init__(self, file: Path, data_dir: Path) -> None:
        self._own, self._base = os.fspath(file.parent), os.fspath(data_dir)
        self._bases = [self._own]
        if os.path.realpath(self._own) != os.path.realpath(self._base):
            self._bases.append(self._base)

    def find(self, path: str) -> tuple[str, int] | None:
        """A path that leads to a file, as it is written but for what can't be meant, and where it begins."""
        if "./" in path or "//" in path:
            path = _tidy(path)
        place = self._place(path)
        if place is not None:
            return path, place
        for other in _other_spellings(path):
            if (place := self._place(other)) is not None:
                return other, place
        return None

    def why_missing(self, path: str) -> str:
        """Why no file is found under a path, and where it was looked for."""
        if len(path) > _LONGEST:
            return f"a path of {len(path):,} letters, which none has ({path[:_LETTERS_SHOWN]}...)"
        places = [path] if os.path.isabs(path) else [os.path.join(base, path) for base in self._bases]
        there = next((place for place in places if paths.exists(place)), "")
        try:
            paths.check_file(there or places[0], "")
        except UserError as error:
            why = str(error).removesuffix("; ")
        else:
            why = f"{there}: no such file"  # it was not there a moment ago
        if len(places) > 1 and not there:
            why += f", neither in the list's folder nor in data_dir ({self._base})"
        return why

    def root(self, places: NDArray[Any]) -> Path:
        """Where the paths begin that `places` is of: one folder for all that are relative, if they share one."""
        return Path(self._base if BASE in places or OWN not in places else self._own)

    def below(self, root: Path, files: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
        """Paths as they begin at `root`: those that begin elsewhere are absolute, or below it."""
        here = OWN if os.fspath(root) == self._own else BASE
        if (places == here).all():
            return files
        start = f"{os.path.abspath(root)}{os.sep}"
        found = []
        for file, place in zip(files, places, strict=True):
            path = os.fsdecode(file)
            if place != here:
                path = os.path.join(os.path.abspath(self._own), path).removeprefix(start)
            found.append(os.fsencode(path))
        return np.array(found)

    def _place(self, path: str) -> int | None:
        """Where a path begins that leads to a file; None where it leads to none."""
        if path.startswith(os.sep):
            return ABSOLUTE if paths.is_file(path) else None
        for place, base in enumerate(self._bases):
            try:
                if S_ISREG(os.stat(f"{base}/{path}").st_mode):
                    return place
            except (OSError, ValueError):
                continue
        return None


def _tidy(path: str) -> str:
    """A path without `./` and doubled slashes, so that two spellings are one image; `..` may cross links, and stays."""
    parts = [part for part in path.split(os.sep) if part not in ("", ".")]
    return (os.sep if path.startswith(os.sep) else "") + os.sep.join(parts)


def _other_spellings(path: str) -> Iterator[str]:
    """What a path may mean that leads nowhere: without spaces around it, Windows' separators, or an ending."""
    if path != path.strip():
        path = path.strip()
        yield path
    if "\\" in path:
        path = path.replace("\\", os.sep)
        yield path
    if os.path.splitext(path)[1].lower() not in EXTENSIONS:
        yield from (f"{path}{ending}" for ending in _ENDINGS)
