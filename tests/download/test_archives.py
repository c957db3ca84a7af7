"""Archives that never escape their folder, and the data sets that come in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from ghostnet import download
from ghostnet.errors import UserError
from tests.download.conftest import CONTENT, MD5, visible

# Debian 12's Python 3.11.2 has none, and archives are refused there.
needs_data_filter = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"), reason="needs Python 3.10.12, 3.11.4 or later"
)


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member, b""


def special(kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo("escaped")
    member.type, member.linkname = kind, target
    return member, b""


def damaged_in_the_middle(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


@needs_data_filter
def test_an_archive_is_unpacked(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [(tarfile.TarInfo("sub/file.bin"), b"data")])
    download.unpack_tar(archive, tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "file.bin").read_bytes() == b"data"


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize(
    "members",
    [
        [(tarfile.TarInfo("../escaped"), b"x")],
        [link("out", "/tmp"), (tarfile.TarInfo("out/escaped"), b"x")],
        [link("up", ".."), (tarfile.TarInfo("up/escaped"), b"x")],
        [special(tarfile.LNKTYPE, "../../a.tar.gz")],
        [special(tarfile.CHRTYPE)],
        [special(tarfile.FIFOTYPE)],
    ],
    ids=["up", "link to /tmp", "link up", "hard link", "device", "FIFO"],
)
def test_nothing_lands_outside_the_folder(tmp_path, members):
    archive = make_tar(tmp_path / "a.tar.gz", members)
    with pytest.raises(UserError) as caught:
        download.unpack_tar(archive, tmp_path / "deep" / "out")
    assert str(archive) in str(caught.value)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize(("limit", "value"), [("MAX_UNPACKED_BYTES", 5), ("MAX_UNPACKED_FILES", 1)])
def test_bombs_are_refused(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(download, limit, value)
    members = [(tarfile.TarInfo(name), b"1234") for name in ("a", "b")]
    archive = make_tar(tmp_path / "a.tar.gz", members)
    with pytest.raises(UserError) as caught:
        download.unpack_tar(archive, tmp_path / "out")
    assert str(archive) in str(caught.value)
    assert not (tmp_path / "out" / "b").exists()


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        gzip.compress(b"x" * 2000, mtime=0)[:-10],
        damaged_in_the_middle(gzip.compress(bytes(range(256)) * 8, mtime=0)),
    ],
    ids=["empty", "text", "truncated", "a flipped bit"],
)
def test_a_damaged_archive_is_named(tmp_path, content):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(UserError) as caught:
        download.unpack_tar(archive, tmp_path / "out")
    assert str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_data_filter
def test_datasets_are_fetched_and_unpacked_once(server, tmp_path, monkeypatch):
    archive = make_tar(tmp_path / "c.tar.gz", [(tarfile.TarInfo("binary/test.bin"), b"data")])
    content = archive.read_bytes()
    server.answers = {"/c.tar.gz": content, "/m.gz": CONTENT}
    datasets = {
        "cifar100": download._Dataset(server.url("/"), {"c.tar.gz": hashlib.md5(content).hexdigest()}, "binary"),
        "mnist": download._Dataset(server.url("/"), {"m.gz": MD5}, ""),
    }
    monkeypatch.setattr(download, "_DATASETS", datasets)
    for name in ("cifar100", "mnist", "cifar100", "mnist"):
        download.fetch_dataset(name, tmp_path / "data")
    assert visible(tmp_path / "data") == ["binary", "c.tar.gz", "m.gz"]
    assert (tmp_path / "data" / "binary" / "test.bin").read_bytes() == b"data"
    assert server.requests == ["/c.tar.gz", "/m.gz"]
