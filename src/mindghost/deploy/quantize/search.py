"""The int8 form that loses no more than it may, with as few layers in float as will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ...tasks.task import Metrics
from .quantizer import Quantizer
from .trial import Trial, Variant

_EPSILON = 1e-9  # points of the score: differences of counts are not exact


@dataclass(frozen=True)
class Goal:
    """What an int8 file has to keep.

    Attributes:
        max_drop: points of the score (top-1) that it may lose.
        max_float: percent of the layers that may stay in float for that.
        anyway: take the best that was reached where that is not enough.
    """

    max_drop: float = 0.5
    max_float: float = 50.0
    anyway: bool = False


def int8(network: Quantizer, trial: Trial, inputs: NDArray[Any], goal: Goal) -> Variant:
    """The int8 form that reaches the goal with the fewest layers in float; the most accurate one where none does."""
    source = trial.variants[0]
    forms = {mode: trial.add(f"int8 {mode}", network.int8(mode, network.layers)) for mode in network.modes}
    mode = max(forms, key=lambda mode: _merit(forms[mode], source))
    # One layer at least is in int8.
    limit = min(int(len(network.layers) * goal.max_float / 100), len(network.layers) - 1)
    if reaches(forms[mode], source, goal) or limit < 1:
        return forms[mode]
    ranked = network.costs(mode, inputs)
    found: dict[int, Variant] = {0: forms[mode]}

    def enough(count: int) -> bool:
        found[count] = trial.add(f"int8 {mode}", network.int8(mode, ranked[count:]), ranked[:count])
        return reaches(found[count], source, goal)

    count = fewest(enough, limit)
    return max(found.values(), key=lambda variant: _merit(variant, source)) if count is None else found[count]


def _merit(variant: Variant, source: Variant) -> tuple[float, float]:
    # Of two that are right as often, the one that is more like the float file.
    return variant.metrics.score, -abs(variant.metrics.loss - source.metrics.loss)


def reaches(variant: Variant, source: Variant, goal: Goal) -> bool:
    """Whether a variant loses no more of the score of `source` than it may."""
    return keeps(variant.metrics, source.metrics, goal.max_drop)


def keeps(metrics: Metrics, source: Metrics, max_drop: float) -> bool:
    """Whether a score is no more than some points below another one."""
    return source.score - metrics.score <= max_drop + _EPSILON


def fewest(enough: Callable[[int], bool], limit: int) -> int | None:
    """The least number from 1 to `limit` that is enough, by doubling and halving: numbers above one are too.

    Accuracy does not grow quite like that, so the number is enough, but a smaller one may be as well. None where no
    number that was tried is; `limit` is one of them.
    """
    low, high = 0, 1
    while high < limit and not enough(high):
        low, high = high, 2 * high
    if high >= limit:
        high = limit
        if limit <= low or not enough(limit):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
