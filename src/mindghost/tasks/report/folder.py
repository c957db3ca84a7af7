"""A report before it is written: what its folder takes, and whether there is something to report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...data.samples import Samples
from ...errors import RunError, UserError
from ...files import intact, paths
from . import page


def prepare(folder: Path, overwrite: bool, files: Sequence[str]) -> None:
    """Make sure, before the work, that a report can be written into `folder`, which is made.

    `files` are the names of a report's files, that of its page the last.

    Raises UserError where a library is missing, the folder takes no files, or it holds a file with the name of one of a
    report's and `overwrite` is false. Other files are left alone in any case.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"report: matplotlib draws its pictures ({error}); pip install matplotlib, or leave the key out"
        ) from error
    paths.check_output_folder(folder, "report")
    found = [name for name in files if os.path.lexists(folder / name)]
    if found and not overwrite:
        if _holds_a_report(folder / files[-1]):
            raise UserError(
                f"report: {folder} already holds a report; give another folder, or --overwrite True to replace it"
            )
        raise UserError(f"report: {folder} holds a file that is no report's ({found[0]}); give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        intact.check_room(folder, 1)
    except OSError as error:
        raise paths.not_writable(folder, "report", error) from error


def check_finite(finite: NDArray[Any], samples: Samples) -> None:
    """Raise RunError, which names an image, unless the network's probabilities for all samples are `finite` (n,)."""
    if not finite.all():
        raise RunError(
            f"report: the network gives no finite probabilities for {(~finite).sum():,} of {len(finite):,} images, "
            f"such as {samples.name(int(finite.argmin()))}; no report is written"
        )


def _holds_a_report(file: Path) -> bool:
    """Whether a file is a report's page, which is written last."""
    return paths.is_file(file) and page.is_one(paths.read(file, "give another folder"))
