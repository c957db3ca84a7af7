"""The configuration room: `Config`, `load`, what is taken of the files beside weights. It does not import MindSpore."""

from . import proportion, recipes
from .config import Config
from .keys import AUTO_KEYS, FREE_KEYS, PLACE_KEYS
from .loading import Said, arguments_of, load, settled
from .yaml_file import recipe

__all__ = [
    "AUTO_KEYS",
    "FREE_KEYS",
    "PLACE_KEYS",
    "Config",
    "Said",
    "arguments_of",
    "load",
    "proportion",
    "recipe",
    "recipes",
    "settled",
]
