"""Folders -> the image files in them and below, found in the same way whoever asks.

Visible entries, sorted by name, folder by folder. Linked folders are followed, but not back up to where the walk came
from. A file is an image by its ending; what is left out is counted, and said in one line.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import UserError
from ..files import paths
from ..process import resources
from ..process.display import shown, some
from .images import EXTENSIONS

_ENDINGS_SHOWN, _LINKS_SHOWN = 6, 3
_Trail = frozenset[tuple[int, int]]  # of folders: device and inode of each

log = logging.getLogger("mindghost")


class LeftOut:
    """What walks through a folder left out; `files` are no images by their ending.

    Attributes:
        endings: number of files by ending, of those that are no images.
        odd: what is named like an image but is no regular file, and links back up.
        stray: images beside the class folders.
        lost: links beside the class folders that lead to none.
        unmatched: labels in tar files that belong to no image.
    """

    def __init__(self, files: Iterable[str] = ()) -> None:
        self.endings = Counter(map(_ending, files))
        self.odd: list[str] = []
        self.stray: list[str] = []
        self.lost: list[str] = []
        self.unmatched: list[str] = []

    def say(self, folder: str | Path) -> None:
        """Log a line for each kind."""
        if count := self.endings.total():
            what = (
                "file is no image by its ending and is" if count == 1 else "files are no images by their ending and are"
            )
            most = sorted(self.endings.items(), key=lambda item: (-item[1], not item[0], item[0]))
            endings = some([f"{name or 'without one'} {n:,}" for name, n in most], _ENDINGS_SHOWN)
            log.warning(shown(f"{folder}: {count:,} {what} left out ({endings})"))
        if self.stray:
            log.warning(
                shown(f"{folder}: images in no class folder are left out: {len(self.stray):,}, such as {self.stray[0]}")
            )
        if self.lost:
            links = f"{len(self.lost):,} link(s) that lead nowhere are no classes"
            log.warning(shown(f"{folder}: {links}: {some(self.lost, _LINKS_SHOWN)}"))
        if self.unmatched:
            log.warning(
                shown(f"{folder}: labels without an image: {len(self.unmatched):,}, such as {self.unmatched[0]}")
            )
        if self.odd:
            log.warning(
                shown(f"{len(self.odd):,} entries that are no regular files are ignored, such as {self.odd[0]}")
            )


def image_files(folder: str | Path, left_out: LeftOut | None = None) -> list[str]:
    """The image files in a folder and below it. Raises UserError where one of the folders cannot be listed.

    What is left out is added to `left_out`, or logged where that is None.
    """
    said = LeftOut() if left_out is None else left_out
    found = [entry.path for entry in _below(folder, said) if not _holds(entry.is_dir) and _is_image(entry, said)]
    if left_out is None:
        said.say(folder)
    return found


def is_image(name: str) -> bool:
    """Whether a file is an image by its ending."""
    return _ending(name) in EXTENSIONS


def folders(folder: str | Path) -> list[str]:
    """A folder and the folders below it. Raises UserError where one of them cannot be listed."""
    return [os.fspath(folder), *(entry.path for entry in _below(folder, LeftOut()) if _holds(entry.is_dir))]


def class_folders(root: str | Path, left_out: LeftOut) -> list[str]:
    """The names of the folders in a folder. What else is in it is added to `left_out`."""
    names = []
    for entry in _entries(root):
        if _holds(entry.is_dir):
            names.append(entry.name)
        elif _is_image(entry, left_out):
            left_out.stray.append(entry.path)
        elif entry.is_symlink() and not _holds(entry.is_file):
            left_out.lost.append(entry.path)
    return names


def by_class_folder(files: Iterable[str], root: str | Path) -> dict[str, list[int]]:
    """The indices of the files in each folder of `root` or below that; those of files beside the folders under ""."""
    groups: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        name, below, _ = os.path.relpath(file, root).partition(os.sep)
        groups.setdefault(name if below else "", []).append(index)
    return groups


def _below(folder: str | Path, left_out: LeftOut) -> Iterator[os.DirEntry[str]]:
    """The visible entries of a folder and of those below it: each folder before what is in it."""
    # Of each folder from `folder` down to the one at hand: what is left of it, and where the walk came from.
    entered = [(iter(_entries(folder)), _above(folder) | {_identity(folder)})]
    while entered:
        entries, trail = entered[-1]
        entry = next(entries, None)
        if entry is None:
            entered.pop()
        elif not _holds(entry.is_dir):
            yield entry
        elif (here := _identity(entry.path)) in trail:
            left_out.odd.append(entry.path)
        else:
            yield entry
            entered.append((iter(_entries(entry.path)), trail | {here}))


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """The visible entries of a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        resources.check(error, folder)
        raise UserError(f"{folder}: cannot be listed ({paths.reason(error)})") from error


def _is_image(entry: os.DirEntry[str], left_out: LeftOut) -> bool:
    named_so = is_image(entry.name)
    if _holds(entry.is_file):
        if not named_so:
            left_out.endings[_ending(entry.name)] += 1
        return named_so
    if named_so:
        left_out.odd.append(entry.path)
    return False


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _above(folder: str | Path) -> _Trail:
    return frozenset(map(_identity, Path(os.path.realpath(folder)).parents))


def _identity(folder: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        resources.check(error, folder)
        raise UserError(f"{folder}: cannot be listed ({paths.reason(error)})") from error
    return status.st_dev, status.st_ino


def _holds(check: Callable[[], bool]) -> bool:
    """False where an entry's kind can't be found out, as for a link to itself."""
    try:
        return check()
    except OSError:
        return False
