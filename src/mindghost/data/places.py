"""Where the images of a split lie: which of the things in `data_dir` hold them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..files import paths
from ..process.display import some
from . import walk

TAR, PARQUET = "tar", "parquet"
_ENDINGS = {".tar": TAR, ".parquet": PARQUET, ".tgz": TAR}
_COMPRESSED = (".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz")
_RANGE = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)")
_MOST_FILES = 100_000
_NUMBERED = re.compile(r"(.*[-_.])(\d+)\.(?:tar|parquet)", re.IGNORECASE)
_OF = re.compile(r"(.*?)-?(\d+)-of-(\d+)(\D.*|$)")
# What others call the splits that are called train and val here: Hugging Face, ImageNet as it is downloaded.
_ALSO = {"train": ("train", "ILSVRC2012_img_train"), "val": ("val", "validation", "ILSVRC2012_img_val")}

_logger = logging.getLogger("mindghost")


class Shards(NamedTuple):
    """The files that hold a split.

    Attributes:
        root: what to call the split in messages: `data_dir/SPLIT`.
        kind: TAR or PARQUET.
        files: the paths, sorted.
    """

    root: Path
    kind: str
    files: tuple[Path, ...]


def folder(data_dir: Path, split: str) -> Path:
    """The folder of a split: `data_dir/SPLIT`, or where that is not there, one of the other names for it that is."""
    found = [data_dir / name for name in _ALSO.get(split, ()) if paths.is_folder(data_dir / name)]
    return found[0] if found and not paths.exists(data_dir / split) else data_dir / split


def is_there(data_dir: Path, split: str) -> bool:
    """Whether there is a folder of a split, or what stands for one."""
    return paths.is_folder(folder(data_dir, split)) or shards(data_dir, split) is not None


def shards(data_dir: Path, split: str) -> Shards | None:
    """The tar or parquet files of a split; None where it is a folder of images, or is not there.

    They are `SPLIT` itself, such as `train.tar` or `train-{000000..000123}.tar`; else those in the folder `SPLIT`,
    where it has no other folder in it; else `SPLIT.tar`, `SPLIT-*.tar`, `SET-SPLIT-*.tar` and the like in `data_dir`
    or, as Hugging Face has it, in `data_dir/data`.

    Raises UserError where one of them is missing, or there are some of both kinds.
    """
    root = folder(data_dir, split)
    if match := _RANGE.fullmatch(split):
        return _shards(root, _listed(data_dir, match))
    if paths.is_folder(root):
        if not any(_kind(name) for name in paths.names_in(root)) or walk.class_folders(root, walk.LeftOut()):
            return None
        return _shards(root, _in(root, ""))
    if _kind(split) and paths.exists(root):
        return _shards(root, [root])
    for name in _ALSO.get(split, (split,)):
        for place in (data_dir, data_dir / "data"):
            if name and (found := _in(place, name) or _in(place, name, prefixed=True)):
                return _shards(data_dir / name, found)
    return None


def _shards(root: Path, files: list[Path]) -> Shards:
    kinds = {_kind(file.name) for file in files}
    if len(kinds) > 1:
        raise UserError(f"{root}: tar files as well as parquet files; keep one of the two: {some(files)}")
    _check_complete(files)
    _say_gaps(files)
    return Shards(root, kinds.pop(), tuple(files))


def _kind(name: str) -> str:
    """TAR or PARQUET for the name of such a file, else empty."""
    lower = name.lower()
    return TAR if lower.endswith(_COMPRESSED) else _ENDINGS.get(os.path.splitext(lower)[1], "")


def _in(folder: Path, name: str, prefixed: bool = False) -> list[Path]:
    """The shards in a folder whose names begin with that of a split, and do not go on with a letter or digit.

    `prefixed`: those that have the name of a set before it, such as `imagenet1k-train-0000.tar`.
    """
    begins = re.compile((r".+[-_]" if prefixed else "") + re.escape(name) + (r"[-_.]" if name else ""))
    found = [entry for entry in paths.names_in(folder) if begins.match(entry) and not entry.startswith(".")]
    return [folder / entry for entry in found if _kind(entry)]


def _listed(data_dir: Path, match: re.Match[str]) -> list[Path]:
    start, first, last, end = match.groups()
    if not _kind(f"0{end}") or not 0 <= int(last) - int(first) < _MOST_FILES:
        raise UserError(
            f"{match[0]}: expected the names of shards, such as train-{{000000..000123}}.tar; correct train_split or "
            "val_split"
        )
    files = [data_dir / f"{start}{number:0{len(first)}}{end}" for number in range(int(first), int(last) + 1)]
    for file in files:
        paths.check_file(file, f"{match[0]} asks for it: get it, or ask for fewer")
    return files


def _check_complete(files: Iterable[Path]) -> None:
    """Raise UserError where one of `...-00000-of-00003...` is missing: they say how many there are."""
    found: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if match := _OF.fullmatch(file.name):
            found.setdefault((match[1], match[3]), set()).add(int(match[2]))
    for (start, count), numbers in found.items():
        missing = sorted(set(range(min(int(count), _MOST_FILES))) - numbers)
        if missing:
            folder = next(iter(files)).parent
            raise UserError(
                f"{folder}: {start} has {int(count):,} files, of which {len(missing):,} are missing: "
                f"{some([f'{number:0{len(count)}}' for number in missing])}; download them"
            )


def _say_gaps(files: Iterable[Path]) -> None:
    """Warn of numbers that are left out between those of the shards."""
    found: dict[str, list[int]] = {}
    for file in files:
        if match := _NUMBERED.fullmatch(file.name):
            found.setdefault(match[1], []).append(int(match[2]))
    for start, numbers in found.items():
        if missing := max(numbers) - min(numbers) + 1 - len(set(numbers)):
            _logger.warning(
                f"{start}{min(numbers)} to {max(numbers)}: {missing:,} of these shards are missing; the others are read"
            )
