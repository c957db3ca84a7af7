"""Which image files can be read: looked at before the first epoch, in parallel, and remembered for the next start."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import RunError, UserError
from ..files import intact, paths
from ..files.cache import cache_dir
from ..process.display import shown
from . import columns
from .samples import FileSamples

_TASK = 64  # files: handing a thread one at a time costs more than reading a header
_SUM = "S64"  # a sha256 in hexadecimal, or nothing
_CHANGED = (
    "is not what it was when it was looked at (its sha256 differs, its size and time of change do not); restore the "
    "file, or touch it if it is right as it is"
)
_SECONDS = 2  # a scan that takes longer is worth a line

_logger = logging.getLogger("mindghost")


@dataclass(frozen=True)
class Part:
    """What one of several processes on a machine looks at, and how all of them learn what each has found.

    Attributes:
        number, of: this process's part of the images: those `number`, `number + of`, ...
        merged: what it found of images (index -> text, such as why one is bad) -> what any of them found. All of them
            have to call it.
    """

    number: int = 0
    of: int = 1
    merged: Callable[[dict[int, str]], dict[int, str]] = lambda bad: bad


WHOLE = Part()


def bad_images(
    samples: FileSamples,
    decode: bool,
    stop: bool = False,
    part: Part = WHOLE,
    digests: bool = False,
    notes: dict[int, str] | None = None,
) -> dict[int, str]:
    """Indices of the images that cannot be read, in order, and for each why, in one line that has its path.

    Those that were good before, and have the size and time of change that they had then, are not opened again: the
    manifest in the user's cache folder has them (see `manifest`).

    Args:
        samples: what to look at.
        decode: decode the pixels; otherwise only the header is read.
        stop: return after the first bad image.
        part: of several processes, this one's. What the others have found is not in the result.
        digests: read all images, and compare them with the sha256 that the manifest has of them; one that has changed
            under the same size and time of change is bad.
        notes: gets what is remembered of good images beside, by their indices (`FileSamples.look`); nothing of most.
    """
    started = time.monotonic()
    noted: dict[int, str] = {} if notes is None else notes
    indices = np.arange(part.number, len(samples), part.of)
    stats = np.array([samples.size_and_time(index) for index in indices], np.int64).reshape(-1, 2)
    remembered = manifest(samples.root, part, samples.scope)
    names = samples.files[indices]
    new, sums = np.ones(len(indices), bool), np.zeros(len(indices), _SUM)
    texts = np.full(len(indices), "", object)
    # Those of other numbers of processes, too, and of other images of the place.
    start = f"{remembered.name.partition('.')[0]}."
    for name in paths.names_in(remembered.parent):
        if not (name.startswith(start) and name.endswith(".npz")):
            continue
        known, their_sums, their_texts = _known(remembered.parent / name, names, stats, decode)
        new &= ~known
        sums = np.where(their_sums != b"", their_sums, sums)
        texts = np.where(known, their_texts, texts)
    bad, longer, found_texts = _look(samples, indices[new], decode, stop)
    told = ~new & (texts != "")
    noted |= dict(zip(indices[told].tolist(), texts[told], strict=True)) | found_texts
    if longer:
        count = "1 file has" if len(longer) == 1 else f"{len(longer):,} files have"
        example = samples.name(min(longer))
        _logger.info(
            f"{samples.title}: {count} several frames or pages, of which the first is taken, such as {example}"
        )
    readable = ~np.isin(indices, list(bad))
    if digests and not (stop and bad):
        found = _sums(samples, indices)
        changed = (sums != b"") & (sums != found)
        bad |= {int(index): f"{samples.name(index)}: {_CHANGED}" for index in indices[changed]}
        # What has changed stays known as what it was, so that it is bad at the next start, too.
        sums = np.where(changed, sums, found)
    seconds = time.monotonic() - started
    if seconds > _SECONDS:
        _logger.info(f"{samples.title}: looked at {new.sum():,} of {len(indices):,} images in {seconds:.0f} s")
    if (new.any() or digests) and not (stop and bad):
        lines = np.zeros(len(indices), "S1")
        if noted:
            lines = np.array([noted.get(index, "").encode() for index in indices.tolist()], np.bytes_)
        arrays = {"names": names, "stats": stats, "sums": sums, "notes": lines}
        _remember(remembered, {name: column[readable] for name, column in arrays.items()}, decode)
    return bad


def manifest(root: str, part: Part = WHOLE, scope: str = "") -> Path:
    """The file that remembers the good images of a place, or those of a scope of it (see `FileSamples`).

    It holds their paths, sizes, times of change (ns), how they were read, and the sha256 of those that were read for
    it. Each of several processes has one. Deleting them has the images looked at again.
    """
    place = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()
    inside = f"{hashlib.sha256(os.fsencode(scope)).hexdigest()[:16]}." if scope else ""
    return cache_dir() / "scans" / f"{place[:32]}.{inside}{part.number}of{part.of}.npz"


def _known(path: Path, names: NDArray[Any], stats: NDArray[Any], decode: bool) -> tuple[NDArray[Any], ...]:
    """Which of these images the manifest has as good, read as thoroughly as now; their sums; what was noted of them.

    A damaged one knows none, and is deleted.
    """
    none = np.zeros(len(names), bool), np.zeros(len(names), _SUM), np.full(len(names), "", object)
    try:
        found = columns.decode(paths.read(path, "delete it"))
    except UserError:
        return none
    except ValueError as error:
        _logger.warning(f"{path}: damaged ({error}); the images are looked at again")
        # One of another number of processes would not be replaced.
        with contextlib.suppress(OSError):
            path.unlink()
        return none
    known_names, decoded = found["names"], bool(found["decoded"])
    if not len(known_names):
        return none
    at = np.searchsorted(known_names, names)
    at[at == len(known_names)] = 0
    same = (known_names[at] == names) & (found["stats"][at] == stats).all(axis=1)
    texts = none[2]
    # An older version noted nothing.
    if "notes" in found and (found["notes"] != b"").any():
        texts = np.array([text.decode() for text in found["notes"][at]], object)
    return same & (decoded or not decode), np.where(same, found["sums"].astype(_SUM)[at], b""), texts


def _sums(samples: FileSamples, indices: NDArray[Any]) -> NDArray[Any]:
    """The sha256 of each of these images, in hexadecimal; empty for one that cannot be read."""

    def sum_of(index: int) -> bytes:
        try:
            return hashlib.sha256(samples.content(index)).hexdigest().encode()
        except UserError:
            return b""

    order = samples.reading_order(indices)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(order.tolist(), pool.map(sum_of, order), strict=True))
    return np.array([found[index] for index in indices.tolist()], _SUM)


def _look(
    samples: FileSamples, indices: NDArray[Any], decode: bool, stop: bool
) -> tuple[dict[int, str], list[int], dict[int, str]]:
    """Which of these images are bad, and why; which hold more than one image; what is to be noted of the good ones."""
    longer: list[int] = []
    notes: dict[int, str] = {}

    def look(start: int) -> dict[int, str]:
        found = {}
        for index in indices[start : start + _TASK]:
            try:
                more, note = samples.look(int(index), decode)
                if more:
                    longer.append(int(index))
                if note:
                    notes[int(index)] = note
            except UserError as error:
                found[int(index)] = str(error)
                if stop:
                    break
        return found

    indices = samples.reading_order(indices)
    bad: dict[int, str] = {}
    title = os.path.basename(samples.title)
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        tqdm(total=len(indices), unit="image", desc=f"looking at {shown(title)}", leave=False, disable=None) as bar,
    ):
        tasks = [pool.submit(look, start) for start in range(0, len(indices), _TASK)]
        try:
            for task in tasks:
                bad |= task.result()
                bar.update(_TASK)
                if stop and bad:
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    return bad, longer, notes


def _remember(path: Path, arrays: dict[str, NDArray[Any]], decode: bool) -> None:
    """Write the manifest. A cache folder that takes no files costs a scan at each start, nothing else."""
    order = np.argsort(arrays["names"])
    content = columns.encode({**{name: column[order] for name, column in arrays.items()}, "decoded": np.array(decode)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        intact.write_atomically(path, content)
    except (OSError, RunError) as error:
        _logger.debug(f"{path}: {error}")
