"""The names of a network's classes: those beside its weights, and what is said of their order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..data import class_names
from ..files import paths
from ..process.display import some
from ..runs.files import Color, RunFiles

log = logging.getLogger("mindghost")

_NAMES_SHOWN = 12


class Classes(NamedTuple):
    """Names in label order, and the color of each; None where none are known."""

    names: list[str]
    colors: list[Color] | None = None


def saved_classes(ckpt_path: str) -> list[str] | None:
    """Class names in label order from the `classes.json` beside a weight file; None where there is none.

    Raises UserError where the file is not a list of names.
    """
    path = RunFiles.beside(Path(ckpt_path)).classes
    if not ckpt_path or not paths.exists(path):
        return None
    return class_names.read(path, "delete it, or restore the one that training wrote")


def say_order(classes: Sequence[str], why: str) -> None:
    """Say which class has which label where only the names of folders know it."""
    named = some([f"{label} {name}" for label, name in enumerate(classes)], _NAMES_SHOWN)
    # Folders 0 to 10: whoever trained elsewhere may have counted.
    numbers = "; numbers are sorted as text, too" if in_other_order(classes) else ""
    log.info(f"{why}: labels follow the sorted names of the class folders{numbers}: {named}")


def in_other_order(classes: Sequence[str]) -> bool:
    """Whether names are numbers whose order is not that of their labels, as with folders 0, 1, 10, 2."""
    numeric = [int(name) for name in classes if name.isascii() and name.isdecimal() and len(name) < 10]
    return len(numeric) == len(classes) and numeric != sorted(numeric)
