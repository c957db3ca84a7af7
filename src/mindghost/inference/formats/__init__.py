"""Formats of exported files, by the suffix of the file that is named. Their files are not trusted.

Each is compared with its sha256 beside it where there is one.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError
from ...files import paths
from .base import ENTRY, End, Format, Graph, Network, Step
from .litert_file import LITERT
from .mindir_file import MINDIR
from .ncnn_file import NCNN
from .onnx_file import ONNX
from .openvino_file import OPENVINO

__all__ = [
    "ENTRY",
    "FORMATS",
    "KINDS",
    "NAMES",
    "End",
    "Format",
    "Graph",
    "Network",
    "Step",
    "check_named",
    "is_exported",
    "of",
    "read",
]

# Files that a network can be opened from, in words.
KINDS = ".ckpt, .safetensors, .onnx, .mindir, .xml (OpenVINO), .tflite (LiteRT) or .param (ncnn)"
FORMATS: dict[str, Format] = {each.suffix: each for each in (MINDIR, ONNX, OPENVINO, LITERT, NCNN)}

# As `mindghost export --format` has them.
NAMES = tuple(form.name for form in FORMATS.values())


def is_exported(path: str | Path) -> bool:
    """Whether a file's name says that it is an exported one."""
    return Path(path).suffix.lower() in FORMATS


def check_named(path: Path) -> None:
    """Raise UserError for a file that lies beside the one that is to be named, such as `STEM.bin`."""
    for form in FORMATS.values():
        if path.suffix.lower() in form.others and paths.is_file(named := path.with_suffix(form.suffix)):
            raise UserError(f"{path}: holds the weights of {named.name}; give {named}")


def of(path: Path) -> Format:
    """The format of an exported file."""
    return FORMATS[path.suffix.lower()]


def read(path: Path) -> Graph:
    """What is in an exported file. Raises UserError where it is damaged, or a library is missing."""
    try:
        return of(path).read(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged: a text in it is no UTF-8; export it again") from error
