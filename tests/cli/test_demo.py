"""`mindghost demo` as a user types it."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindghost.search import index as indices
from mindghost.search import reading
from mindghost.search.embed import Embedder
from tests.helpers import short, visitor
from tests.helpers.commands import run_mindghost
from tests.helpers.launchers import environment
from tests.helpers.pictures import write_images
from tests.helpers.places import ROOT
from tests.helpers.trained import CLASSES, write_run

WEIGHTS = "run/ghostnet_050_best.ckpt"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A run, images D, an index of them."""
    from mindghost.inference import artifact

    folder = tmp_path_factory.mktemp("demo")
    write_images(folder / "D", CLASSES, 1, 2)
    with short.network(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        deployed = artifact.of_file(write_run(Path("run"), model="ghostnet_050", image_resize=32))
        samples = reading.opened(["D/val"], deployed.config)
        vectors, _ = Embedder.open(deployed, 6).vectors(samples)
        indices.build(Path("i.index"), vectors)
    return folder


@pytest.fixture(autouse=True)
def there(home, monkeypatch, capsys) -> None:
    monkeypatch.chdir(home)
    capsys.readouterr()


@contextlib.contextmanager
def serving(home: Path, tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The command in a process of its own, with its temporary files in `tmp`, once it says its address."""
    command = [sys.executable, str(ROOT / "tests/helpers/short_program.py"), "demo", "--ckpt_path", WEIGHTS, *words]
    places = environment(tmp_path, TMPDIR=str(tmp_path / "tmp"), PYTHONPATH=f"{ROOT / 'src'}:{ROOT}")
    (tmp_path / "tmp").mkdir(exist_ok=True)
    process = subprocess.Popen(command, cwd=home, env=places, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        found = None
        while not found:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            found = re.match(r"(http://127\.0\.0\.1:\d+/) is the page; Ctrl-C ends it\n", line)
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_page_answers_until_a_signal_ends_it(home, tmp_path, number):
    pytest.importorskip("gradio")
    words = ("--index", "i.index", "--port", "0", "--top_k", "2")
    with serving(home, tmp_path, *words) as (process, address):
        html = visitor.look(address, "mine.png", Path("D/val/bee/0.png").read_bytes())
        assert html.count("<li") == 2
        assert "where it saw" in html
        assert "1.0000 bee<br>0.png" in html
        assert "rubbish.png: not a readable image" in visitor.look(address, "rubbish.png", b"rubbish")
        assert any((tmp_path / "tmp").rglob("mine.png"))
        process.send_signal(number)
        said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said == ("", f"mindghost demo: stopped by {signal.Signals(number).name}\n")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_other_addresses_are_a_warning(home, tmp_path):
    pytest.importorskip("gradio")
    with serving(home, tmp_path, "--host", "0.0.0.0", "--port", "0", "--no_explain") as (process, address):
        assert "where it saw" not in visitor.look(address, "a.png", Path("D/val/bee/0.png").read_bytes())
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert said.splitlines()[0] == (
        "mindghost demo: --host 0.0.0.0: all who can reach this machine can use the page; it asks nobody for a password"
    )


def demo(*words: object) -> int:
    return run_mindghost("demo", "--ckpt_path", WEIGHTS, *words)


def refusal(capsys, *words: object) -> str:
    """The one line of a command that ends with status 2."""
    assert demo(*words) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("mindghost demo: error: ")
    return said.err.removeprefix("mindghost demo: error: ")


def test_a_missing_library_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert refusal(capsys).endswith("; pip install 'mindghost[demo]'\n")


@pytest.fixture
def gradio(monkeypatch) -> None:
    """Something that has its name: for what is found out without it."""
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="6.31.0"))


@pytest.mark.usefixtures("gradio", "short_network")
def test_what_cannot_be_served_is_one_line(capsys, home, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal(capsys, "--port", port).startswith(f"--port: {port} is taken; ")
    assert refusal(capsys, "--port", 70_000).startswith("--port: expected an integer from 0 to 65,535")
    assert refusal(capsys, "--host", "no.such.host.invalid", "--port", 0).startswith("--host: 'no.such.host.invalid' ")
    assert refusal(capsys, "--max_upload_mb", 0).startswith("--max_upload_mb: expected a number")
    assert refusal(capsys, "--no_explain", "--explain_layer", "blocks.0").startswith("--explain_layer: is of maps")
    assert refusal(capsys, "--index", "none.index").startswith("--index: none.index")
    (tmp_path / "no.index").write_text("x")
    assert refusal(capsys, "--index", tmp_path / "no.index", "--port", 0).startswith(f"{tmp_path}/no.index: ")
    assert "no layer is called 'nothing'" in refusal(capsys, "--explain_layer", "nothing", "--port", 0)


@pytest.mark.usefixtures("gradio", "short_network")
def test_an_index_of_another_network_is_one_line(capsys, home, tmp_path):
    config = home / "run" / "config.yaml"
    before = config.read_text()
    config.write_text(before.replace("image_resize: 32", "image_resize: 64"))
    try:
        assert "not of the network of i.index: preprocessing" in refusal(capsys, "--index", "i.index", "--port", 0)
    finally:
        config.write_text(before)


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        run_mindghost("demo", "--help")
    text = capsys.readouterr().out
    for option in ("--index", "--neighbours", "--top_k", "--no_explain", "--host", "--port", "--max_upload_mb"):
        assert option in text
