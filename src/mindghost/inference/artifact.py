"""What a weight file or an exported file is: network, classes and preprocessing, from the file or from beside it.

A checkpoint has the run's `config.yaml` and `classes.json` beside it. An exported file carries the same facts as JSON:
an ONNX file among its metadata, a MindIR file in its user info, both in `<stem>.json` beside them. What it says is the
last word: a key that says otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config, Said, recipe, settled
from ..data.imagenet import names as imagenet_names
from ..errors import UserError
from ..files import json_text, paths
from ..runs.files import (
    RunFiles,
    colors_beside,
    said_beside,
    saved_by_training,
    temperature_beside,
    thresholds_beside,
)
from . import formats, published
from .deployment import AGAIN, EMBEDDING, KEYS, Deployment, are_numbers, of_description, others, palette

if TYPE_CHECKING:
    from ..tasks.names import Classes

# In the place of a file of class names: those of ImageNet's 1,000 classes.
IMAGENET = "imagenet"
# What an exported file leaves no choice of: it has its own weights, in its own precision.
_NO_CHOICE = {"val_amp_level": "O0", "pretrained": False}


def of_file(
    path: Path, config_file: Path | None = None, model: str = "", class_names: Path | None = None
) -> Deployment:
    """What a weight file or an exported file is.

    Args:
        path: of one of the kinds in `formats.KINDS`.
        config_file: recipe to take in place of the `config.yaml` beside weights. Of an exported file it may say nothing
            else than the file, which needs none.
        model: the network of weights that have neither; the rest is then as it was published.
        class_names: file with the names (see `data.class_names`), in place of those beside the weights; or IMAGENET.

    Raises UserError where the file is not there, or not known or described well enough, or contradicted.
    """
    paths.check_file(path, f"give a {formats.KINDS} file")
    formats.check_named(path)
    values, where = recipe(config_file) if config_file else ({}, {})
    if model:
        values["model"], where["model"] = model, "--"
    if formats.is_exported(path):
        return _of_exported(path, values, where, class_names)
    return _of_weights(path, config_file, values, where, class_names)


def _given(class_names: Path | None, config: Config) -> Classes | None:
    """The classes of a file; None without one."""
    from .. import tasks
    from ..tasks.names import Classes

    if class_names is None:
        return None
    if str(class_names) == IMAGENET:
        return Classes(list(imagenet_names.synsets()))
    return tasks.of(config).read_classes(class_names)


def _of_weights(
    path: Path,
    config_file: Path | None,
    values: Mapping[str, Any],
    where: Mapping[str, str],
    class_names: Path | None,
) -> Deployment:
    from ..tasks.names import saved_classes

    beside = RunFiles.beside(path).config
    if config_file is not None:
        config = settled(values, where, Said())
    elif paths.exists(beside):
        config = settled(values, where, said_beside(path))
    elif values:
        config = _as_published(values["model"])
    else:
        raise UserError(f"{path}: no config.yaml beside it, so the network is not known; give --model NAME or -c FILE")
    as_published = config_file is None and not paths.exists(beside)
    given = _given(class_names, config)
    names = given and given.names
    known = None if as_published else saved_classes(str(path))
    if not names and known is None:
        known = published.classes(config.replace(ckpt_path=str(path)))
    # Of a network that is known by name only, the names say how many outputs it has.
    outputs = len(names) if names and as_published else config.num_classes
    if outputs is None:
        outputs = len(names or known or ()) or None
    if outputs is None:
        raise UserError(
            f"{config_file or beside}: num_classes is open, and no classes.json is beside {path}; give --class_names "
            "FILE"
        )
    if names and len(names) not in (outputs, len(known or ())):
        raise UserError(f"--class_names: {len(names)} names, but the network has {outputs} outputs; correct the list")
    # What a run on another machine was told about its device says nothing about this one.
    config = config.replace(
        num_classes=outputs, ckpt_path=str(path), device_target=None, distribute=False, pretrained=False
    )
    names = names or known or []
    colors = tuple(given.colors) if given and given.colors and len(given.colors) == outputs else None
    return Deployment(
        path,
        config,
        _named(names, outputs, path),
        numbered=not names,
        thresholds=thresholds_beside(path, outputs),
        colors=colors or colors_beside(path, outputs) or palette(config, outputs),
        temperature=temperature_beside(path),
    )


def _as_published(model: str) -> Config:
    """The configuration of a network as it was published: data set, image size, classes."""
    from .. import build

    facts = build.facts(model)
    dataset = "cifar10" if facts.input_size == 32 else "imagenet"
    return Config(
        model=model, task=facts.task, dataset=dataset, image_resize=facts.input_size, num_classes=facts.num_classes
    )


def _named(names: Sequence[str], outputs: int, path: Path) -> tuple[str, ...]:
    """A name for each output: those that are known, then numbers, which are no names.

    Raises UserError where there are more names than outputs.
    """
    if len(names) > outputs:
        raise UserError(
            f"{RunFiles.beside(path).classes}: {len(names)} names, but the network has {outputs} outputs; give "
            "--class_names FILE, or restore the one that training wrote"
        )
    taken = set(names)
    numbers = ((str(label), f"#{label}") for label in range(len(names), outputs))
    return (*names, *(marked if plain in taken else plain for plain, marked in numbers))


def _of_exported(
    path: Path, values: Mapping[str, Any], where: Mapping[str, str], class_names: Path | None
) -> Deployment:
    """What an exported file says, and nothing that contradicts it."""
    graph = formats.read(path)
    description = description_of(path, graph)
    found = of_description(path, description)
    _check_graph(found, graph)
    formats.of(path).check_bound(path, description)
    settled(values, where, _said(found))
    given = _given(class_names, found.config)
    if given is None:
        return found
    if given.colors and len(given.colors) == len(found.classes):
        found = replace(found, colors=tuple(given.colors))
    if tuple(given.names) == found.classes:
        return found
    # Numbers stand for names that were not known when it was exported.
    if len(given.names) == len(found.classes) and are_numbers(found.classes):
        return replace(found, classes=tuple(given.names), numbered=False)
    raise UserError(f"--class_names: {path} has the names of its {len(found.classes)} classes; leave the flag out")


def _check_graph(found: Deployment, graph: formats.Graph) -> None:
    """Raise UserError where a file is not what its description says: before it runs."""
    outputs, names = 1, ["image", "logits"]
    shapes = [*found.graph_shapes]
    if found.embedding is not None:
        outputs = 2
        names.append(EMBEDDING)
        shapes.append((found.batch, found.embedding))
    if (len(graph.inputs), len(graph.outputs)) != (1, outputs):
        expected = "one each" if outputs == 1 else f"one, and {outputs}"
        raise UserError(
            f"{found.path}: its graph has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, expected "
            f"{expected}; {AGAIN}"
        )
    ends = (*graph.inputs, *graph.outputs)
    steps = [*(found.steps or ()), None, None, None][: len(ends)]
    for word, end, shape, step in zip(("takes", "gives", "gives")[: len(ends)], ends, shapes, steps, strict=True):
        # What a graph leaves open is seen when it runs; but the batch that it takes is open in both or in none.
        rigid = word == "takes"
        sizes = shape if end.shape is None else end.shape
        fits = len(sizes) == len(shape) and all(
            size == wanted or (size is None and not (rigid and index == 0))
            for index, (size, wanted) in enumerate(zip(sizes, shape, strict=True))
        )
        if end.kind != found.kind or not fits:
            raise UserError(
                f"{found.path}: its graph {word} {end.kind} {_by_x(sizes)}, but its description says {found.kind} "
                f"{_by_x(shape)}; {AGAIN}"
            )
        if end.step != step:
            raise UserError(f"{found.path}: its graph {word} int8 of another scale than its description says; {AGAIN}")
    if formats.of(found.path).has_names and [end.name for end in ends] != names:
        *said, last = (repr(end.name[:60]) for end in ends)
        raise UserError(
            f"{found.path}: its graph names {', '.join(said)} and {last}, not {', '.join(names[:-1])} and {names[-1]}"
        )


def _by_x(shape: Sequence[int | None]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape)


def _said(found: Deployment) -> Said:
    """What an exported file fixes."""
    own = {key: getattr(found.config, key) for key in (*KEYS, "task")}
    values = {**own, **others(found.config), **_NO_CHOICE}
    free = {"image_resize"} if found.free_size else set()
    return Said(values, {}, {key: value for key, value in values.items() if key not in free}, found.path)


def agreed(config: Config, found: Deployment) -> Config:
    """A configuration, if it says what an exported file says. Raises UserError, which names the key, otherwise."""
    said = _said(found)
    same = settled({key: getattr(config, key) for key in Config.model_fields}, {}, said)
    return config.replace(**{key: getattr(same, key) for key in said.fixed})


def said(ckpt_path: str, with_recipe: bool, with_model: bool = False) -> Said:
    """What the file of `ckpt_path` and what is beside it say, for `config.load(weights=...)`.

    Of weights it is what training saved, where no recipe is given. Of an exported file the network and its input are
    those of the file, whatever a recipe says; where its images are and all else is what the run's `config.yaml` says,
    if one is beside the file and no recipe is given. Weights with nothing beside them, published ones too, need no
    recipe where the network is given by its name (`with_model`): the rest is then the defaults.

    Raises UserError as `of_file` and `runs.files.saved_by_training`.
    """
    path = Path(ckpt_path)
    formats.check_named(path)
    if not formats.is_exported(path):
        alone = with_model and not (ckpt_path and paths.exists(RunFiles.beside(path).config))
        return Said() if with_recipe or alone else saved_by_training(ckpt_path)
    own = _said(of_file(path))
    if with_recipe or not paths.exists(RunFiles.beside(path).config):
        return own
    beside = said_beside(path)
    where = {key: place for key, place in beside.where.items() if key not in own.fixed}
    return own._replace(values={**beside.values, **own.values}, where=where)


def description_of(path: Path, graph: formats.Graph | None = None) -> dict[str, Any]:
    """The description that an exported file carries; where it carries none, that in the `.json` beside it.

    `graph` is what is in the file, where it was read before.
    """
    graph = graph or formats.read(path)
    if graph.description is not None:
        source, found = path, json_text.parse(graph.description, f"{path}: its description", AGAIN)
    else:
        source = formats.of(path).description_beside(path)
        if not paths.exists(source):
            raise UserError(
                f"{path}: carries no description of its classes and preprocessing, and {source.name} is not beside it; "
                "use a file that `mindghost export` wrote"
            )
        found = json_text.read(source, AGAIN)
    if not isinstance(found, dict):
        raise UserError(f"{source}: its description is not a JSON object; {AGAIN}")
    return found
