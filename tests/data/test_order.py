"""Balanced draws: every class equally often up to one, whatever else is on."""

from collections import Counter

import numpy as np
import pytest

from mindghost.config import Config
from mindghost.data.dataset import open_split
from mindghost.data.loader import train_batches
from mindghost.data.order import EpochOrder, balanced_draw
from mindghost.data.samples import ArraySamples
from mindghost.errors import UserError
from mindghost.tasks.classification import checks
from tests.helpers.data_folders import config_for, epochs, indices

# 90 of class 0, 25 of class 2, 5 of class 4, 3 of class 7; the others have none.
SIZES = {0: 90, 2: 25, 4: 5, 7: 3}
LABELS = np.random.default_rng(0).permutation(np.repeat(list(SIZES), list(SIZES.values()))).astype(np.int32)


def config(**keys) -> Config:
    return Config(**{"sampler": "balanced", "batch_size": 10, "drop_remainder": False, **keys})


@pytest.mark.parametrize("count", [123, 122, 4, 3, 1, 500])
def test_classes_differ_by_one_at_most_in_every_epoch(count):
    for epoch in range(9):
        drawn = balanced_draw(LABELS, count, 42, epoch)
        assert len(drawn) == count
        times = Counter(LABELS[drawn].tolist())
        found = [times[label] for label in SIZES]
        assert sum(found) == count
        assert max(found) - min(found) <= 1


def test_the_one_more_goes_round():
    """Over as many epochs as classes, all are drawn equally often."""
    drawn = np.concatenate([balanced_draw(LABELS, 6, 42, epoch) for epoch in range(4)])
    assert Counter(LABELS[drawn].tolist()) == dict.fromkeys(SIZES, 6)


def test_no_sample_comes_again_before_the_others_of_its_class():
    """Within an epoch, and over epochs."""
    seen: dict[int, list[int]] = {label: [] for label in SIZES}
    for epoch in range(12):
        for index in np.sort(balanced_draw(LABELS, 50, 42, epoch)).tolist():
            seen[int(LABELS[index])].append(index)
        for label, found in seen.items():
            times = Counter(found)
            full = [times[index] for index in np.flatnonzero(label == LABELS).tolist()]
            assert max(full) - min(full) <= 1, (epoch, label)
    assert len(seen[0]) > SIZES[0]


def test_it_is_a_function_of_seed_and_epoch():
    one, again, other, later = (balanced_draw(LABELS, 50, *given) for given in ((1, 7), (1, 7), (2, 7), (1, 8)))
    assert (one == again).all()
    assert (one != other).any()
    assert (one != later).any()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"drop_remainder": True},
        {"num_samples": 37},
        {"aug_repeats": 3},
        {"gradient_accumulation_steps": 2},
        {"batch_size": 7, "num_samples": 1000},
    ],
)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_over_ranks(keys, ranks):
    """As many as without it, all of one balanced draw, no copy twice."""
    settings = config(**keys)
    orders = [EpochOrder(settings, len(LABELS), rank, ranks, LABELS) for rank in range(ranks)]
    plain = EpochOrder(settings.replace(sampler=None), len(LABELS), 0, ranks)
    assert {len(order) for order in orders} == {len(plain)}
    assert {order.steps for order in orders} == {plain.steps}
    for epoch in range(3):
        found = [order.epoch(epoch) for order in orders]
        pairs = [pair for columns in found for pair in zip(*(column.tolist() for column in columns), strict=True)]
        assert len(set(pairs)) == len(pairs), "no copy may be augmented like another"
        repeats = settings.aug_repeats or 1
        # Copies of a draw count once; the last one may not have all of them.
        draws = {(index, copy // repeats) for index, copy in pairs}
        times = Counter(LABELS[[index for index, _ in draws]].tolist())
        assert max(times.values()) - min(times[label] for label in SIZES) <= 1
    one = EpochOrder(settings.replace(batch_size=settings.batch_size * ranks), len(LABELS), 0, 1, LABELS)
    if len(one) == ranks * len(plain) and repeats == 1:
        together = np.stack([columns[0] for columns in found], axis=1).ravel()
        np.testing.assert_array_equal(together, one.epoch(2)[0])


def test_batches(folder):
    """Of a real folder: classes equally often, and a run that goes on sees what it would have seen."""
    settings = config_for(folder, sampler="balanced", batch_size=6, hflip=0.5)
    samples = open_split(settings, "train")
    first, second = epochs(train_batches(settings, samples, 3), 2)
    seen = Counter(samples.labels[index] for image, _ in second for index in indices(image))
    assert set(seen.values()) == {6}
    (again,) = epochs(train_batches(settings, samples, 3, start_epoch=1))
    for one, other in zip(second, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert [indices(image) for image, _ in first] != [indices(image) for image, _ in second]


@pytest.mark.fault("labels", "clean error")
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"shuffle": False}, "^sampler: a balanced draw has a random order; set shuffle to True or sampler to None$"),
        ({"task": "multi_label"}, "^sampler: images with several labels cannot be drawn"),
        ({"sampler": "weighted"}, "^sampler: expected one of balanced or None, got 'weighted'$"),
    ],
)
def test_what_cannot_be_balanced(keys, message):
    with pytest.raises(UserError, match=message):
        config(**keys)


def test_a_line_says_what_is_drawn():
    pixels = np.zeros((len(LABELS), 2, 2, 3), np.uint8)
    samples = ArraySamples(tuple("abcdefgh"), LABELS, "made up", pixels)
    (line,) = checks.doubts(config(num_classes=8), samples)
    assert line == "sampler balanced: of 4 classes, each has some 31 images an epoch; the 3 of h come 10.2 times"


def test_balancing_twice_is_doubted():
    assert [line for line in config(class_weights="balanced").warnings() if "balances twice" in line]
    assert not [line for line in config().warnings() if "balances twice" in line]
