"""Files that commands write: one that is there is replaced where the same command made it, or by order."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.deploy import own_files
from mindghost.errors import UserError
from mindghost.files import intact, outputs
from tests.helpers.places import ROOT

RECORD = {"epoch": 1, "step": 3, "lr": 0.1, "train_loss": 2.0, "val_loss": None, "top_1": None, "top_5": None}


def png(value: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 0)).save(content, "PNG")
    return content.getvalue()


def output(path: Path, *inputs: Path, overwrite: bool = False) -> outputs.Output:
    return outputs.Output(path, "--output", outputs.png_of("a.py"), overwrite, outputs.identities(inputs))


def test_a_marked_picture_is_a_picture_and_its_makers():
    marked = outputs.mark_png(png(7), "a.py")
    with Image.open(io.BytesIO(marked)) as picture:
        assert np.asarray(picture)[0, 0].tolist() == [7, 0, 0]
        assert picture.text["ghostnet"].split()[0] == "a.py"
    assert outputs.png_of("a.py")(marked)
    assert not outputs.png_of("b.py")(marked)
    assert not outputs.png_of("a.py")(png(7))
    assert not outputs.png_of("a.py")(b"")
    for place in range(len(marked)):
        changed = bytearray(marked)
        changed[place] ^= 1
        assert not outputs.png_of("a.py")(bytes(changed))
    assert not outputs.png_of("a.py")(marked + b"\n")


@pytest.mark.fault("overwriting", "ok")
def test_what_the_command_made_is_replaced_and_what_is_new_is_made(tmp_path):
    for value in (1, 2):
        output(tmp_path / "a.png").write(outputs.mark_png(png(value), "a.py"))
    assert (tmp_path / "a.png").read_bytes() == outputs.mark_png(png(2), "a.py")


@pytest.mark.fault("overwriting", "clean error")
@pytest.mark.parametrize("content", [b"mine", b"", png(), outputs.mark_png(png(), "b.py")])
def test_any_other_file_is_kept_unless_it_is_to_be_overwritten(content, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for call in (output(path).check, lambda: output(path).write(b"new")):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == (
            f"--output: {path}: exists, and is not what this command has written; name another file, or give "
            "--overwrite to replace it"
        )
    assert path.read_bytes() == content
    output(path, overwrite=True).write(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.fault("overwriting", "clean error")
@pytest.mark.parametrize("lead", [os.symlink, os.link, lambda mine, path: None])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_read_is_never_replaced(overwrite, lead, tmp_path):
    mine, path = tmp_path / "mine.png", tmp_path / "a.png"
    mine.write_bytes(outputs.mark_png(png(), "a.py"))
    if lead(mine, path) is None and not path.exists():
        path = mine
    with pytest.raises(UserError, match="--output: .*: is what is read; name another file"):
        output(path, mine, overwrite=overwrite).write(b"new")
    assert mine.read_bytes() == outputs.mark_png(png(), "a.py")


@pytest.mark.fault("overwriting", "clean error")
def test_nothing_is_written_through_a_link(tmp_path):
    mine, path = tmp_path / "mine.png", tmp_path / "a.png"
    mine.write_bytes(outputs.mark_png(png(), "a.py"))
    path.symlink_to(mine)
    with pytest.raises(UserError, match="--output: .*a.png: is a link; name another file, or give --overwrite"):
        output(path).write(b"new")
    output(path, overwrite=True).write(b"new")
    assert (path.is_symlink(), path.read_bytes()) == (False, b"new")
    assert outputs.png_of("a.py")(mine.read_bytes())


def test_marks_of_json():
    own = outputs.json_of("a.py")
    assert own(json.dumps(outputs.mark_json({"x": 1}, "a.py")).encode())
    for content in (b"", b"[]", b"{}", b'{"made_by": "b.py"}', b"[" * 100_000):
        assert not own(content)
    assert outputs.json_with("a", "b")(b'{"a": 1, "b": 2, "c": 3}')
    assert not outputs.json_with("a", "b")(b'{"a": 1}')


@pytest.mark.fault("overwriting", "clean error")
@pytest.mark.parametrize(
    ("name", "content", "digest"),
    [
        ("w.onnx", b"my own network", False),
        ("w.onnx", b"my own ghostnet", True),
        ("w.mindir", b'changed {"ghostnet": "1"}', False),
        ("w.json", b'{"classes": ["a"]}', False),
        ("w.json", b"notes", False),
    ],
)
def test_an_export_replaces_exports_alone(name, content, digest, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    if digest:
        intact.write_with_sidecar(path, content)
    with pytest.raises(UserError, match=f"--out: .*{name}: exists, and is not what this command has written"):
        own_files.check_replaceable([path], False, tmp_path / "w.ckpt")
    own_files.check_replaceable([path], True, tmp_path / "w.ckpt")
    with pytest.raises(UserError, match="is what is read"):
        own_files.check_replaceable([path], True, path)
    # As an export leaves them.
    own = b'{"ghostnet": "1.0", "source": {}}'
    intact.write_with_sidecar(path, own if name == "w.json" else b"model " + own)
    own_files.check_replaceable([path, tmp_path / "absent.onnx"], False, tmp_path / "w.ckpt")


def command(*words: object) -> subprocess.CompletedProcess:
    """`python WORDS`."""
    line = [sys.executable, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(line, capture_output=True, text=True, env=environment)


@pytest.mark.fault("overwriting", "clean error")
def test_a_picture_of_metrics_again_and_over_a_photo(tmp_path):
    """Without an option, as users call it: the picture is RUN/metrics.png."""
    pytest.importorskip("matplotlib")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(RECORD) + "\n")
    for _ in range(2):
        done = command("-m", "mindghost", "plot", tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    photo = png()
    (tmp_path / "metrics.png").write_bytes(photo)
    done = command("-m", "mindghost", "plot", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "metrics.png: exists, and is not what this command has written" in done.stderr
    assert (tmp_path / "metrics.png").read_bytes() == photo


@pytest.mark.fault("overwriting", "clean error")
def test_converted_weights_and_their_report_replace_nothing(tmp_path):
    for name in ("in.ckpt", "out.ckpt", "report.txt"):
        (tmp_path / name).write_bytes(b"mine")
    done = command("-m", "mindghost", "convert", tmp_path / "in.ckpt", tmp_path / "out.ckpt", "--model", "ghostnet_050")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "OUT: " in done.stderr
    assert " exists; name another file, or give --overwrite to replace it" in done.stderr
    assert (tmp_path / "out.ckpt").read_bytes() == b"mine"


@pytest.mark.fault("overwriting", "clean error")
@pytest.mark.parametrize(
    ("program", "file"), [("make_digits.py", "val/3/0003.png"), ("make_scenes.py", "val/masks/0003.png")]
)
def test_examples_replace_no_picture_of_others(tmp_path, program, file):
    pytest.importorskip("sklearn")
    mine = tmp_path / file
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    done = command(ROOT / "examples" / program, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{mine}: exists, and is another picture; give another folder" in done.stderr
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [mine]
