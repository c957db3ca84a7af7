"""Archives that never escape their folder, and the data sets that come in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mindghost.data import binary, fetch
from mindghost.errors import UserError
from mindghost.files import archives
from tests.helpers.downloads import CONTENT, MD5, visible

Member = tuple[tarfile.TarInfo, bytes]


def make_tar(path: Path, members: list[Member], packed: bool = True, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if packed else "w", format=form) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def file(name: str, data: bytes = b"x") -> Member:
    return tarfile.TarInfo(name), data


def special(kind: bytes, name: str = "escaped", target: str = "") -> Member:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def link(name: str, target: str) -> Member:
    return special(tarfile.SYMTYPE, name, target)


def damaged_in_the_middle(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]


def refused(archive: Path, folder: Path, below: str = "") -> str:
    with pytest.raises(UserError) as caught:
        archives.unpack_tar(archive, folder, below)
    message = str(caught.value)
    assert "\n" not in message
    assert str(archive) in message
    return message


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_is_unpacked(tmp_path, packed, form):
    long = "n" * 120  # an extended header's, but for ustar's
    members = [special(tarfile.DIRTYPE, "sub"), file("sub/file.bin", b"data" * 999), file("./sub/deep/empty", b"")]
    if form != tarfile.USTAR_FORMAT:
        members.append(file(f"sub/{long}", b"x" * 512))
    archive = make_tar(tmp_path / "a.tar.gz", members, packed, form)
    archives.unpack_tar(archive, tmp_path / "out", below="sub")
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    expected = {"sub/file.bin": b"data" * 999, "sub/deep/empty": b""}
    assert found == expected | ({f"sub/{long}": b"x" * 512} if form != tarfile.USTAR_FORMAT else {})


def behind_a_long_path() -> list[Member]:
    """CVE-2025-4517: links whose resolved path is longer than PATH_MAX, behind which nothing is checked any more."""
    part, members, path = "d" * 247, [], ""
    for letter in "abcdefghijklmnop":
        members += [special(tarfile.DIRTYPE, path + part), link(path + letter, part)]
        path += f"{part}/"
    chain = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    members += [link(chain, "../" * 16), link("escape", chain + "/../../../deep"), file("escape/escaped")]
    return members


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([file("../escaped")], "leads upwards"),
        ([file("a/../../escaped")], "leads upwards"),
        ([file("/tmp/ghostnet-escaped")], "absolute"),
        ([file("//tmp/ghostnet-escaped")], "absolute"),
        ([link("out", "/tmp"), file("out/escaped")], "no plain file"),
        ([link("up", ".."), file("up/escaped")], "no plain file"),
        ([link("inside", "a"), file("inside/escaped")], "no plain file"),
        (behind_a_long_path(), "no plain file"),
        ([special(tarfile.LNKTYPE, target="../../a.tar.gz")], "no plain file"),
        ([file("a"), special(tarfile.LNKTYPE, target="a")], "no plain file"),
        ([special(tarfile.CHRTYPE)], "no plain file"),
        ([special(tarfile.FIFOTYPE)], "no plain file"),
        ([special(tarfile.CONTTYPE)], "no plain file"),
        ([special(b"Z")], "no plain file"),
        ([file("d/" * 17 + "escaped")], "too long a name"),
        ([file("d" * 256)], "too long a name"),
        ([file(f"{'d' * 250}/" * 5 + "escaped")], "too long a name"),
        ([file("a", b"first"), file("a", b"second")], "there already"),
        ([file("a", b"first"), file("a/escaped")], "there already"),
        ([file("a/b"), file("a")], "there already"),
        ([file("./")], "no file can have"),
    ],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_nothing_lands_outside_the_folder(tmp_path, members, why):
    archive = make_tar(tmp_path / "a.tar.gz", members)
    assert why in refused(archive, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("escaped"))
    assert not os.path.lexists("/tmp/ghostnet-escaped")
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


@pytest.mark.fault("archives", "clean error")
def test_a_name_in_an_extended_header_counts(tmp_path):
    """CVE-2007-4559 by another road: the name that counts is not the one in the member's own header."""
    member = tarfile.TarInfo("harmless")
    member.pax_headers = {"path": "../escaped"}
    archive = make_tar(tmp_path / "a.tar", [(member, b"x")], packed=False)
    assert "leads upwards" in refused(archive, tmp_path / "out")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize("planted", ["link to a folder", "link to a file", "link that leads nowhere"])
def test_no_link_that_lies_in_the_folder_is_followed(tmp_path, planted):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_bytes(b"mine")
    out = tmp_path / "out"
    out.mkdir()
    target = {"link to a folder": "", "link to a file": "kept", "link that leads nowhere": "new"}[planted]
    (out / "a").symlink_to(tmp_path / "elsewhere" / target)
    name = "a/kept" if planted == "link to a folder" else "a"
    archive = make_tar(tmp_path / "a.tar.gz", [file(name, b"theirs")])
    assert "there already" in refused(archive, out)
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == {"kept": b"mine"}


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize("members", [[file("other/test.bin")], [file("binary")], [], [file("test.bin")]])
def test_an_archive_of_a_data_set_is_one_folder(tmp_path, members):
    archive = make_tar(tmp_path / "a.tar.gz", members)
    assert "binary" in refused(archive, tmp_path / "out", "binary")
    assert not list((tmp_path / "out").glob("*/*"))


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize(("limit", "value"), [("MAX_UNPACKED_BYTES", 5), ("MAX_UNPACKED_FILES", 1)])
def test_bombs_are_refused(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(archives, limit, value)
    archive = make_tar(tmp_path / "a.tar.gz", [file(name, b"1234") for name in ("a", "b")])
    assert "over " in refused(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "b").exists()


def header(kind: bytes, size: int, name: str = "bomb") -> bytes:
    """A member's header, whatever size it claims."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize(
    "content",
    [
        header(tarfile.GNUTYPE_LONGNAME, 4 << 30),
        header(tarfile.GNUTYPE_LONGNAME, -512),
        header(tarfile.XHDTYPE, 4 << 30),
        (header(tarfile.XHDTYPE, 512) + b"12 path=a\n".ljust(512, b"\0")) * 3000,
        header(tarfile.REGTYPE, -1024) * 2,
        header(tarfile.REGTYPE, 4 << 30),
        header(tarfile.REGTYPE, 3) + b"abc".ljust(512, b"\0") + header(tarfile.REGTYPE, 3)[:-1],
        header(tarfile.REGTYPE, 3) + b"abc".ljust(512, b"\0") + b"no header".ljust(1024, b"x"),
        header(tarfile.DIRTYPE, 0) + bytes(4 << 20),
        header(tarfile.GNUTYPE_SPARSE, 512) + bytes(512),
    ],
    ids=[
        "a long name of 4 GB",
        "a long name of less than nothing",
        "an extended header of 4 GB",
        "headers of headers",
        "less than nothing in a file",
        "a file that is not there",
        "half a header",
        "rubbish behind the first file",
        "zeros without end",
        "a sparse file",
    ],
)
def test_a_crafted_archive_is_refused(tmp_path, content):
    archive = tmp_path / "a.tar"
    archive.write_bytes(content)
    assert refused(archive, tmp_path / "out").startswith(f"{archive}: ")


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
    assert refused(archive, tmp_path / "out").startswith(f"{archive}: ")


@pytest.mark.fault("archives", "clean error")
def test_the_check_at_the_end_of_a_gzip_file_is_made(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [file("a", b"data")])
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # of the CRC
    archive.write_bytes(bytes(content))
    assert "CRC" in refused(archive, tmp_path / "out")


@pytest.mark.fault("archives", "clean error")
@pytest.mark.parametrize("claimed", [6_000, 1 << 33], ids=["more than its header says", "a header of 8 GB"])
def test_a_bomb_in_place_of_digits_is_refused(tmp_path, claimed):
    """90 kB that unpack to 20 MB: no more is unpacked than the header says there is."""
    head = np.array([0x803, claimed // 8, 2, 4], ">u4").tobytes()
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + bytes(20_000_000), 1))
    labels = np.array([0x801, 1], ">u4").tobytes() + b"\1"
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(UserError, match=path.name):
        binary.read_mnist(tmp_path, train=False)


def test_datasets_are_fetched_and_unpacked_once(server, tmp_path, monkeypatch):
    archive = make_tar(tmp_path / "c.tar.gz", [file("binary/test.bin", b"data")])
    content = archive.read_bytes()
    server.answers = {"/c.tar.gz": content, "/m.gz": CONTENT}
    datasets = {
        "cifar100": fetch._Dataset(server.url("/"), {"c.tar.gz": hashlib.md5(content).hexdigest()}, "binary"),
        "mnist": fetch._Dataset(server.url("/"), {"m.gz": MD5}, ""),
    }
    monkeypatch.setattr(fetch, "_DATASETS", datasets)
    for name in ("cifar100", "mnist", "cifar100", "mnist"):
        fetch.fetch_dataset(name, tmp_path / "data")
    assert visible(tmp_path / "data") == ["binary", "c.tar.gz", "m.gz"]
    assert (tmp_path / "data" / "binary" / "test.bin").read_bytes() == b"data"
    assert server.requests == ["/c.tar.gz", "/m.gz"]


@pytest.mark.fault("archives", "clean error")
def test_an_archive_that_is_what_its_digest_says_is_not_trusted_for_it(server, tmp_path, monkeypatch):
    archive = make_tar(
        tmp_path / "c.tar.gz", [file("binary/test.bin"), link("binary/up", "../.."), file("binary/up/e")]
    )
    content = archive.read_bytes()
    server.answers = {"/c.tar.gz": content}
    digests = {"c.tar.gz": hashlib.md5(content).hexdigest()}
    monkeypatch.setattr(fetch, "_DATASETS", {"cifar100": fetch._Dataset(server.url("/"), digests, "binary")})
    with pytest.raises(UserError, match=r"c\.tar\.gz: 'binary/up' in it is no plain file"):
        fetch.fetch_dataset("cifar100", tmp_path / "data")
    assert visible(tmp_path / "data") == ["c.tar.gz"]
    assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]
