"""What the outputs of published weights mean, which have no names beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..config import Config
from ..data.imagenet import names as imagenet_names
from ..files import paths


def classes(config: Config) -> list[str] | None:
    """The classes of the weights of a configuration where MindCV publishes them for ImageNet; None for any others.

    The file tells by its sha256: weights of anybody else, of 1,000 other classes perhaps, are never given these names.
    Raises UserError where it cannot be read.
    """
    # Not at the top: it imports MindSpore, for which no command line waits.
    from .. import build

    found, names = build.facts(config.model), imagenet_names.synsets()
    if found.num_classes != len(names) or config.num_classes not in (None, len(names)):
        return None
    if not config.ckpt_path:
        return list(names) if config.pretrained else None
    digest = hashlib.sha256(paths.read(Path(config.ckpt_path), "give the path of a weight file")).hexdigest()
    return list(names) if any(digest.startswith(weights.sha256) for weights in found.weights.values()) else None
