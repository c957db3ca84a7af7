"""What a range test's losses suggest, on curves whose answer is known."""

import csv
import io
import math

import numpy as np
import pytest

from mindghost.errors import RunError
from mindghost.train.rate_range import RangeTest, geometric, picture, table

RATES = geometric(1e-6, 10, 141)  # 20 a decade


def outcome(curve, noise: float = 0.0, factor: float = 1.0) -> RangeTest:
    """A test of losses by rate, that ends where it is over."""
    scatter = np.random.default_rng(0).normal(0, noise, len(RATES))
    losses = [curve(rate) + more for rate, more in zip(RATES, scatter, strict=True)]
    found = RangeTest((), (), 32, factor)
    for count in range(1, len(RATES) + 1):
        found = RangeTest(tuple(RATES[:count]), tuple(losses[:count]), 32, factor)
        if found.exploded:
            break
    return found.cut()


def falls_at(place: float, explodes: float, low: float = 0.5):
    """2.3 at low rates, `low` beyond `place`, and more and more beyond `explodes`."""
    return lambda rate: low + (2.3 - low) / (1 + (rate / place) ** 2) + (rate / explodes) ** 2


def test_rates_are_multiples_of_each_other():
    rates = geometric(1e-4, 1.0, 5)
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_the_smoothed_loss_by_hand():
    """0.1 x loss + 0.9 x the mean before, divided by the weight of all losses so far."""
    test = RangeTest((1, 2, 3), (1.0, 2.0, 4.0), 32, 1.0)
    second = (0.1 * 2 + 0.9 * 0.1) / (1 - 0.9**2)
    third = (0.1 * 4 + 0.9 * (0.1 * 2 + 0.9 * 0.1)) / (1 - 0.9**3)
    assert test.smoothed == pytest.approx([1.0, second, third])


@pytest.mark.parametrize("place", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_suggestion_lies_in_the_fall(place, noise):
    """Where half of it is done, a little later for the smoothing: the mean lags by nine updates."""
    found = outcome(falls_at(place, 100 * place), noise)
    assert place / 1.5 < found.suggestion() < 10 ** (9 / 20) * 2 * place
    assert found.suggestion() < found.rates[found.lowest]
    # It ends in the explosion, not at the highest rate.
    assert found.rates[-1] < 10
    assert found.smoothed[-1] > 2 * found.smoothed[found.lowest]


def test_what_falls_after_the_network_was_destroyed_does_not_count():
    """It rises by most of its fall; then a constant is learnt, with a lower loss than before."""
    found = outcome(lambda rate: 2.9 - 0.4 * (1e-3 < rate < 1e-2) + 0.4 * (1e-2 <= rate < 0.1) - 1.0 * (rate >= 0.1))
    assert 1e-3 <= found.suggestion() < 1e-2
    assert found.rates[-1] < 0.1


@pytest.mark.parametrize("curve", [lambda _: 2.3, lambda rate: 2.3 + rate], ids=["flat", "rising"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_without_a_fall_there_is_no_suggestion(curve, noise):
    assert outcome(curve, noise).suggestion() is None


def test_losses_that_are_no_numbers_end_it():
    found = outcome(lambda rate: math.inf if rate > 1e-3 else falls_at(1e-4, 1.0)(rate))
    assert found.rates[-1] <= 1e-3
    assert all(map(math.isfinite, found.losses))
    assert found.suggestion() is not None
    with pytest.raises(RunError, match=r"^the loss is nan at the lowest rate, 1e-06; give a lower --lowest$"):
        outcome(lambda _: math.nan)


def test_the_table_has_the_value_of_the_key():
    found = outcome(falls_at(1e-3, 0.1), factor=1 / 32)
    rows = list(csv.DictReader(io.StringIO(table(found))))
    assert len(rows) == len(found.rates)
    assert list(rows[0]) == ["update", "learning_rate", "lr", "loss", "smoothed_loss"]
    assert float(rows[4]["lr"]) == pytest.approx(32 * found.rates[4])
    assert (int(rows[4]["update"]), float(rows[4]["loss"])) == (5, pytest.approx(found.losses[4]))


def test_the_picture_is_one():
    pytest.importorskip("matplotlib")
    for curve in (falls_at(1e-3, 0.1), lambda _: 2.3):
        assert picture(outcome(curve)).startswith(b"\x89PNG")


def test_small_waves_before_the_fall_are_no_explosion():
    """From batch to batch the loss falls by 4 % and rises again: the network has learnt nothing that it could lose."""
    found = outcome(lambda rate: falls_at(0.3, 5.0)(rate) - 0.15 * (2e-4 < rate < 1e-3))
    assert found.rates[-1] > 1
    assert 0.1 < found.suggestion() < 1
