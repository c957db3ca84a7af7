"""The nearest of all: as sorting all inner products in float64 gives them."""

import numpy as np
import pytest

from mindghost.search import exact
from mindghost.search import vectors as vectors_module
from tests.helpers.vectors import brute_force, recall, unit


@pytest.mark.parametrize("block", [1 << 24, 4 * 16 * 100, 4 * 16 * 7])
@pytest.mark.parametrize("count", [1, 10, 100])
def test_the_nearest_are_those_of_brute_force(block, count, monkeypatch):
    monkeypatch.setattr(vectors_module, "_BLOCK", block)
    found, queries = unit(500), unit(300, seed=1)
    scores, rows = exact.nearest(queries, found, count)
    assert scores.shape == rows.shape == (300, count)
    assert recall(rows, brute_force(queries, found, count)) == 1
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, found[rows]), atol=1e-6)


def test_of_equal_ones_the_earlier_comes_first(monkeypatch):
    monkeypatch.setattr(vectors_module, "_BLOCK", 4 * 4 * 3)
    found = np.tile(np.eye(4, dtype=np.float32)[:2], (5, 1))
    _, rows = exact.nearest(np.eye(4, dtype=np.float32)[:2], found, 6)
    assert rows[0].tolist() == [0, 2, 4, 6, 8, 1]
    assert rows[1].tolist() == [1, 3, 5, 7, 9, 0]


def test_halves_are_compared_as_they_are():
    found, queries = unit(400, 64).astype(np.float16), unit(20, 64, seed=1)
    _, rows = exact.nearest(queries, found, 10)
    assert recall(rows, brute_force(queries, found, 10)) == 1


def test_there_are_no_more_than_there_are():
    scores, rows = exact.nearest(unit(2), unit(3), 10)
    assert scores.shape == rows.shape == (2, 3)
    assert exact.nearest(unit(2), unit(3)[:0], 10)[1].shape == (2, 0)
    assert exact.nearest(unit(2)[:0], unit(3), 2)[1].shape == (0, 2)
