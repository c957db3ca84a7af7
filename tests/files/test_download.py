"""Downloads: verified, complete or absent, retried, from either host, once for several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mindghost.errors import UserError
from mindghost.files import download
from tests.helpers.downloads import (
    CONTENT,
    MD5,
    SHA256,
    Server,
    failure,
    fetched,
    partial_content,
    parts,
    respond,
    visible,
)


@pytest.mark.parametrize(("digest", "algorithm"), [(SHA256, "sha256"), (SHA256[:8].upper(), "sha256"), (MD5, "md5")])
def test_a_file_arrives_complete_and_is_kept(server, tmp_path, digest, algorithm):
    for _ in range(2):
        path = download.fetch(server.url("/a.ckpt"), tmp_path / "deep" / "cache", digest=digest, algorithm=algorithm)
        assert path == tmp_path / "deep" / "cache" / "a.ckpt"
        assert path.read_bytes() == CONTENT
    assert server.requests == ["/a.ckpt"]
    assert visible(path.parent) == ["a.ckpt"]


@pytest.mark.fault("downloads", "ok")
@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], b"x" + CONTENT[1:]])
def test_a_damaged_copy_is_fetched_again(server, tmp_path, damage):
    (tmp_path / "a.ckpt").write_bytes(damage)
    path = download.fetch(server.url("/a.ckpt"), tmp_path, digest=SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.fault("downloads", "clean error")
def test_a_wrong_digest_keeps_nothing(server, tmp_path):
    message = failure(server.url("/a.ckpt"), tmp_path, digest="0" * 64)
    assert SHA256 in message
    assert str(tmp_path / "a.ckpt") in message
    assert not parts(tmp_path)


@pytest.mark.fault("downloads", "clean error")
def test_a_page_in_place_of_the_file_keeps_nothing(server, tmp_path):
    server.answers["/a.ckpt"] = b"<html>Sign in</html>"
    assert server.url("/a.ckpt") in failure(server.url("/a.ckpt"), tmp_path)


@pytest.mark.fault("downloads", "clean error")
def test_a_missing_file_is_not_retried(server, tmp_path):
    assert "404" in failure(server.url("/b.ckpt"), tmp_path)
    assert len(server.requests) == 1


@pytest.mark.fault("downloads", "clean error")
def test_a_short_body_is_retried_then_refused(server, tmp_path):
    def short(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:100])

    server.answers["/a.ckpt"] = short
    failure(server.url("/a.ckpt"), tmp_path)
    assert len(server.requests) == 3


@pytest.mark.fault("downloads", "ok")
def test_a_passing_failure_is_survived(server, tmp_path):
    def second_time_lucky(handler: BaseHTTPRequestHandler) -> None:
        respond(handler, 503 if len(server.requests) == 1 else CONTENT)

    server.answers["/a.ckpt"] = second_time_lucky
    assert download.fetch(server.url("/a.ckpt"), tmp_path, digest=SHA256).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.fault("downloads", "clean error")
def test_a_silent_server_times_out(server, tmp_path):
    released = threading.Event()
    server.answers["/a.ckpt"] = lambda handler: released.wait(5)
    try:
        assert "timed out" in failure(server.url("/a.ckpt"), tmp_path, timeout=0.2, attempts=1)
    finally:
        released.set()


@pytest.mark.fault("downloads", "clean error")
def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_RETRY_DELAY", 0.01)
    assert "http://127.0.0.1:9/a.ckpt" in failure("http://127.0.0.1:9/a.ckpt", tmp_path)


@pytest.mark.fault("downloads", "clean error")
@pytest.mark.parametrize("url", ["http://example.com/a.ckpt", "ftp://127.0.0.1/a", "file:///etc/passwd"])
def test_only_https_is_fetched(tmp_path, url):
    assert "https" in failure(url, tmp_path)


@pytest.mark.fault("downloads", "clean error")
def test_a_redirect_cannot_leave_https(server, tmp_path):
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://example.com/a.ckpt")
        handler.end_headers()

    server.answers["/a.ckpt"] = redirect
    with pytest.raises(UserError, match=r"^http://example\.com/a\.ckpt: only https"):
        download.fetch(server.url("/a.ckpt"), tmp_path, digest=SHA256)


@pytest.mark.fault("downloads", "ok")
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


@pytest.fixture
def mirror(server, monkeypatch) -> Iterator[Server]:
    mirror = Server()
    mirror.answers["/a.ckpt"] = CONTENT
    host, other = (entry.url("").removeprefix("http://") for entry in (server, mirror))
    monkeypatch.setattr(download, "_MIRRORS", {host: other})
    yield mirror
    mirror.stop()


@pytest.mark.fault("downloads", "ok")
@pytest.mark.parametrize("answer", [404, 503, b"<html>Sign in</html>"])
def test_what_one_host_does_not_give_the_other_does(server, mirror, tmp_path, answer):
    server.answers["/a.ckpt"] = answer
    assert fetched(server, tmp_path) == CONTENT
    assert mirror.requests == ["/a.ckpt"]


@pytest.mark.fault("downloads", "clean error")
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


FETCH = """
import resource, sys
from pathlib import Path
from mindghost.files import download
from mindghost.errors import RunError
url, folder, digest, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    print(download.fetch(url, Path(folder), digest=digest))
except RunError as error:
    sys.exit(str(error))
"""


def start_fetch(server: Server, folder: Path, limit: int = 0) -> subprocess.Popen:
    """A process that fetches a.ckpt; no file of its may be longer than ``limit``."""
    arguments = [sys.executable, "-c", FETCH, server.url("/a.ckpt"), folder, SHA256, str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(Path(download.__file__).parents[2])}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.fault("downloads", "ok")
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


@pytest.mark.fault("downloads", "ok")
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


@pytest.mark.fault("downloads", "clean error")
def test_a_full_disk_is_named_and_nothing_is_left(server, tmp_path):
    out, error = start_fetch(server, tmp_path, limit=10_000).communicate(timeout=60)
    assert out == ""
    assert error.startswith(str(tmp_path))
    assert error.endswith("cannot be written (File too large)\n")
    assert not visible(tmp_path)
    assert not parts(tmp_path)


@pytest.mark.fault("downloads", "clean error")
def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written") as caught:
        download.fetch(server.url("/a.ckpt"), tmp_path / "file" / "cache", digest=SHA256)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(("digest", "algorithm"), [("1234567", "sha256"), ("", "md5"), (SHA256, "crc32")])
def test_a_call_without_a_usable_digest_is_a_bug(tmp_path, digest, algorithm):
    with pytest.raises(ValueError, match="digest"):
        download.fetch("https://example.com/a", tmp_path, digest=digest, algorithm=algorithm)
