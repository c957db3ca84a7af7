"""What a command is to look at: files, folders, patterns, lists, videos, cameras."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import walk
from ..errors import UserError
from ..files import paths, scratch

VIDEOS = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"))

_LONGEST_STEM = 240  # bytes


def expand(sources: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """The image files, videos and camera numbers that are meant.

    Args:
        sources: files, folders (the images in them and below, sorted), patterns such as `'photos/*.jpg'`, videos,
            numbers of cameras; "-" stands for `listed`.
        listed: one more source each.

    Raises UserError for a folder or pattern without images. A file that is not there stays in the list, and so does
    whatever was `listed`: one name of thousands does not end a command.
    """
    found: list[str] = []
    for source in sources:
        if source == "-":
            found += itertools.chain.from_iterable(map(_expand_listed, listed))
        else:
            found += _expand(source)
    return found


def _expand_listed(source: str) -> list[str]:
    source = source.rstrip("\n")
    if not paths.exists(source):
        source = source.rstrip("\r")  # a list from Windows
    if not source.strip() or source == "-":
        return []
    try:
        return _expand(source)
    except UserError:
        return [source]


def _expand(source: str) -> list[str]:
    if paths.is_folder(source):
        files = walk.image_files(source)
        if not files:
            raise UserError(f"{source}: no image in this folder; give one with .jpg, .png or other images")
        return files
    if not paths.exists(source) and glob.has_magic(source):
        matches = _matches(_pattern(source))
        if not matches:
            raise UserError(f"{source}: no file matches this pattern; correct it, or name files or folders")
        matches = _pictures(source, matches)
        # A pattern may match a folder and what is in it.
        return list(dict.fromkeys(file for match in matches for file in _expand(match)))
    return [source]


def _matches(pattern: str) -> list[str]:
    """What a pattern matches, sorted. `**` stands for the folders that `walk` goes through: no links in circles."""
    before, deep, after = f"{pattern}/".partition("**/")
    if not deep or (before and not before.endswith("/")):
        return sorted(glob.glob(pattern))
    found: set[str] = set()
    for top in glob.glob(before) if before else [""]:
        if not after:
            found.add(top or os.curdir)
            continue
        for folder in walk.folders(top or os.curdir):
            inside = os.path.join(folder, "")
            found.update(_matches(glob.escape(inside if top else inside.removeprefix("./")) + after[:-1]))
    return sorted(found)


def _pictures(source: str, matches: list[str]) -> list[str]:
    """What a pattern matches, but for files that are no images or videos by their ending, where some are."""
    others = [match for match in matches if not (walk.is_image(match) or is_video(match) or paths.is_folder(match))]
    if len(others) == len(matches):
        return matches
    walk.LeftOut(others).say(source)
    left_out = set(others)
    return [match for match in matches if match not in left_out]


def _pattern(source: str) -> str:
    """A pattern whose first folders are there by just this name: `[` in their names stands for itself."""
    folder, rest = "", source
    while os.sep in rest:
        part, _, after = rest.partition(os.sep)
        if part and not paths.is_folder(f"{folder}{part}"):
            break
        folder, rest = f"{folder}{part}{os.sep}", after
    return glob.escape(folder) + rest


def is_video(source: str) -> bool:
    """Whether a source is a video or a camera, and not an image file."""
    return Path(source).suffix.lower() in VIDEOS or (source.isdecimal() and not paths.exists(source))


def frames(source: str, every: int = 1) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and pixels, uint8 (height, width, 3) RGB, of one frame in `every` of a video file or camera.

    Raises UserError where OpenCV is not installed or cannot open the source.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"{source}: OpenCV reads videos ({error}); pip install opencv-python-headless") from error
    with contextlib.ExitStack() as stack:
        if source.isdecimal():
            capture = cv2.VideoCapture(int(source))
        else:
            # It dies of a name that is no UTF-8, and takes `%d` for the number of one image of many.
            capture = cv2.VideoCapture(str(stack.enter_context(scratch.linked(Path(source)))))
        stack.callback(capture.release)
        if not capture.isOpened():
            raise UserError(f"{source}: OpenCV cannot open this {'camera' if source.isdecimal() else 'video'}")
        for number in itertools.count():
            read, frame = capture.read()
            if not read:
                return
            if number % every == 0:
                yield f"{source}#{number}", np.ascontiguousarray(frame[..., ::-1])


def picture_name(image: str, taken: set[str]) -> str:
    """A file name for the annotated picture of an image, other than those taken, to which it is added."""
    path = Path(image)
    stem = path.stem if "#" not in path.suffix else f"{path.stem}_{path.suffix.partition('#')[2]}"
    # Room for a number and another ending, in bytes, of which a name has 255 at the most.
    stem = os.fsdecode(os.fsencode(stem)[:_LONGEST_STEM])
    names = itertools.chain([f"{stem}.png"], (f"{stem}_{count}.png" for count in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name
