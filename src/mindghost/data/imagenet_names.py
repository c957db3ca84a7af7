"""The words of ImageNet's classes: `n01440764` is shown as `tench`.

What a class is called in files and folders, its identity, stays the synset's id.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_TABLE = Path(__file__).with_name("imagenet_synsets.txt")


@functools.cache
def _words() -> dict[str, str]:
    """Synset id -> what it is shown as, in label order.

    It is WordNet's first lemma. Those that two synsets have, upper and lower case aside, are followed by the id: the
    bird is `crane (n02012849)`, the machine `crane (n03126707)`.
    """
    lines = [line for line in _TABLE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    lemmas = dict(line.split(" ", 1) for line in lines)
    times = Counter(map(str.lower, lemmas.values()))
    return {synset: f"{word} ({synset})" if times[word.lower()] > 1 else word for synset, word in lemmas.items()}


def synsets() -> tuple[str, ...]:
    """The ids of the 1,000 classes, in label order."""
    return tuple(_words())


def synset_of(name: str) -> str | None:
    """The id of the class that is called so: by its id, or by its words; None for others."""
    if name in _words():
        return name
    return next((synset for synset, words in _words().items() if words == name), None)


def shown_as(classes: Sequence[str]) -> list[str]:
    """The names of classes as people read them: words for the ids of ImageNet's classes, others as they are.

    Where words are another class's name, the id stands beside them, so that no two are alike.
    """
    known = _words()
    taken = set(classes)
    return [
        name if name not in known else f"{known[name]} ({name})" if known[name] in taken else known[name]
        for name in classes
    ]
