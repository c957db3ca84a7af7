"""The space of a graph of neighbours: what it keeps of distances, and that it is read as it was written."""

import numpy as np
import pytest

from mindghost.search.space import Space
from tests.helpers.vectors import unit


def on_a_surface(count: int, dimensions: int, inner: int) -> np.ndarray:
    """Vectors that lie in few dimensions, away from 0."""
    rng = np.random.default_rng(1)
    surface = rng.standard_normal((inner, dimensions))
    return (3 + rng.standard_normal((count, inner)) @ surface).astype(np.float32)


def distances(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors[:, np.newaxis].astype(np.float64) - vectors[np.newaxis].astype(np.float64), axis=-1)


def test_few_axes_keep_the_distances_of_vectors_that_lie_in_them():
    vectors = on_a_surface(200, 96, 8)
    space = Space.around(vectors, most=8)
    assert space.dimensions == 8
    found = distances(space.numbers(vectors)) / space.scale
    np.testing.assert_allclose(found, distances(vectors), rtol=1e-4, atol=1e-3)
    integers = space.integers(vectors)
    assert integers.dtype == np.int8
    np.testing.assert_allclose(distances(integers) / space.scale, distances(vectors), atol=3 / space.scale)


@pytest.mark.parametrize("most", [96, 1000])
def test_otherwise_all_dimensions_stay(most):
    vectors = on_a_surface(50, 96, 8)
    space = Space.around(vectors, most)
    np.testing.assert_allclose(space.numbers(vectors), (vectors - vectors.mean(axis=0)) * space.scale, atol=1e-3)
    assert np.abs(space.numbers(vectors)).max() == pytest.approx(100)


def test_axes_that_lose_neighbours_are_left_out():
    assert Space.around(unit(3000, 64), most=16).dimensions == 64
    # Groups of which each is spread to all sides: 12 axes have nearly all of the variance, and no neighbour.
    rng = np.random.default_rng(1)
    groups = unit(12, 64)[rng.integers(12, size=3000)] + 0.01 * rng.standard_normal((3000, 64))
    assert Space.around(groups.astype(np.float32), most=12).dimensions == 64


def test_axes_suit_vectors_that_lie_along_them():
    vectors = on_a_surface(300, 96, 8)
    space = Space.around(vectors, most=8)
    assert space.suits(vectors, vectors[:50] + 1)
    assert not space.suits(vectors, unit(300, 96) * 10)
    assert Space.around(unit(300, 96), most=8).suits(vectors)  # it has no axes


def test_integers_have_room_for_what_comes_later_and_then_stay_the_largest():
    vectors = np.array([[-1.0, 0.0], [1.0, 0.0]], np.float32)
    space = Space.around(vectors, 2)
    given = np.array([[1.0, 0.0], [1.2, -1.27], [9.0, -9.0]], np.float32)
    assert space.integers(given).tolist() == [[100, 0], [120, -127], [127, -127]]


@pytest.mark.parametrize("vectors", [np.ones((5, 8), np.float32), np.empty((0, 8), np.float32)])
def test_vectors_without_differences(vectors):
    assert np.isfinite(Space.around(vectors, most=2).numbers(np.ones((3, 8), np.float32))).all()


@pytest.mark.parametrize("most", [8, 96])
def test_it_is_read_as_it_was_written(most):
    vectors = on_a_surface(50, 96, 8)
    space = Space.around(vectors, most)
    content = space.encode()
    assert len(content) % 64 == 0
    again = Space.decode(content + b"more", 96)
    np.testing.assert_array_equal(again.numbers(vectors), space.numbers(vectors))
    with pytest.raises(ValueError, match="buffer"):
        Space.decode(content[:40], 96)
