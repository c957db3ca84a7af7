"""Classes that a layout calls otherwise than a network does, where it is certain which ones are meant."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from .imagenet import names as imagenet_names
from .samples import Samples

_logger = logging.getLogger("mindghost")


def called_as(samples: Samples, classes: Sequence[str], place: object) -> Samples:
    """The samples with their classes called as those of a network, which are `classes`; as they are where in doubt.

    Labels that are mere numbers count the network's classes. ImageNet's classes may be called by their words, or, all
    1,000 in their order, as other libraries call them.
    """
    if samples.numbered and not set(samples.classes) <= set(classes) and len(samples.classes) <= len(classes):
        _logger.info("%s: labels are numbers: they count the %d known classes", place, len(classes))
        return replace(samples, classes=tuple(classes[: len(samples.classes)]), numbered=False)
    if tuple(classes) != imagenet_names.synsets() or set(samples.classes) <= set(classes):
        return samples
    if imagenet_names.are_all(samples.classes):
        return replace(samples, classes=tuple(classes))
    known = [imagenet_names.synset_of(name) or name for name in samples.classes]
    return replace(samples, classes=tuple(known)) if len(set(known)) == len(known) else samples
