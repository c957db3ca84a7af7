"""IoU, pixel accuracy and loss, against scikit-learn and hand computations; the same in any order and on any ranks."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from mindghost.config import Config
from mindghost.parallel.ranks import ALONE
from mindghost.tasks.segmentation import geometry, predictions
from mindghost.tasks.segmentation.metrics import Counts, judged
from tests.helpers.two_ranks import both

NAMES = ("sky", "road", "car", "tree", "boat")
RNG = np.random.default_rng(5)
SIZES = [(24, 32), (30, 32), (24, 41), (7, 9), (24, 32)]
OUTPUTS = RNG.normal(0, 2, (5, 5, 24, 32)).astype(np.float32)
# No pixel has the class boat; it is said of many.
MASKS = [RNG.integers(-1, 4, size).astype(np.int16) for size in SIZES]


def outcomes(order=range(5), ranks=ALONE, size=2):
    counts = Counts(NAMES)
    order = list(order)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        counts.add(OUTPUTS[chosen], [MASKS[index] for index in chosen])
    return counts.outcomes(ranks)


def all_pixels() -> tuple[np.ndarray, np.ndarray]:
    """True and predicted classes of all pixels that count."""
    true, found = [], []
    for outputs, mask in zip(OUTPUTS, MASKS, strict=True):
        own = geometry.brought_back(outputs, mask.shape)
        assert own.shape == (5, *mask.shape)
        true.append(mask[mask >= 0])
        found.append(own.argmax(0)[mask >= 0])
    return np.concatenate(true), np.concatenate(found)


def test_scikit_learn_counts_the_same():
    true, found = all_pixels()
    result = outcomes()
    assert result.confusion.dtype == np.int64
    np.testing.assert_array_equal(result.confusion, confusion_matrix(true, found, labels=range(5)))
    shares = jaccard_score(true, found, labels=range(5), average=None)
    metrics = result.metrics()
    assert list(metrics.iou) == list(NAMES)
    np.testing.assert_allclose(list(metrics.iou.values()), 100 * shares, rtol=1e-12)
    assert metrics.miou == pytest.approx(100 * shares.mean(), rel=1e-12)
    assert metrics.pixel_accuracy == pytest.approx(100 * (true == found).mean(), rel=1e-12)
    assert (metrics.num_samples, metrics.score) == (5, metrics.miou)
    assert metrics.iou["boat"] == 0


def test_the_loss_is_that_of_a_pixel():
    total, pixels = [], 0
    for outputs, mask in zip(OUTPUTS, MASKS, strict=True):
        logits = geometry.brought_back(outputs, mask.shape).astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(0))
        total += [-logs[label, row, column] for (row, column), label in np.ndenumerate(mask) if label >= 0]
        pixels += (mask >= 0).sum()
    assert outcomes().metrics().loss == pytest.approx(math.fsum(total) / pixels, rel=1e-6)


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_nothing_depends_on_order_or_batches(order, size):
    assert outcomes(order, size=size).metrics() == outcomes().metrics()
    found = outcomes(order, size=size).take(np.argsort(order))
    expected = outcomes()
    for name in ("correct", "pixels", "losses"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_two_ranks_find_what_one_finds():
    expected = outcomes().metrics()
    for found in both(lambda ranks: outcomes(([0, 1, 4], [2, 3])[ranks.rank], ranks)):
        assert found.metrics() == expected
    for found in both(lambda ranks: outcomes((range(5), [])[ranks.rank], ranks)):
        assert found.metrics() == expected


def test_large_images_are_judged_some_rows_at_a_time(monkeypatch):
    whole = [judged(outputs, mask) for outputs, mask in zip(OUTPUTS, MASKS, strict=True)]
    monkeypatch.setattr(geometry, "_AT_ONCE", 5 * 3 * 32)
    for expected, outputs, mask in zip(whole, OUTPUTS, MASKS, strict=True):
        found = judged(outputs, mask)
        np.testing.assert_array_equal(found.predicted, expected.predicted)
        np.testing.assert_array_equal(found.confusion, expected.confusion)
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)


def test_a_class_that_is_nowhere_does_not_count():
    """Two pixels of sky, one of them taken for road: 1 / 2 and 0 / 1, of two classes."""
    outputs = np.full((1, 3, 1, 3), -5, np.float32)
    outputs[0, [0, 1, 2], 0, [0, 1, 2]] = 5
    counts = Counts(("sky", "road", "car"))
    counts.add(outputs, [np.int16([[0, 0, -1]])])
    metrics = counts.outcomes().metrics()
    assert metrics.iou == {"sky": 50, "road": 0, "car": None}
    assert (metrics.miou, metrics.pixel_accuracy) == (25, 50)
    assert json.loads(json.dumps(metrics.result()))["iou"]["car"] is None


def test_a_class_that_is_ignored_has_no_iou():
    """Its pixels do not count, and those that were given it are wrong: 1 / 2 of the other class."""
    outputs = np.full((1, 2, 1, 4), -5, np.float32)
    outputs[0, [1, 0, 0, 1], 0, [0, 1, 2, 3]] = 5
    for ignored in (0, None):
        counts = Counts(("void", "road"), ignored)
        counts.add(outputs, [np.int16([[1, 1, -1, -1]])])
        found = counts.outcomes().take(np.arange(1)).metrics()
        assert found.iou == {"void": None if ignored == 0 else 0, "road": 50}
        assert (found.miou, found.pixel_accuracy) == (50 if ignored == 0 else 25, 50)


def test_equal_logits_give_the_lower_class():
    found = judged(np.zeros((3, 2, 2), np.float32), np.ones((2, 2), np.int16))
    assert found.confusion.tolist() == [[0, 0, 0], [4, 0, 0], [0, 0, 0]]
    assert found.loss == pytest.approx(4 * np.log(3))


def test_nothing_counts():
    counts = Counts(("a", "b"))
    with pytest.raises(ValueError, match="no sample was evaluated"):
        counts.outcomes().metrics()
    counts.add(np.zeros((1, 2, 3, 3), np.float32), [np.full((3, 3), -1, np.int16)])
    metrics = counts.outcomes().metrics()
    assert (metrics.miou, metrics.pixel_accuracy, metrics.loss, metrics.num_samples) == (0, 0, 0, 1)
    assert metrics.iou == {"a": None, "b": None}


def test_logits_that_are_no_numbers_show_in_the_loss():
    counts = Counts(("a", "b"))
    counts.add(np.full((1, 2, 3, 3), np.nan, np.float32), [np.zeros((3, 3), np.int16)])
    assert math.isnan(counts.outcomes().metrics().loss)


def test_300_classes():
    outputs = np.zeros((1, 300, 2, 2), np.float32)
    outputs[0, 299] = 1
    found = judged(outputs[0], np.int16([[299, 299], [0, -1]]))
    assert found.predicted.dtype == np.uint16
    assert (found.confusion[299, 299], found.confusion[0, 299]) == (2, 1)


def test_rows_of_predictions():
    rows = predictions.values(OUTPUTS, MASKS)
    assert list(rows) == ["pixels", "pixel_accuracy", "miou", "loss"]
    for index, mask in enumerate(MASKS):
        true = mask[mask >= 0]
        found = geometry.brought_back(OUTPUTS[index], mask.shape).argmax(0)[mask >= 0]
        assert rows["pixels"][index] == len(true)
        assert rows["pixel_accuracy"][index] == pytest.approx(100 * (true == found).mean())
        labels = np.union1d(true, found)
        assert rows["miou"][index] == pytest.approx(100 * jaccard_score(true, found, labels=labels, average="macro"))
        # Of a class that is ignored no pixel is true; where it was given, it has no IoU of its own.
        kept = mask != 1
        without = predictions.values(OUTPUTS[index : index + 1], [np.where(kept, mask, -1)], ignored=1)
        true, found = mask[(mask >= 0) & kept], geometry.brought_back(OUTPUTS[index], mask.shape).argmax(0)
        found = found[(mask >= 0) & kept]
        labels = np.setdiff1d(np.union1d(true, found), 1)
        assert without["miou"][0] == pytest.approx(100 * jaccard_score(true, found, labels=labels, average="macro"))
    empty = predictions.values(OUTPUTS[:1], [np.full((4, 4), -1, np.int16)])
    assert empty["pixels"][0] == 0
    assert np.isnan(empty["loss"][0])


def test_words():
    from mindghost import tasks

    task = tasks.of(Config(task="segmentation"))
    metrics = outcomes().metrics()
    record = task.record(metrics)
    assert list(record) == ["val_loss", "miou", "pixel_accuracy"]
    assert task.line(record)[1:] == [f"mIoU {metrics.miou:.2f} %", f"pixel accuracy {metrics.pixel_accuracy:.2f} %"]
    assert task.line(task.record(None)) == []
    assert tasks.score_titles()["miou"] == ("mIoU", "validation score (%)")


@pytest.mark.parametrize("classes", [5, 300])
@pytest.mark.parametrize("size", [(24, 32), (61, 32), (7, 90), (24, 64)])
@pytest.mark.parametrize("at_once", [1, 10_000, 1 << 22])
def test_predicted_masks_are_judged_ones(monkeypatch, classes, size, at_once):
    outputs = RNG.normal(0, 2, (classes, 24, 32)).astype(np.float32)
    monkeypatch.setattr(geometry, "_AT_ONCE", at_once)
    found = geometry.predicted(outputs, size)
    np.testing.assert_array_equal(found, judged(outputs, np.zeros(size, np.int16)).predicted)
    assert found.dtype == (np.uint8 if classes == 5 else np.uint16)
