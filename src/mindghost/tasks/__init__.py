"""What labels mean: a package for each kind of task. Everything else asks the task of its configuration."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from ..config import Config
from ..errors import UserError

if TYPE_CHECKING:
    from .task import Task

# Value of the key `task` -> the module whose TASK it is, imported when it is asked for: it imports much.
MODULES = {
    "classification": "mindghost.tasks.classification.task",
    "multi_label": "mindghost.tasks.multi_label.task",
    "segmentation": "mindghost.tasks.segmentation.task",
}


def of(config: Config) -> Task:
    """The task of a configuration. Raises UserError where its key `task` names none."""
    if config.task not in MODULES:
        raise UserError(f"task: {config.task!r} is no task; give one of {', '.join(MODULES)}")
    return importlib.import_module(MODULES[config.task]).TASK


def score_titles() -> dict[str, tuple[str, str]]:
    """Entry of a record that is a task's score -> what it is called, and what its axis in a picture is called.

    For all tasks, without MindSpore.
    """
    return {key: (title, package.AXIS) for package in _packages().values() for key, title in package.TITLES.items()}


def doubts(config: Config) -> list[str]:
    """A line for each key that is given, but that only another task reads."""
    found = {name: getattr(package, "KEYS", ()) for name, package in _packages().items() if name != config.task}
    return [
        f"{key}: only task {name} reads it"
        for name, keys in found.items()
        for key in keys
        if key in config.given and getattr(config, key) != Config.default(key)
    ]


def _packages() -> dict[str, ModuleType]:
    """What says of each task, without MindSpore, what is known of it."""
    return {name: importlib.import_module(module.rpartition(".")[0]) for name, module in MODULES.items()}
