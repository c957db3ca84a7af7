"""Counts against values computed by hand, whatever the batch size."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from ghostnet.evaluate import Counts, mirrored, of_cell, outcomes


def counted(logits, labels):
    counts = Counts()
    counts.add(np.array(logits, np.float32), np.array(labels))
    return counts.outcomes().metrics()


def test_by_hand():
    metrics = counted([[2, 1, 0], [0, 3, 1], [1, 0, 0], [0, 0, 5]], [0, 1, 1, 2])
    assert metrics.top_1 == 75
    assert metrics.top_5 is None
    assert metrics.num_samples == 4
    rows = [(2, [2, 1, 0]), (3, [0, 3, 1]), (0, [1, 0, 0]), (5, [0, 0, 5])]
    expected = np.mean([np.log(np.exp(row).sum()) - true for true, row in rows])
    assert metrics.loss == pytest.approx(expected, rel=1e-12)


def test_top_5_and_ties():
    """Equal logits: the lower index is ahead, as a stable sort has it."""
    metrics = counted([[0] * 6] * 6, [0, 1, 2, 3, 4, 5])
    assert metrics.top_1 == pytest.approx(100 / 6)
    assert metrics.top_5 == pytest.approx(500 / 6)


def test_five_classes_have_a_top_5_of_100():
    assert counted(np.eye(5), [1, 2, 3, 4, 0]).top_5 == 100


@pytest.mark.fault("NaN, infinity", "ok")
def test_nan_is_never_right():
    metrics = counted([[np.nan] * 6, [9, 0, 0, 0, 0, 0]], [0, 0])
    assert (metrics.top_1, metrics.top_5) == (50, 50)
    assert np.isnan(metrics.loss)


def test_large_logits_do_not_overflow():
    assert counted([[30000.0, 0.0]], [1]).loss == pytest.approx(30000)


class Mean(nn.Cell):
    """Logits that depend on the image alone."""

    def construct(self, x):
        return x.reshape(x.shape[0], -1)[:, :6]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 10, 64])
def test_every_sample_counts_once_at_any_batch_size(batch_size):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((10, 1, 3, 3)).astype(np.float32)
    labels = rng.integers(0, 6, 10).astype(np.int32)
    batches = [(images[i : i + batch_size], labels[i : i + batch_size]) for i in range(0, 10, batch_size)]
    found = outcomes(of_cell(Mean()), batches, batch_size).metrics()
    expected = counted(Mean()(Tensor(images)).asnumpy(), labels)
    assert (found.top_1, found.top_5, found.num_samples) == (expected.top_1, expected.top_5, 10)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)


def test_mirrored_by_hand():
    """Logits that are the first row's pixels: their means with those from the other end."""
    images = np.array([[[[1, 2, 6], [0, 0, 0]]], [[[3, 5, 8], [9, 9, 9]]]], np.float32)
    logits = mirrored(lambda batch: batch[:, 0, 0].copy())(images)
    np.testing.assert_array_equal(logits, [[3.5, 2, 3.5], [5.5, 5, 5.5]])


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="no sample"):
        Counts().outcomes().metrics()
