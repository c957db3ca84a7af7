"""What labels mean: a package for each kind of task. Everything else asks the task of its configuration."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..config import Config
from ..errors import UserError

if TYPE_CHECKING:
    from .task import Task

# Value of the key `task` -> the module whose TASK it is, imported when it is asked for: it imports MindSpore.
MODULES = {
    "classification": "mindghost.tasks.classification.task",
    "multi_label": "mindghost.tasks.multi_label.task",
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
    packages = [importlib.import_module(module.rpartition(".")[0]) for module in MODULES.values()]
    return {key: (title, package.AXIS) for package in packages for key, title in package.TITLES.items()}
