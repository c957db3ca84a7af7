"""What a run learns from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from .. import tasks
from ..config import Config
from ..data import overlap
from ..data.samples import Samples
from ..data.scan import Part
from ..files import json_text
from ..parallel import replicas
from ..runtime import Runtime
from . import checks, distill, settle


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from, once its images are opened.

    Attributes:
        samples: to train on.
        val_samples: to evaluate on; None where the run is not validated.
        digest: of what the network learns from, hexadecimal (see `digest`).
        steps: batches in an epoch.
        images: in an epoch, of all ranks.
    """

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


def open_images(runtime: Runtime) -> tuple[Runtime, Samples, Samples | None]:
    """The settled run, and the splits; ranks on one machine share the work of checking them.

    Raises UserError, on all ranks, where they found other images.
    """
    ranks, task = runtime.ranks, tasks.of(runtime.config)
    here = ranks.neighbours

    def merged(bad: dict[int, str]) -> dict[int, str]:
        found = [json.loads(content) for content in ranks.gather_bytes(json_text.dumps(bad).encode())]
        return {int(index): why for problems in found for index, why in problems.items()}

    part = Part(here.index(ranks.rank), len(here), merged)
    runtime = settle.before_images(runtime)
    samples = task.open_split(runtime.config, "train", None, part)
    runtime = settle.from_images(runtime.with_classes(samples.classes), samples)
    runtime = runtime.with_config(task.settled(runtime.config, samples))
    val_samples = None
    if runtime.config.val_while_train:
        val_samples = task.open_split(runtime.config, "val", samples.classes, part)
    found = {"training images": samples, "validation images": val_samples}
    told = {name: split.told() for name, split in found.items() if split is not None}
    replicas.check_told(ranks, told, replicas.SAME_FILES)
    if val_samples is not None and ranks.main:
        overlap.say_shared(samples, val_samples)
    return runtime.with_config(checks.settled(runtime.config, samples, ranks.size)), samples, val_samples
