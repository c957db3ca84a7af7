"""Image folders -> packs: MindRecord shards that are verified, and an index of where each image is in them.

Shard after shard, so that a run that was ended at any moment goes on with the shard that it was at.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from mindspore.mindrecord import FileReader, FileWriter
from mindspore.mindrecord.common.exceptions import MindRecordException
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ...errors import RunError, UserError
from ...files import intact, paths, scratch
from ...files.lock import FolderLock
from ...process.display import shown
from .. import columns, images, layouts
from .. import pack as packs
from ..samples import FileSamples
from . import COLUMNS, INDEX, SHARD

_T = TypeVar("_T")

_SCHEMA = {"name": {"type": "string"}, "label": {"type": "int32"}, "image": {"type": "bytes"}}
_PLAN, _PART = ".plan", ".{:05}.npz"
# What a killed command leaves of files that are written atomically.
_LEFT = (f".{_PLAN}.*.tmp", "..[0-9]*.npz.*.tmp", f".{INDEX}.*.tmp")
# What a pack is made of.
_OWN = re.compile(rf"{re.escape(INDEX)}|{re.escape(_PLAN)}|\d{{5}}\.mindrecord(\.db)?|\.\d{{5}}\.npz")
_HEADER = 1 << 20  # bytes before the first page; MindRecord's own 16 MB would be most of a small pack
_SMALLEST_PAGE = 1 << 22
_ROWS = 256  # images that are handed on at a time
_BYTES_BEFORE_IMAGE = 8  # its length
# Bytes of a row beside its name and image, of MindSpore's index, and of a row in that: at the most.
_BYTES_OF_ROW, _INDEX_BYTES, _INDEX_BYTES_OF_ROW = 40, 1 << 16, 100
_PLAIN_HEADER = 40  # bytes before an uncompressed image's pixels, at the most
_LARGEST_IMAGE = 128 << 20  # bytes; a page of MindRecord holds no more than twice that


@dataclass(frozen=True)
class Options:
    """How a pack is made.

    Attributes:
        short_side: scale larger images down to so many pixels on their shorter side; None keeps them as they are.
        quality: of the JPEG files that scaled images are saved as, from 1 to 100.
        shard_bytes: of image files in a shard, at the most, but one file at the least.
        uncompressed: keep pixels (as PPM files) in place of the image files: ten times the size, nothing to decode.
    """

    short_side: int | None = None
    quality: int = 95
    shard_bytes: int = 256 << 20
    uncompressed: bool = False


@dataclass(frozen=True)
class Packed:
    """What became of a split: images, bytes of their files before and of the shards after, and shards made now."""

    images: int
    bytes_before: int
    bytes_after: int
    shards: int
    made: int


def pack(source: Path | FileSamples, target: Path, options: Options, overwrite: bool = False) -> Packed:
    """Pack the images of a split.

    Args:
        source: folder of class folders, or of what stands for them: `DATA/train` for `DATA/train-000000.tar`; or the
            images of a list.
        target: folder of the pack; it is made, and gone on with where it was begun with the same images and options.
        options: see there.
        overwrite: begin afresh, whatever pack `target` holds.

    Raises:
        UserError: an image that cannot be read, or a target that holds something else or is damaged.
        RunError: the target cannot be written, or a shard does not hold what was written to it.
    """
    samples = source if isinstance(source, FileSamples) else _opened(source)
    sizes, plan = _plan(samples, options)
    lock = FolderLock(target, "--out")
    paths.make_folder(target, "--out")
    try:
        lock.take()
    except OSError as error:
        raise paths.not_writable(target, "--out", error) from error
    try:
        _begin(target, plan, overwrite)
        made = 0
        with tqdm(total=len(samples), unit="image", desc=shown(target.name), leave=False, disable=None) as bar:
            parts = _parts(_packed_sizes(samples, sizes, options), options.shard_bytes)
            for number, part in enumerate(parts):
                if not _is_made(target, number):
                    _make_shard(target, number, part, samples, options)
                    made += 1
                bar.update(len(part))
        _finish(target, samples, len(parts), options)
        after = sum((target / SHARD.format(number)).stat().st_size for number in range(len(parts)))
    except OSError as error:
        raise RunError(
            f"{error.filename or target}: {error.strerror or error}; what was packed so far is kept"
        ) from error
    finally:
        lock.release()
    return Packed(len(samples), int(sizes.sum()), after, len(parts), made)


def _opened(source: Path) -> FileSamples:
    samples = layouts.opened(source.parent, source.name)
    if samples is None:
        paths.check_folder(source, "give a folder of class folders")
    if not isinstance(samples, FileSamples):
        raise UserError(f"{source}: a pack already; give the images that it was made of")
    return samples


def _plan(samples: FileSamples, options: Options) -> tuple[NDArray[Any], str]:
    """The sizes of the files, and a digest of all that decides what a pack holds."""
    status = [samples.size_and_time(index) for index in range(len(samples))]
    facts = [samples.digest(), asdict(options), status]
    return samples.file_sizes(), hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _packed_sizes(samples: FileSamples, sizes: NDArray[Any], options: Options) -> NDArray[Any]:
    """Bytes that each image will take in a shard, at the most. Raises UserError for an image that cannot be read."""
    if not options.uncompressed:
        return sizes

    def packed_size(index: int) -> int:
        width, height = _scaled(samples.size(index), options.short_side)
        return 3 * width * height + _PLAIN_HEADER

    return np.array(list(_in_threads(packed_size, range(len(samples)))), np.int64)


def _parts(sizes: NDArray[Any], shard_bytes: int) -> list[range]:
    """The images of each shard, in order."""
    starts, total = [0], 0
    for index, size in enumerate(sizes):
        total += int(size)
        if total > shard_bytes and index > starts[-1]:
            starts.append(index)
            total = int(size)
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def _begin(target: Path, plan: str, overwrite: bool) -> None:
    """Note in a new target what it is going to hold; refuse one that holds something else, or is damaged."""
    scratch.tidy(target)
    for left in [path for pattern in _LEFT for path in target.glob(pattern)]:
        left.unlink()
    note = target / _PLAN
    if not overwrite and paths.is_file(note) and paths.read(note, "delete it") == plan.encode():
        if paths.exists(target / INDEX):
            packs.open_pack(target)
        return
    found = [path for path in target.iterdir() if path.name != ".lock"]
    if found and not (overwrite and (paths.is_file(note) or paths.is_file(target / INDEX))):
        raise UserError(
            f"{target}: holds something else ({found[0].name}), or a pack of other images or options; give another "
            "folder with --out" + (", or --overwrite" if paths.is_file(note) else "")
        )
    # The index first: without it nobody takes the rest for a pack.
    for path in sorted(found, key=lambda path: path.name != INDEX):
        if _OWN.fullmatch(path.name):
            path.unlink()
    intact.write_atomically(note, plan.encode())


def _is_made(target: Path, number: int) -> bool:
    shard, part = target / SHARD.format(number), target / _PART.format(number)
    if (target / INDEX).exists():
        return True
    if not (paths.is_file(part) and paths.is_file(shard)):
        return False
    try:
        return shard.stat().st_size == int(columns.decode(paths.read(part, "delete it"))["shard_bytes"])
    except (ValueError, KeyError):
        return False


def _make_shard(target: Path, number: int, part: range, samples: FileSamples, options: Options) -> None:
    """Write a shard, read it again, and put it into place with its part of the index."""
    files = samples.files[part.start : part.stop]
    with ExitStack() as stack:
        beside = folder = stack.enter_context(scratch.folder("shard", near=target))
        if not scratch.is_utf_8(target.absolute()):  # MindRecord takes no such path
            folder = stack.enter_context(scratch.folder("shard"))
        path = folder / SHARD.format(number)
        rows = list(_rows(part, samples, options))
        _make_room(path, rows)
        _write_shard(path, rows)
        arrays = {"files": files, **_locate(path, rows, number)}
        _check_with_mindspore(path, rows)
        for made in (path, Path(f"{path}.db")):
            made = Path(made if folder == beside else shutil.copyfile(made, beside / made.name))
            # MindRecord's files are their owner's alone.
            shutil.copymode(target / _PLAN, made)
            with open(made, "rb") as file:
                os.fsync(file.fileno())
            os.replace(made, target / made.name)
    size = np.array((target / SHARD.format(number)).stat().st_size)
    intact.write_atomically(target / _PART.format(number), columns.encode({"shard_bytes": size, **arrays}))


def _rows(part: range, samples: FileSamples, options: Options) -> Iterator[dict[str, Any]]:
    def row(index: int) -> dict[str, Any]:
        content = file_of(samples, index, options)
        name = bytes(samples.files[index]).decode(errors="replace")
        return {"name": name, "label": int(samples.labels[index]), "image": content}

    return _in_threads(row, part)


def _in_threads(function: Callable[[int], _T], values: range) -> Iterator[_T]:
    """function(value) of each value, in order, made on all cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        try:
            yield from pool.map(function, values)
        finally:
            pool.shutdown(cancel_futures=True)


def file_of(samples: FileSamples, index: int, options: Options) -> bytes:
    """The bytes that a pack holds of an image file: its own, or those of a smaller JPEG file, or pixels.

    Raises UserError where the image cannot be read, or is too large.
    """
    content = _content(samples, index, options)
    if len(content) > _LARGEST_IMAGE:
        raise UserError(
            f"{samples.name(index)}: {len(content) >> 20} MB in a pack, which takes images of up to "
            f"{_LARGEST_IMAGE >> 20} MB; give --short_side, or scale the image down"
        )
    return content


def _content(samples: FileSamples, index: int, options: Options) -> bytes:
    if options.short_side is None and not options.uncompressed:
        samples.check(index, decode=True)
        return samples.content(index)
    pixels = samples.read(index)
    before = pixels.shape[1], pixels.shape[0]
    size = _scaled(before, options.short_side)
    if size != before:
        smaller = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        pixels = np.asarray(smaller)
    if options.uncompressed:
        return images.plain_file(pixels)
    if size == before:
        return samples.content(index)
    file = io.BytesIO()
    smaller.save(file, "JPEG", quality=options.quality)
    return file.getvalue()


def _scaled(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Width and height of an image in a pack: smaller ones stay as they are."""
    if short_side is None or min(size) <= short_side:
        return size
    scale = short_side / min(size)
    return max(short_side, round(size[0] * scale)), max(short_side, round(size[1] * scale))


def _make_room(path: Path, rows: list[dict[str, Any]]) -> None:
    """Find out whether a shard fits on the disk, and within the limits: what MindRecord says of it, or dies of, is odd.

    Raises RunError.
    """
    size = _most_bytes(rows)
    probe = path.with_name("room")
    try:
        with open(probe, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        probe.unlink()
    except OSError as error:
        raise RunError(
            f"{path.parent.parent}: {path.name} cannot be written ({paths.reason(error)}; it takes {size / 1e6:,.1f} "
            "MB); make room, and give the command again: it goes on with this shard"
        ) from error


def _most_bytes(rows: list[dict[str, Any]]) -> int:
    """Bytes that a shard takes with its index, at the most: pages of images, and pages of what else is in a row."""
    page = _page_bytes(rows)
    image_pages, images_last = _filled([len(row["image"]) + _BYTES_BEFORE_IMAGE for row in rows], page)
    row_pages, rows_last = _filled([len(row["name"].encode()) + _BYTES_OF_ROW for row in rows], page)
    if row_pages == 1:
        # Pages are whole, but for the one that is written last.
        pages = image_pages * page + max(images_last, rows_last)
    else:
        # Each new page of rows begins one of images as well.
        pages = (image_pages + 2 * row_pages - 1) * page
    return _HEADER + pages + _INDEX_BYTES + _INDEX_BYTES_OF_ROW * len(rows)


def _filled(sizes: list[int], page: int) -> tuple[int, int]:
    """Pages that entries take which do not cross pages, and the bytes in the last one."""
    pages, used = 1, 0
    for size in sizes:
        pages, used = (pages, used + size) if used + size <= page else (pages + 1, size)
    return pages, used


def _page_bytes(rows: list[dict[str, Any]]) -> int:
    # A row does not cross pages.
    largest = max(len(row["image"]) for row in rows) + 2 * _BYTES_BEFORE_IMAGE
    return max(_SMALLEST_PAGE, 1 << (largest - 1).bit_length())


def _write_shard(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a shard and MindRecord's index of it.

    Raises RunError where MindRecord fails, as when another program has filled the disk since `_make_room`.
    """
    try:
        writer = FileWriter(str(path), 1)
        writer.set_header_size(_HEADER)
        writer.set_page_size(_page_bytes(rows))
        writer.add_schema(_SCHEMA, "images of a GhostNet pack")
        writer.add_index(["label"])
        for start in range(0, len(rows), _ROWS):
            writer.write_raw_data(rows[start : start + _ROWS])
        writer.commit()
    except (RuntimeError, MindRecordException) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path.name}: MindRecord cannot write it ({reason}); if the disk is full make room, and give the command "
            "again: it goes on with this shard"
        ) from error


def _locate(path: Path, rows: list[dict[str, Any]], number: int) -> dict[str, NDArray[Any]]:
    """Columns of the index: where each image is, which MindSpore's own index says; what is there is compared."""
    with open(path, "rb") as shard, closing(sqlite3.connect(f"{path}.db")) as database:
        header = json.loads(shard.read(struct.unpack("<Q", shard.read(8))[0]))
        places = database.execute("SELECT PAGE_ID_BLOB, PAGE_OFFSET_BLOB FROM INDEXES ORDER BY ROW_ID").fetchall()
        offsets = [
            header["header_size"] + page * header["page_size"] + offset + _BYTES_BEFORE_IMAGE for page, offset in places
        ]
        for row, offset in zip(rows, offsets, strict=True):
            shard.seek(offset)
            if shard.read(len(row["image"])) != row["image"]:
                raise RunError(f"{path.name}: {row['name']} is not where MindRecord's index has it; report this")
    images_of = [row["image"] for row in rows]
    return {
        "labels": np.array([row["label"] for row in rows], np.int32),
        "shards": np.full(len(rows), number, np.int32),
        "offsets": np.array(offsets, np.int64),
        "lengths": np.array([len(image) for image in images_of], np.int64),
        "checks": np.array([zlib.crc32(image) for image in images_of], np.uint32),
    }


def _check_with_mindspore(path: Path, rows: list[dict[str, Any]]) -> None:
    """Read a shard as MindSpore does. Raises RunError where that is not what was written."""
    reader = FileReader(str(path))
    try:
        for expected, found in zip(rows, reader.get_next(), strict=True):
            image = found["image"] if isinstance(found["image"], bytes) else bytes(found["image"])
            if (found["name"], int(found["label"]), image) != (expected["name"], expected["label"], expected["image"]):
                raise RunError(f"{path.name}: MindSpore reads something else than was written for {expected['name']}")
    finally:
        reader.close()


def _finish(target: Path, samples: FileSamples, shards: int, options: Options) -> None:
    """Join the parts of the index; with it, the pack is complete."""
    if not (target / INDEX).exists():
        _write_index(target, samples, shards, options)
    for number in range(shards):
        (target / _PART.format(number)).unlink(missing_ok=True)


def _write_index(target: Path, samples: FileSamples, shards: int, options: Options) -> None:
    parts = [columns.decode((target / _PART.format(number)).read_bytes()) for number in range(shards)]
    facts = {
        "classes": list(samples.classes),
        "short_side": options.short_side,
        "uncompressed": options.uncompressed,
        "shard_bytes": [int(part["shard_bytes"]) for part in parts],
    }
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    intact.write_atomically(target / INDEX, columns.encode({"facts": np.array(json.dumps(facts)), **arrays}))
