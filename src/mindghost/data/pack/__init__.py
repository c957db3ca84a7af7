"""Packs: the images of a split in a few large files instead of many small ones.

A pack is a folder of MindRecord shards (`00000.mindrecord` and MindSpore's own index of it, `00000.mindrecord.db`),
each row with `name` (string), `label` (int32) and `image` (the bytes of an image file). MindSpore's `MindDataset` reads
them in order; for images in any order, `pack.npz` has where the bytes of each one are, with a checksum. It is written
last: without it a pack is not complete.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import paths
from .. import columns, images, jpeg
from ..regions import Regions
from ..samples import Samples

INDEX = "pack.npz"
SHARD = "{:05}.mindrecord"
AGAIN = "make it again with `mindghost pack --overwrite`"
# Arrays of the index, one entry an image.
COLUMNS = ("files", "labels", "shards", "offsets", "lengths", "checks")


@dataclass(frozen=True, eq=False)
class PackSamples(Samples):
    """Images in the shards of a pack.

    Attributes:
        root: folder of the pack.
        short_side: pixels of the shorter side that larger images were scaled down to; None for images as they were.
        uncompressed: the pack holds pixels in place of the image files.
        files: paths below the folder that was packed, as bytes.
        shards, offsets, lengths, checks: number of the shard, where the image's bytes are in it, and their CRC-32.
        regions: reads them.
    """

    root: str
    short_side: int | None
    uncompressed: bool
    files: NDArray[Any]
    shards: NDArray[Any]
    offsets: NDArray[Any]
    lengths: NDArray[Any]
    checks: NDArray[Any]
    decoder: jpeg.Decoder | None = None
    regions: Regions = field(default_factory=lambda: Regions((), AGAIN), repr=False)

    def open(self, index: int) -> NDArray[Any] | images.JpegImage:
        """The pixels of an image, of which a JPEG file is decoded as far as they are asked for."""
        return images.open_content(self.content(index), self.name(index), self.decoder)

    def read(self, index: int) -> NDArray[Any]:
        """The pixels of an image, all of them."""
        return np.asarray(self.open(index))

    def content(self, index: int) -> bytes:
        """The bytes of an image file. Raises UserError where the shard is damaged there, RunError as `images`."""
        shard, length = int(self.shards[index]), int(self.lengths[index])
        content = self.regions.read(shard, int(self.offsets[index]), length)
        if len(content) != length or zlib.crc32(content) != self.checks[index]:
            path = os.path.join(self.root, SHARD.format(shard))
            raise UserError(f"{path}: damaged where it holds {os.fsdecode(self.files[index])}; {AGAIN}")
        return content

    def name(self, index: int) -> str:
        """The path that the image had when it was packed, and the shard that holds it."""
        return f"{os.path.join(self.root, os.fsdecode(self.files[index]))} (in {SHARD.format(int(self.shards[index]))})"

    def _identity(self) -> NDArray[Any]:
        """Of images that were packed as they are, that of the folder: a run may go on with either."""
        if self.short_side is None:
            return self.files
        return np.append(self.files, np.bytes_(f"{self.short_side}{' uncompressed' if self.uncompressed else ''}"))


def is_pack(folder: Path) -> bool:
    """Whether a folder holds a pack, or the beginning of one."""
    return paths.exists(folder / INDEX) or any(name.endswith(".mindrecord") for name in paths.names_in(folder))


def open_pack(folder: Path, decoder: jpeg.Decoder | None = None) -> PackSamples:
    """The samples of a pack. Raises UserError where it is not complete, or damaged as far as sizes show."""
    path = folder / INDEX
    if not paths.exists(path):
        raise UserError(f"{folder}: a pack that is not complete; run `mindghost pack` again, which goes on")
    try:
        # A pack without a digest of its index may hold a hundred gigabytes: it is not to be made again for that.
        arrays = columns.decode(paths.read(path, AGAIN), older=True)
        facts = json.loads(str(arrays.pop("facts")))
        classes, sizes, short_side = tuple(facts["classes"]), facts["shard_bytes"], facts["short_side"]
        uncompressed = facts.get("uncompressed", False)  # older packs do not say
        arrays = {name: arrays[name] for name in COLUMNS}
        _check_columns(arrays, len(classes), sizes)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:100]}); {AGAIN}") from error
    for number, size in enumerate(sizes):
        shard = folder / SHARD.format(number)
        found = shard.stat().st_size if paths.is_file(shard) else None
        if found != size:
            state = "not there" if found is None else f"{found:,} bytes instead of {size:,}"
            raise UserError(f"{shard}: {state}; {AGAIN}")
    labels = arrays["labels"].astype(np.int32)
    return PackSamples(
        classes,
        labels,
        str(folder),
        short_side,
        uncompressed,
        arrays["files"],
        arrays["shards"],
        arrays["offsets"],
        arrays["lengths"],
        arrays["checks"],
        decoder,
        Regions([str(folder / SHARD.format(number)) for number in range(len(sizes))], AGAIN),
    )


def _check_columns(arrays: Mapping[str, NDArray[Any]], classes: int, sizes: Sequence[int]) -> None:
    """Raise ValueError where the columns of an index contradict each other, or the number of classes or shards."""
    labels, shards, offsets, lengths = (arrays[name] for name in ("labels", "shards", "offsets", "lengths"))
    if {array.shape for array in arrays.values()} != {(len(labels),)}:
        raise ValueError("its columns differ in length")
    if any(array.dtype.kind not in "iu" for name, array in arrays.items() if name != "files"):
        raise ValueError("its columns are not numbers")
    if not len(labels):
        return
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError("a label of no class")
    if shards.min() < 0 or shards.max() >= len(sizes) or offsets.min() < 0 or lengths.min() < 0:
        raise ValueError("an image in no shard")
    if (offsets + lengths > np.array(sizes, np.int64)[shards]).any():
        raise ValueError("an image behind the end of its shard")
