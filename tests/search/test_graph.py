"""The graph of neighbours: what it finds of what brute force finds, and that it is kept, followed and made again."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindghost.errors import UserError
from mindghost.files.cache import cache_dir
from mindghost.search import graph
from mindghost.search.index import Index, add, build, remove
from tests.helpers.vectors import brute_force, recall, unit, vectors

pytest.importorskip("usearch")
COUNT, DIMENSIONS = 3000, 48


@pytest.fixture(autouse=True)
def cache(own_cache) -> None:
    """The graphs of a test are its own."""


@pytest.fixture
def path(tmp_path) -> Path:
    build(tmp_path / "i.index", vectors(COUNT, DIMENSIONS), approximate=True)
    return tmp_path / "i.index"


def kept() -> list[Path]:
    return sorted((cache_dir() / "neighbours").glob("*.graph"))


def recall_of(index: Index, count: int = 10) -> float:
    queries = unit(100, DIMENSIONS, seed=7)
    _, rows = index.nearest(queries, count)
    return recall(rows, brute_force(queries, index.content.vectors, count))


def test_it_finds_nearly_all_and_scores_are_exact(path):
    index = Index.open(path)
    assert index.approximate
    assert len(kept()) == 1
    assert recall_of(index) >= 0.98
    queries = unit(20, DIMENSIONS, seed=7)
    scores, rows = index.nearest(queries, 10)
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, index.content.vectors[rows]), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    # An index that was built for exact answers may be asked so, and the other way round.
    assert (
        recall(index.nearest(queries, 10, approximate=False)[1], brute_force(queries, index.content.vectors, 10)) == 1
    )


@pytest.mark.parametrize("most_of_few", [19, 20])
def test_graphs_of_few_and_of_many_find_nearly_all_however_they_grow(tmp_path, monkeypatch, most_of_few):
    monkeypatch.setattr(graph, "_MOST_OF_FEW", most_of_few)
    build(tmp_path / "i", vectors(20, DIMENSIONS), approximate=True)
    add(tmp_path / "i", vectors(COUNT, DIMENSIONS, seed=5, start=20))
    assert recall_of(Index.open(tmp_path / "i")) >= 0.98


def test_vectors_of_another_kind_have_it_made_again(tmp_path, monkeypatch):
    """As of images of other things: they differ along other axes."""
    monkeypatch.setattr(graph, "_AXES", 16)
    rng = np.random.default_rng(3)
    kinds = [rng.standard_normal((800, 8)) @ rng.standard_normal((8, DIMENSIONS)) for _ in range(2)]
    one, other = ((each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32) for each in kinds)
    build(tmp_path / "i", replace(vectors(800, DIMENSIONS), vectors=one), approximate=True)
    (made,) = kept()
    add(tmp_path / "i", replace(vectors(800, DIMENSIONS, start=800), vectors=other))
    assert kept() == []
    index = Index.open(tmp_path / "i")
    _, rows = index.nearest(other[:100], 10)
    assert recall(rows, brute_force(other[:100], index.content.vectors, 10)) >= 0.98
    assert kept() != [made]


def test_a_graph_of_many_takes_less_room(tmp_path, monkeypatch):
    build(tmp_path / "few", vectors(COUNT, DIMENSIONS), approximate=True)
    (few,) = kept()
    monkeypatch.setattr(graph, "_MOST_OF_FEW", COUNT - 1)
    index = build(tmp_path / "many", vectors(COUNT, DIMENSIONS), approximate=True)
    assert recall_of(index) >= 0.98
    (many,) = set(kept()) - {few}
    assert many.stat().st_size < 0.6 * few.stat().st_size


@pytest.mark.parametrize("outlier", [1.0, 10.0])
def test_a_number_far_from_the_others_does_no_harm(tmp_path, monkeypatch, outlier):
    monkeypatch.setattr(graph, "_MOST_OF_FEW", 20)
    long = np.random.default_rng(0).standard_normal((COUNT, DIMENSIONS)).astype(np.float32)
    long[:, 0] *= outlier
    long /= np.linalg.norm(long, axis=1, keepdims=True)
    index = build(tmp_path / "i", replace(vectors(COUNT, DIMENSIONS), vectors=long), approximate=True)
    queries = long[:100]
    assert recall(index.nearest(queries, 10)[1], brute_force(queries, long, 10)) >= 0.98


def test_neighbours_that_are_nearly_equal_are_told_apart(tmp_path):
    """As of an untrained network, or of a film's frames."""
    close = np.float32(1) + 0.001 * np.random.default_rng(0).standard_normal((500, 256)).astype(np.float32)
    close /= np.linalg.norm(close, axis=1, keepdims=True)
    index = build(tmp_path / "i", replace(vectors(500, 256), vectors=close), approximate=True)
    _, rows = index.nearest(close[:50], 1)
    assert recall(rows, [[row] for row in range(50)]) >= 0.98


def test_it_follows_changes(path, monkeypatch):
    gone = [f"D/{number:05}.jpg" for number in range(0, COUNT, 3)]
    remove(path, gone)
    add(path, vectors(500, DIMENSIONS, seed=5, start=COUNT))
    assert len(kept()) == 1  # that of the state before is deleted
    monkeypatch.setattr(graph.Graph, "for_vectors", lambda found: pytest.fail("it is made again"))
    index = Index.open(path)
    found = index.content.paths[index.nearest(unit(100, DIMENSIONS, seed=7), 20)[1]]
    assert not set(found.ravel().tolist()) & set(gone)
    assert recall_of(index) >= 0.98


def test_it_is_made_again_where_it_is_gone_or_damaged(path, caplog):
    (file,) = kept()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert recall_of(Index.open(path)) >= 0.98
    assert "damaged; the graph is made again" in caplog.text
    for file in kept():
        file.unlink()
    assert recall_of(Index.open(path)) >= 0.98
    assert len(kept()) == 1


def test_an_index_brings_no_graph_along(path, tmp_path, monkeypatch):
    """Another user's cache has none, and makes it of the vectors."""
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "another"))
    assert kept() == []
    assert recall_of(Index.open(path)) >= 0.98
    assert len(kept()) == 1


def test_a_cache_that_cannot_be_written_is_said(path, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "file"))
    assert recall_of(Index.open(path)) >= 0.98
    assert "the graph of neighbours is not kept: " in caplog.text


def test_old_graphs_go(tmp_path):
    for number in range(10):
        build(tmp_path / f"{number}", vectors(20, seed=number), approximate=True)
    assert len(kept()) == 8


@pytest.mark.fault("vectors", "clean error")
def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(
        UserError, match=r"^--approximate: usearch finds neighbours so .*; pip install usearch, or leave"
    ):
        build(tmp_path / "i", vectors(20), approximate=True)
    assert not (tmp_path / "i").exists()
    assert len(build(tmp_path / "i", vectors(20))) == 20
