"""A real server on the loopback address, and what is left of a download."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mindghost.files import download
from tests.helpers.downloads import CONTENT, Server


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_RETRY_DELAY", 0.01)
    server = Server()
    server.answers["/a.ckpt"] = CONTENT
    yield server
    server.stop()
