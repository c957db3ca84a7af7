"""Mixup and cutmix: hand-computed values, and mindcv's for the same draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mindcv.data.mixup import Mixup

from mindghost.data import mix
from tests.helpers.draws import Scripted, batch, rng


def test_blend_and_labels_by_hand():
    images = np.array([10.0, 20.0, 30.0], np.float32).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(mix.blend(images, 0.75).ravel(), [15, 20, 25])
    labels = mix.soft_labels(np.array([0, 1, 2]), 3, 0.75)
    np.testing.assert_allclose(labels, [[0.75, 0, 0.25], [0, 1, 0], [0.25, 0, 0.75]])


def test_pasted_box_by_hand():
    images = np.stack([np.full((1, 4, 5), value, np.float32) for value in (1, 2)])
    mixed, lam = mix.paste_box(images, (slice(1, 3), slice(2, 5)))
    assert lam == pytest.approx(1 - 6 / 20)
    assert mixed[0].sum() == 14 * 1 + 6 * 2
    assert (mixed[0, 0, 1:3, 2:] == 2).all()
    assert (images[0] == 1).all()


def test_cut_box_is_clipped_at_the_borders():
    for seed in range(100):
        rows, columns = mix.cut_box(10, 12, 0.3, rng(seed))
        assert 0 <= rows.start < rows.stop <= 10
        assert 0 <= columns.start < columns.stop <= 12
        assert rows.stop - rows.start <= int(10 * math.sqrt(0.7))


def test_cut_box_by_hand():
    """A quarter of the area: half of each side, 5 and 6; whole steps of 2 and 3 to both sides of the centre."""
    scripted = Scripted(4, 11)
    assert mix.cut_box(10, 12, 0.75, scripted) == (slice(2, 6), slice(8, 12))
    assert scripted.asked == [("integers", 10), ("integers", 12)]
    assert mix.cut_box(10, 12, 0.75, Scripted(0, 1)) == (slice(0, 2), slice(0, 4))
    assert mix.cut_box(10, 12, 0.75, Scripted(9, 6)) == (slice(7, 10), slice(3, 9))


@pytest.mark.parametrize(
    ("mixup", "cutmix", "draws", "asked"),
    [
        (0.2, 0.0, [0.1, 0.5], ["random", "beta 0.2"]),
        (0.0, 1.0, [0.1, 0.5, 3, 3], ["random", "beta 1.0", "integers", "integers"]),
        (0.2, 1.0, [0.1, 0.49, 0.5, 3, 3], ["random", "random", "beta 1.0", "integers", "integers"]),
        (0.2, 1.0, [0.1, 0.5, 0.5], ["random", "random", "beta 0.2"]),
        (0.2, 1.0, [0.6], ["random"]),
    ],
)
def test_mixing_draws_from_the_distribution_that_is_on(mixup, cutmix, draws, asked):
    scripted = Scripted(*draws)
    mix.mix_batch(*batch(4), scripted, num_classes=4, mixup=mixup, cutmix=cutmix, probability=0.6)
    assert not scripted.draws
    found = [f"{name} {given[0]}" if name == "beta" else name for name, *given in scripted.asked]
    assert found == asked
    assert all(given[0] == given[1] for name, *given in scripted.asked if name == "beta")


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0)])
def test_mixing_equals_mindcv_for_the_same_draws(monkeypatch, mixup, cutmix):
    images, labels = batch(6)
    draws = rng(5)
    assert draws.random() < 1.0  # mix at all
    lam = float(draws.beta(mixup or cutmix, mixup or cutmix))
    centres = iter([int(draws.integers(10)), int(draws.integers(12))])
    theirs = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=4)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (lam, cutmix > 0))
    monkeypatch.setattr(np.random, "randint", lambda *args, **kwargs: next(centres))
    wanted_images, wanted_labels = theirs(images.copy(), labels)
    keys = {"num_classes": 4, "mixup": mixup, "cutmix": cutmix, "probability": 1.0}
    found_images, found_labels = mix.mix_batch(images, labels, rng(5), **keys)
    np.testing.assert_allclose(found_images, wanted_images, atol=1e-6)
    np.testing.assert_allclose(found_labels, wanted_labels, atol=1e-6)
    assert found_images.dtype == found_labels.dtype == np.float32


def test_both_on_switches_between_them():
    images, labels = batch(5)
    keys = {"num_classes": 4, "mixup": 1.0, "cutmix": 1.0, "probability": 1.0}
    pasted = 0
    for seed in range(100):
        mixed, soft = mix.mix_batch(images, labels, rng(seed), **keys)
        pasted += np.isin(mixed[0], [images[0], images[4]]).all()
        np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    assert 30 < pasted < 70


def test_probability_leaves_batches_unmixed():
    images, labels = batch(3)
    keys = {"num_classes": 4, "mixup": 1.0, "cutmix": 0.0, "probability": 0.4}
    mixed = [mix.mix_batch(images, labels, rng(seed), **keys) for seed in range(200)]
    untouched = [soft for found, soft in mixed if found is images]
    assert 90 < len(untouched) < 150
    np.testing.assert_array_equal(untouched[0], np.eye(4)[labels])


def test_weights_are_mixed_with_the_labels():
    """By hand: a mix counts as its two parts do, and its label is their weighted mean."""
    labels, weights = np.array([0, 1]), np.array([3.0, 1.0], np.float32)
    rows, mixed = mix.soft_weighted(labels, 2, 0.75, weights)
    np.testing.assert_allclose(mixed, [0.75 * 3 + 0.25 * 1, 0.75 * 1 + 0.25 * 3])
    np.testing.assert_allclose(rows, [[2.25 / 2.5, 0.25 / 2.5], [0.75 / 1.5, 0.75 / 1.5]])
    equal, ones = mix.soft_weighted(labels, 2, 0.75, np.ones(2, np.float32))
    np.testing.assert_array_equal(equal, mix.soft_labels(labels, 2, 0.75))
    np.testing.assert_array_equal(ones, [1, 1])


def test_several_labels_are_mixed_as_they_are():
    labels = np.array([[1, 1, 0], [0, 0, 1]], np.float32)
    np.testing.assert_allclose(mix.soft_labels(labels, 3, 0.75), [[0.75, 0.75, 0.25], [0.25, 0.25, 0.75]])
