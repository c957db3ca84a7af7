"""The network of somebody's own file in PyTorch: `--torch_module FILE:FUNCTION`.

The file is run, which is why it is the user that names it. Its folder is on the path, for what lies beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .job import Job, answer
from .recipe import images_of


class Refused(Exception):
    """What is wrong with a file, in one line."""


def measure(job: Job) -> dict[str, Any]:
    """Whether the file can be measured: "refused" says why not. There is no other task."""
    try:
        check_logits(network(job).eval(), job)
    except Refused as error:
        return {"refused": " ".join(str(error).split())}
    return {}


def network(job: Job) -> nn.Module:
    """What the function of `job.torch_module` gives, called without arguments. Raises Refused where it is none."""
    file, _, name = job.torch_module.rpartition(":")
    module = _imported(Path(file))
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise Refused(f"{file}: has no function {name!r}; it has {', '.join(own) or 'none'}")
    try:
        made = function()
    except Exception as error:
        raise Refused(f"{file}: {name}(), called without arguments, fails: {_said(error)}") from error
    if not isinstance(made, nn.Module):
        raise Refused(f"{file}: {name}() gives {type(made).__name__!r}, and not a torch.nn.Module")
    return made


def check_logits(made: nn.Module, job: Job) -> None:
    """Raise Refused where a network does not give the logits of the job for an image."""
    image = torch.from_numpy(images_of(job)[:1])
    try:
        with torch.inference_mode():
            logits = made(image)
    except Exception as error:
        size = " x ".join(map(str, image.shape[1:]))
        raise Refused(f"{job.torch_module}: its network takes no images of {size}: {_said(error)}") from error
    if not isinstance(logits, torch.Tensor):
        raise Refused(f"{job.torch_module}: its network gives {type(logits).__name__!r}, and not a tensor of logits")
    wanted = (1, job.num_classes, *([job.image_size] * 2 if job.dense else ()))
    if tuple(logits.shape) != wanted:
        found, expected = (" x ".join(map(str, shape)) for shape in (logits.shape, wanted))
        remedy = "another function"
        if logits.ndim == len(wanted) and logits.shape[2:] == wanted[2:]:
            remedy = f"--num_classes {logits.shape[1]}"
        raise Refused(
            f"{job.torch_module}: its network gives {found} logits for an image, where {expected} are measured; "
            f"give {remedy}"
        )


def _imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise Refused(f"{file}: not a Python file; give one whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules[file.stem] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise Refused(f"{file}: cannot be imported: {_said(error)}") from error
    return module


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


if __name__ == "__main__":
    answer(measure)
