"""The page and its server, with a network that is none: what gradio and a browser make of it.

gradio is not in the tests' own environment, as its bounds hold pillow back; `.ci/run` has one with both.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from mindghost.config import Config
from mindghost.demo import addresses
from mindghost.demo.answers import Answer, Wanted
from mindghost.demo.site import Site
from mindghost.demo.turns import Turns
from mindghost.inference.deployment import Deployment
from mindghost.inference.predictor import Prediction
from mindghost.tasks.show import Guess
from tests.helpers import visitor
from tests.helpers.browser import BROWSER, Page

MOST = 1 << 20


@pytest.fixture
def gradio():
    """The library. A test that asks for it is skipped where it is not there."""
    return pytest.importorskip("gradio")


class Counting:
    """An answerer that says how many bytes an image has; of one that begins with `!` it knows nothing; `?` breaks."""

    index, wanted = None, Wanted()

    def __init__(self) -> None:
        config = Config(model="ghostnet_050", num_classes=1, image_resize=64)
        self.deployed = Deployment(Path("x.ckpt"), config, ("bytes",))
        self.busy, self.most, self.threads = 0, 0, set()

    def answer(self, content: bytes, name: str) -> Answer:
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.threads.add(threading.current_thread())
        try:
            if content.startswith(b"?"):
                raise RuntimeError("nobody expected this")
            if content.startswith(b"!"):
                return Answer(Prediction(name, (), f"{name}: no image"))
            pixels = np.full((300, 400, 3), len(content) % 256, np.uint8)
            guess = Guess(0, f"{len(content)} bytes", 1.0)
            return Answer(Prediction(name, (guess,), pixels=pixels), picture=pixels, overlay=pixels)
        finally:
            self.busy -= 1


@contextlib.contextmanager
def served(host: str = "127.0.0.1", most: int = MOST) -> Iterator[SimpleNamespace]:
    """A page that is served, its turns taken by a thread."""
    answerer, turns, over = Counting(), Turns(), threading.Event()
    with addresses.listen(host, 0) as listening, Site(answerer, turns, host, most).serve(listening) as uploads:
        thread = threading.Thread(target=turns.serve, args=(over.is_set,))
        thread.start()
        try:
            yield SimpleNamespace(
                address=addresses.address(listening), answerer=answerer, folder=uploads.folder, thread=thread
            )
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module")
def running() -> Iterator[SimpleNamespace]:
    pytest.importorskip("gradio")
    with served() as found:
        yield found


# --- With gradio, without a browser


def test_an_answer_and_the_next_one(running):
    for content in (b"12345", b"1234567"):
        html = visitor.look(running.address, "phöto <b>.png", content)
        assert f"{len(content)} bytes" in html
        assert "ph&" not in html
        assert "phöto &lt;b&gt;.png" in html
    html = visitor.look(running.address, "bad.png", b"!")
    assert "bad.png: no image" in html
    assert "5 bytes" in visitor.look(running.address, "a.png", b"12345")


def test_an_error_that_nobody_expected_has_its_traceback_here_and_none_there(running, capfd):
    path = visitor.upload(running.address, "a.png", b"?")
    message = visitor.ask(running.address, path=path, orig_name="a.png", meta={"_type": "gradio.FileData"})
    assert (message["success"], message["output"]["error"]) == (False, None)
    said = capfd.readouterr().err
    assert "Traceback" in said
    assert "RuntimeError: nobody expected this" in said
    assert "5 bytes" in visitor.look(running.address, "a.png", b"12345")


def test_many_at_once_take_turns_in_one_thread(running):
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(visitor.look, running.address, "a.png", b"x" * (1 + count // 2)) for count in range(6)]
        for count, each in enumerate(asked):
            assert f"{1 + count // 2} bytes" in each.result()
    assert running.answerer.most == 1
    assert running.answerer.threads == {running.thread}


def test_uploads_lie_in_our_folder_alone(running):
    path = visitor.upload(running.address, "mine.png", b"some bytes")
    assert Path(path).is_relative_to(running.folder)
    assert Path(path).read_bytes() == b"some bytes"
    assert running.folder.name.startswith("ghostnet-demo-")
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{running.address}gradio_api/file={path}")


@pytest.mark.parametrize("meta", [{"meta": {"_type": "gradio.FileData"}}, {}], ids=["as gradio has it", "raw"])
@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:9/a.png", "https://example.org/a.png", ""])
def test_nothing_but_uploads_is_read(running, path, meta):
    message = visitor.ask(running.address, path=path, orig_name="a.png", **meta)
    if message["success"]:
        assert "a.png: the image is not here any more" in message["output"]["data"][1]
    assert "root:" not in str(message)


def test_an_image_that_is_too_large_is_refused(running):
    connection = HTTPConnection(*running.address.split("/")[2].split(":"))
    connection.putrequest("POST", f"/{visitor.UPLOAD}")
    connection.putheader("Content-Length", str(MOST + (1 << 17)))
    # Before it has come.
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (413, b"Too large: at most 1 MB.")
    connection.close()
    # Within what a request may have around a file.
    with pytest.raises(HTTPError, match="413"):
        visitor.upload(running.address, "a.png", bytes(MOST + 10))
    assert f"{MOST - 10} bytes" in visitor.look(running.address, "a.png", bytes(MOST - 10))


def test_another_name_of_this_machine_is_refused(running):
    with pytest.raises(HTTPError, match="421"):
        urlopen(Request(running.address, headers={"Host": "example.org"}))
    with urlopen(Request(running.address, headers={"Host": "localhost:1"})) as answer:
        assert answer.status == 200
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_nothing_is_left_and_the_environment_is_as_it_was(gradio, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/nowhere")
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with served() as running:
        visitor.look(running.address, "a.png", b"123")
        folder = running.folder
        assert any(folder.rglob("a.png"))
    assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert os.environ["GRADIO_TEMP_DIR"] == "/nowhere"
    with pytest.raises(OSError, match="refused"):
        urlopen(running.address)


def test_the_end_is_quiet_while_a_page_is_open(gradio, capfd):
    with served() as running:
        open_page = urlopen(f"{running.address}gradio_api/heartbeat/abc")
        assert open_page.status == 200
    assert capfd.readouterr() == ("", "")
    open_page.close()


def test_all_addresses_take_any_name(gradio):
    with (
        served("0.0.0.0") as running,
        urlopen(Request(running.address, headers={"Host": "my.machine:7860"})) as answer,
    ):
        assert answer.status == 200


# --- In a browser


@pytest.fixture(scope="module")
def page(running, tmp_path_factory) -> Iterator[Page]:
    found = Page(tmp_path_factory.mktemp("profile"))
    found.open(running.address)
    found.wait(INPUT)
    yield found
    found.close()


INPUT = "document.querySelector('#image input[type=file]') !== null"
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)


def drop(page: Page, file: Path, words: str) -> None:
    page.wait(INPUT)
    page.give_file("#image input[type=file]", file)
    page.wait(f"document.querySelector('#said').innerText.includes({words!r})")


@needs_browser
def test_a_visitor_drops_images(page, running, tmp_path):
    for name, content, words in (
        ("a.png", b"12345", "5 bytes"),
        ("nothing.png", b"", "0 bytes"),
        ("bad.png", b"!", "bad.png: no image"),
        ("<b>b.png", b"123", "<b>b.png"),
    ):
        (tmp_path / name).write_bytes(content)
        drop(page, tmp_path / name, words)
    assert page.wait("[...document.querySelectorAll('#said img')].map(i => i.naturalWidth)", bool) == [400, 400]
    # All from this server alone, and nothing that the browser had to refuse.
    page.call("Page.getFrameTree")
    others = [address for address in page.requested if not address.startswith((running.address, "data:", "blob:"))]
    assert others == []
    assert page.said == []


@needs_browser
def test_too_large_an_image_is_said_in_the_page(page, tmp_path):
    (tmp_path / "big.png").write_bytes(bytes(MOST + 100_000))
    page.wait(INPUT)
    page.give_file("#image input[type=file]", tmp_path / "big.png")
    assert "maximum allowed size" in page.wait("document.querySelector('.toast-body')?.innerText ?? ''")


@needs_browser
@pytest.mark.parametrize("width", [390, 1100])
def test_nothing_sticks_out_to_the_side(page, tmp_path, width):
    page.resize(width, 1500, mobile=width < 500)
    name = f"{'long_name_' * 12}{width}.png"
    (tmp_path / name).write_bytes(b"1234")
    drop(page, tmp_path / name, name)
    sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert page.ask(sizes) == [width, width]
    # The two pictures, as dark as they were made, once the page has stopped to fade them.
    deadline = time.monotonic() + 60
    while black(page, tmp_path) < 20_000:
        assert time.monotonic() < deadline


def black(page: Page, folder: Path) -> int:
    """How many pixels of what a page shows are black."""
    page.screenshot(folder / "page.png")
    pixels = np.asarray(Image.open(folder / "page.png").convert("RGB"))
    return int((pixels < 12).all(axis=2).sum())
