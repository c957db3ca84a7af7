"""An index: its answers are brute force's, a change is exact and whole, and strangers' files are refused."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindghost.errors import RunError, UserError
from mindghost.files import intact, lock
from mindghost.search import index as index_module
from mindghost.search.index import Index, add, build, remove
from tests.helpers.vectors import ORIGIN, brute_force, changed_arrays, changed_facts, unit, vectors


@pytest.fixture
def path(tmp_path) -> Path:
    build(tmp_path / "i.index", vectors(200))
    return tmp_path / "i.index"


def asked(index: Index, queries: np.ndarray, count: int = 10) -> list[list[str]]:
    return index.content.paths[index.nearest(queries, count)[1]].tolist()


def by_brute_force(found: dict[str, np.ndarray], queries: np.ndarray, count: int = 10) -> list[list[str]]:
    names = np.array(list(found))
    return names[brute_force(queries, np.stack(list(found.values())), count)].tolist()


def known(*parts) -> dict[str, np.ndarray]:
    return {str(path): vector for part in parts for path, vector in zip(part.paths, part.vectors, strict=True)}


def test_it_answers_as_brute_force_does(path):
    queries = unit(50, seed=1)
    index = Index.open(path)
    assert asked(index, queries) == by_brute_force(known(vectors(200)), queries)
    assert index.origin == ORIGIN
    assert (len(index), index.content.classes, index.approximate) == (200, ("ant", "bee"), False)
    assert index.nearest(queries[0], 3)[1].shape == (1, 3)
    assert index.nearest(queries, 1000)[1].shape == (50, 200)


def test_what_is_added_and_removed_is_exact(path):
    """Through twenty changes, against a dictionary."""
    rng = np.random.default_rng(0)
    mirror, queries = known(vectors(200)), unit(20, seed=3)
    for turn in range(20):
        gone = rng.choice(list(mirror), 15, replace=False).tolist()
        assert remove(path, gone).removed == 15
        for name in gone:
            del mirror[name]
        more = vectors(12, seed=100 + turn, start=190 + 10 * turn)  # some of the paths are there
        before = len(mirror)
        mirror |= known(more)
        changes = add(path, more)
        assert (changes.count, changes.added, changes.replaced) == (
            len(mirror),
            len(mirror) - before,
            12 - changes.added,
        )
        index = Index.open(path)
        assert set(index.content.paths.tolist()) == set(mirror)
        assert asked(index, queries) == by_brute_force(mirror, queries)
    np.testing.assert_array_equal(
        index.content.vectors, np.stack([mirror[name] for name in index.content.paths.tolist()])
    )


def test_a_folder_stands_for_what_is_below_it(tmp_path):
    names = np.array(["D/a/1.jpg", "D/a/2.jpg", "D/ab/1.jpg", "E.jpg"])
    build(tmp_path / "i", replace(vectors(4), paths=names))
    assert str(remove(tmp_path / "i", ["D/a/"])) == "0 added, 0 replaced, 2 removed; 2 vectors"
    assert Index.open(tmp_path / "i").content.paths.tolist() == ["D/ab/1.jpg", "E.jpg"]


def test_an_empty_name_is_not_all_that_there_is(tmp_path):
    """A shell makes one of a variable that is not set."""
    build(tmp_path / "i", replace(vectors(2), paths=np.array(["/D/1.jpg", "/2.jpg"])))
    with pytest.raises(UserError, match=r": an empty path; give images or folders"):
        remove(tmp_path / "i", [""])
    assert str(remove(tmp_path / "i", ["/"])) == "0 added, 0 replaced, 2 removed; 0 vectors"


def test_all_can_go_and_others_come(path):
    remove(path, ["D"])
    with pytest.raises(UserError, match=r": has no vectors; add some with"):
        Index.open(path).nearest(unit(1))
    add(path, vectors(3, seed=5))
    assert asked(Index.open(path), unit(1, seed=9), 3) == by_brute_force(known(vectors(3, seed=5)), unit(1, seed=9), 3)


def test_classes_keep_their_names(path):
    others = replace(vectors(2, start=500), labels=np.array([0, 1], np.int32), classes=("bee", "cat"))
    add(path, others)
    content = Index.open(path).content
    assert content.classes == ("ant", "bee", "cat")
    assert [content.class_of(row) for row in (0, 1, 200, 201)] == ["ant", "bee", "bee", "cat"]


def test_nothing_to_do_leaves_the_file_alone(path):
    before = path.stat()
    with lock.writing(path):
        changes = index_module.change(Index.open(path))
    assert str(changes) == "0 added, 0 replaced, 0 removed; 200 vectors"
    assert path.stat().st_ino == before.st_ino


def test_an_open_index_does_not_change(path):
    index, queries = Index.open(path), unit(5, seed=1)
    before = asked(index, queries)
    remove(path, ["D"])
    assert asked(index, queries) == before


# --- Refusals


@pytest.mark.fault("vectors", "clean error", once=True)
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"origin": replace(ORIGIN, weights="cd" * 32)}, "v.npz: not of the network of "),
        ({"origin": None}, "v.npz: does not say which network made its vectors, and "),
        ({"vectors": unit(3, 8)}, "v.npz: vectors of 8 numbers, and those of "),
        ({"paths": np.array(["a", "b", "a"])}, "v.npz: the path a is there twice"),
        ({"vectors": unit(0), "paths": np.empty(0, "U1")}, "v.npz: no vectors in it; give some"),
    ],
)
def test_vectors_that_do_not_belong_there(keys, expected, path):
    before = path.read_bytes()
    made = vectors(3, start=300)
    wrong = replace(made.take(np.arange(len(keys.get("vectors", made.vectors)))), **keys)
    with pytest.raises(UserError) as caught:
        add(path, wrong, "v.npz")
    assert str(caught.value).startswith(expected)
    assert path.read_bytes() == before


@pytest.mark.fault("vectors", "clean error")
def test_a_path_that_is_not_there_removes_nothing(path):
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"1 of the paths are not in it: D/x\\n.jpg; nothing was removed"):
        remove(path, ["D/00001.jpg", "D/x\n.jpg"])
    assert path.read_bytes() == before


@pytest.mark.fault("vectors", "clean error")
def test_queries_of_something_else(path):
    with pytest.raises(UserError, match=r"has vectors of 16 numbers, the queries have 8"):
        Index.open(path).nearest(unit(2, 8))
    with pytest.raises(UserError, match=r"a query is not finite"):
        Index.open(path).nearest(np.full((1, 16), np.nan))


@pytest.mark.fault("vectors", "clean error")
def test_an_index_is_not_replaced_unasked(path):
    with pytest.raises(UserError, match=r"^-o: .* exists; name another file, or give --overwrite"):
        build(path, vectors(3))
    assert len(build(path, vectors(3), overwrite=True)) == len(Index.open(path)) == 3


@pytest.mark.fault("vectors", "clean error")
@pytest.mark.parametrize(
    ("arrays", "facts", "expected"),
    [
        ({}, {"kind": "vectors"}, "not an index; build it again"),
        ({"facts": None}, {}, "not an index; build it again"),
        ({"keys": None}, {}, "its keys are not one for each vector"),
        ({"keys": np.arange(199, dtype=np.uint64)}, {}, "its keys are not one for each vector"),
        ({"keys": np.arange(200, dtype=np.int64)}, {}, "its keys are not one for each vector"),
        ({"keys": np.zeros(200, np.uint64)}, {}, "its keys are not one for each vector"),
        ({}, {"next_key": 199}, "its next key is not behind all others"),
        ({}, {"next_key": "x"}, "its next key is not behind all others"),
        ({}, {"state": "../../x"}, "its state is not 32 hexadecimal digits"),
        ({}, {"network": {}}, "does not say which network"),
        ({"vectors": np.full((200, 16), np.inf, np.float32)}, {}, "its vector 0 is not finite"),
        ({"vectors": unit(100)}, {}, "200 labels"),
        ({"paths": np.full(200, "x")}, {}, "the path x is there twice"),
    ],
)
def test_a_hostile_index_is_refused(arrays, facts, expected, path, tmp_path):
    bad = changed_arrays(path, tmp_path / "bad", **arrays)
    if facts:
        bad = changed_facts(path, tmp_path / "bad", **facts)
    with pytest.raises(UserError) as caught:
        Index.open(bad)
    assert str(caught.value).startswith(f"{bad}: ")
    assert expected in str(caught.value) or "labels of shape (200,) for 100" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- Writing


def _hold(path: Path, ready, end) -> None:
    with lock.writing(path):
        ready.set()
        end.wait(60)


@pytest.mark.fault("vectors", "clean error")
def test_two_processes_cannot_write(path):
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, ready, end))
    process.start()
    assert ready.wait(60)
    before = path.read_bytes()
    for change in (lambda: add(path, vectors(2, start=400)), lambda: remove(path, ["D"])):
        with pytest.raises(UserError, match=r": is being written by another process; wait for it to end"):
            change()
    with pytest.raises(UserError, match="another process"):
        build(path, vectors(2), overwrite=True)
    assert path.read_bytes() == before
    assert len(Index.open(path)) == 200  # it can be asked
    end.set()
    process.join()
    assert add(path, vectors(2, start=400)).added == 2


def _change_for_ever(path: Path) -> None:
    for turn in range(10_000):
        add(path, vectors(30, seed=turn, start=1000))
        remove(path, [f"D/{number:05}.jpg" for number in range(1000, 1030)])


@pytest.mark.fault("vectors", "ok")
def test_killed_at_any_moment_the_old_or_the_new_is_there(path):
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)
    counts = set()
    for _ in range(25):
        process = context.Process(target=_change_for_ever, args=(path,))
        process.start()
        time.sleep(0.05 + rng.random() * 0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        index = Index.open(path)
        counts.add(len(index))
        queries = unit(3, seed=1)
        mirror = known(index.content)
        assert asked(index, queries) == by_brute_force(mirror, queries)
        assert {f"D/{number:05}.jpg" for number in range(200)} <= set(mirror)
    assert counts <= {200, 230}
    assert str(remove(path, ["D/00000.jpg"])).startswith("0 added, 0 replaced, 1 removed")


@pytest.mark.fault("vectors", "clean error")
def test_a_full_disk_leaves_the_old_one(full_disk):
    folder, why = full_disk
    build(folder / "i", vectors(200))
    before = (folder / "i").read_bytes()
    with pytest.raises(RunError, match=why):
        add(folder / "i", vectors(5000, start=1000))
    assert (folder / "i").read_bytes() == before
    assert sorted(os.listdir(folder)) == [".i.lock", "i"]
    assert not list(folder.glob("*.tmp"))


def test_a_graph_is_written_whole(monkeypatch, path):
    """What is written goes through one owner."""
    written = []
    monkeypatch.setattr(intact, "write_atomically", lambda path, content: written.append((path, b"".join(content))))
    remove(path, ["D/00001.jpg"])
    assert [name for name, _ in written] == [path]
