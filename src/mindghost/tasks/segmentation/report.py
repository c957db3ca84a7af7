"""The report of an evaluation: there is none for masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError

if TYPE_CHECKING:
    from ...data.samples import Samples

PAGE = "report.html"


def prepare(folder: Path, overwrite: bool) -> None:
    """Raise UserError."""
    raise UserError("report: task segmentation writes none; leave the key out")


def write(folder: Path, outcomes: Any, samples: Samples, facts: Mapping[str, str]) -> None:
    """Never called, since `prepare` refuses."""
