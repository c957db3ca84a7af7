"""The files of a run: weights, run state and records, and which of them a resumed run goes on from."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import event_files, weights_file
from .config import Config
from .errors import UserError

# Bytes for configuration, class names and first log lines that a folder must have room for.
_ROOM_FOR_TEXT = 1 << 16


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
        data: digest of its training samples.
        log_bytes, metrics_bytes: sizes of the run's records when the state was saved.
    """

    file: Path
    arrays: Mapping[str, np.ndarray]
    position: Position
    config: Config
    data: str
    log_bytes: int
    metrics_bytes: int


# Keys that may differ in a resumed run: they change where files go, what is printed or how fast it is, not the result.
# The data is compared by its digest; weights to start from are behind a run that has a state.
_FREE = {
    "log_interval",
    "tensorboard",
    "keep_checkpoint_max",
    "ckpt_save_interval",
    "ckpt_save_interval_steps",
    "ckpt_save_policy",
    "ckpt_save_dir",
    "num_parallel_workers",
    "overwrite",
    "resume",
    "resume_force",
    "data_dir",
    "dataset_download",
    "ckpt_path",
    "pretrained",
    "resume_opt",
    "device_target",
}


def changed_keys(saved: Config, given: Config) -> list[str]:
    """`key: old -> new` for each key whose change would change the result of a resumed run."""
    pairs = ((key, getattr(saved, key), getattr(given, key)) for key in Config.model_fields if key not in _FREE)
    return [f"{key}: {old} -> {new}" for key, old, new in pairs if old != new]


class RunFolder:
    """The files of one run: weights (`_best`, `_last`, one every few epochs), run state, records.

    Each `.ckpt` file has its sha256 beside it (see `weights_file`).

    Args:
        config: reads `ckpt_save_dir`, `model`, `keep_checkpoint_max`, `ckpt_save_policy` and `tensorboard`.

    Raises UserError where `tensorboard` is true and its library is missing.
    """

    def __init__(self, config: Config) -> None:
        self.path = Path(config.ckpt_save_dir)
        self.model = config.model
        self.keep = config.keep_checkpoint_max
        self.policy = config.ckpt_save_policy
        self.tensorboard = config.tensorboard
        self.event_file: event_files.EventFile | None = None
        if self.tensorboard:
            event_files.check_installed()

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def classes(self) -> Path:
        """Class names in label order."""
        return self.path / "classes.json"

    @property
    def metrics(self) -> Path:
        """One JSON record an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """The folder of TensorBoard's event file."""
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        """What the run said."""
        return self.path / "train.log"

    @property
    def best(self) -> Path:
        """Weights of the epoch with the highest top-1 accuracy."""
        return self.path / f"{self.model}_best.ckpt"

    @property
    def last(self) -> Path:
        """Weights of the last epoch."""
        return self.path / f"{self.model}_last.ckpt"

    @property
    def state(self) -> Path:
        """Everything that the next step depends on."""
        return self.path / "run_state.ckpt"

    def check(self, overwrite: bool, ckpt_path: str = "") -> None:
        """Raise UserError where a run cannot start in this folder.

        That is where the path is a file; where it holds files of a run and `overwrite` is false (what a run left that
        stopped before it finished an epoch does not count); where overwriting would delete the weights to start from.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"ckpt_save_dir: {self.path} is a file; give a folder")
        files = self._files_of_a_run()
        names = {file.name for file in files}
        early = {file.name for file in (self.log, self.config, self.classes, *event_files.files(self.events))}
        unfinished = self.log.name in names and names <= early
        if files and not unfinished and not overwrite:
            raise UserError(
                f"ckpt_save_dir: {self.path} already holds a run ({files[0].name}); give another folder, --resume to "
                "go on with that run, or --overwrite True to delete it"
            )
        if ckpt_path and Path(ckpt_path).resolve() in (file.resolve() for file in files):
            raise UserError(
                f"ckpt_save_dir: --overwrite True would delete {ckpt_path}, which ckpt_path names; give another folder"
            )

    def start(self) -> None:
        """Make the folder, empty of any earlier run. Raises UserError where it cannot be written."""
        self._make_empty()
        self._start_events()

    def _make_empty(self) -> None:
        probe = self.path / f".{os.getpid()}.tmp"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x" * _ROOM_FOR_TEXT)
            probe.unlink()
            for file in self._files_of_a_run():
                file.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink()
            raise UserError(
                f"ckpt_save_dir: {self.path} cannot be written ({error.strerror}); give another folder"
            ) from error

    def _files_of_a_run(self) -> list[Path]:
        """Files with the names that a run gives, of any network."""
        if not self.path.is_dir():
            return []
        names = re.compile(
            r"config\.yaml|classes\.json|metrics\.jsonl|train\.log|"
            r"(run_state|.+_(best|last)|.+-\d+_\d+)\.ckpt(\.sha256)?"
        )
        files = [file for file in sorted(self.path.iterdir()) if file.is_file() and names.fullmatch(file.name)]
        return files + event_files.files(self.events)

    def _start_events(self) -> None:
        """Replace the event files by one that equals the metrics as they are now, or by none without `tensorboard`."""
        event_files.clear(self.events)
        if self.tensorboard:
            self.event_file = event_files.EventFile(self.events, self._records())

    def save_weights(self, weights: Mapping[str, np.ndarray], epoch: int, step: int, best: bool, keep: bool) -> None:
        """Save the weights of an epoch as last, as best, and under the epoch's own name.

        Args:
            weights: the network's parameters by name.
            epoch: counted from 1.
            step: steps done in this epoch.
            best: whether they are the best so far.
            keep: also save `<model>-<epoch>_<step>.ckpt`.

        Raises RunError where a file cannot be written.
        """
        weights_file.write(self.last, weights)
        if best:
            weights_file.copy(self.last, self.best)
        if keep:
            weights_file.copy(self.last, self.path / f"{self.model}-{epoch}_{step}.ckpt")

    def add_record(self, record: Mapping[str, object]) -> None:
        """Append an epoch's line to the metrics (and to the event file); delete the epoch files that are too many.

        Raises RunError where the line cannot be written.
        """
        try:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise weights_file.not_written(self.metrics, error) from error
        if self.event_file:
            self.event_file.add(record)
        for surplus in self._epoch_files()[: -self.keep]:
            weights_file.delete(surplus)

    def _records(self) -> list[dict[str, Any]]:
        """The lines of the metrics."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def _epoch_files(self) -> list[Path]:
        """Epoch files, the one to keep longest last."""
        name = re.compile(re.escape(self.model) + r"-(\d+)_\d+\.ckpt")
        files = [(int(found[1]), file) for file in self.path.iterdir() if (found := name.fullmatch(file.name))]
        if self.policy == "latest_k":
            return [file for _, file in sorted(files)]
        top_1 = {record["epoch"]: record["top_1"] for record in self._records() if record["top_1"] is not None}
        return [file for _, _, file in sorted((top_1.get(epoch, -1.0), epoch, file) for epoch, file in files)]

    def save_state(self, state: Mapping[str, np.ndarray], position: Position, data: str) -> None:
        """Save the run state: what `TrainStep.state` gave, where the run stands, and the digest of its samples."""
        best = -1.0 if position.best_top_1 is None else position.best_top_1
        run = {
            "run_epoch": np.array([position.epoch], np.int64),
            "run_step": np.array([position.step], np.int64),
            "run_losses": np.array([len(position.losses), *position.losses], np.float64),
            "run_skipped": np.array([position.skipped], np.int64),
            "run_best_top_1": np.array([best], np.float64),
            "run_data": np.frombuffer(bytes.fromhex(data), np.uint8),
            "run_log_bytes": np.array([_size(self.log)], np.int64),
            "run_metrics_bytes": np.array([_size(self.metrics)], np.int64),
        }
        weights_file.write(self.state, {**state, **run})

    def read_state(self, resume: bool | str) -> Saved:
        """The state that `resume` names: this folder's (True), or that of another folder or file.

        Raises UserError where there is none, or it or the configuration beside it cannot be read.
        """
        file = self.state if resume is True else Path(resume)
        if file.is_dir():
            file = file / self.state.name
        if not file.is_file():
            raise UserError(f"resume: {file} does not exist, so there is no run to go on with; leave out --resume")
        arrays = weights_file.read(file)
        if "run_epoch" not in arrays:
            raise UserError(f"resume: {file} holds weights, but no run state; give a run_state.ckpt, or --ckpt_path")
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
            config=Config.from_file(file.parent / self.config.name),
            data=arrays["run_data"].tobytes().hex(),
            log_bytes=int(arrays["run_log_bytes"][0]),
            metrics_bytes=int(arrays["run_metrics_bytes"][0]),
        )

    def go_on(self, saved: Saved) -> None:
        """Cut the records to where the state was saved. A state of another folder starts this one with its records.

        Raises UserError where the folder cannot be written, or holds another run than the state's.
        """
        source = saved.file.parent
        if not self.path.exists() or not self.path.samefile(source):
            self.check(overwrite=False)
            self._make_empty()
            weights_file.write_atomically(
                self.metrics, (source / self.metrics.name).read_bytes()[: saved.metrics_bytes]
            )
        else:
            for file, size in ((self.log, saved.log_bytes), (self.metrics, saved.metrics_bytes)):
                if _size(file) > size:
                    os.truncate(file, size)
        self._start_events()


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
