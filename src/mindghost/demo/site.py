"""The page, made by gradio, and its server, which runs in threads; neither asks for anything from elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import scratch
from . import addresses, fragments, libraries
from .answers import Answer, Answerer
from .guard import Guard
from .turns import Turns
from .uploads import SECONDS, Uploads

# Images that wait while one is looked at; more are turned away.
_WAITING = 16
_START, _END = 30, 3  # seconds that the server may take to start, and to end
_GONE = "the image is not here any more: drop it again"


@dataclass(frozen=True)
class Site:
    """A page about one network.

    Attributes:
        answerer: says what the page says.
        turns: where it is asked.
        host: what the server listens at, as the user named it.
        most_bytes: of an image that is sent.
    """

    answerer: Answerer
    turns: Turns
    host: str
    most_bytes: int

    @contextlib.contextmanager
    def serve(self, listening: socket.socket) -> Iterator[Uploads]:
        """Serve the page in threads, inside of the `with` block; images that are sent are gone when it ends.

        The block is to do the `turns`, and to tidy the uploads. Raises RunError where the server does not start.
        """
        with scratch.folder_for_libraries("demo") as folder:
            before = os.environ.get("GRADIO_TEMP_DIR")
            os.environ["GRADIO_TEMP_DIR"] = str(folder)
            try:
                uploads = Uploads(folder)
                with _running(self.app(uploads, addresses.is_loopback(listening)), listening):
                    yield uploads
            finally:
                os.environ.pop("GRADIO_TEMP_DIR")
                if before is not None:
                    os.environ["GRADIO_TEMP_DIR"] = before

    def app(self, uploads: Uploads, alone: bool) -> Guard:
        """The page as an application (ASGI); `alone`: for this machine, by its own names."""
        gradio, fastapi, _ = libraries.opened()
        # It makes a folder there for what this page does not do.
        gradio.routes.DEFAULT_TEMP_DIR = str(uploads.folder)
        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        fonts = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
        gradio.mount_gradio_app(
            app,
            self._blocks(gradio, uploads),
            path="/",
            footer_links=[],
            show_error=False,
            max_file_size=self.most_bytes,
            ssr_mode=False,
            # Its usual theme has fonts from elsewhere.
            theme=gradio.themes.Default(font=fonts[0], font_mono=fonts[1]),
            css=fragments.STYLE,
        )
        hosts = {"localhost", addresses.LOOPBACK, "::1", self.host.lower()} if alone else None
        return Guard(app, self.most_bytes, hosts, uploads.tidy)

    def _blocks(self, gradio: Any, uploads: Uploads) -> Any:
        """The page of gradio: a heading, a place for an image, and what is said of it."""

        async def only_uploads(path: str) -> str:
            # gradio would fetch what an address names.
            if uploads.read(str(path)) is None:
                raise gradio.Error(_GONE)
            return str(path)

        def look(upload: Any) -> tuple[None, str]:
            # The place for images is empty again: for the next one.
            return None, "" if upload is None else self._said(uploads, upload.path, upload.orig_name)

        title = f"{self.answerer.deployed.config.model}: try it"
        with gradio.Blocks(title=title, analytics_enabled=False) as blocks:
            gradio.HTML(fragments.heading(self.answerer, SECONDS))
            place = gradio.File(label=f"An image, up to {self.most_bytes / 2**20:g} MB", height=160, elem_id="image")
            result = gradio.HTML(elem_id="said")
            # Neither opened nor copied by gradio.
            place.preprocess = lambda payload: payload
            place.async_move_resource_to_block_cache = only_uploads
            place.upload(look, place, [place, result], api_visibility="undocumented", concurrency_limit=1)
        return blocks.queue(max_size=_WAITING)

    def _said(self, uploads: Uploads, path: str, given_name: str | None) -> str:
        """What the page says of an image that was sent; in the thread of a request."""
        name = given_name or Path(path).name

        def answer() -> Answer | None:
            content = uploads.read(path)
            return None if content is None else self.answerer.answer(content, name)

        try:
            found = self.turns.ask(answer)
            return fragments.problem(f"{name}: {_GONE}") if found is None else fragments.said(found, self.answerer)
        except CancelledError:
            return fragments.problem("the page has ended")
        except RunError as error:  # what the pictures of neighbours take
            return fragments.problem(str(error))


@contextlib.contextmanager
def _running(app: Callable[..., Any], listening: socket.socket) -> Iterator[None]:
    """Run a server in a thread, inside of the `with` block."""
    _, _, uvicorn = libraries.opened()
    # It leaves signals alone in a thread. What goes wrong in an answer is said with its traceback.
    config = uvicorn.Config(app, log_level="error", access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="server", daemon=True)
    thread.start()
    try:
        _wait_for(server, thread)
        yield
    finally:
        # A page that is open keeps a connection, which is cut: that is no error to be told of.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        server.should_exit = server.force_exit = True
        thread.join(_END)
        listening.close()


def _wait_for(server: Any, thread: threading.Thread) -> None:
    """Wait until a server answers. Raises RunError where it does not."""
    pause = threading.Event()
    for _ in range(_START * 20):
        if server.started:
            return
        if not thread.is_alive():
            break
        pause.wait(0.05)
    raise RunError("the page's server did not start; the lines above say why")
