"""The configuration room: `Config`, `load`, `saved_by_training`. Importing it does not import MindSpore."""

from ghostnet.config.keys import Config, load, saved_by_training

__all__ = ["Config", "load", "saved_by_training"]
