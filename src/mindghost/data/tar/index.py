"""Where the images lie in tar files, and what their labels are: read from the headers once, and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...errors import RunError, UserError
from ...files import cache, intact, paths
from ...process.display import shown
from .. import columns, samples, walk
from ..regions import Regions
from . import members as tar_members

_REMEDY = "replace the file"
_SECONDS = 2  # reading headers for longer is worth a line
_COLUMNS = ("files", "texts", "offsets", "lengths")
_FORM = 1  # of the files in the cache

_logger = logging.getLogger("mindghost")


@dataclass(eq=False)
class Index:
    """The images in some tar files.

    Attributes:
        titles: names of the tar files.
        times: when each was changed, ns.
        files, texts: path of each image as the archive has it, without `./`, and what it says its class is, as bytes;
            no texts where the images are in class folders.
        shards, offsets, lengths: which tar file holds it, and where.
        left_out: what is in the tar files besides.
    """

    titles: tuple[str, ...]
    times: NDArray[Any]
    files: NDArray[Any]
    texts: NDArray[Any]
    shards: NDArray[Any]
    offsets: NDArray[Any]
    lengths: NDArray[Any]
    left_out: walk.LeftOut

    @property
    def labelled(self) -> bool:
        """Whether the images say their class themselves."""
        return bool((self.texts != b"").any())


def read(root: str, files: Sequence[str]) -> Index:
    """The index of the tar files of a split: of those that the cache folder has as they are now, no header is read.

    Raises UserError, which names the file and the member, as `tar_headers.members` does, and for keys with no label,
    with two images, and for paths that lead out of the folder.
    """
    path = index_file(root)
    with _alone(path):
        states = [_state(file) for file in files]
        known = _remembered(path)
        found = [
            known.get((os.fsencode(os.path.basename(file)), *state)) for file, state in zip(files, states, strict=True)
        ]
        new = [number for number, shard in enumerate(found) if shard is None]
        if new:
            started = time.monotonic()
            regions = Regions(files, _REMEDY)
            title = shown(os.path.basename(root))
            for number in tqdm(new, unit="file", desc=f"reading headers of {title}", leave=False, disable=None):
                found[number] = tar_members.images(regions, number, files[number], states[number][0])
            if (seconds := time.monotonic() - started) > _SECONDS:
                _logger.info(f"{root}: read the headers of {len(new):,} of {len(files):,} tar files in {seconds:.0f} s")
        shards = [shard for shard in found if shard is not None]
        _check_alike(files, shards)
        if new or len(known) != len(files):
            _remember(path, files, states, shards)
    return _joined(files, states, shards)


def index_file(root: str) -> Path:
    """The file that remembers where the images of a split are. Deleting it has the headers read again."""
    place = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()
    return cache.cache_dir() / "shards" / f"{place[:32]}.npz"


def _state(file: str) -> tuple[int, int]:
    """Size of a tar file, and when it was changed."""
    paths.check_file(file, _REMEDY)
    found = os.stat(file)
    return found.st_size, samples.time_of_change(found)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one of several processes reads the headers, where the cache folder can be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, UserError, RunError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(cache.locked(path))
        yield


def _check_alike(files: Sequence[str], shards: Sequence[tar_members.Images]) -> None:
    """Raise UserError where some tar files have labels and others have none."""
    labelled = {bool(shard.texts[0]): file for file, shard in zip(files, shards, strict=True) if shard.texts}
    if len(labelled) == 2:
        raise UserError(
            f"{labelled[False]}: its images have no .cls or .json with a label, those of {labelled[True]} have; write "
            "both in one form"
        )


def _joined(files: Sequence[str], states: Sequence[tuple[int, int]], shards: Sequence[tar_members.Images]) -> Index:
    left_out = walk.LeftOut()
    for shard in shards:
        left_out.endings.update(shard.endings)
        left_out.odd += shard.odd
        left_out.unmatched += shard.alone
    arrays = {name: [item for shard in shards for item in getattr(shard, name)] for name in _COLUMNS}
    return Index(
        tuple(map(os.path.basename, files)),
        np.array([time for _, time in states], np.int64),
        np.array(arrays["files"] or [b""])[: len(arrays["files"])],
        np.array(arrays["texts"] or [b""])[: len(arrays["texts"])],
        np.repeat(np.arange(len(shards), dtype=np.int32), [len(shard.files) for shard in shards]),
        np.array(arrays["offsets"], np.int64),
        np.array(arrays["lengths"], np.int64),
        left_out,
    )


def _remembered(path: Path) -> dict[tuple[bytes, int, int], tar_members.Images]:
    """What each tar file holds, by its name, size and time of change. A damaged file knows nothing."""
    try:
        found = columns.decode(paths.read(path, "delete it"))
        facts = json.loads(bytes(found["facts"]))
        if facts["form"] != _FORM:
            return {}
        ends = np.cumsum([shard["images"] for shard in facts["shards"]]).tolist()
        arrays = {name: found[name].tolist() for name in _COLUMNS}
        known = {}
        for shard, start, stop in zip(facts["shards"], [0, *ends], ends, strict=False):
            name = os.fsencode(shard["name"])
            part = {column: values[start:stop] for column, values in arrays.items()}
            images = tar_members.Images(
                **part, endings=Counter(shard["endings"]), odd=shard["odd"], alone=shard["alone"]
            )
            known[name, shard["size"], shard["time"]] = images
        return known
    except UserError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        _logger.warning(f"{path}: damaged ({' '.join(str(error).split())[:100]}); the headers are read again")
        with contextlib.suppress(OSError):
            path.unlink()
        return {}


def _remember(
    path: Path, files: Sequence[str], states: Sequence[tuple[int, int]], shards: Sequence[tar_members.Images]
) -> None:
    """Write the index. A cache folder that takes no files costs the headers at each start, nothing else."""
    facts = [
        {
            "name": os.path.basename(file),
            "size": size,
            "time": time,
            "images": len(shard.files),
            "endings": shard.endings,
            "odd": shard.odd,
            "alone": shard.alone,
        }
        for file, (size, time), shard in zip(files, states, shards, strict=True)
    ]
    joined = _joined(files, states, shards)
    text = json.dumps({"form": _FORM, "shards": facts})
    arrays = {name: getattr(joined, name) for name in _COLUMNS}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        intact.write_atomically(path, columns.encode({**arrays, "facts": np.array(text.encode())}))
    except (OSError, RunError) as error:
        _logger.debug(f"{path}: {error}")
