"""The words of ImageNet's classes: `n01440764` is shown as `tench`.

What a class is called in files and folders, its identity, stays the synset's id.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_ENOUGH = 0.95  # of the names that are to be the same
_TABLE = Path(__file__).with_name("synsets.txt")


@functools.cache
def _words() -> dict[str, str]:
    """Synset id -> what it is shown as, in label order.

    It is WordNet's first lemma. Those that two synsets have, upper and lower case aside, are followed by the id: the
    bird is `crane (n02012849)`, the machine `crane (n03126707)`.
    """
    lines = [line for line in _TABLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
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


def are_some(names: Sequence[str], outputs: int | None) -> bool:
    """Whether names are ids of ImageNet's classes, of a network that has as many outputs as there are."""
    return outputs == len(_words()) and set(names) <= set(_words())


def are_all(names: Sequence[str]) -> bool:
    """Whether names are those of the 1,000 classes in their order, as other libraries write them.

    `tench, Tinca tinca` and `great_white_shark` are theirs; that a few have other words than WordNet's is no matter.
    """
    words = [word.partition(" (")[0].lower() for word in _words().values()]
    if len(names) != len(words):
        return False
    firsts = [name.partition(",")[0].replace("_", " ").strip().lower() for name in names]
    return sum(first == word for first, word in zip(firsts, words, strict=True)) >= _ENOUGH * len(words)


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
