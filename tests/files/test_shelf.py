"""Entries of the cache: whole or made again, few enough, and of this package's sources."""

import os
import shutil
from pathlib import Path

import pytest

from mindghost.errors import RunError
from mindghost.files import shelf
from mindghost.files.shelf import Shelf

NAME = "0123456789abcdef" * 2


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Where the entries of the shelf `things` are, for this test alone."""
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "things"


def test_an_entry_comes_back_whole_or_not_at_all(here):
    things = Shelf("things", most=2)
    assert things.folder == here
    assert things.read(NAME) == (None, False)
    content = bytes(range(256)) * 3
    things.keep(NAME, content)
    assert things.read(NAME) == (content, False)
    whole = (here / NAME).read_bytes()
    for damaged in (whole[:-1], whole[1:], b"", whole[:100] + b"?" + whole[101:], whole + b"\n"):
        (here / NAME).write_bytes(damaged)
        assert things.read(NAME) == (None, True)
    (here / NAME).unlink()
    (here / NAME).mkdir()
    assert things.read(NAME) == (None, True)


def test_reading_is_using(here):
    things = Shelf("things", most=2)
    things.keep(NAME, b"content")
    os.utime(here / NAME, (0, 0))
    things.read(NAME)
    assert (here / NAME).stat().st_mtime > 1_000_000


def test_what_was_not_used_for_long_is_deleted(here):
    things = Shelf("things", most=2, left=r"\.process\.[a-z0-9_]{8}|\.new\.[a-z0-9_]{8}")
    here.mkdir(parents=True)
    for age, name in (
        (10, "b" * 32),
        (30, "d" * 32),
        (20, "c" * 32),
        (200_000, ".process.12345678"),
        (60, ".process.87654321"),
        (90_000, ".new.12345678"),
        (200_000, f".{NAME}.17.0.tmp"),
        (60, f".{NAME}.18.0.tmp"),
        (200_000, "notes.txt"),
        (200_000, ".notes"),
        (200_000, ".process.mine"),
    ):
        (here / name).mkdir() if "process" in name else (here / name).write_text("x", encoding="utf-8")
        os.utime(here / name, (0, (here / name).stat().st_mtime - age))
    (here / ("e" * 32)).symlink_to(here / "notes.txt")
    things.tidy()
    kept = [f".{NAME}.18.0.tmp", ".notes", ".process.87654321", ".process.mine"]
    kept += ["b" * 32, "c" * 32, "e" * 32, "notes.txt"]
    assert sorted(path.name for path in here.iterdir()) == kept


def test_entries_take_so_many_bytes_and_the_newest_stays(here):
    here.mkdir(parents=True)
    for age, size, name in ((30, 5, "a"), (20, 50, "b"), (10, 7, "c")):
        (here / name).write_bytes(bytes(size))
        os.utime(here / name, (0, 1_000_000 - age))
    shelf.delete_oldest(here.iterdir(), most=9, most_bytes=57)
    assert sorted(path.name for path in here.iterdir()) == ["b", "c"]
    shelf.delete_oldest(here.iterdir(), most=9, most_bytes=1)
    assert [path.name for path in here.iterdir()] == ["c"]


@pytest.mark.fault("caches", "ok")
def test_a_cache_that_cannot_be_written_is_said(here):
    here.parent.mkdir()
    here.write_text("a file", encoding="utf-8")
    with pytest.raises((OSError, RunError)):
        Shelf("things", most=2).keep(NAME, b"content")


def test_caches_are_switched_off_together(monkeypatch):
    monkeypatch.delenv("MS_COMPILER_CACHE_ENABLE", raising=False)
    assert shelf.is_wanted(compile_cache=True)
    assert not shelf.is_wanted(compile_cache=False)
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "0")
    assert not shelf.is_wanted(compile_cache=True)


def test_sources_have_a_digest(monkeypatch, tmp_path):
    package = tmp_path / "package"
    shutil.copytree(Path(shelf.__file__).parent.parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(shelf, "__file__", str(package / "files" / "shelf.py"))
    try:
        shelf.sources.cache_clear()
        before = shelf.sources()
        with open(package / "models" / "layers.py", "a", encoding="utf-8") as source:
            source.write("\n")
        assert shelf.sources() == before
        shelf.sources.cache_clear()
        assert shelf.sources() != before
    finally:
        shelf.sources.cache_clear()
