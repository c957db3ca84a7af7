"""Which weights go where: into a network, strictly, and into the files of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from . import weights_file
from .errors import UserError

# A mismatch can name hundreds of parameters; a line names this many of each kind.
_NAMED = 4


@dataclass(frozen=True)
class Loaded:
    """What a weight file gave to a network.

    Attributes:
        path: the file.
        parameters: how many were loaded.
        averaged: whether the file's averaged weights (`ema.*`) were taken.
        training_entries: entries of an optimizer or a trainer that were left out.
        fresh: parameters that keep their initial values (a classifier of another size).
        stem_summed: whether the filters of a 3-channel stem were summed for a 1-channel image.
    """

    path: Path
    parameters: int
    averaged: bool
    training_entries: int
    fresh: tuple[str, ...] = ()
    stem_summed: bool = False

    def __str__(self) -> str:
        text = f"loaded {self.parameters} parameters from {self.path}"
        if self.averaged:
            text += ", the averaged ones (ema.*)"
        if self.training_entries:
            text += f"; left out {self.training_entries} entries of its optimizer"
        if self.stem_summed:
            text += "; summed the stem's filters for 1-channel images"
        if self.fresh:
            text += f"; fresh, since the number of classes differs: {', '.join(self.fresh)}"
        return text


def load_weights(
    network: nn.Cell,
    path: str | Path,
    *,
    stem: str,
    classifier: str,
    averaged: bool = False,
    fresh_classifier: bool = False,
) -> Loaded:
    """Fill a network from a `.ckpt` file: everything must fit, or nothing is changed.

    Files of MindCV's trainer load too: entries of its optimizer are counted and left out.

    Args:
        network: changed in place.
        path: the file.
        stem, classifier: names of the cells that depend on the image's channels and the number of classes.
        averaged: take the `ema.*` entries, where the file has them.
        fresh_classifier: leave the classifier as it is where its shape differs.

    Raises:
        UserError: the file cannot be read, or parameters are missing, left over or of another shape (listed).
    """
    path = Path(path)
    arrays = weights_file.read(path)
    wanted = {parameter.name: parameter for parameter in network.get_parameters()}
    has_average = any(name.startswith("ema.") for name in arrays)
    if averaged and has_average:
        plain = {name: array for name, array in arrays.items() if not name.startswith("ema.")}
        arrays = plain | {n.removeprefix("ema."): a for n, a in arrays.items() if n.startswith("ema.")}
    training = [name for name in arrays if name not in wanted and _is_training_entry(name, wanted)]
    weights = {name: array for name, array in arrays.items() if name not in training}

    stem_summed = _sum_stem(weights, wanted, f"{stem}.weight")
    fresh = _drop_classifier(weights, wanted, classifier) if fresh_classifier else ()
    _check_fit(path, weights, {name: p.shape for name, p in wanted.items() if name not in fresh}, classifier)
    for name, array in weights.items():
        parameter = wanted[name]
        # A copy: the array is a view of the file's bytes.
        parameter.set_data(Tensor(array.copy(), dtype=parameter.dtype))
    return Loaded(path, len(weights), averaged and has_average, len(training), fresh, stem_summed)


def _is_training_entry(name: str, wanted: Mapping[str, object]) -> bool:
    """True for what optimizers and trainers keep: `moments.<parameter>`, or a name outside of any layer."""
    return "." not in name or name.partition(".")[2] in wanted


def _sum_stem(weights: dict[str, np.ndarray], wanted: Mapping[str, Tensor], name: str) -> bool:
    """Sum the stem's filters over their input channels where the network takes one channel and the file three."""
    if name not in weights or weights[name].ndim != 4 or weights[name].shape[1] != 3 or wanted[name].shape[1] != 1:
        return False
    weights[name] = weights[name].sum(axis=1, keepdims=True)
    return True


def _drop_classifier(weights: dict[str, np.ndarray], wanted: Mapping[str, Tensor], classifier: str) -> tuple[str, ...]:
    """Take a classifier of another size out of `weights`; the names that stay fresh."""
    names = tuple(name for name in wanted if name.startswith(f"{classifier}."))
    if all(name in weights and weights[name].shape == tuple(wanted[name].shape) for name in names):
        return ()
    if not all(name in weights and weights[name].shape[1:] == tuple(wanted[name].shape[1:]) for name in names):
        return ()
    for name in names:
        del weights[name]
    return names


def _check_fit(
    path: Path, weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], classifier: str
) -> None:
    """Raise UserError where names or shapes differ, listing all three kinds of difference."""
    missing = [name for name in shapes if name not in weights]
    surplus = [name for name in weights if name not in shapes]
    unequal = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != tuple(shape)
    ]
    if not (missing or surplus or unequal):
        return
    kinds = (("missing", missing), ("not in the network", surplus), ("of another shape", unequal))
    differences = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names)
    hint = "give the model that the file was made with"
    if not missing and not surplus and all(text.startswith(f"{classifier}.") for text in unequal):
        hint = "give the num_classes that the file was made with"
    raise UserError(f"{path}: does not fit the network ({differences}); {hint}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def load_optimizer(optimizer: nn.Optimizer, path: str | Path) -> int:
    """Fill an optimizer's moments from a file that holds them: one of MindCV's trainer, or a run state.

    Learning rates and the count of updates stay as they are: the schedule of a new run starts at its beginning.
    Returns how many entries were loaded.

    Raises:
        UserError: the file cannot be read, or holds not all of this optimizer's entries in their shapes.
    """
    arrays = weights_file.read(path)
    kept = {"learning_rate", "momentum", "global_step"} | {parameter.name for parameter in optimizer.parameters}
    slots = {parameter.name: parameter for parameter in optimizer.get_parameters() if parameter.name not in kept}
    unfit = [n for n, p in slots.items() if n not in arrays or arrays[n].shape != tuple(p.shape)]
    if unfit:
        raise UserError(
            f"{path}: resume_opt: holds no state of this optimizer ({len(unfit)} of {len(slots)} entries missing or of "
            f"another shape: {_some(unfit)}); give a run_state.ckpt of a run with the same opt, or resume_opt False"
        )
    for name, parameter in slots.items():
        parameter.set_data(Tensor(arrays[name].copy(), dtype=parameter.dtype))
    return len(slots)


class RunFolder:
    """The files of one run: weights (`_best`, `_last`, one every few epochs), run state, records.

    Args:
        path: `ckpt_save_dir`.
        model: name of the network, which the files start with.
        keep: how many epoch files stay; the others are deleted.
        policy: "latest_k" keeps the newest, "top_k" the most accurate.
    """

    def __init__(self, path: str | Path, model: str, keep: int, policy: str) -> None:
        self.path = Path(path)
        self.model = model
        self.keep = keep
        self.policy = policy
        self.best_top_1: float | None = None
        self._epoch_files: list[tuple[float, Path]] = []

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

    def check(self, overwrite: bool) -> None:
        """Raise UserError where the path is a file, or holds a run and `overwrite` is false."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"ckpt_save_dir: {self.path} is a file; give a folder")
        runs = self._files_of_a_run()
        if runs and not overwrite:
            raise UserError(
                f"ckpt_save_dir: {self.path} already holds a run ({runs[0].name}); "
                "give another folder, or --overwrite True to delete that run"
            )

    def start(self) -> None:
        """Make the folder, empty of any earlier run. Raises UserError where it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self._files_of_a_run():
                file.unlink()
        except OSError as error:
            raise UserError(f"ckpt_save_dir: {self.path} cannot be written ({error.strerror})") from error

    def _files_of_a_run(self) -> list[Path]:
        """The files that a run makes, of any network; a user's own files are not among them."""
        if not self.path.is_dir():
            return []
        names = re.compile(
            r"config\.yaml|classes\.json|metrics\.jsonl|train\.log|run_state\.ckpt|.+_(best|last)\.ckpt|.+-\d+_\d+\.ckpt"
        )
        found = [file for file in sorted(self.path.iterdir()) if file.is_file() and names.fullmatch(file.name)]
        # Weights alone, or a config alone, may well be the user's; a run has records.
        return found if any(file.name in ("metrics.jsonl", "train.log") for file in found) else []

    def save_weights(
        self, weights: Mapping[str, np.ndarray], epoch: int, step: int, top_1: float | None, epoch_file: bool
    ) -> bool:
        """Save the weights of an epoch as last, as best if they are, and under the epoch's own name if asked.

        Args:
            weights: the network's parameters by name.
            epoch: counted from 1.
            step: steps done in this epoch.
            top_1: accuracy in percent; None where the epoch was not evaluated.
            epoch_file: also save `<model>-<epoch>_<step>.ckpt`.

        Returns whether they are the best so far. Raises RunError where a file cannot be written.
        """
        weights_file.write(self.last, weights)
        best = top_1 is not None and (self.best_top_1 is None or top_1 > self.best_top_1)
        if best:
            weights_file.copy(self.last, self.best)
            self.best_top_1 = top_1
        if epoch_file:
            path = self.path / f"{self.model}-{epoch}_{step}.ckpt"
            weights_file.copy(self.last, path)
            rank = epoch if self.policy == "latest_k" or top_1 is None else top_1
            self._epoch_files.append((rank, path))
            self._epoch_files.sort(key=lambda entry: entry[0])
            while len(self._epoch_files) > self.keep:
                self._epoch_files.pop(0)[1].unlink(missing_ok=True)
        return best

    def save_state(self, state: Mapping[str, np.ndarray], epoch: int, step: int) -> None:
        """Save the run state with its position: `epoch` done, `step` steps done in all."""
        position = {"run_epoch": np.array([epoch], np.int64), "run_step": np.array([step], np.int64)}
        if self.best_top_1 is not None:
            position["run_best_top_1"] = np.array([self.best_top_1], np.float64)
        weights_file.write(self.state, {**state, **position})
