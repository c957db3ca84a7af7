"""Downloads that broke go on where they broke, and never end as a file of two halves."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest

from mindghost.files import download
from tests.helpers.downloads import CONTENT, SHA256, failure, fetched, partial_content, parts, put_part, respond


@pytest.mark.fault("downloads", "ok")
def test_a_broken_download_goes_on_where_it_broke(server, tmp_path):
    server.answers["/a.ckpt"] = lambda handler: partial_content(handler, 10_000)
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=10000-", "bytes=20000-"]


@pytest.mark.fault("downloads", "ok")
def test_a_later_run_goes_on_too(server, tmp_path):
    server.answers["/a.ckpt"] = lambda handler: partial_content(handler, 20_000)
    failure(server.url("/a.ckpt"), tmp_path, attempts=1)
    assert [part.read_bytes() for part in parts(tmp_path)] == [CONTENT[:20_000]]
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=20000-"]


@pytest.mark.fault("downloads", "ok")
def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    put_part(tmp_path, CONTENT[:9_000])
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == ["bytes=9000-"]


@pytest.mark.fault("downloads", "ok")
def test_a_file_that_changes_in_between_is_sent_from_its_start(server, tmp_path):
    """Its new version starts like the old one here; what counts is that the server was told which one is meant."""

    def changing(handler: BaseHTTPRequestHandler) -> None:
        first = len(server.requests) == 1
        answers.append(handler.headers.get("If-Range"))
        partial_content(handler, 500 if first else None, tag='"v1"' if first else '"v2"')

    answers: list[str | None] = []
    server.answers["/a.ckpt"] = changing
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [None, "bytes=500-"]
    assert answers == [None, '"v1"']


@pytest.mark.fault("downloads", "ok")
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


@pytest.mark.fault("downloads", "clean error")
def test_a_part_longer_than_the_file_is_given_up(server, tmp_path):
    server.answers["/a.ckpt"] = partial_content
    put_part(tmp_path, CONTENT + b"x")
    assert fetched(server, tmp_path) == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_part_that_is_whole_needs_no_server(tmp_path):
    """As a process leaves it that ends before it has renamed the file."""
    put_part(tmp_path, CONTENT)
    assert download.fetch("http://127.0.0.1:9/a.ckpt", tmp_path, digest=SHA256).read_bytes() == CONTENT


@pytest.mark.fault("downloads", "ok")
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
