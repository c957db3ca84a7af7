"""Images that visitors have sent: read, and gone after a while."""

import os
import time

from mindghost.demo.uploads import Uploads


def put(folder, name: str, age: float = 0) -> None:
    path = folder / name / "photo.jpg"
    path.parent.mkdir()
    path.write_bytes(name.encode())
    os.utime(path, (time.time() - age,) * 2)


def names(folder) -> list[str]:
    return sorted(path.parent.name for path in folder.rglob("*.jpg"))


def test_what_is_old_goes(tmp_path):
    for name, age in (("a", 0), ("b", 50), ("c", 70)):
        put(tmp_path, name, age)
    (tmp_path / ".in_use").touch()
    os.utime(tmp_path / ".in_use", (0, 0))
    Uploads(tmp_path, seconds=60).tidy()
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / ".in_use").exists()


def test_of_too_many_the_oldest_go(tmp_path):
    for number in range(6):
        put(tmp_path, str(number), age=number)
    Uploads(tmp_path, most=4).tidy()
    assert names(tmp_path) == ["0", "1", "2", "3"]


def test_a_folder_that_is_gone_is_no_error(tmp_path):
    Uploads(tmp_path / "none").tidy()
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_below_the_folder_is_read(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    put(folder, "a")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    uploads = Uploads(folder)
    assert uploads.read(str(folder / "a" / "photo.jpg")) == b"a"
    for path in (tmp_path / "secret", folder / ".." / "secret", folder / "link", folder / "none", folder):
        assert uploads.read(str(path)) is None
    assert uploads.read("http://127.0.0.1/a.jpg") is None


def test_a_folder_may_be_called_by_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    put(tmp_path / "real", "a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Uploads(tmp_path / "link").read(str(tmp_path / "real" / "a" / "photo.jpg")) == b"a"
