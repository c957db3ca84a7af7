"""The state of a run: what its next step depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checkpoint import safetensors as safetensors_file
from ..checkpoint import weights as weights_file
from ..config import FREE_KEYS, Config
from ..errors import UserError
from ..files import json_text, paths
from . import files as run_files


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        epoch: epochs finished.
        step: steps done in the epoch after those.
        losses: training losses of those steps.
        skipped: updates skipped among them.
        best_top_1: highest accuracy so far, in percent; None before the first evaluation.
    """

    epoch: int = 0
    step: int = 0
    losses: tuple[float, ...] = ()
    skipped: int = 0
    best_top_1: float | None = None


@dataclass(frozen=True)
class Saved:
    """A run state that was read.

    Attributes:
        file: where it was.
        arrays: entries by name, those of `TrainStep.state` among them.
        position: where the run stood.
        config: the run's resolved configuration.
        data: digest of what it learnt from (training samples, a teacher).
        ranks: processes that shared a global batch.
        steps: in an epoch.
        log_bytes, metrics_bytes: sizes of the run's records when the state was saved.
    """

    file: Path
    arrays: Mapping[str, np.ndarray]
    position: Position
    config: Config
    data: str
    ranks: int
    steps: int
    log_bytes: int
    metrics_bytes: int

    def to_bytes(self) -> bytes:
        """All of it, for the other ranks: the length of a JSON object, that object, the arrays as `.safetensors`."""
        facts = json_text.dumps({"file": str(self.file), "config": dict(self.config)}).encode()
        return len(facts).to_bytes(_LENGTH_BYTES, "big") + facts + safetensors_file.encode(self.arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> Saved:
        """What `to_bytes` made; every name, type, shape and length is compared.

        Raises UserError or ValueError for anything else.
        """
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
        facts = json.loads(content[_LENGTH_BYTES:end])
        file = Path(facts["file"])
        return saved_of(file, weights_file.decode(file, content[end:]), Config(**facts["config"]))


# How many bytes say how long the first part of `Saved.to_bytes` is.
_LENGTH_BYTES = 8


# What a run state holds beside the entries of the step.
_RUN_ENTRIES = {
    "run_epoch",
    "run_step",
    "run_losses",
    "run_skipped",
    "run_best_top_1",
    "run_data",
    "run_ranks",
    "run_steps",
    "run_log_bytes",
    "run_metrics_bytes",
}


def changed_keys(saved: Config, given: Config) -> list[str]:
    """`key: old -> new` for each key whose change would change the result of a resumed run."""
    pairs = ((key, getattr(saved, key), getattr(given, key)) for key in Config.model_fields if key not in FREE_KEYS)
    return [f"{key}: {old} -> {new}" for key, old, new in pairs if old != new]


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The entries of a run state. Raises UserError, which names the file."""
    paths.check_file(file, "restore it")
    arrays = weights_file.read(file)
    missing = _RUN_ENTRIES - set(arrays)
    if missing == _RUN_ENTRIES:
        raise UserError(f"{file} holds weights, but no run state; give a {run_files.STATE}, or --ckpt_path")
    if missing:
        raise UserError(
            f"{file} lacks {', '.join(sorted(missing))}: another version of this program saved it; go on with that "
            "version, or start a new run with --ckpt_path"
        )
    return arrays


def saved_of(file: Path, arrays: Mapping[str, np.ndarray], config: Config) -> Saved:
    best = float(arrays["run_best_top_1"][0])
    position = Position(
        epoch=int(arrays["run_epoch"][0]),
        step=int(arrays["run_step"][0]),
        losses=tuple(arrays["run_losses"][1:].tolist()),
        skipped=int(arrays["run_skipped"][0]),
        best_top_1=None if best < 0 else best,
    )
    return Saved(
        file=file,
        arrays=arrays,
        position=position,
        config=config,
        data=arrays["run_data"].tobytes().hex(),
        ranks=int(arrays["run_ranks"][0]),
        steps=int(arrays["run_steps"][0]),
        log_bytes=int(arrays["run_log_bytes"][0]),
        metrics_bytes=int(arrays["run_metrics_bytes"][0]),
    )
