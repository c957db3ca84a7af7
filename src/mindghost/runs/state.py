"""The state of a run: what its next step depends on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import safetensors as safetensors_file
from ..checkpoint import weights as weights_file
from ..config import AUTO_KEYS, FREE_KEYS, Config, proportion
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
        best_score: highest score of an evaluation so far, not negative; None before the first one.
        waited: evaluations since then, of those that count for `patience`.
    """

    epoch: int = 0
    step: int = 0
    losses: tuple[float, ...] = ()
    skipped: int = 0
    best_score: float | None = None
    waited: int = 0


@dataclass(frozen=True)
class RunState:
    """All that a run goes on from.

    Attributes:
        file: where it is.
        arrays: entries by name, those of `TrainStep.state` among them.
        position: where the run stood.
        config: the run's resolved configuration.
        data: digest of what it learnt from (training samples, a teacher), hexadecimal.
        ranks: processes that shared a global batch.
        steps: in an epoch.
        record_bytes: sizes of the run's log and metrics when the state was saved.
    """

    file: Path
    arrays: Mapping[str, NDArray[Any]]
    position: Position
    config: Config
    data: str
    ranks: int
    steps: int
    record_bytes: tuple[int, int] = (0, 0)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved: the step's entries, and the run's, which `from_arrays` reads."""
        return {**self.arrays, **{name: entry.encode(self) for name, entry in _ENTRIES.items()}}

    @classmethod
    def from_arrays(cls, file: Path, arrays: Mapping[str, NDArray[Any]], config: Config) -> RunState:
        """The reverse of `to_arrays`. Raises KeyError where an entry is missing, ValueError for one that is not fit."""
        run = {name: entry.decode(arrays[name]) for name, entry in _ENTRIES.items()}
        position = Position(
            epoch=run["run_epoch"],
            step=run["run_step"],
            losses=run["run_losses"],
            skipped=run["run_skipped"],
            best_score=run["run_best_top_1"],
            waited=run[WAITED],
        )
        return cls(
            file=file,
            arrays=arrays,
            position=position,
            config=config,
            data=run["run_data"],
            ranks=run["run_ranks"],
            steps=run["run_steps"],
            record_bytes=(run["run_log_bytes"], run["run_metrics_bytes"]),
        )

    def to_bytes(self) -> bytes:
        """All of it, for the other ranks: the length of a JSON object, that object, the arrays as `.safetensors`."""
        facts = json_text.dumps({"file": str(self.file), "config": dict(self.config)}).encode()
        return len(facts).to_bytes(_LENGTH_BYTES, "big") + facts + safetensors_file.encode(self.arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> RunState:
        """What `to_bytes` made; every name, type, shape and length is compared.

        Raises UserError or ValueError for anything else.
        """
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
        facts = json.loads(content[_LENGTH_BYTES:end])
        file = Path(facts["file"])
        return cls.from_arrays(file, weights_file.decode(file, content[end:]), Config(**facts["config"]))


# How many bytes say how long the first part of `RunState.to_bytes` is.
_LENGTH_BYTES = 8


class _Entry(NamedTuple):
    """How a fact about a run is kept as an array."""

    encode: Callable[[RunState], NDArray[Any]]
    decode: Callable[[NDArray[Any]], Any]


def _whole(value: Callable[[RunState], int]) -> _Entry:
    return _Entry(lambda state: np.array([value(state)], np.int64), lambda array: int(array[0]))


def _score_or_none(array: NDArray[Any]) -> float | None:
    """Before the first evaluation -1 stands for the score, which is not negative."""
    return None if array[0] < 0 else float(array[0])


# What states of older versions lack: `runs.folder` counts it from their records.
WAITED = "run_waited"
# What a run state holds beside the entries of the step: their names are those of older versions.
_ENTRIES = {
    "run_epoch": _whole(lambda state: state.position.epoch),
    "run_step": _whole(lambda state: state.position.step),
    "run_losses": _Entry(
        # Their number first: an array without entries cannot be kept.
        lambda state: np.array([len(state.position.losses), *state.position.losses], np.float64),
        lambda array: tuple(array[1:].tolist()),
    ),
    "run_skipped": _whole(lambda state: state.position.skipped),
    "run_best_top_1": _Entry(
        lambda state: np.array([-1.0 if state.position.best_score is None else state.position.best_score], np.float64),
        _score_or_none,
    ),
    WAITED: _whole(lambda state: state.position.waited),
    "run_data": _Entry(
        lambda state: np.frombuffer(bytes.fromhex(state.data), np.uint8), lambda array: array.tobytes().hex()
    ),
    "run_ranks": _whole(lambda state: state.ranks),
    "run_steps": _whole(lambda state: state.steps),
    "run_log_bytes": _whole(lambda state: state.record_bytes[0]),
    "run_metrics_bytes": _whole(lambda state: state.record_bytes[1]),
}


def taken_up(saved: Config, given: Config) -> Config:
    """The configuration of a resumed run: what nobody gave, but was worked out or settled, is what the run has had."""
    kept = {key: getattr(saved, key) for key in AUTO_KEYS if key in given.open}
    epochs = kept.get("epoch_size", given.epoch_size)
    if (saved.epoch_size, saved.scheduler) == (epochs, given.scheduler):
        kept |= {key: getattr(saved, key) for key in proportion.KEYS if key not in given.given}
    return given.replace(**kept)


def changed_keys(saved: Config, given: Config) -> list[str]:
    """`key: old -> new` for each key whose change would change the result of a resumed run."""
    pairs = ((key, getattr(saved, key), getattr(given, key)) for key in Config.model_fields if key not in FREE_KEYS)
    return [f"{key}: {old} -> {new}" for key, old, new in pairs if old != new]


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The entries of a run state. Raises UserError, which names the file."""
    paths.check_file(file, "restore it")
    arrays = weights_file.read(file)
    missing = set(_ENTRIES) - set(arrays) - {WAITED}
    if missing == set(_ENTRIES) - {WAITED}:
        raise UserError(f"{file} holds weights, but no run state; give a {run_files.STATE}, or --ckpt_path")
    if missing:
        raise UserError(
            f"{file} lacks {', '.join(sorted(missing))}: another version of this program saved it; go on with that "
            "version, or start a new run with --ckpt_path"
        )
    return arrays
