"""A file, run by tflite-micro: what it answers, and how much memory it takes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import scratch
from ..programs import finished, last_line
from .graph import Contents

_PROGRAM = Path(__file__).with_name("child.py")
_SECONDS = 600  # that it may take
_ROOM = 1 << 24  # bytes that the first run has beside all tensors
_STEP, _MOST = 16, 1 << 14  # bytes: what is needed while it starts, beyond what it says that it took


@dataclass(frozen=True)
class Arena:
    """The memory that tflite-micro takes, in bytes.

    Attributes:
        total: of the smallest arena in which it runs; a multiple of 16.
        activations: of it, for tensors that make room for each other.
        lasting: of it, what stays: the interpreter's tables, and what operators keep.
    """

    total: int
    activations: int
    lasting: int


def version() -> str:
    """The version that is installed. Raises UserError where there is none."""
    if importlib.util.find_spec("tflite_micro") is None:
        where = "" if platform.system() == "Linux" else f"; PyPI has none for {platform.system()}"
        raise UserError(f"--target mcu: tflite-micro is missing{where}; pip install tflite-micro, on Linux and x86-64")
    return importlib.metadata.version("tflite-micro")


def run(path: Path, graph: bytes, found: Contents, images: NDArray[Any]) -> tuple[Arena, NDArray[Any]]:
    """What tflite-micro needs for a file, and what it answers to images in an arena of just that size.

    Args:
        path: that messages name.
        graph: the file.
        found: what is in it.
        images: int8 (N, height, width, channels).

    Returns the arena, and int8 (N, ...). Raises UserError, which names operator and layer, where tflite-micro does not
    take the file.
    """
    version()
    plenty = _ROOM + sum(tensor.size for tensor in found.tensors if not tensor.constant)
    with scratch.folder("micro") as folder:
        model = folder / "model.tflite"
        model.write_bytes(graph)
        done, _ = _run(path, folder, found, images[:1], [plenty])
        parts = dict(re.findall(r"Arena allocation (total|head|tail) (\d+) bytes", done.stderr))
        least = -(-int(parts["total"]) // _STEP) * _STEP
        done, answers = _run(path, folder, found, images, range(least, least + _MOST, _STEP))
        return Arena(int(done.stdout), int(parts["head"]), int(parts["tail"])), answers


def _run(
    path: Path, folder: Path, found: Contents, images: NDArray[Any], arenas: Iterable[int]
) -> tuple[subprocess.CompletedProcess[str], NDArray[Any]]:
    """What it says in the first of some arenas that is enough, and what it answers."""
    given, answers = folder / "images.npy", folder / "answers.npy"
    np.save(given, images)
    command = [sys.executable, str(_PROGRAM), "model.tflite", given.name, answers.name, *map(str, arenas)]
    done = finished(f"{path}: tflite-micro", command, folder, _SECONDS)
    if done.returncode != 0:
        raise UserError(f"{path}: {_reason(done, found)}")
    return done, np.load(answers)


def _reason(done: subprocess.CompletedProcess[str], found: Contents) -> str:
    """Why tflite-micro does not take a file: its own words are several lines, and name no layer."""
    if lacking := re.search(r"Didn't find op for builtin opcode '(\w+)'", done.stderr):
        kind = lacking[1]
        layer = next((f", of layer {each.output}" for each in found.operators if each.kind == kind), "")
        return f"tflite-micro lacks the operator {kind}{layer}; give a network without it"
    if refused := re.search(r"(?:(.*)\n)?Node (\w+) \(number (\d+)\) failed to \w+", done.stderr):
        why, kind, number = (refused[1] or "no reason given").strip()[:120], refused[2], int(refused[3])
        layer = f"layer {found.operators[number].output}" if number < len(found.operators) else f"node {number}"
        return f"tflite-micro's operator {kind} does not take {layer}: {why}"
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        return (
            f"tflite-micro was ended by {ended}, as scales beyond its range do; are the file's answers in float sound?"
        )
    return f"tflite-micro failed: {last_line(done)}"
