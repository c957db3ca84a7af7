"""What a page's server can be asked for, by whom, and how much can be sent: gradio sees nothing else.

gradio's server has more ways in than this page needs: it hands files out, fetches addresses, records runs. ASGI, as
https://asgi.readthedocs.io has it; nothing here needs gradio.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_UPLOAD = "/gradio_api/upload"
_READ = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(?:static|assets|svelte)/.*"
    r"|/gradio_api/(?:info|app_id|theme\.css|startup-events|upload_progress|queue/data|heartbeat/[^/]+)"
)
_SENT = re.compile(rf"{_UPLOAD}|/gradio_api/(?:queue/join|cancel|reset)")
_AROUND_A_FILE = 1 << 16  # bytes of an upload beside its file
_MOST_WORDS = 1 << 18  # bytes of any other request
# The browser itself fetches nothing from elsewhere, and shows the page in nobody else's. gradio's page has its scripts
# inside, and makes functions of text.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """An application that lets the requests of our page through to another one.

    Args:
        app: that answers them.
        most_bytes: of an image that is sent.
        hosts: names by which the server may be called, without a port; None: any. A page of somebody else's can have a
            browser call this machine by a name of its own.
        before_upload: called when an image is about to come.
    """

    def __init__(
        self, app: App, most_bytes: int, hosts: Collection[str] | None, before_upload: Callable[[], None]
    ) -> None:
        self._app, self._most_bytes, self._hosts, self._before_upload = app, most_bytes, hosts, before_upload

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if refusal := self._refusal(scope["method"], scope["path"], headers):
            await _refuse(send, *refusal)
            return
        if scope["path"] == _UPLOAD:
            self._before_upload()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, answer)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Status and reason, where a request is refused."""
        host = _without_port(headers.get(b"host", b"").decode("latin-1"))
        if self._hosts is not None and host not in self._hosts:
            return 421, "This page is for this machine alone; call it by 127.0.0.1 or localhost."
        if method in ("GET", "HEAD"):
            return None if _READ.fullmatch(path) else (404, "There is no such page.")
        if method != "POST" or not _SENT.fullmatch(path):
            return 404, "There is no such page."
        length = headers.get(b"content-length", b"").decode("latin-1")
        # The server takes no more bytes than this says, and none of a request that says none.
        if not length.isascii() or not length.isdecimal() or b"transfer-encoding" in headers:
            return 411, "Say how long the request is."
        if int(length) > (self._most_bytes + _AROUND_A_FILE if path == _UPLOAD else _MOST_WORDS):
            return 413, f"Too large: at most {self._most_bytes / 2**20:g} MB."
        return None


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).strip("[]").lower()


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
