"""The recipes that come with this package, by name: where they are, and what `-c` means by a word."""

from __future__ import annotations

from pathlib import Path

from ..files import paths
from .wording import nearest

_PACKAGE = Path(__file__).parents[1]


def _folder() -> Path:
    """The recipes of an installed package, or of a checkout, where `configs` here is a link to those in its root.

    Whoever unpacks a checkout without links has the link's target all the same.
    """
    own = _PACKAGE / "configs"
    return paths.real(own) if paths.is_folder(own) else _PACKAGE.parents[1] / "configs"


def files() -> dict[str, Path]:
    """Name -> file of each recipe, by family and name. A name is that of the file without its ending."""
    return {path.stem: path for path in sorted(_folder().glob("*/*.yaml"))}


def find(text: str) -> Path:
    """The file that `-c TEXT` means: the one at that path, or else the recipe of that name; see `check`."""
    path = Path(text)
    if paths.is_folder(path) or not paths.exists(path):
        return files().get(text, path)
    return path


def check(path: Path, option: str) -> None:
    """Raise UserError, which names the `option`, unless there is a file that can be read."""
    known = files()
    remedy = "give a recipe: a file, or a name that `mindghost recipes` lists"
    if path.name == str(path) and not path.suffix and known:
        remedy += f"; the nearest is {nearest(str(path), known)}"
    paths.check_file(path, remedy, option)
