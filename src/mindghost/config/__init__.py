"""The configuration room: `Config`, `load`, what is taken of the files beside weights. It does not import MindSpore."""

from .keys import FREE_KEYS, Config, Said, load, recipe, said_beside, saved_by_training, settled

__all__ = ["FREE_KEYS", "Config", "Said", "load", "recipe", "said_beside", "saved_by_training", "settled"]
