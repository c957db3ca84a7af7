"""What others need of a run, in a folder of its own: small weights, their card, and what belongs beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import weights as weights_file
from ..checkpoint.names import timm_names
from ..errors import UserError
from ..files import intact, outputs, paths
from ..runs.files import companions
from . import model_card, run_facts
from .model_card import Given

CARD = "model_card.md"
_ROUNDED = (
    "The weights are rounded to float16, which halves the files; they are computed with in float32. The figures below "
    "are those of the run, before rounding."
)


def make(run: Path, output: Path, given: Given, half: bool = True) -> Path:
    """Write a release of the run in the folder `run` to the folder `output`: all of its files, or nothing.

    Args:
        run: the run (`ckpt_save_dir`).
        output: does not exist yet, or is empty.
        given: for the card.
        half: round the weights to float16.

    Returns the `.ckpt` file. Raises UserError where the run's files are not in order, `output` is not free, or a weight
    is too large for float16; RunError where the file system refuses.
    """
    outputs.check_new_folder(output, "--output")
    found = run_facts.read(run)
    arrays = weights_file.read(found.weights)
    if half:
        arrays = _rounded(found.weights, arrays)
    weights = output / found.weights.name
    with outputs.new_folder(output, "--output") as made:
        ckpt = made / weights.name
        weights_file.write(ckpt, arrays)
        tensors = ckpt.with_suffix(".safetensors")
        theirs = timm_names(arrays)
        weights_file.write_safetensors(tensors, {theirs[name]: array for name, array in arrays.items()})
        for file in companions(found.weights):
            intact.copy(file, made / file.name)
        assets = [run_facts.asset(file.name, file.read_bytes()) for file in (ckpt, tensors)]
        offered = replace(found, assets=assets, note=_ROUNDED if half else "")
        title = paths.real(run).name
        intact.write_all_atomically(model_card.files(offered, given, made / CARD, title))
    return weights


def _rounded(file: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays of floating-point numbers as float16. Raises UserError for one with a number beyond its range."""
    largest = np.finfo(np.float16).max
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and np.abs(array).max(initial=0) > largest:
            raise UserError(f"{file}: {name} has values beyond float16's {largest:g}; give --float32")
    return {
        name: array.astype(np.float16) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in arrays.items()
    }
