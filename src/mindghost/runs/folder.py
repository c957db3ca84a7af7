"""The files of a run: weights, run state and records, and which of them a resumed run goes on from."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import weights as weights_file
from ..config import Config
from ..errors import RunError, UserError
from ..files import intact, json_text, paths
from ..files.lock import FolderLock
from . import events as event_files
from . import files as run_files
from . import provenance
from .files import RunFiles
from .state import WAITED, RunState, read_arrays

log = logging.getLogger("mindghost")


# Bytes for configuration, class names and first log lines that a folder must have room for.
_ROOM_FOR_TEXT = 1 << 16


class RunFolder(RunFiles):
    """The files of one run: weights (`_best`, `_last`, one every few epochs), run state, records.

    Which files are the run's it records (see `runs.files`); it replaces and deletes no others. Each `.ckpt` file has
    its sha256 beside it (see `files.intact`). `check`, `start` and `read_state` raise UserError where another run has
    the folder; none can have it from then on, until the `with` block or the process ends.

    Args:
        config: reads `ckpt_save_dir`, `model`, `keep_checkpoint_max`, `ckpt_save_policy`, `epoch_size`, `tensorboard`,
            and the files that it names as input, which are never deleted.
        score: the entry of a record by which epochs are compared (`tasks.task.Task.score`).

    Raises UserError where `tensorboard` is true and its library is missing.
    """

    def __init__(self, config: Config, score: str = "top_1") -> None:
        super().__init__(Path(config.ckpt_save_dir), config.model)
        self.keep = config.keep_checkpoint_max
        self.policy = config.ckpt_save_policy
        self._score = score
        self._lock = FolderLock(self.path, "ckpt_save_dir")
        # Of the folder that a state is taken from, while it is.
        self._source_lock: FolderLock | None = None
        # Whether the file at `state` is worth more than the one at `previous_state`.
        self._state_is_good = False
        self._epochs = config.epoch_size
        self._inputs = {"-c": config.recipe, "teacher_ckpt_path": config.teacher_ckpt_path}
        # Names that the run may use, whether they are recorded, and the entries of run.json that the record is in.
        self._names: set[str] = set()
        self._recorded = False
        self._entries: list[dict[str, Any]] = []
        self.tensorboard = config.tensorboard
        self.event_file: event_files.EventFile | None = None
        if self.tensorboard:
            event_files.check_installed()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._release_source()

    def check(self, overwrite: bool, ckpt_path: str = "") -> None:
        """Raise UserError where a run cannot start in this folder.

        That is where the path is no folder; where it holds files of a run and `overwrite` is false (what a run left
        that stopped before it finished an epoch does not count); where a file that is no run's has the name of one that
        this run will make; where a file would be deleted that this run is to read.
        """
        paths.check_output_folder(self.path, "ckpt_save_dir")
        if paths.is_folder(self.path):
            self._check_kinds()
        if paths.exists(self._lock.file):
            self._take_lock()
        files = run_files.belonging(self.path)
        self._check_others(files)
        names = [file.name for file in files if file != self.sessions]
        texts = {self.log.name, self.config.name, self.classes.name}
        others = [name for name in names if name not in texts]
        events = [name for name in others if event_files.is_given(name)]
        unfinished = others == events and (self.log.name in names or not events)
        if files and not unfinished and not overwrite:
            raise UserError(
                f"ckpt_save_dir: {self.path} already holds a run ({others[0]}); give another folder, --resume to "
                "go on with that run, or --overwrite True to delete it"
            )
        for key, path in {**self._inputs, "ckpt_path": ckpt_path}.items():
            if path and paths.real(path) in map(paths.real, files):
                act = "--overwrite True" if overwrite else "a run that starts there"
                raise UserError(f"ckpt_save_dir: {act} would delete {path}, which {key} names; give another folder")
        # Not before, so that a folder that is refused stays as it is.
        if paths.is_folder(self.path):
            self._take_lock()

    def _check_kinds(self) -> None:
        """Raise UserError where a folder, a FIFO or the like has the name of a file that a run writes."""
        weights = (self.best, self.last, self.state, self.previous_state)
        sidecars = map(intact.sidecar, weights)
        texts = (self._lock.file, self.log, self.metrics, self.config, self.classes, self.sessions)
        for file in (*texts, *weights, *sidecars):
            if paths.exists(file):
                paths.check_output(
                    file, "ckpt_save_dir", "a run writes one there: move it away, or give another folder"
                )
        if paths.exists(self.events):
            paths.check_folder(self.events, "move it away, or give another folder", "ckpt_save_dir")

    def _check_others(self, files: list[Path], act: str = "ckpt_save_dir") -> None:
        """Raise UserError where the run would replace a file of the folder that is not among those of a run."""
        if not paths.is_folder(self.path):
            return
        try:
            found = set(self.path.iterdir()).difference(files)
        except OSError as error:
            raise self._not_writable(error) from error
        epochs = {file: run_files.epoch_of(run_files.weights_of(file.name), self.model) for file in found}
        ours = {file for file, epoch in epochs.items() if epoch is not None and epoch <= self._epochs}
        for name in (*run_files.FIXED, self.best.name, self.last.name):
            ours.update(run_files.with_sidecar(self.path / name))
        if others := sorted(found & ours):
            raise UserError(
                f"{act}: {self.path} holds {others[0].name}, which no run has made there, and this run would replace; "
                "move it away, or give another folder"
            )

    def start(self, overwrite: bool = False) -> None:
        """Make the folder, empty of any earlier run. Raises UserError where it cannot be written, and as `check`."""
        self._make_empty(overwrite)
        self._start_events()

    def _make_empty(self, overwrite: bool) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Another run may have come and gone since the folder was checked, if it did not exist then.
            self.check(overwrite)
            intact.check_room(self.path, _ROOM_FOR_TEXT)
            for file in run_files.belonging(self.path):
                file.unlink()
            intact.delete_leftovers(self.path, run_files.is_given)
        except OSError as error:
            raise self._not_writable(error) from error
        self._names, self._recorded, self._entries = {*run_files.FIXED, self.last.name}, False, []

    def _take_lock(self) -> None:
        try:
            self._lock.take()
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> UserError | RunError:
        return paths.not_writable(self.path, "ckpt_save_dir", error)

    def _start_events(self, earlier: Iterable[Path] = ()) -> None:
        """Make an event file that equals the metrics as they are now, where `tensorboard` is set; empty the earlier."""
        event_files.clear(earlier)
        if not self.tensorboard:
            return
        while any(paths.exists(file) for file in self._coming_events() if file not in earlier):
            time.sleep(1)
        coming = self._coming_events()
        self._claim(*coming)
        self.event_file = event_files.EventFile(self.events, self._records())
        made = self.events / self.event_file.name
        self._names -= {self._name(file) for file in coming if file != made and file not in earlier}
        self._claim(made)

    def _coming_events(self) -> list[Path]:
        return [self.events / name for name in event_files.coming_names()]

    def _name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def _claim(self, *files: Path) -> None:
        """Record the names of files that are about to be made. Raises RunError where the file system refuses."""
        new = {self._name(file) for file in files} - self._names
        if self._recorded and not new:
            return
        # What was deleted since is not the run's any more, should somebody else use its name.
        self._names = {name for name in self._names if self._is_fixed(name) or paths.exists(self.path / name)} | new
        self._write_sessions()

    def _is_fixed(self, name: str) -> bool:
        return name in run_files.FIXED or name == self.last.name

    def _write_sessions(self) -> None:
        intact.write_atomically(self.sessions, run_files.with_record(self._entries, self._names))
        self._recorded = True

    def _claim_own(self, file: Path) -> None:
        """`_claim` a file that the run may not have had before. Raises RunError where somebody else has it."""
        if self._name(file) not in self._names and paths.exists(file):
            raise RunError(f"{file}: is not the run's, which would replace it; move it away, and go on with --resume")
        self._claim(file)

    def keep_colors(self, colors: Sequence[run_files.Color]) -> None:
        """Write the colours of the classes. Raises RunError where somebody else's file has the name, or it cannot."""
        self._claim_own(self.colors)
        intact.write_atomically(self.colors, json_text.dumps(colors).encode())

    def save_weights(
        self,
        weights: Mapping[str, NDArray[Any]],
        epoch: int,
        step: int,
        best: bool,
        keep: bool,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        """Save the weights of an epoch as last, as best, and under the epoch's own name.

        Args:
            weights: the network's parameters by name.
            epoch: counted from 1.
            step: steps done in this epoch.
            best: whether they are the best so far.
            keep: also save `<model>-<epoch>_<step>.ckpt`.
            thresholds: probabilities from which this network gives an answer; None for none.

        Raises RunError where a file cannot be written.
        """
        self._claim(self.last)
        with _beside(self.last, thresholds):
            weights_file.write(self.last, weights)
        for file in [*([self.best] if best else []), *([self.of_epoch(epoch, step)] if keep else [])]:
            self._claim_own(file)
            with _beside(file, thresholds):
                intact.copy(self.last, file)

    def add_record(self, record: Mapping[str, object]) -> None:
        """Append an epoch's line to the metrics (and to the event file); delete the epoch files that are too many.

        Raises RunError where the line cannot be written.
        """
        self._claim(self.metrics)
        try:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json_text.dumps(record) + "\n")
        except OSError as error:
            raise intact.not_written(self.metrics, error) from error
        if self.event_file:
            self.event_file.add(record)
        for surplus in self._epoch_files()[: -self.keep]:
            for beside in run_files.answers_of(surplus):
                beside.unlink(missing_ok=True)
            intact.delete(surplus)

    def add_session(self, session: Mapping[str, object], source: Path | None) -> None:
        """Say how this process goes on with the run whose state was in the folder `source`; None for a new run.

        Before any other file of the run is made, since what is recorded lies beside it. Raises RunError where the file
        cannot be written.
        """
        earlier = _sessions(source / self.sessions.name) if source else []
        self._entries = [*earlier, dict(session)]
        self._write_sessions()

    def _records(self) -> list[dict[str, Any]]:
        """The lines of the metrics."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def _epoch_files(self) -> list[Path]:
        """Epoch files, the one to keep longest last."""
        epochs = {name: run_files.epoch_of(name, self.model) for name in self._names}
        files = [(epoch, self.path / name) for name, epoch in epochs.items() if epoch is not None]
        files = [(epoch, file) for epoch, file in files if file.exists()]
        if self.policy == "latest_k":
            return [file for _, file in sorted(files)]
        records = [record for record in self._records() if record[self._score] is not None]
        scores = {record["epoch"]: record[self._score] for record in records}
        return [file for _, _, file in sorted((scores.get(epoch, -1.0), epoch, file) for epoch, file in files)]

    def save_state(self, state: RunState) -> None:
        """Save the state of the run and how long its records are; the one before stays as the previous one.

        Raises RunError where it cannot be written; both states are kept then.
        """
        self._claim(self.state)
        state = replace(state, record_bytes=(_size(self.log), _size(self.metrics)))
        weights_file.write(self.state, state.to_arrays(), self.previous_state if self._state_is_good else None)
        self._state_is_good = True

    def read_state(self, resume: bool | str) -> RunState:
        """The state that `resume` names: a file, or the newest intact one of a folder; True stands for this folder.

        Raises UserError where there is none, it or the configuration beside it cannot be read, another run has its
        folder, or this folder holds another run than the state's.
        """
        folder = Path(resume) if isinstance(resume, str) else self.path
        files = [folder]
        if resume is True or paths.is_folder(folder):
            files = [folder / run_files.STATE, folder / run_files.PREVIOUS_STATE]
        if not any(map(paths.is_file, files)):
            paths.check_file(files[0], "there is no run to go on with: leave out --resume", "resume")
        self._lock_source(files[0].parent)
        problems = []
        for file in files:
            try:
                arrays = read_arrays(file)
            except UserError as error:
                problems.append(str(error))
                continue
            if problems:
                log.warning(f"{problems[0]}; going on from {file}, the state before it")
            arrays.setdefault(WAITED, np.array([self._waited(file, arrays)], np.int64))
            return RunState.from_arrays(file, arrays, Config.from_file(RunFiles.beside(file).config))
        raise UserError(f"resume: {'; '.join(problems)}")

    def _waited(self, state: Path, arrays: Mapping[str, NDArray[Any]]) -> int:
        """Evaluations since the one with the highest score, by the records beside a state that does not hold it."""
        file = RunFiles.beside(state).metrics
        content = file.read_bytes()[: int(arrays["run_metrics_bytes"][0])] if paths.is_file(file) else b""
        try:
            scores = [json.loads(line)[self._score] for line in content.splitlines()]
            evaluated = [float(score) for score in scores if score is not None]
        except (ValueError, TypeError, KeyError):  # it was changed by hand
            evaluated = []
        return len(evaluated) - 1 - evaluated.index(max(evaluated)) if evaluated else 0

    def _lock_source(self, source: Path) -> None:
        """Keep other runs out of the folder that a state is read from, and out of this one."""
        if self._is_at(source):
            self._take_lock()
            return
        self.check(overwrite=False)
        self._release_source()
        self._source_lock = FolderLock(source, "resume")
        # Where nothing can be written, no run is going on.
        with contextlib.suppress(OSError):
            self._source_lock.take()

    def _release_source(self) -> None:
        if self._source_lock is not None:
            self._source_lock.release()

    def _is_at(self, folder: Path) -> bool:
        return paths.exists(self.path) and self.path.samefile(folder)

    def go_on(self, saved: RunState) -> None:
        """Cut the records to where the state was saved. A state of another folder starts this one with its records.

        Raises UserError where the folder cannot be written, or holds another run than the state's.
        """
        source = saved.file.parent
        earlier: list[Path] = []
        if self._is_at(source):
            files = self._take_up(saved)
            earlier = [file for file in files if file.parent == self.events]
            intact.delete_leftovers(self.path, run_files.is_given)
            # Otherwise it is damaged, or newer than the run, and the first save must leave the previous one alone.
            self._state_is_good = self.state.exists() and saved.file.samefile(self.state)
            for file, size in zip((self.log, self.metrics), saved.record_bytes, strict=True):
                _cut(file, size)
        else:
            self._make_empty(overwrite=False)
            self._claim(self.metrics)
            intact.write_atomically(self.metrics, (source / self.metrics.name).read_bytes()[: saved.record_bytes[1]])
            self._release_source()
        self._start_events(earlier)

    def _take_up(self, saved: RunState) -> list[Path]:
        """The files of the run that goes on in its folder, whose names it may use from now on.

        Raises UserError where others have such a name.
        """
        for file in (self.log, self.metrics):
            if file.is_symlink() or (file.exists() and not file.is_file()):
                kind = "a link" if file.is_symlink() else "no file"
                raise UserError(f"resume: {file}: {kind}, which a run does not write to; put a file there, or nothing")
        files = run_files.belonging(self.path)
        if run_files.recorded(self.path) is None:
            # An older version made the run, and replaced whatever had these names; an epoch file may lack its digest.
            next_epoch = self.of_epoch(saved.position.epoch + 1, saved.steps).name
            files += [self.path / name for name in (*run_files.FIXED, self.best.name, self.last.name, next_epoch)]
        else:
            self._check_others(files, "resume")
        self._names = {self._name(file) for file in files if file.suffix != ".sha256"} | run_files.FIXED
        self._names.add(self.last.name)
        self._entries = run_files.entries(self.sessions)
        return files


@contextlib.contextmanager
def _beside(weights: Path, thresholds: Sequence[float] | None) -> Iterator[None]:
    """Inside of `with`, a weight file is replaced: a crash leaves none beside thresholds or a temperature of others."""
    for file in run_files.answers_of(weights):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise intact.not_written(file, error) from error
    yield
    if thresholds is not None:
        intact.write_atomically(RunFiles.thresholds(weights), json_text.dumps(list(thresholds)).encode())


def _cut(file: Path, size: int) -> None:
    """Shorten a file to a size. Another name of it, as of a copy by links, keeps all of it."""
    if not file.exists():
        return
    if file.stat().st_nlink > 1:
        intact.write_atomically(file, file.read_bytes()[:size])
    elif file.stat().st_size > size:
        os.truncate(file, size)


def _sessions(file: Path) -> list[Any]:
    """The entries of a `run.json`; none where an older version, which wrote no such file, began the run."""
    if not file.exists():
        return []
    if set().union(*run_files.entries(file)) == {"files"}:  # of a run that was ended before it said more
        return []
    try:
        return provenance.read(file)
    except UserError as error:
        log.warning(f"{error}; what it said about earlier parts of the run is lost")
        return []


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
