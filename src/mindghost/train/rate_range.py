"""What a learning-rate range test has seen: the losses by rate, the rate that they suggest, a table and a picture.

Needs no MindSpore.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import RunError
from ..files import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADING = "update,learning_rate,lr,loss,smoothed_loss"
INCHES, DPI = (8, 5), 120
# Share of the smoothed loss that stays from one update to the next.
SMOOTHING = 0.9
# The test is over where the smoothed loss is this many times the lowest one, or has risen again by this share of its
# fall: what falls after that is the loss of a network that was destroyed.
_TIMES_LOWEST, _SHARE_OF_FALL = 4.0, 0.75
# A fall that is no noise, in standard deviations of the smoothed loss.
_NO_NOISE = 3.0
_A_LITTLE = 0.01  # of the loss at the start
# A fall after which a rise means that the network is lost, as a share of the loss at the start: from batch to batch
# the loss of a network that learns little moves by less.
_LEARNT = 0.1
# Updates that make the start; and the factor on the lowest rate before which no fall is taken for the real one.
_START, _TOO_EARLY = 10, 100


@dataclass(frozen=True)
class RangeTest:
    """What a range test has seen.

    Attributes:
        rates: learning rate of each update.
        losses: training loss of each, over all ranks.
        batch: images of all ranks in an update.
        factor: what `lr` is multiplied by to give the rate (`lr_reference_batch`).
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    batch: int
    factor: float

    @property
    def start(self) -> float:
        """The loss at the lowest rates, where it does not change yet."""
        return self.smoothed[min(len(self.losses), _START) - 1]

    @property
    def exploded(self) -> bool:
        """Whether the last loss is no number, or the smoothed one so high that the network is lost."""
        smoothed = self.smoothed
        lowest, last = smoothed[self.lowest], smoothed[-1]
        if not math.isfinite(last):
            return True
        if len(smoothed) <= _START:
            return False
        if last > _TIMES_LOWEST * lowest:
            return True
        if self.rates[-1] < _TOO_EARLY * self.rates[0]:
            return False
        fall, rise = self.start - lowest, last - lowest
        return fall > max(_LEARNT * abs(self.start), self.noise) and rise > max(_SHARE_OF_FALL * fall, self.noise)

    @property
    def lowest(self) -> int:
        """Index of the update with the lowest smoothed loss, after the start."""
        smoothed = self.smoothed
        return min(range(min(_START, len(smoothed)) - 1, len(smoothed)), key=smoothed.__getitem__)

    @property
    def noise(self) -> float:
        """What the smoothed loss may differ by without a reason: by how the losses scatter around it, or a little."""
        pairs = zip(self.losses, self.smoothed, strict=True)
        # By the median, which does not see the few losses where it falls or explodes; of a normal distribution.
        scatter = statistics.median(abs(loss - mean) for loss, mean in pairs) / 0.6745
        return max(_NO_NOISE * scatter * math.sqrt((1 - SMOOTHING) / (1 + SMOOTHING)), _A_LITTLE * abs(self.start))

    def cut(self) -> RangeTest:
        """The same without losses that are no numbers, which can be the last one only. Raises RunError for no other."""
        count = sum(map(math.isfinite, self.losses))
        if count == 0:
            raise RunError(f"the loss is {self.losses[0]} at the lowest rate, {self.rates[0]:g}; give a lower --lowest")
        return replace(self, rates=self.rates[:count], losses=self.losses[:count])

    @property
    def smoothed(self) -> list[float]:
        """The running mean of the losses, without the pull of its start."""
        found, mean = [], 0.0
        for count, loss in enumerate(self.losses, 1):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            found.append(mean / (1 - SMOOTHING**count))
        return found

    def suggestion(self) -> float | None:
        """The rate at which half of the smoothed loss's fall, from the start to its lowest, is done; to two digits.

        None where it does not fall.
        """
        smoothed, lowest = self.smoothed, self.lowest
        if self.start - smoothed[lowest] <= self.noise:
            return None
        half = (self.start + smoothed[lowest]) / 2
        above = max(update for update in range(lowest) if smoothed[update] > half)
        return float(f"{self.rates[above]:.2g}")


def geometric(lowest: float, highest: float, steps: int) -> list[float]:
    """So many numbers from `lowest` to `highest`, each the same multiple of the one before."""
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def table(test: RangeTest) -> str:
    """Comma-separated values, one line an update; `lr` is the value of the key that gives the rate."""
    rows = zip(test.rates, test.losses, test.smoothed, strict=True)
    lines = [
        f"{update},{rate:.9g},{rate / test.factor:.9g},{loss:.9g},{smoothed:.9g}"
        for update, (rate, loss, smoothed) in enumerate(rows, 1)
    ]
    return "\n".join([HEADING, *lines]) + "\n"


def picture(test: RangeTest) -> bytes:
    """The losses over the rates, as a PNG file. Raises ImportError where matplotlib is missing."""
    return figures.png(lambda: _draw(test))


def _draw(test: RangeTest) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(INCHES, DPI, layout="constrained")
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, color="0.75", linewidth=1, label="loss")
    axes.plot(test.rates, test.smoothed, linewidth=1.8, label="smoothed")
    if suggestion := test.suggestion():
        axes.axvline(suggestion, color="tab:orange", linestyle="--", label=f"suggestion {suggestion:g}")
    axes.set_xscale("log")
    # matplotlib's own labels are formulas, which our figures do not parse.
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    # A loss that explodes would leave nothing to be seen of the rest.
    low, high = min(test.smoothed), max(test.smoothed[:_START])
    axes.set_ylim(low - 0.2 * (high - low) - 1e-9, high + 0.6 * (high - low) + 1e-9)
    axes.set_xlabel(f"learning rate, {test.batch} images an update")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
