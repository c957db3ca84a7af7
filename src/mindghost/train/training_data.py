"""What a run learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import mindspore.dataset as ds

from ..config import Config
from ..data.samples import Samples
from . import distill


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from, once its images are opened and its position is known.

    Attributes:
        batches: of this rank, from where the run stands on.
        samples: to train on.
        val_samples: to evaluate on; None where the run is not validated.
        digest: of what the network learns from, hexadecimal (see `digest`).
        steps: batches in an epoch.
        images: in an epoch, of all ranks.
    """

    batches: ds.Dataset
    samples: Samples
    val_samples: Samples | None
    digest: str
    steps: int
    images: int

    @property
    def classes(self) -> Sequence[str]:
        """The names of the network's outputs."""
        return self.samples.classes

    @property
    def counts(self) -> dict[str, int | None]:
        """Images of each split, for the record of a session."""
        return {"train": len(self.samples), "val": len(self.val_samples) if self.val_samples else None}


def digest(config: Config, samples: Samples) -> str:
    """Digest of what a network learns from: the training images, and the teacher's weights where there is one."""
    if not config.teacher:
        return samples.digest()
    return hashlib.sha256(f"{samples.digest()} {distill.digest(config)}".encode()).hexdigest()
