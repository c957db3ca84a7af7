"""All pairs within a distance, and the groups that they make: as comparing every two, and walking, find them."""

import numpy as np
import pytest

from mindghost.search import pairs
from mindghost.search.pairs import Forest, Pairs
from tests.helpers.vectors import unit


def walked(count: int, links: list[tuple[int, int]]) -> list[list[int]]:
    """Groups by walking from each image to its neighbours."""
    near = {number: set() for number in range(count)}
    for one, other in links:
        near[one].add(other)
        near[other].add(one)
    seen, found = set(), []
    for number in range(count):
        group, waiting = set(), [number]
        while waiting:
            if (here := waiting.pop()) not in seen:
                seen.add(here)
                group.add(here)
                waiting += near[here]
        if len(group) > 1:
            found.append(sorted(group))
    return found


@pytest.mark.parametrize("block", [2048, 100, 7])
def test_all_pairs_once(block, monkeypatch):
    monkeypatch.setattr(pairs, "_BLOCK", block)
    vectors, seen = unit(230, 8), []
    found = list(pairs.near(230, lambda rows, columns: vectors[rows] @ vectors[columns].T, 0.7, seen.append))
    first, second, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    products = vectors.astype(np.float64) @ vectors.T
    expected = {(int(i), int(j)) for i, j in np.argwhere(products >= 0.7) if i < j}
    assert len(first) == len(expected) > 50
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    np.testing.assert_allclose(scores, products[first, second], atol=1e-6)
    assert sum(seen) == 230


@pytest.mark.parametrize("most", [1 << 20, 50])
def test_groups_are_those_of_all_pairs_with_the_least_distances(most, monkeypatch):
    monkeypatch.setattr(pairs, "_MOST", most)
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 300, (2, 400))
    first, second = first[first != second], second[first != second]
    distance = rng.random(len(first)).astype(np.float32)
    forest = Forest(300)
    for start in range(0, len(first), 40):
        part = slice(start, start + 40)
        forest.add(Pairs.of(first[part], second[part], distance[part], np.zeros(len(first[part]))))
    left = forest.pairs()
    found = pairs.groups(300, left)
    assert [rows.tolist() for rows, _ in found] == walked(300, list(zip(first.tolist(), second.tolist(), strict=True)))
    assert sum(len(rows) - 1 for rows, _ in found) == len(left)
    assert all(set(inside.first) | set(inside.second) == set(rows) for rows, inside in found)
    # Kruskal: the nearest first, unless both are in one group already.
    total, of = 0.0, list(range(300))
    for place in np.argsort(distance):
        one, other = of[first[place]], of[second[place]]
        if one != other:
            total += float(distance[place])
            of = [one if name == other else name for name in of]
    assert float(left.distance.sum()) == pytest.approx(total, rel=1e-5)


def test_of_one_pair_found_twice_the_nearer_way_stays():
    forest = Forest(3)
    forest.add(Pairs.of(np.array([2, 0]), np.array([0, 2]), np.array([0.04, 0.0]), np.array([1, 3])))
    left = forest.pairs()
    assert (left.first.tolist(), left.second.tolist(), left.kind.tolist()) == ([0], [2], [3])
    assert len(Forest(3).pairs()) == 0
    assert pairs.groups(3, Forest(3).pairs()) == []
