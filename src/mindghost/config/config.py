"""The configuration of one run: values of all keys, and how they came.

It is made of defaults, then a YAML recipe, then the command line (`loading.load`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr, ValidationError

from . import conflicts, doubts, problems, proportion, yaml_file
from .keys import AUTO_KEYS, Keys, grouped
from .problems import ConfigError


@dataclass(frozen=True)
class _Origin:
    """Where a configuration comes from; equal ones may come from different files and command lines."""

    recipe: str = field(default="", compare=False)
    given: frozenset[str] = field(default=frozenset(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


class Config(Keys):
    """All settings of one run: frozen, every value checked, lists as tuples.

    Raises:
        UserError: an unknown key, or a value of the wrong type, out of range or at odds with another.
    """

    _origin: _Origin = PrivateAttr(default_factory=lambda: _Origin())

    @property
    def recipe(self) -> str:
        """The file that `-c` named; empty where none was."""
        return self._origin.recipe

    @property
    def given(self) -> frozenset[str]:
        """The keys that recipe, command line, caller, or files beside weights named; the others are open."""
        return self._origin.given

    @property
    def open(self) -> list[str]:
        """The keys that `auto` has still to settle."""
        if not self.auto:
            return []
        found = [key for key in AUTO_KEYS if key not in self.given]
        if "epoch_size" in found:
            found += [key for key in proportion.KEYS if key not in self.given]
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each thing that loading worked out; for the caller to log."""
        return self._origin.notes

    def __init__(self, /, **keys: Any) -> None:
        try:
            super().__init__(**keys)
        except ValidationError as error:
            raise problems.translate(error, keys, Config.model_fields) from None
        if found := list(conflicts.conflicts(self)):
            raise ConfigError(found[0], len(found) - 1)
        self._origin = _Origin(given=frozenset(keys))

    @classmethod
    def from_file(cls, path: str | Path) -> Config:
        """Defaults overridden by the YAML file at `path`; UserError names the file and the line."""
        return cls.located(*yaml_file.recipe(Path(path)))

    @classmethod
    def located(cls, values: Mapping[str, Any], where: Mapping[str, str]) -> Config:
        """`Config(**values)`; an error says where the value came from, by what `where` has to stand before the key."""
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(error.problem, error.more, where) from None

    def of_recipe(self, recipe: str, given: Iterable[str], notes: Iterable[str]) -> Config:
        """An equal configuration that remembers the file that `-c` named, and how the others of its values came."""
        config = self.replace()
        config._origin = _Origin(recipe, frozenset(given), tuple(notes))
        return config

    def replace(self, **changes: Any) -> Config:
        """A copy with other values for some keys, checked like any other; UserError as for the class."""
        changed = Config(**{**dict(self), **changes})
        origin = self._origin
        changed._origin = _Origin(origin.recipe, origin.given | set(changes), origin.notes)
        return changed

    def of_folder(self, data_dir: str | Path) -> Config:
        """The same for images in another folder: lists, which name those of the first one, are left behind."""
        return self.replace(data_dir=str(data_dir), train_list="", val_list="", exclude_list="")

    def to_yaml(self) -> str:
        """Every key, grouped, in a stable order; reading the text back gives an equal configuration.

        A key that `auto` has still to settle is a comment.
        """
        groups = [
            "\n".join([f"# {title}", *(self._line(key, key in self.open) for key in keys)])
            for title, keys in grouped().items()
        ]
        return "\n\n".join(groups) + "\n"

    def _line(self, key: str, is_open: bool) -> str:
        return f"# {key}: settled when the run starts" if is_open else f"{key}: {yaml_file.dump(getattr(self, key))}"

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every key with its default."""
        return {key: field.default for key, field in cls.model_fields.items()}

    @classmethod
    def default(cls, key: str) -> Any:
        """The default of a key."""
        return cls.model_fields[key].default

    def check_new_run(self) -> None:
        """Raise UserError for settings that work, but that nobody means, before a training that starts with them.

        Nothing can be said before `auto` has settled what is open.
        """
        if not self.open:
            self._refuse(doubts.refused(self))

    def check_evaluation(self) -> None:
        """Raise UserError for sizes of images that no machine has room for."""
        self._refuse(doubts.too_large(self))

    @staticmethod
    def _refuse(problems: Iterable[problems.Problem]) -> None:
        if found := list(problems):
            raise ConfigError(found[0], len(found) - 1)

    def warnings(self, training: bool = True) -> list[str]:
        """One line for each setting that works but hardly does what was meant; for the caller to log.

        Without `training`, of those alone that matter to an evaluation.
        """
        return doubts.warnings(self) if training else doubts.of_evaluation(self)
