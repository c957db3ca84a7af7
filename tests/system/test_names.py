"""Names of any kind, of files, folders and classes: they work, or are refused in one line, and nothing is forged."""

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.config import Config
from mindghost.data import dataset, folders
from mindghost.errors import UserError
from mindghost.inference.sources import expand, frames, picture_name
from mindghost.tasks import show
from tests.helpers.launchers import environment
from tests.helpers.places import ROOT

# --- What prints


def _shows(node: ast.expr) -> bool:
    """Whether what is printed is fit to be shown: a constant, JSON, or what `shown` and our tables made."""
    if isinstance(node, ast.IfExp):
        return _shows(node.body) and _shows(node.orelse)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[2] in ("shown", "dumps", "tables", "table", "to_yaml")
    return isinstance(node, ast.Constant)


# Lines that were made fit before, and the files.
SHOWN_BEFORE = {("predict.py", "line"), ("log.py", "self.format(record)")}


@pytest.mark.parametrize("folder", ["src/mindghost", "examples", "."])
def test_whatever_is_printed_is_shown(folder):
    """`print` and `tqdm.write` get nothing that a stranger named, but through `display`."""
    found = []
    for path in (ROOT / folder).glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py"):
        if path.name in ("display.py", "predict_onnx.py"):  # the latter has no package to import from
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "tqdm.write"):
                for argument in node.args:
                    if not _shows(argument) and (path.name, ast.unparse(argument)) not in SHOWN_BEFORE:
                        found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


@pytest.mark.parametrize("folder", ["src/mindghost", "examples"])
def test_texts_name_their_encoding(folder):
    """What is opened as text is UTF-8 in every locale."""
    found = []
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or any(key.arg == "encoding" for key in node.keywords):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            text = ast.unparse(node.func) == "open" and not re.search("'[rwax]b", ast.unparse(node))
            if name in ("read_text", "write_text") or text:
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    # Of the system, whose texts are ASCII; and a file that nothing is written to.
    assert [one for one in found if not re.search(r"/proc/|status\.read_text|\.lock", one)] == []


# --- Names of images


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "a[1]=b (c)"
    folder.mkdir()
    for name in (b"x.png", b"[x].png", b"a\nb.png", b"c\xff.png"):
        Image.new("RGB", (4, 4)).save(os.fsdecode(os.fsencode(folder) + b"/" + name))
    return folder


@pytest.mark.fault("names", "ok")
def test_what_is_there_is_no_pattern(photos):
    """Not a folder, not a file, not the folders before a pattern."""
    every = sorted(str(path) for path in photos.iterdir())
    assert sorted(expand([str(photos)])) == every
    assert expand([str(photos / "[x].png")]) == [str(photos / "[x].png")]
    assert sorted(expand([f"{photos}/*.png"])) == every
    assert expand([f"{photos}/[x].*"]) == [str(photos / "x.png")]


@pytest.mark.fault("names", "ok")
def test_one_odd_name_in_a_list_ends_nothing(photos):
    odd = ["a[1].png", "*.nothing", "x" * 5000, "a\x1b.png", os.fsdecode(b"\xff.png"), "a\0b.png"]
    listed = [f"{photos}/x.png\r\n", *odd, "", "  ", "-", f"{photos}/a\nb.png", str(photos.parent / "none" / "*")]
    found = expand(["-"], listed)
    assert found == [f"{photos}/x.png", *odd, f"{photos}/a\nb.png", str(photos.parent / "none" / "*")]


@pytest.mark.fault("names", "ok")
def test_a_picture_of_a_long_name_can_be_written(tmp_path):
    taken: set[str] = set()
    for image in ("x" * 251 + ".jpg", "x" * 251 + ".bmp", "猫" * 83 + ".jpeg", os.fsdecode(b"\xff" * 250 + b".jpg")):
        (tmp_path / picture_name(image, taken)).write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == len(taken) == 4


@pytest.mark.fault("class names", "ok")
def test_a_class_of_any_name_is_written_below_a_picture():
    guesses = tuple(show.Guess(0, name, 0.5) for name in ("a\nb", "c\udcff", "猫", "\x1b[2J"))
    pixels = np.zeros((8, 8, 3), np.uint8)
    lines = [show.draw(pixels, (guess,)) for guess in guesses]
    # As wide and high as with any other name.
    assert {picture.size for picture in lines} == {lines[-1].size}


@pytest.mark.fault("names", "ok")
def test_a_video_of_any_name(tmp_path):
    cv2 = pytest.importorskip("cv2")
    plain = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(plain), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(3):
        writer.write(np.full((48, 64, 3), 50 * shade, np.uint8))
    writer.release()
    for name in (b"a\xff.avi", b"%02d.avi", b"a\nb[1].avi"):
        odd = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        os.link(plain, odd)
        assert [frame for frame, _ in frames(odd)] == [f"{odd}#{number}" for number in range(3)]


# --- Names of classes


@pytest.mark.fault("class names", "clean error")
@pytest.mark.parametrize("known", ["NFC", "NFD"])
def test_a_class_in_other_unicode_characters_is_said_to_be_so(known, tmp_path):
    names = {form: unicodedata.normalize(form, "chat-huant é") for form in ("NFC", "NFD")}
    other = names["NFD" if known == "NFC" else "NFC"]
    (tmp_path / "val" / other).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "val" / other / "0.png")
    config = Config(data_dir=str(tmp_path), num_classes=2)
    with pytest.raises(UserError, match="looks like the known .*written in other Unicode characters") as caught:
        dataset.open_split(config, "val", ["ant", names[known]])
    assert f"({'NFD' if known == 'NFC' else 'NFC'})" in str(caught.value)
    assert len(dataset.open_split(config, "val", ["ant", other])) == 1


@pytest.mark.fault("class names", "ok")
def test_two_classes_that_look_the_same_are_one_line(tmp_path, caplog):
    for form in ("NFC", "NFD"):
        folder = tmp_path / "train" / unicodedata.normalize(form, "é")
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "0.png")
    with caplog.at_level("WARNING", "mindghost"):
        assert len(folders.open_folders(tmp_path / "train").classes) == 2
    (message,) = [record.getMessage() for record in caplog.records]
    assert "two classes look the same, e\u0301 and é" in message


# --- Where files are kept


@pytest.mark.fault("environments", "ok")
@pytest.mark.parametrize("name", [b"host:cache", b"cache\xff"])
def test_a_cache_that_mindspore_loads_no_operators_from_is_said_to_be_so(name, tmp_path, monkeypatch):
    """It takes PATH:FUNCTION, in UTF-8."""
    from mindghost.csrc.cpp_library import NativeError
    from mindghost.ops import library

    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / os.fsdecode(name)))
    with pytest.raises(NativeError, match="give another MINDGHOST_HOME"):
        library.library()


# --- Whole commands

CLASSES = (b"=1+1", b"a\nb", b"c\xff", "dög".encode(), b"$\\frac$", "猫|`x`](y)<b>".encode())
SETTINGS = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def write_classes(root: bytes) -> None:
    rng = np.random.default_rng(0)
    for split, count in ((b"train", 4), (b"val", 2)):
        for label, name in enumerate(CLASSES):
            folder = os.path.join(root, split, name)
            os.makedirs(folder)
            for number in range(count):
                pixels = rng.integers(0, 80, (36, 40, 3)) + np.array([label * 25, 170 - label * 25, 60])
                Image.fromarray(np.uint8(pixels)).save(os.fsdecode(os.path.join(folder, b"%d\xfe\n.png" % number)))


@pytest.mark.fault("names", "ok")
def test_a_run_with_odd_names_everywhere_in_the_c_locale(tmp_path):
    """Folders, classes, files, HOME and TMPDIR: trained, validated, predicted, exported, reported, drawn."""
    root = tmp_path / os.fsdecode(b"odd \xff+=([x])\n\x1b[31m\xc3\xb6$")
    data, run, home, temporary = (root / name for name in ("data", "run", "home", "tmp"))
    for folder in (home, temporary):
        folder.mkdir(parents=True)
    write_classes(os.fsencode(data))
    weights = str(run / "ghostnet_050_best.ckpt")
    keys = {"epoch_size": 1, "warmup_epochs": 0, "decay_epochs": 1, "batch_size": 4, "image_resize": 32, "mode": 1}
    options = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
    short = ["--num_parallel_workers", "1", "--ckpt_save_dir", str(run)]
    recipe = "configs/ghostnet/ghostnet_050_cpu.yaml"
    lines = [
        ["train.py", "-c", recipe, *options, "--data_dir", str(data), "--num_classes", "6", *short],
        ["validate.py", "--ckpt_path", weights, "--mode", "0", "--report", str(root / "report")],
        ["mindghost", "predict", "-", "--csv", "--ckpt_path", weights, "--top_k", "6", "--save_dir", str(root / "out")],
        ["mindghost", "export", "--ckpt_path", weights, "--format", "mindir"],
        ["validate.py", "--ckpt_path", str(run / "ghostnet_050_best.mindir")],
        ["mindghost", "model-card", str(run)],
        ["mindghost", "plot", str(run)],
    ]
    commands = tmp_path / "commands.json"
    commands.write_text(json.dumps(lines))
    images = [os.path.join(os.fsencode(data), b"val", name, b"0\xfe\n.png") for name in CLASSES]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers" / "walk.py"), str(commands)],
        input=b"\0".join([*images, b"nowhere[1]\x1b.png"]),
        capture_output=True,
        env={**environment(home, MINDGHOST_HOME="", TMPDIR=str(temporary)), **SETTINGS},
        cwd=ROOT,
        timeout=570,
    )
    text = done.stdout.decode("ascii")  # nothing else in this locale
    assert re.findall("^<(.*)>$", text, re.MULTILINE) == ["0", "0", "1", "0", "0", "0", "0"], done.stderr
    error = done.stderr.decode("ascii")
    assert error.splitlines() == [
        r"mindghost predict: skipped: nowhere[1]\x1b.png: no such file; put an image there, or leave it out",
        "mindghost predict: error: 1 of 7 images could not be read",
    ]
    assert "\x1b" not in text
    assert not any(temporary.iterdir())
    _check_files(root, run, data)
    table = text[text.index("image,rank,") :]
    rows = list(csv.reader(io.StringIO(table[: table.index("<1>")])))
    assert len(rows) == 1 + 6 * 6
    assert {row[2] for row in rows[1:]} == {"'=1+1", r"a\nb", r"c\xff", "d\\xf6g", r"$\frac$", r"\u732b|`x`](y)<b>"}


def _check_files(root: Path, run: Path, data: Path) -> None:
    expected = sorted(map(os.fsdecode, CLASSES))
    assert json.loads((run / "classes.json").read_text()) == expected
    config = Config.from_file(run / "config.yaml")
    assert (config.data_dir, config.ckpt_save_dir) == (str(data), str(run))
    log = (run / "train.log").read_text(encoding="utf-8")
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in log.splitlines())
    with open(root / "report" / "per_class.csv", encoding="utf-8", newline="") as file:
        names = [row[1] for row in csv.reader(file)][1:]
    assert sorted(names) == sorted(["'=1+1", r"a\nb", r"c\xff", "dög", r"$\frac$", "猫|`x`](y)<b>"])
    page = (root / "report" / "report.html").read_text(encoding="utf-8")
    assert "猫|`x`](y)&lt;b&gt;" in page
    assert r"c\xff" in page
    card = (run / "model_card.md").read_text(encoding="utf-8")
    assert r"猫\|\`x\`\](y)\<b\>" in card
    assert len(list((root / "out").iterdir())) == len(CLASSES)
    for picture in (root / "report" / "mistakes.png", run / "model_card.png", run / "metrics.png"):
        assert Image.open(picture).format == "PNG"
