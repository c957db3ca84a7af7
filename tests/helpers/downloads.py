"""A server on the loopback address, and what is left of a download."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mindghost.errors import UserError
from mindghost.files import download

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
