"""An index follows a folder: what it has afterwards is what embedding the folder anew gives."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindghost.errors import UserError
from mindghost.files import lock
from mindghost.search.index import Index, build
from mindghost.search.sync import Synced, sync
from mindghost.search.vectors import Vectors
from tests.helpers.vectors import ORIGIN, vectors


def vector_of(file: str) -> np.ndarray:
    """A vector that follows from a file's content alone."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(Path(file).read_bytes()).digest()[:8], "big"))
    found = rng.standard_normal(16)
    return (found / np.linalg.norm(found)).astype(np.float32)


class Embedder:
    """In the place of a network; `seen` are the files that it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, files: list[str]) -> tuple[Vectors, dict[str, str]]:
        self.seen += files
        good = [file for file in files if not Path(file).read_bytes().startswith(b"bad")]
        status = [os.stat(file) for file in good]
        digests = [hashlib.sha256(Path(file).read_bytes()).digest()[:16] for file in good]
        found = Vectors(
            np.array([vector_of(file) for file in good], np.float32).reshape(-1, 16),
            np.array(good, str),
            np.full(len(good), -1, np.int32),
            (),
            np.array([each.st_size for each in status], np.int64),
            np.array([each.st_mtime_ns for each in status], np.int64),
            np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16),
            ORIGIN,
        )
        return found, {file: f"{file}: bad" for file in files if file not in good}


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ant/1.jpg", "ant/2.jpg", "bee/1.jpg", "top.jpg"):
        path = Path("P", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    build(Path("i"), vectors(2))  # of another folder
    assert run("P")[0].changes.added == 4
    return Path("P")


def run(folder: str) -> tuple[Synced, list[str]]:
    embedder = Embedder()
    with lock.writing(Path("i")):
        return sync(Index.open(Path("i")), folder, embedder), sorted(embedder.seen)


def assert_as_anew() -> None:
    """The entries of the folder are its files, each with the vector, state and class that it has now."""
    content = Index.open(Path("i")).content
    rows = {path: row for row, path in enumerate(content.paths.tolist())}
    files = [os.path.normpath(file) for file in map(str, Path("P").rglob("*.jpg"))]
    assert set(rows) == {*files, "D/00000.jpg", "D/00001.jpg"}
    for file in files:
        np.testing.assert_array_equal(content.vectors[rows[file]], vector_of(file))
        assert content.sizes[rows[file]] == os.stat(file).st_size
        assert content.times[rows[file]] == os.stat(file).st_mtime_ns
        assert content.class_of(rows[file]) == {"ant": "ant", "bee": "bee"}.get(file.split("/")[1])


def test_nothing_has_changed(photos):
    before = os.stat("i").st_ino
    done, seen = run("P")
    assert (seen, done.changes.count, os.stat("i").st_ino) == ([], 6, before)
    assert_as_anew()


def test_new_changed_and_gone_images(photos):
    (photos / "ant" / "3.jpg").write_bytes(b"new")
    (photos / "ant" / "1.jpg").write_bytes(b"changed")
    (photos / "bee" / "1.jpg").unlink()
    done, seen = run("P")
    assert seen == ["P/ant/1.jpg", "P/ant/3.jpg"]
    assert (done.changes.added, done.changes.replaced, done.changes.removed, done.embedded) == (1, 1, 1, 2)
    assert_as_anew()


def test_what_is_touched_moved_or_copied_is_not_embedded_again(photos):
    os.utime(photos / "ant" / "1.jpg", ns=(1, 1))
    (photos / "ant" / "2.jpg").rename(photos / "bee" / "moved.jpg")
    shutil.copy(photos / "top.jpg", photos / "copy.jpg")
    done, seen = run("P")
    assert (seen, done.reused) == ([], 3)
    assert_as_anew()


def test_a_change_of_the_same_size_and_another_time_is_seen(photos):
    before = os.stat(photos / "top.jpg")
    (photos / "top.jpg").write_bytes(b"pot.jpg")
    os.utime(photos / "top.jpg", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert run("P")[1] == ["P/top.jpg"]
    assert_as_anew()


@pytest.mark.parametrize("folder", ["./P", "P/", "P//.", "P/../P"])
def test_a_folder_by_another_spelling(photos, folder):
    assert run(folder)[1] == []
    assert_as_anew()


def test_a_part_of_the_folder_alone(photos):
    shutil.rmtree(photos / "bee")
    (photos / "ant" / "1.jpg").unlink()
    done, _ = run("P/ant")
    assert done.changes.removed == 1
    run("P")
    assert_as_anew()


@pytest.mark.fault("images", "ok")
def test_one_that_cannot_be_read_has_no_vector(photos):
    (photos / "ant" / "1.jpg").write_bytes(b"bad")
    done, _ = run("P")
    assert done.problems == {"P/ant/1.jpg": "P/ant/1.jpg: bad"}
    assert "P/ant/1.jpg" not in Index.open(Path("i")).content.paths.tolist()
    assert done.changes.removed == 1
    assert run("P")[1] == ["P/ant/1.jpg"]  # it is tried again
    (photos / "ant" / "1.jpg").write_bytes(b"good again")
    run("P")
    assert_as_anew()


@pytest.mark.fault("command lines", "clean error")
def test_a_folder_that_is_not_there(photos):
    with pytest.raises(UserError, match=r"^Q: cannot be listed"):
        run("Q")
    assert len(Index.open(Path("i"))) == 6


def test_random_changes(photos):
    rng = np.random.default_rng(0)
    for turn in range(15):
        files = sorted(photos.rglob("*.jpg"))
        for _ in range(3):
            file = files[rng.integers(len(files))]
            what = rng.integers(4)
            if what == 0 and file.exists():
                file.unlink()
            elif what == 1:
                file.write_bytes(rng.bytes(5))
            elif what == 2:
                (file.parent / f"{turn}_{rng.integers(100)}.jpg").write_bytes(rng.bytes(6))
            elif file.exists():
                file.rename(file.parent / f"moved_{turn}_{file.name}")
        run("P")
        assert_as_anew()
