"""What a weight file or an exported file is: network, classes and preprocessing, from the file or from beside it.

A checkpoint has the run's `config.yaml` and `classes.json` beside it. An exported file carries the same facts as JSON:
an ONNX file among its metadata, a MindIR file in its user info, both in `<stem>.json` beside them.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import intact_files
from .config import Config, saved_by_training
from .errors import UserError

# Endings of exported files.
EXPORTED = (".onnx", ".mindir")
# The entry of an exported file that holds its description.
ENTRY = "ghostnet"
# What of a configuration makes the network and its input.
_KEYS = (
    "model",
    "num_classes",
    "in_channels",
    "dataset",
    "image_resize",
    "crop_pct",
    "interpolation",
    "mean",
    "std",
)


@dataclass(frozen=True)
class Deployment:
    """A network with what belongs to it.

    Attributes:
        path: its weights, or the exported file.
        config: makes the network and its input; `num_classes` is settled.
        classes: names in label order, one for each of the network's outputs.
        batch: images that an exported file takes at once; None where it takes any number.
    """

    path: Path
    config: Config
    classes: tuple[str, ...]
    batch: int | None = None

    @property
    def exported(self) -> bool:
        """Whether the file is an exported one."""
        return is_exported(self.path)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the network gets."""
        from .data import transforms

        return (self.config.in_channels, *transforms.input_size(self.config))

    def describe(self) -> dict[str, Any]:
        """The description that exported files carry: `of_description` reads it, other programs may."""
        from .data import transforms

        config = self.config
        return {
            "model": config.model,
            "classes": list(self.classes),
            "input": {"name": "image", "type": "float32", "shape": [self.batch, *self.input_shape]},
            "output": {"name": "logits", "type": "float32", "shape": [self.batch, len(self.classes)]},
            "preprocessing": transforms.describe_evaluation(config),
            "config": {key: getattr(config, key) for key in _KEYS},
        }


def is_exported(path: str | Path) -> bool:
    """Whether a file's name says that it is an exported one."""
    return Path(path).suffix.lower() in EXPORTED


def add_arguments(parser: ArgumentParser, exported: bool = True) -> None:
    """Add what names a network on a command line; `of_arguments` reads it. `exported`: .onnx and .mindir are taken."""
    kinds = ".ckpt, .safetensors, .onnx or .mindir" if exported else ".ckpt or .safetensors"
    parser.add_argument("--ckpt_path", type=Path, required=True, metavar="P", help=f"{kinds} file")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="recipe, where no config.yaml is beside P")
    parser.add_argument("--model", default="", metavar="NAME", help="network of a checkpoint with nothing beside it")
    parser.add_argument("--class_names", type=Path, metavar="FILE", help="class names, one a line, or a JSON list")


def of_arguments(arguments: Namespace) -> Deployment:
    """What a command line names (see `of_file`)."""
    return of_file(arguments.ckpt_path, arguments.config, arguments.model, arguments.class_names)


def of_file(
    path: Path, config_file: Path | None = None, model: str = "", class_names: Path | None = None
) -> Deployment:
    """What a weight file or an exported file is.

    Args:
        path: .ckpt, .safetensors, .onnx or .mindir.
        config_file: recipe to take in place of the `config.yaml` beside weights.
        model: the network of weights that have neither (or are not those of the `config.yaml` beside them); the rest
            is then as it was published.
        class_names: file with the names, one a line or a JSON list, in place of those beside the weights.

    Raises UserError where the file is not there, or not known or described well enough.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .ckpt, .safetensors, .onnx or .mindir file")
    if is_exported(path):
        found = of_description(path, _description(path))
        if model and model != found.config.model:
            raise UserError(f"--model: {path} is {found.config.model}, not {model}; leave the flag out")
        if class_names is None:
            return found
        return Deployment(path, found.config, _named(_read_names(class_names), found.config.num_classes), found.batch)
    return _of_weights(path, config_file, model, class_names)


def _of_weights(path: Path, config_file: Path | None, model: str, class_names: Path | None) -> Deployment:
    from . import build

    beside = path.parent / "config.yaml"
    if config_file is None and beside.is_file() and model in ("", Config.from_file(beside).model):
        config_file = beside
    names = _read_names(class_names) if class_names else None
    if config_file is not None:
        config = Config.from_file(config_file)
        names = names or build.saved_classes(str(path))
    elif model:
        config = _as_published(model)
    else:
        raise UserError(f"{path}: no config.yaml beside it, so the network is not known; give --model NAME or -c FILE")
    # Of a network that is known by name only, the names say how many outputs it has.
    outputs = len(names) if names and (config_file is None or not config.num_classes) else config.num_classes
    if outputs is None:
        raise UserError(
            f"{config_file}: num_classes is open, and no classes.json is beside {path}; give --class_names FILE"
        )
    # What a run on another machine was told about its device says nothing about this one.
    config = config.replace(
        num_classes=outputs, ckpt_path=str(path), device_target=None, distribute=False, pretrained=False
    )
    return Deployment(path, config, _named(names or [], outputs))


def _as_published(model: str) -> Config:
    """The configuration of a network as it was published: data set, image size, classes."""
    from . import build

    facts = build.facts(model)
    dataset = "imagenet" if facts.num_classes == 1000 else "cifar10"
    return Config(model=model, dataset=dataset, image_resize=facts.input_size, num_classes=facts.num_classes)


def _named(names: Sequence[str], outputs: int) -> tuple[str, ...]:
    """A name for each output: those given, then numbers. Raises UserError where there are more names than outputs."""
    if len(names) > outputs:
        raise UserError(f"--class_names: {len(names)} names, but the network has {outputs} outputs; correct the list")
    return (*names, *(str(label) for label in range(len(names), outputs)))


def _read_names(path: Path) -> list[str]:
    """Class names in label order: a JSON list, or one name a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); --class_names takes a text file, one name a line"
        ) from error
    if not text.lstrip().startswith("["):
        names: Any = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        try:
            names = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error}); give a list of names, or one name a line") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of class names, or one name a line")
    return names


# --- Exported files


def of_description(path: Path, description: Mapping[str, Any]) -> Deployment:
    """The reverse of `describe`. Raises UserError, which names `path`, where something is missing or wrong."""
    try:
        keys = {key: tuple(v) if isinstance(v, list) else v for key, v in description["config"].items() if key in _KEYS}
        classes = tuple(map(str, description["classes"]))
        batch = description["input"]["shape"][0]
        config = Config(**keys, ckpt_path=str(path))
    except (KeyError, TypeError, IndexError, AttributeError, UserError) as error:
        raise UserError(
            f"{path}: its description does not fit ({type(error).__name__}: {error}); export it again with "
            "scripts/export.py"
        ) from error
    if len(classes) != config.num_classes:
        raise UserError(f"{path}: {len(classes)} class names for {config.num_classes} outputs; export it again")
    return Deployment(path, config, classes, batch)


def recipe(values: Mapping[str, Any]) -> Path | dict[str, Any]:
    """The configuration to validate `ckpt_path` with, for `config.load(default_config=...)`.

    Of weights it is the one that training saved. Of an exported file the network and its input are those of the file;
    where its images are and all else is what the run's `config.yaml` says, if one is beside the file. Raises UserError
    as `of_file` and `config.saved_by_training`.
    """
    path = Path(values.get("ckpt_path", ""))
    if not is_exported(path):
        return saved_by_training(values)
    own = of_file(path).config
    beside = path.parent / "config.yaml"
    base = dict(Config.from_file(beside)) if beside.is_file() else {}
    return {**base, **{key: getattr(own, key) for key in _KEYS}}


def _description(path: Path) -> dict[str, Any]:
    """The description that an exported file carries; where it carries none, that in the `.json` beside it."""
    text = _onnx_entry(path) if path.suffix.lower() == ".onnx" else _mindir_entry(path)
    source = path
    if text is None:
        source = path.with_suffix(".json")
        if not source.is_file():
            raise UserError(
                f"{path}: carries no description of its classes and preprocessing, and {source.name} is not beside it; "
                "use a file that scripts/export.py wrote"
            )
        text = source.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source}: its description is not JSON ({error}); export it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{source}: its description is not a JSON object; export it again")
    return found


def _onnx_entry(path: Path) -> str | None:
    return onnx_session(path).get_modelmeta().custom_metadata_map.get(ENTRY)


def _mindir_entry(path: Path) -> str | None:
    from google.protobuf.message import DecodeError
    from mindspore.train.mind_ir_pb2 import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(intact_files.read_intact(path))
    except DecodeError as error:
        raise UserError(f"{path}: not a MindIR file, or a damaged one ({error}); export it again") from error
    # A map, or with some versions of MindSpore and protobuf what a map is on disk: a list of keys and values.
    entries = model.user_info
    return ({entry.key: entry.value for entry in entries} if hasattr(entries, "add") else dict(entries)).get(ENTRY)


def onnx_session(path: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session for a file, on the CPU, with some threads (0: one a core).

    Raises UserError where the file or the library is not fit, or the file is not the one whose sha256 is beside it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: onnxruntime runs it ({error}); pip install -e .[export]") from error
    content = intact_files.read_intact(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # Its exceptions have no common class but this one.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: ONNX Runtime cannot load it ({reason}); export it again") from error
