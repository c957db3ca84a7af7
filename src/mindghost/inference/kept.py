"""Programs of networks (`ops.plan`), kept in the user's cache: a later start runs one without importing MindSpore.

An entry has a digest for a name: of the weight file's bytes, the configuration, and all that makes a program of them.
What makes a file unfit shows when it is loaded, so no such file has an entry; what else may be wrong with it, or with
what lies beside it, is seen where it was before.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .. import tasks
from ..config import FREE_KEYS, PLACE_KEYS
from ..csrc.cpp_library import NativeError
from ..data import jpeg, resizing, transforms
from ..errors import RunError, UserError
from ..files import intact, json_text
from ..files.shelf import Shelf, is_wanted, sources
from ..ops import library
from ..ops.plan.native import NativePlan
from ..ops.plan.program import Finished, Maps, Mark
from ..parallel.cores import threads_for
from ..process import launch
from .deployment import Deployment

log = logging.getLogger("mindghost")

# As large as the weights in float32: 21 MB of GhostNet 1.0x.
_SHELF = Shelf("plans", most=50, most_bytes=1 << 30)
_ALIGNED = 64  # bytes


@dataclass(frozen=True)
class Place:
    """Where the program of a file is kept, or would be.

    Attributes:
        name: of the entry.
        library: of our C++ operators.
        pixels: decoder of images.
    """

    name: str
    library: Path
    pixels: jpeg.Decoder


def place_of(deployed: Deployment, embedding: bool = False) -> Place | None:
    """The place for a file as it is now; None where it has none, and where images need MindSpore anyway.

    `embedding`: of the network without its classifier.
    """
    config = deployed.config
    if (
        deployed.exported
        or config.native_ops == "off"
        or config.val_amp_level != "O0"
        or not is_wanted(config.compile_cache)
        or tasks.of(config).is_dense  # MindSpore's operators fit their images
        or transforms.needs_mindspore(config)
        or not _is_alone_on_cpu(deployed)
    ):
        return None
    pixels = jpeg.decoder(config.native_ops)
    if pixels is None:
        return None
    try:
        operators = library.library()
        content = hashlib.sha256(intact.read_intact(deployed.path)).hexdigest()
    except (NativeError, UserError):
        return None  # which is said where the file is opened
    keys = config.model_dump(exclude=set(FREE_KEYS | PLACE_KEYS))
    made_with = (sources(), version("mindspore"), np.__version__, platform.machine(), operators.name, pixels.path.name)
    facts = (made_with, content, embedding, sorted((name, repr(value)) for name, value in keys.items()))
    return Place(hashlib.sha256(repr(facts).encode()).hexdigest()[:32], operators, pixels)


def _is_alone_on_cpu(deployed: Deployment) -> bool:
    """Whether this process is the only one, and the device surely the CPU: MindSpore may find another one."""
    config = deployed.config
    try:
        if config.distribute or launch.detect().ranks > 1 or launch.detect().launcher is not None:
            return False
    except UserError:
        return False
    others = glob.glob("/dev/davinci*") or glob.glob("/dev/nvidia*")
    return config.device_target == "CPU" or not (config.device_target or others)


def find(deployed: Deployment, embedding: bool = False) -> NativePlan | None:
    """The program of a file, ready to run; None where none is kept, or it is damaged, which is said."""
    found = find_program(deployed, embedding)
    return None if found is None else NativePlan(*found)


def find_program(deployed: Deployment, embedding: bool = False) -> tuple[Path, Finished] | None:
    """The library that runs it, made ready, and the program of a file; None as `find`."""
    place = place_of(deployed, embedding)
    if place is None:
        return None
    content, damaged = _SHELF.read(place.name)
    if damaged:
        log.warning(f"{_SHELF.folder / place.name}: damaged; it is made again")
    if content is None:
        return None
    facts, program = _decoded(content)
    resizing.note(place.pixels, True)
    try:
        library.started(place.library, threads_for(len(os.sched_getaffinity(0)))[0])
    except NativeError:
        return None
    say_prefix(deployed.path, facts["prefix"])
    return place.library, program


def keeper(
    place: Place | None, deployed: Deployment, prefix: str, embedding: bool = False
) -> Callable[[Finished], None] | None:
    """What keeps the program of a file.

    Args:
        place: of the file before it was read; None: nothing is kept.
        deployed: the file.
        prefix: that was taken off the names in it.
        embedding: as for `place`.
    """
    if place is None:
        return None

    def keep(program: Finished) -> None:
        # Pixels without MindSpore have to be its own; and the file may have been replaced while it was read.
        if not resizing.agrees(place.pixels) or place_of(deployed, embedding) != place:
            return
        try:
            _SHELF.keep(place.name, _encoded(program, {"prefix": prefix}))
        except (OSError, RunError) as error:
            log.info(f"the program of {deployed.path} is not kept: {error}")

    return keep


def say_prefix(path: Path, prefix: str) -> None:
    """Warn of a prefix that was taken off the names in a file; nothing where there was none."""
    if prefix:
        log.warning(f"{path}: took the prefix {prefix} off its names")


def _encoded(program: Finished, facts: dict[str, Any]) -> bytes:
    sizes = {"numbers": program.numbers.size, "weights": program.weights.size, "in_channels": program.in_channels}
    marks = {
        name: [mark.layers, mark.reduction, mark.maps.index, mark.maps.first, *mark.maps.lanes.tolist()]
        for name, mark in program.marks.items()
    }
    head = json_text.dumps({**facts, **sizes, "marks": marks}).encode()
    head += b" " * (-(len(head) + 1) % _ALIGNED) + b"\n"
    return head + program.numbers.astype("<i8").tobytes() + program.weights.astype("<f4").tobytes()


def _decoded(content: bytes) -> tuple[dict[str, Any], Finished]:
    start = content.index(b"\n") + 1
    facts = json_text.parse(content[:start].decode(), _SHELF.folder, "delete it")
    numbers = np.frombuffer(content, "<i8", facts["numbers"], start)
    weights = np.frombuffer(content, "<f4", facts["weights"], start + numbers.nbytes)
    marks = {
        name: Mark(layers, Maps(index, first, np.array(lanes, np.int64)), reduction)
        for name, (layers, reduction, index, first, *lanes) in facts["marks"].items()
    }
    return facts, Finished(numbers, weights, facts["in_channels"], marks)
