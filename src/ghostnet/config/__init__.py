"""The configuration room: `Config`, `FREE_KEYS`, `load`, `saved_by_training`. It does not import MindSpore."""

from ghostnet.config.keys import FREE_KEYS, Config, load, saved_by_training

__all__ = ["FREE_KEYS", "Config", "load", "saved_by_training"]
