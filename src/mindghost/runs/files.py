"""Which files of a folder belong to the run in it: those that the run recorded in its `run.json`, and no others.

A name is recorded before its file is made, so that a run that is killed in between leaves nothing unknown. A run that
was made by an older version recorded nothing; its files are told by what only a run has. Whatever else lies in the
folder is somebody's, however it is called.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config, Said, beside_weights, recipe
from ..errors import UserError
from ..files import intact, json_text, paths
from . import events as event_files

CONFIG, CLASSES, SESSIONS, METRICS, LOG = "config.yaml", "classes.json", "run.json", "metrics.jsonl", "train.log"
COLORS = "colors.json"
STATE, PREVIOUS_STATE = "run_state.ckpt", "run_state_previous.ckpt"
EVENTS = "tensorboard"
# Of every run.
FIXED = frozenset({CONFIG, CLASSES, SESSIONS, METRICS, LOG, STATE, PREVIOUS_STATE})
# Ending, in place of `.ckpt`, of the file beside a weight file that holds the thresholds of its answers.
_THRESHOLDS = ".thresholds.json"
# Likewise of what its logits are divided by.
_TEMPERATURE = ".temperature.json"
TEMPERATURE_KEY = "temperature"  # in that file, and in the description of an exported file
# Logits beyond come of no training.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 100.0
_RECORD = "files"  # key of the last entry of run.json
_WEIGHTS = re.compile(r"(.+)_(best|last)\.ckpt|(.+)-(\d+)_(\d+)\.ckpt")
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
# Of the keys there are: a run's configuration holds all that there were when it was made, a recipe few.
_KEYS_OF_A_RUN = 0.8
_MOST_TEXT = 64 << 20  # bytes

Color = tuple[int, int, int]


class RunFiles:
    """The files of a run by what they are: the names stand here, and nowhere else.

    Args:
        folder: of the run (`ckpt_save_dir`).
        model: name of the network, for the names of its weight files.
    """

    def __init__(self, folder: Path, model: str = "") -> None:
        self.path = folder
        self.model = model

    @classmethod
    def beside(cls, weights: Path) -> RunFiles:
        """The files that belong to a weight file: those of the run that made it, which lie beside it."""
        return cls(weights.parent)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def classes(self) -> Path:
        """Class names in label order."""
        return self.path / CLASSES

    @property
    def colors(self) -> Path:
        """Colours of the classes in label order, if they have some."""
        return self.path / COLORS

    @staticmethod
    def thresholds(weights: Path) -> Path:
        """Where the probabilities lie from which the network of a weight file gives an answer, if it has any."""
        return weights.with_name(f"{weights.name.removesuffix('.ckpt')}{_THRESHOLDS}")

    @staticmethod
    def temperature(weights: Path) -> Path:
        """Where lies what the logits of a weight file are divided by, if `mindghost calibrate` has found that."""
        return weights.with_name(f"{weights.name.removesuffix('.ckpt')}{_TEMPERATURE}")

    @property
    def sessions(self) -> Path:
        """How it was made: a JSON list with an entry for each process that trained it (see `provenance`)."""
        return self.path / SESSIONS

    @property
    def metrics(self) -> Path:
        """One JSON record an epoch."""
        return self.path / METRICS

    @property
    def events(self) -> Path:
        """The folder of TensorBoard's event file."""
        return self.path / EVENTS

    @property
    def log(self) -> Path:
        """What the run said."""
        return self.path / LOG

    @property
    def best(self) -> Path:
        """Weights of the epoch with the highest score."""
        return self.path / f"{self.model}_best.ckpt"

    @property
    def last(self) -> Path:
        """Weights of the last epoch."""
        return self.path / f"{self.model}_last.ckpt"

    @property
    def state(self) -> Path:
        """Everything that the next step depends on."""
        return self.path / STATE

    @property
    def previous_state(self) -> Path:
        """The state before that one."""
        return self.path / PREVIOUS_STATE

    def of_epoch(self, epoch: int, step: int) -> Path:
        """Weights of an epoch under its own name; `step`: steps in it."""
        return self.path / f"{self.model}-{epoch}_{step}.ckpt"


def saved_by_training(ckpt_path: str) -> Said:
    """What training saved beside a weight file, for `config.load(weights=...)`.

    Raises UserError where it, or the class names that belong to it, or the weight file itself is not there.
    """
    if not ckpt_path:
        raise UserError("-c: without it, --ckpt_path must name a weight file whose folder holds the run's config.yaml")
    weights = Path(ckpt_path)
    paths.check_file(weights, "give the path of a .ckpt or .safetensors file")
    beside = RunFiles.beside(weights)
    for file, missing in ((beside.config, "network"), (beside.classes, "order of the classes")):
        if not paths.exists(file):
            raise UserError(f"-c: {file} does not exist, so the {missing} is not known; give -c CONFIG")
    return said_beside(weights)


def said_beside(weights: Path) -> Said:
    """What the `config.yaml` beside a weight file says of the keys of `beside_weights`; the network's name is fixed.

    Raises UserError where it cannot be read.
    """
    file = RunFiles.beside(weights).config
    values, where = recipe(file)
    # Keys that do not exist are left in, to be refused: one that is misspelt must not pass in silence.
    taken = [key for key in values if key in beside_weights.KEYS or key not in Config.model_fields]
    fixed = {key: values[key] for key in ("model",) if key in values}
    return Said({key: values[key] for key in taken}, {key: where[key] for key in taken}, fixed, file)


def is_given(name: str) -> bool:
    """Whether a run of any network may give a file in its folder this name."""
    name = weights_of(name)
    return name in FIXED or name == COLORS or _WEIGHTS.fullmatch(name) is not None


def weights_of(name: str) -> str:
    """The name of the weight file that a file belongs to, as its digest and its thresholds do; else the name itself."""
    name = name.removesuffix(".sha256")
    ending = next((ending for ending in (_THRESHOLDS, _TEMPERATURE) if name.endswith(ending)), None)
    return f"{name.removesuffix(ending)}.ckpt" if ending else name


def epoch_of(name: str, model: str) -> int | None:
    """The epoch of a network's epoch file, by its name; None for other files."""
    found = _WEIGHTS.fullmatch(name)
    return int(found[4]) if found and found[3] == model else None


def belonging(folder: Path) -> list[Path]:
    """The files that belong to the run in a folder and are there, in the order to delete them in.

    What tells that they do comes last, so that a deletion that is cut short can be taken up again.
    """
    known = recorded(folder)
    names = by_content(folder) if known is None else known
    last = [name for name in (CONFIG, SESSIONS) if name in names]
    ordered = [*sorted(names - {*last}), *last]
    files = [file for name in ordered for file in with_sidecar(folder / name)]
    return [file for file in files if paths.is_file(file) or file.is_symlink()]


def with_sidecar(file: Path) -> list[Path]:
    """The files that a run makes for one: a weight file has its digest beside it, and maybe what belongs to answers."""
    return [file, intact.sidecar(file), *answers_of(file)] if file.suffix == ".ckpt" else [file]


def answers_of(weights: Path) -> list[Path]:
    """The files that may lie beside a weight file, and say how its logits become answers."""
    return [RunFiles.thresholds(weights), RunFiles.temperature(weights)]


def recorded(folder: Path) -> set[str] | None:
    """The names, relative to the folder, that the run in it has recorded; None where none has."""
    for entry in reversed(entries(folder / SESSIONS)):
        names = entry.get(_RECORD)
        if isinstance(names, list):
            return {name for name in names if isinstance(name, str) and _can_be_recorded(name)}
    return None


def _can_be_recorded(name: str) -> bool:
    place, _, event_file = name.rpartition("/")
    return (event_files.is_given(event_file) and place == EVENTS) if place else is_given(name)


def entries(file: Path) -> list[dict[str, Any]]:
    """The entries of a `run.json`, without what is none; `provenance.read` tells what is wrong with the file."""
    found = _json(_text(file))
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def companions(weights: Path) -> list[Path]:
    """The files that belong to a weight file of a run and lie beside it, all but its sidecar."""
    run = RunFiles.beside(weights)
    return list(filter(paths.is_file, (run.config, run.classes, run.colors, *answers_of(weights))))


def thresholds_beside(weights: Path, outputs: int) -> tuple[float, ...] | None:
    """The thresholds of a weight file's answers, one an output; None where none lie beside it.

    Raises UserError where the file holds something else.
    """
    file = RunFiles.thresholds(weights)
    if not paths.exists(file):
        return None
    remedy = "restore the one that training wrote, or delete it, which sets them to 0.5"
    return checked_thresholds(json_text.read(file, remedy), outputs, file, remedy)


def checked_thresholds(value: Any, outputs: int, source: str | Path, remedy: str) -> tuple[float, ...]:
    """Thresholds of answers, if a JSON value is such: a number from 0 to 1 for each output. Raises UserError."""
    if not isinstance(value, list) or not all(json_text.is_number(item) and 0 <= item <= 1 for item in value):
        raise UserError(f"{source}: expected a list of thresholds from 0 to 1; {remedy}")
    if len(value) != outputs:
        raise UserError(f"{source}: {len(value)} thresholds for {outputs} outputs; {remedy}")
    return tuple(map(float, value))


def temperature_beside(weights: Path) -> float | None:
    """What the logits of a weight file are divided by before they become probabilities; None where nothing says.

    Raises UserError where the file holds something else.
    """
    file = RunFiles.temperature(weights)
    if not paths.exists(file):
        return None
    remedy = "calibrate again with `mindghost calibrate`, or delete it, which leaves the logits as they are"
    found = json_text.read(file, remedy)
    return checked_temperature(found.get(TEMPERATURE_KEY) if isinstance(found, dict) else None, file, remedy)


def checked_temperature(value: Any, source: str | Path, remedy: str) -> float:
    """A temperature, if a JSON value is such. Raises UserError."""
    if not json_text.is_number(value) or not LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE:
        raise UserError(
            f"{source}: expected a {TEMPERATURE_KEY} from {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}; {remedy}"
        )
    return float(value)


def colors_beside(weights: Path, outputs: int) -> tuple[Color, ...] | None:
    """The colours of a network's classes, one an output; None where none lie beside its weights.

    Raises UserError where the file holds something else.
    """
    file = RunFiles.beside(weights).colors
    if not paths.exists(file):
        return None
    remedy = "restore the one that training wrote, or delete it, which gives classes other colours"
    return checked_colors(json_text.read(file, remedy), outputs, file, remedy)


def checked_colors(value: Any, outputs: int, source: str | Path, remedy: str) -> tuple[Color, ...]:
    """Colours, if a JSON value is such: three whole numbers from 0 to 255 for each output. Raises UserError."""
    if not isinstance(value, list) or not all(map(_is_color, value)):
        raise UserError(f"{source}: expected a list of colours, each [r, g, b] from 0 to 255; {remedy}")
    if len(value) != outputs:
        raise UserError(f"{source}: {len(value)} colours for {outputs} outputs; {remedy}")
    return tuple((red, green, blue) for red, green, blue in value)


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(json_text.is_integer(part) and 0 <= part <= 255 for part in value)
    )


def with_record(sessions: Sequence[Any], names: set[str]) -> bytes:
    """The content of a `run.json` of these entries, in whose last one the names are recorded."""
    known = [entry for entry in sessions if isinstance(entry, dict)]
    plain = [{key: value for key, value in entry.items() if key != _RECORD} for entry in known]
    *earlier, last = [entry for entry in plain if entry] or [{}]
    return json_text.dumps([*earlier, {**last, _RECORD: sorted(names)}], indent=1).encode()


def by_content(folder: Path) -> set[str]:
    """The names of the files that a run of an older version, which recorded none, has left in a folder."""
    told = any("command" in entry and "started" in entry for entry in entries(folder / SESSIONS))
    config = _config_of_a_run(folder / CONFIG)
    if config is None:
        return {SESSIONS} if told else set()
    if not (told or _has_witness(folder)):
        return set()
    names = {CONFIG, STATE, PREVIOUS_STATE}
    if _text(folder / SESSIONS).lstrip().startswith("["):
        names.add(SESSIONS)
    classes = _json(_text(folder / CLASSES))
    if isinstance(classes, list) and len(classes) <= (config.num_classes or len(classes)):
        names.add(CLASSES)
    if _LOG_LINE.match(_text(folder / LOG)) or not _text(folder / LOG):
        names.add(LOG)
    epochs = _epochs(folder)
    if epochs is not None:
        names.add(METRICS)
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            name = file.name.removesuffix(".sha256")
            found = _WEIGHTS.fullmatch(name)
            if name == file.name or not found or config.model not in (found[1], found[3]):
                continue
            # The files of an epoch are written before its record.
            if found[4] is None or epochs is None or int(found[4]) <= epochs + 1:
                names.add(name)
    names |= {f"{EVENTS}/{file.name}" for file in event_files.files(folder / EVENTS) if event_files.is_ours(file)}
    return names


def _config_of_a_run(file: Path) -> Config | None:
    lines = {line.partition(":")[0] for line in _text(file).splitlines()}
    if len(lines & set(Config.model_fields)) < _KEYS_OF_A_RUN * len(Config.model_fields):
        return None
    try:
        return Config.from_file(file)
    except UserError:
        return None


def _has_witness(folder: Path) -> bool:
    """Whether there is something else that nothing but a run makes."""
    return (
        paths.is_file(intact.sidecar(folder / STATE))
        or paths.is_file(intact.sidecar(folder / PREVIOUS_STATE))
        or bool(_epochs(folder))
        or _LOG_LINE.match(_text(folder / LOG)) is not None
    )


def _epochs(folder: Path) -> int | None:
    """The last epoch of the metrics, 0 where there are none; None where they are not a run's."""
    lines = _text(folder / METRICS).splitlines()
    records = [_json(line) for line in lines]
    if not all(isinstance(record, dict) and isinstance(record.get("epoch"), int) for record in records[:-1]):
        return None
    return max((record["epoch"] for record in records if isinstance(record, dict) and "epoch" in record), default=0)


def _text(file: Path) -> str:
    """What a file says, as far as that matters; nothing where it is none."""
    if not paths.is_file(file):
        return ""
    try:
        with open(file, "rb") as opened:
            return opened.read(_MOST_TEXT).decode(errors="replace")
    except OSError:
        return ""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
