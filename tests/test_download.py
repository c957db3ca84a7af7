"""Downloads against a real server on the loopback address: verified, complete or absent, retried, locked."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ghostnet import download
from ghostnet.errors import UserError

# Debian 12's Python 3.11.2 has none, and archives are refused there.
needs_data_filter = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"), reason="needs Python 3.10.12, 3.11.4 or later"
)

CONTENT = bytes(range(256)) * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
    """Answers a path with what ``answers`` holds for it; notes the requests, and which part each asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.requests: list[str] = []
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                outer.ranges.append(self.headers.get("Range"))
                answer = outer.answers.get(self.path, 404)
                answer(self) if callable(answer) else respond(self, answer)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def respond(handler: BaseHTTPRequestHandler, answer: int | bytes) -> None:
    if isinstance(answer, int):
        handler.send_error(answer)
        return
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(answer)))
    handler.end_headers()
    handler.wfile.write(answer)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_RETRY_DELAY", 0.01)
    server = Server()
    server.answers["/a.ckpt"] = CONTENT
    yield server
    server.stop()


def visible(folder: Path) -> list[str]:
    """What a user sees: locks and parts of files are hidden."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def parts(folder: Path) -> list[Path]:
    """What is kept of downloads that broke."""
    return list(folder.glob(".*.part"))


def put_part(folder: Path, content: bytes) -> None:
    """Has an earlier download of a.ckpt broken after this content."""
    (folder / f".a.ckpt.{SHA256[:8]}.part").write_bytes(content)


def failure(url: str, folder: Path, digest: str = SHA256, **keys) -> str:
    """The message of a fetch that must fail and leave nothing behind."""
    before = visible(folder) if folder.exists() else []
    with pytest.raises(UserError) as caught:
        download.fetch(url, folder, digest=digest, **keys)
    assert (visible(folder) if folder.exists() else []) == before
    message = str(caught.value)
    assert "\n" not in message
    assert url in message
    return message


# --- fetch


@pytest.mark.parametrize(("digest", "algorithm"), [(SHA256, "sha256"), (SHA256[:8].upper(), "sha256"), (MD5, "md5")])
def test_a_file_arrives_complete_and_is_kept(server, tmp_path, digest, algorithm):
    for _ in range(2):
        path = download.fetch(server.url("/a.ckpt"), tmp_path / "deep" / "cache", digest=digest, algorithm=algorithm)
        assert path == tmp_path / "deep" / "cache" / "a.ckpt"
        assert path.read_bytes() == CONTENT
    assert server.requests == ["/a.ckpt"]
    assert visible(path.parent) == ["a.ckpt"]


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], b"x" + CONTENT[1:]])
def test_a_damaged_copy_is_fetched_again(server, tmp_path, damage):
    (tmp_path / "a.ckpt").write_bytes(damage)
    path = download.fetch(server.url("/a.ckpt"), tmp_path, digest=SHA256)
    assert path.read_bytes() == CONTENT


def test_a_wrong_digest_keeps_nothing(server, tmp_path):
    message = failure(server.url("/a.ckpt"), tmp_path, digest="0" * 64)
    assert SHA256 in message
    assert str(tmp_path / "a.ckpt") in message
    assert not parts(tmp_path)


def test_a_page_in_place_of_the_file_keeps_nothing(server, tmp_path):
    server.answers["/a.ckpt"] = b"<html>Sign in</html>"
    assert server.url("/a.ckpt") in failure(server.url("/a.ckpt"), tmp_path)


def test_a_missing_file_is_not_retried(server, tmp_path):
    assert "404" in failure(server.url("/b.ckpt"), tmp_path)
    assert len(server.requests) == 1


def test_a_short_body_is_retried_then_refused(server, tmp_path):
    def short(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:100])

    server.answers["/a.ckpt"] = short
    failure(server.url("/a.ckpt"), tmp_path)
    assert len(server.requests) == 3


def test_a_passing_failure_is_survived(server, tmp_path):
    def second_time_lucky(handler: BaseHTTPRequestHandler) -> None:
        respond(handler, 503 if len(server.requests) == 1 else CONTENT)

    server.answers["/a.ckpt"] = second_time_lucky
    assert download.fetch(server.url("/a.ckpt"), tmp_path, digest=SHA256).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_silent_server_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    released = threading.Event()
    server.answers["/a.ckpt"] = lambda handler: released.wait(5)
    try:
        assert "timed out" in failure(server.url("/a.ckpt"), tmp_path, timeout=0.2)
    finally:
        released.set()


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_RETRY_DELAY", 0.01)
    assert "http://127.0.0.1:9/a.ckpt" in failure("http://127.0.0.1:9/a.ckpt", tmp_path)


@pytest.mark.parametrize("url", ["http://example.com/a.ckpt", "ftp://127.0.0.1/a", "file:///etc/passwd"])
def test_only_https_is_fetched(tmp_path, url):
    assert "https" in failure(url, tmp_path)


def test_a_redirect_cannot_leave_https(server, tmp_path):
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://example.com/a.ckpt")
        handler.end_headers()

    server.answers["/a.ckpt"] = redirect
    with pytest.raises(UserError, match=r"^http://example\.com/a\.ckpt: only https"):
        download.fetch(server.url("/a.ckpt"), tmp_path, digest=SHA256)


def test_simultaneous_fetches_download_once(server, tmp_path):
    threads = [
        threading.Thread(target=download.fetch, args=(server.url("/a.ckpt"), tmp_path), kwargs={"digest": SHA256})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert visible(tmp_path) == ["a.ckpt"]


# --- Going on with a download that broke


def partial_content(handler: BaseHTTPRequestHandler, cut: int | None = None, tag: str = '"v1"') -> None:
    """A server that knows ranges and breaks off after ``cut`` bytes."""
    start, changed = 0, handler.headers.get("If-Range") not in (None, tag)
    if (wanted := handler.headers.get("Range")) and not changed:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            handler.send_error(416)
            return
    handler.send_response(206 if start else 200)
    handler.send_header("ETag", tag)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
    handler.send_header("Content-Length", str(len(CONTENT) - start))
    handler.end_headers()
    handler.wfile.write(CONTENT[start : None if cut is None else start + cut])


def fetched(server: Server, folder: Path) -> bytes:
    """The content of a.ckpt, of which no part may be left."""
    content = download.fetch(server.url("/a.ckpt"), folder, digest=SHA256).read_bytes()
    assert not parts(folder)
    assert visible(folder) == ["a.ckpt"]
    return content


def test_a_broken_download_goes_on_where_it_broke(server, tmp_path):
    server.answers["/a.ckpt"] = lambda handler: partial_content(handler, 10_000)
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=10000-", "bytes=20000-"]


def test_a_later_run_goes_on_too(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    server.answers["/a.ckpt"] = lambda handler: partial_content(handler, 20_000)
    failure(server.url("/a.ckpt"), tmp_path)
    assert [part.read_bytes() for part in parts(tmp_path)] == [CONTENT[:20_000]]
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=20000-"]


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    put_part(tmp_path, CONTENT[:9_000])
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == ["bytes=9000-"]


def test_a_file_that_changes_in_between_is_sent_from_its_start(server, tmp_path):
    """Its new version starts like the old one here; what counts is that the server was told which one is meant."""

    def changing(handler: BaseHTTPRequestHandler) -> None:
        first = len(server.requests) == 1
        partial_content(handler, 500 if first else None, tag='"v1"' if first else '"v2"')
        answers.append(handler.headers.get("If-Range"))

    answers: list[str | None] = []
    server.answers["/a.ckpt"] = changing
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=500-"]
    assert answers == [None, '"v1"']


def test_a_part_with_a_wrong_end_is_fetched_afresh_once(server, tmp_path):
    server.answers["/a.ckpt"] = partial_content
    put_part(tmp_path, CONTENT[:8_990] + b"x" * 10)
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == ["bytes=9000-", None]

    (tmp_path / "a.ckpt").unlink()
    put_part(tmp_path, b"x" * 10)
    server.answers["/a.ckpt"] = lambda handler: respond(handler, b"y" * 100)
    assert "its sha256 is" in failure(server.url("/a.ckpt"), tmp_path)
    assert not parts(tmp_path)
    assert server.ranges[2:] == ["bytes=10-"]


def test_a_part_longer_than_the_file_is_given_up(server, tmp_path):
    server.answers["/a.ckpt"] = partial_content
    put_part(tmp_path, CONTENT + b"x")
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_part_that_is_whole_needs_no_server(tmp_path):
    """As a process leaves it that ends before it has renamed the file."""
    put_part(tmp_path, CONTENT)
    assert download.fetch("http://127.0.0.1:9/a.ckpt", tmp_path, digest=SHA256).read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_not_taken(server, tmp_path):
    def wrong_part(handler: BaseHTTPRequestHandler) -> None:
        if len(server.requests) > 1:
            partial_content(handler)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.answers["/a.ckpt"] = wrong_part
    put_part(tmp_path, CONTENT[:10])
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == ["bytes=10-", None]


# --- Two hosts


@pytest.fixture
def mirror(server, monkeypatch) -> Iterator[Server]:
    mirror = Server()
    mirror.answers["/a.ckpt"] = CONTENT
    host, other = (entry.url("").removeprefix("http://") for entry in (server, mirror))
    monkeypatch.setattr(download, "_MIRRORS", {host: other})
    yield mirror
    mirror.stop()


@pytest.mark.parametrize("answer", [404, 503, b"<html>Sign in</html>"])
def test_what_one_host_does_not_give_the_other_does(server, mirror, tmp_path, answer):
    server.answers["/a.ckpt"] = answer
    assert fetched(server, tmp_path) == CONTENT
    assert mirror.requests == ["/a.ckpt"]


def test_a_file_that_no_host_gives_is_named_with_both_and_with_its_place(server, mirror, tmp_path):
    server.answers["/a.ckpt"], mirror.answers["/a.ckpt"] = 404, 503
    message = failure(server.url("/a.ckpt"), tmp_path)
    assert f"{server.url('/a.ckpt')}: download failed (HTTP Error 404" in message
    assert f"{mirror.url('/a.ckpt')}: download failed (HTTP Error 503" in message
    assert message.endswith(f"save it as {tmp_path / 'a.ckpt'}")


def test_mindcvs_hosts_stand_in_for_each_other():
    path = "/toolkits/mindcv/ghostnet/ghostnet_100-bef8025a.ckpt"
    hosts = ["https://download.mindspore.cn", "https://download-mindspore.osinfra.cn"]
    assert download._addresses(hosts[0] + path) == [hosts[0] + path, hosts[1] + path]
    assert download._addresses(hosts[1] + path) == [hosts[1] + path, hosts[0] + path]
    assert download._addresses("https://example.com/a") == ["https://example.com/a"]


# --- Several processes

FETCH = """
import resource, sys
from pathlib import Path
from ghostnet import download
from ghostnet.errors import UserError
url, folder, digest, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    print(download.fetch(url, Path(folder), digest=digest))
except UserError as error:
    sys.exit(str(error))
"""


def start_fetch(server: Server, folder: Path, limit: int = 0) -> subprocess.Popen:
    """A process that fetches a.ckpt; no file of its may be longer than ``limit``."""
    arguments = [sys.executable, "-c", FETCH, server.url("/a.ckpt"), folder, SHA256, str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(Path(download.__file__).parents[1])}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_processes_download_once(server, tmp_path):
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)
        respond(handler, CONTENT)

    server.answers["/a.ckpt"] = slow
    processes = [start_fetch(server, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs == [(f"{tmp_path / 'a.ckpt'}\n", "")] * 2
    assert (tmp_path / "a.ckpt").read_bytes() == CONTENT
    assert server.requests == ["/a.ckpt"]


def test_what_a_killed_process_has_fetched_is_used(server, tmp_path):
    released = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Range"):
            partial_content(handler)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:24_000])
        released.wait(30)

    server.answers["/a.ckpt"] = stall
    process = start_fetch(server, tmp_path)
    try:
        deadline = time.monotonic() + 30
        while not any(part.stat().st_size for part in parts(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.communicate(timeout=30)
        (part,) = parts(tmp_path)
        have = part.stat().st_size
        assert fetched(server, tmp_path) == CONTENT
    finally:
        released.set()
    assert 0 < have <= 24_000
    assert server.ranges == [None, f"bytes={have}-"]


def test_a_full_disk_is_named_and_nothing_is_left(server, tmp_path):
    out, error = start_fetch(server, tmp_path, limit=10_000).communicate(timeout=60)
    assert out == ""
    assert error.startswith(str(tmp_path))
    assert error.endswith("cannot be written (File too large)\n")
    assert not visible(tmp_path)
    assert not parts(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written") as caught:
        download.fetch(server.url("/a.ckpt"), tmp_path / "file" / "cache", digest=SHA256)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(("digest", "algorithm"), [("1234567", "sha256"), ("", "md5"), (SHA256, "crc32")])
def test_a_call_without_a_usable_digest_is_a_bug(tmp_path, digest, algorithm):
    with pytest.raises(ValueError, match="digest"):
        download.fetch("https://example.com/a", tmp_path, digest=digest, algorithm=algorithm)


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GHOSTNET_HOME", str(tmp_path))
    assert download.cache_dir() == tmp_path
    monkeypatch.delenv("GHOSTNET_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_dir() == tmp_path / ".cache" / "ghostnet"


# --- Archives and datasets


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


@needs_data_filter
def test_an_archive_is_unpacked(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [(tarfile.TarInfo("sub/file.bin"), b"data")])
    download.unpack_tar(archive, tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "file.bin").read_bytes() == b"data"


@pytest.mark.parametrize(
    "members",
    [
        [(tarfile.TarInfo("../escaped"), b"x")],
        [link("out", "/tmp"), (tarfile.TarInfo("out/escaped"), b"x")],
        [link("up", ".."), (tarfile.TarInfo("up/escaped"), b"x")],
    ],
)
def test_nothing_lands_outside_the_folder(tmp_path, members):
    archive = make_tar(tmp_path / "a.tar.gz", members)
    with pytest.raises(UserError) as caught:
        download.unpack_tar(archive, tmp_path / "deep" / "out")
    assert str(archive) in str(caught.value)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(("limit", "value"), [("MAX_UNPACKED_BYTES", 5), ("MAX_UNPACKED_FILES", 1)])
def test_bombs_are_refused(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(download, limit, value)
    members = [(tarfile.TarInfo(name), b"1234") for name in ("a", "b")]
    archive = make_tar(tmp_path / "a.tar.gz", members)
    with pytest.raises(UserError) as caught:
        download.unpack_tar(archive, tmp_path / "out")
    assert str(archive) in str(caught.value)
    assert not (tmp_path / "out" / "b").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"x" * 2000)[:-10]])
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
