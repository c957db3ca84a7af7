"""A run's model card: Markdown with the front matter of MindSpore Hub's cards, every figure from the run's files."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from .. import build, tasks
from ..config import Config
from ..data import transforms
from ..data.imagenet import names as imagenet_names
from ..errors import UserError
from ..evaluate.evaluator import counted
from ..files import intact, paths
from ..process import display
from ..runs import curves
from ..runs.files import companions
from ..runs.record import Record
from .run_facts import Run, read

_CLASSES_SHOWN = 100


@dataclass(frozen=True)
class Given:
    """What no file of a run knows.

    Attributes:
        author: who made the weights.
        link: folder on the web that will hold the files; empty: names of files.
        license: of the weights; the hub takes Apache 2.0 alone.
        dataset: name of the data; empty: that of the binary dataset, the list, or the folder `data_dir`.
        repository: address of the source; empty: not said.
        data_license: under which terms the training images are; empty: not said.
    """

    author: str = "unknown"
    link: str = ""
    license: str = "Apache2.0"
    dataset: str = ""
    repository: str = ""
    data_license: str = ""


def front_matter(run: Run, given: Given) -> dict[str, Any]:
    """The keys of MindSpore Hub's cards, in their order.

    Raises UserError for a value with a colon, which the hub's checker refuses outside of links.
    """
    config, last = run.config, run.sessions[-1]
    device = last["device"].lower()
    dataset = _dataset(config, given)
    keys = {
        "model-name": config.model,
        "backbone-name": build.trunk(config),
        "module-type": tasks.of(config).hub_type,
        "fine-tunable": True,
        "input-shape": [config.in_channels, *transforms.input_size(config)],
        "model-version": last["versions"].get("ghostnet", "unknown"),
        "train-dataset": dataset,
        "evaluation": _evaluation(config, run.record),
        "author": given.author,
        "update-time": datetime.datetime.fromisoformat(last["started"]).date(),
        "repo-link": given.repository or None,
        "user-id": given.author,
        "used-for": "inference/transfer-learning",
        "train-backend": device,
        "infer-backend": device,
        "mindspore-version": last["versions"].get("mindspore", "unknown"),
        "asset": [
            {"file-format": asset.format, "asset-link": _link(given, asset.name), "asset-sha256": asset.sha256}
            for asset in run.assets
        ],
        "license": given.license,
        "summary": f"{config.model} that tells {config.num_classes} classes of {dataset} apart",
    }
    for key, value in keys.items():
        if key not in ("repo-link", "asset") and ":" in str(value):
            raise UserError(f"{key}: {value!r} has a colon, which the hub's cards take in links only; give another one")
    return {
        key: display.shown(value) if isinstance(value, str) else value
        for key, value in keys.items()
        if value is not None
    }


def _dataset(config: Config, given: Given) -> str:
    if given.dataset:
        return given.dataset
    if config.dataset != "imagenet":
        return config.dataset
    return Path(config.train_list or config.data_dir).name or "image folders"


def _evaluation(config: Config, record: Record) -> str:
    """Scores as the hub writes them, with two digits."""
    named = [(word, record.get(key)) for key, word in tasks.of(config).hub_words.items()]
    return " | ".join(f"{name}{value:.2f}" for name, value in named if value is not None) or "none"


def _link(given: Given, name: str) -> str:
    address = display.address(name)
    return f"{given.link.rstrip('/')}/{address}" if given.link else address


def markdown(run: Run, given: Given, picture: str) -> str:
    """The card.

    Args:
        run: the run.
        given: what its files do not know.
        picture: name of the file with the curves.
    """
    header = yaml.safe_dump(front_matter(run, given), sort_keys=False, allow_unicode=True, width=1000)
    config = run.config
    parts = [
        f"---\n{header}---",
        f"# {display.markdown(config.model)}, trained on {display.markdown(_dataset(config, given))}",
        f"{run.parameters:,} trainable parameters, {config.num_classes} classes, images of "
        f"{' x '.join(map(str, (config.in_channels, *transforms.input_size(config))))}.",
        "## Files",
        _table(
            ("file", "bytes", "sha256"),
            [
                (
                    f"[{display.markdown(asset.name)}]({_link(given, asset.name)})",
                    f"{asset.size:,}",
                    f"`{asset.sha256}`",
                )
                for asset in run.assets
            ],
        ),
        *([run.note] if run.note else []),
        "## Evaluation",
        _evaluation_section(run),
        "## Training",
        _training(run, picture),
        "### Recipe",
        "The keys that differ from their defaults; `config.yaml` beside the weights holds all of them.",
        display.fenced("yaml", "\n".join(_recipe(config))),
        "### Environment",
        _environment(run.sessions[-1]),
        "## Usage",
        f"With {_beside(run)} of the run beside the weights:",
        display.fenced("shell", f"python validate.py --ckpt_path {display.shell(run.assets[0].name)} --data_dir DATA"),
        "## Classes",
        _class_list(run.classes),
        "## Licences",
        _licences(given),
    ]
    return "\n\n".join(parts) + "\n"


def _beside(run: Run) -> str:
    """The files that belong to the weights, by name."""
    *first, last = (f"`{file.name}`" for file in companions(run.weights))
    return f"{', '.join(first)} and {last}"


def _evaluation_section(run: Run) -> str:
    record, images, task = run.record, run.sessions[-1]["images"].get("val"), tasks.of(run.config)
    if record.get(task.score) is None:
        return f"The weights are those of epoch {record['epoch']} of {run.config.epoch_size}; no epoch was validated."
    found = [(title, record.get(key)) for key, title in task.titles.items()]
    rows = [(title, f"{value:.2f}{task.score_unit}") for title, value in found if value is not None]
    if record["val_loss"] is not None:
        rows.append((task.loss_title, f"{record['val_loss']:.4f}"))
    if images is not None:
        rows.append(("validation images", f"{images:,}"))
    if run.config.eval_mirror:
        rows.append(("counted", counted(run.config)))
    rows.append(("epoch", f"{record['epoch']} of {run.config.epoch_size}"))
    note = ""
    if len([other for other in run.records if other.get(task.score) is not None]) > 1:
        note = "\n\nThe epoch was chosen by the same images, which flatters it a little."
    return _table(("metric", "value"), rows) + note


def _training(run: Run, picture: str) -> str:
    """Commands, curve, and what it took."""
    starts = [
        display.shown(entry["command"]) + (f"  # from epoch {entry['epoch']}, step {entry['step']}" if number else "")
        for number, entry in enumerate(run.sessions)
    ]
    last = run.records[-1]
    rows = [
        *_beginning(run.config),
        ("training images", f"{run.sessions[-1]['images'].get('train') or 0:,}"),
        ("epochs", f"{last['epoch']} of {run.config.epoch_size}"),
        ("last training loss", f"{last['train_loss']:.4f}"),
        *_times(run.records),
    ]
    return "\n\n".join(
        [
            display.fenced("shell", "\n".join(starts)),
            _table(("", ""), rows),
            f"![Loss, accuracy and learning rate]({display.address(picture)})",
        ]
    )


def _beginning(config: Config) -> list[tuple[str, str]]:
    """The published weights that a run started from, if it did."""
    if not config.pretrained:
        return []
    weights = build.published(config.model, config.pretrained)
    said = f"{weights.top_1:.2f} / {weights.top_5:.2f} % top-1 / top-5 on ImageNet-1k by MindCV"
    return [("started from", f"[{PurePosixPath(weights.url).name}]({weights.url}), {said}")]


def _times(records: Sequence[Record]) -> list[tuple[str, str]]:
    """How long it took and how fast it was, where the records say so."""
    seconds = [record["seconds"] for record in records if "seconds" in record]
    speeds = [record["images_per_second"] for record in records if "images_per_second" in record]
    rows = []
    if len(seconds) == len(records):
        rows.append(("time, evaluation included", f"{math.fsum(seconds):,.0f} s"))
    if len(speeds) == len(records):
        rows.append(("speed, median of the epochs", f"{statistics.median(speeds):,.1f} images/s"))
    return rows


def _recipe(config: Config) -> list[str]:
    """Lines of config.yaml with other values than the defaults."""
    usual = set(Config().to_yaml().splitlines())
    return [line for line in config.to_yaml().splitlines() if line and line not in usual]


def _environment(session: Mapping[str, Any]) -> str:
    rows = [
        ("device", f"{session['device']}, {session['ranks']} rank(s)"),
        ("processor", f"{session['cpu']}, {session['cores']} core(s)"),
        ("system", session["platform"]),
        *session["versions"].items(),
        ("commit", session.get("commit") or "unknown"),
    ]
    escaped = [(display.markdown(name), display.markdown(str(value))) for name, value in rows]
    return _table(("", ""), [*escaped, ("started", session["started"])])


def _class_list(classes: Sequence[str]) -> str:
    shown = ", ".join(map(display.markdown, imagenet_names.shown_as(classes)[:_CLASSES_SHOWN]))
    more = len(classes) - _CLASSES_SHOWN
    return f"In label order: {shown}" + (f", and {more:,} more in `classes.json`." if more > 0 else ".")


def _licences(given: Given) -> str:
    return _table(
        ("", ""),
        [
            ("weights", display.markdown(given.license)),
            ("training images", display.markdown(given.data_license or "not said; see to them before you pass it on")),
        ],
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(' '.join(str(cell).split()) for cell in line)} |" for line in lines)


def write(folder: Path, output: Path, given: Given, overwrite: bool) -> None:
    """Write the card of the run in `folder` to `output`, and its curves beside it as a PNG file of the same stem.

    Raises UserError where the run's files are not in order, or the card's are there and `overwrite` is false.
    """
    picture = output.with_suffix(".png")
    if output.suffix != ".md":
        raise UserError(f"--output: {output} does not end with .md, and Markdown is what is written")
    for file in (output, picture):
        paths.check_output(file, "--output")
        if paths.exists(file) and not overwrite:
            raise UserError(f"{file} exists; name another file with --output, or give --overwrite to replace it")
    intact.write_all_atomically(files(read(folder), given, output, paths.real(folder).name))


def files(run: Run, given: Given, output: Path, title: str) -> dict[Path, bytes]:
    """The card, which will be `output`, and its picture beside it; `title` is said above the curves."""
    picture = output.with_suffix(".png")
    text = markdown(run, given, picture.name)
    return {output: text.encode(), picture: curves.png([(title, list(run.records))], tasks.score_titles())}
