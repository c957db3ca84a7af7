"""What the files of a run say, as its model card and its release need it."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .. import build, tasks
from ..checkpoint import weights as weights_file
from ..config import Config
from ..errors import UserError
from ..files import intact, json_text, paths
from ..models.layers import is_statistic
from ..runs import provenance
from ..runs.files import RunFiles
from ..runs.metrics import read_records
from ..runs.record import Record
from ..tasks import names as class_names

# Files that an export leaves beside the weights, under their stem.
EXPORTED = ("mindir", "onnx", "air")
# Of a text in run.json: a command line may be long.
_MOST_LETTERS = 200_000


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < _MOST_LETTERS


def _is_map(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values())) and all(map(_is_text, value))


# What the card reads of an entry of run.json, and what it may be.
_SESSION: dict[str, Callable[[Any], bool]] = {
    "command": _is_text,
    "started": _is_text,
    "device": _is_text,
    "ranks": json_text.is_integer,
    "cpu": _is_text,
    "cores": json_text.is_integer,
    "platform": _is_text,
    "versions": _is_map(_is_text),
    "epoch": json_text.is_integer,
    "step": json_text.is_integer,
    # Of a run without validation there are none for it.
    "images": _is_map(lambda value: value is None or json_text.is_integer(value)),
    "commit": lambda value: value is None or _is_text(value),
}


@dataclass(frozen=True)
class Asset:
    """A file that the card offers: its name, format (by the hub's word), size in bytes and sha256."""

    name: str
    format: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Run:
    """What the files of a finished or stopped run say.

    Attributes:
        config: `config.yaml`.
        classes: `classes.json`.
        records: `metrics.jsonl`.
        sessions: `run.json`: one entry for each process that trained.
        record: that of the epoch whose weights are offered: the best one, or the last where none was validated.
        assets: these weights, and what was exported from them.
        parameters: trainable ones.
        weights: the file of the run that the first asset is, or was made from.
        note: said of the assets; empty where they are as the run left them.
    """

    config: Config
    classes: Sequence[str]
    records: Sequence[Record]
    sessions: Sequence[Mapping[str, Any]]
    record: Record
    assets: Sequence[Asset]
    parameters: int
    weights: Path
    note: str = ""


def read(folder: Path) -> Run:
    """The files of the run in `folder`.

    Raises UserError, which names the file, where one is missing, damaged, or at odds with another.
    """
    files = RunFiles(folder)
    paths.check_file(files.config, "give the folder of a run (its ckpt_save_dir)")
    config = Config.from_file(files.config)
    build.facts(config.model)  # its name is part of files' names, and of none but these
    records = read_records(files.metrics)
    sessions = _sessions(files.sessions)
    classes = class_names.saved_classes(str(folder / "any"))
    if classes is None:
        raise UserError(f"{files.classes}: no such file; restore the one that training wrote")
    if config.num_classes is None or len(classes) > config.num_classes:
        raise UserError(
            f"{files.classes}: {len(classes)} classes, but num_classes is {config.num_classes} in "
            "config.yaml; restore the files that training wrote"
        )
    weights, record = _offered(folder, config, records)
    if not paths.is_file(intact.sidecar(weights)):
        raise UserError(
            f"{intact.sidecar(weights)}: no such file, so {weights.name} may be others than the run's; restore it"
        )
    content = intact.read_intact(weights)
    arrays = weights_file.decode(weights, content)
    trainable = [array.size for name, array in arrays.items() if not is_statistic(name)]
    exported = [weights.with_suffix(f".{kind}") for kind in EXPORTED]
    assets = [
        asset(weights.name, content),
        *(
            asset(file.name, paths.read(file, "restore it, or move it away"))
            for file in exported
            if paths.is_file(file)
        ),
    ]
    return Run(config, classes, records, sessions, record, assets, sum(trainable), weights)


def _sessions(file: Path) -> list[dict[str, Any]]:
    """The entries of `run.json`."""
    found = provenance.read(file)
    for number, entry in enumerate(found, 1):
        for key, fits in _SESSION.items():
            if not isinstance(entry, dict) or not fits(entry.get(key)):
                raise UserError(f"{file}: entry {number} lacks {key!r}; restore the file that training wrote")
        try:
            datetime.datetime.fromisoformat(entry["started"])
        except ValueError as error:
            raise UserError(
                f"{file}: entry {number}: started: {error}; restore the file that training wrote"
            ) from error
    return found


def _offered(folder: Path, config: Config, records: Sequence[Record]) -> tuple[Path, Record]:
    """The weight file to offer, and the record of its epoch."""
    best = folder / f"{config.model}_best.ckpt"
    score = tasks.of(config).score
    validated = [record for record in records if record.get(score) is not None]
    if validated and paths.is_file(best):
        # Of equal ones the first: only a better epoch replaces the file.
        return best, max(validated, key=lambda record: record[score])
    return folder / f"{config.model}_last.ckpt", records[-1]


def asset(name: str, content: bytes) -> Asset:
    """A file to offer."""
    return Asset(name, PurePosixPath(name).suffix[1:], len(content), hashlib.sha256(content).hexdigest())
