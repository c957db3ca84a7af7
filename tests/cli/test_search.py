"""`mindghost embed`, `index` and `search` as a user types them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import short
from tests.helpers.commands import run_mindghost
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run

KEYS = {"model": "ghostnet_050", "image_resize": 32, "crop_pct": 0.8, "num_parallel_workers": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A run, images D, their vectors v.npz and an index of them, made by the commands."""
    folder = tmp_path_factory.mktemp("search")
    write_images(folder / "D", CLASSES, 4, 2)
    with short.network():
        write_run(folder / "run", **KEYS)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert run_mindghost("embed", "D", "--ckpt_path", "run/ghostnet_050_best.ckpt", "-o", "v.npz") == 0
            assert run_mindghost("index", "build", "v.npz", "-o", "i.index") == 0
    return folder


@pytest.fixture(autouse=True)
def there(home, short_network, monkeypatch, capsys) -> None:
    monkeypatch.chdir(home)
    capsys.readouterr()


def search(*words: object) -> int:
    line = ["search", "--index", "i.index", "--ckpt_path", "run/ghostnet_050_best.ckpt", *words]
    return run_mindghost(*line)


def test_embed_leaves_nothing_beside(home):
    assert sorted(file.name for file in home.iterdir() if file.name.startswith(".")) == [".i.index.lock"]
    with np.load("v.npz") as found:
        assert found["vectors"].shape == (18, 1280)


def test_a_table(capsys):
    assert search("D/val/ant/1.png", "D/val/bee/0.png", "--top_k", 2) == 0
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["image", "rank", "score", "neighbour", "class"]
    assert lines[1] == ["D/val/ant/1.png", "1", "1.0000", "D/val/ant/1.png", "ant"]
    assert lines[2][0] == "2"
    assert lines[3] == ["D/val/bee/0.png", "1", "1.0000", "D/val/bee/0.png", "bee"]
    assert len(lines) == 5
    assert said.err == ""


def test_lines_of_json_and_of_csv_are_brute_forces(capsys):
    with np.load("v.npz") as found:
        vectors, paths = found["vectors"], found["paths"].tolist()
    query = paths.index("D/val/cat/1.png")
    scores = vectors @ vectors[query]
    expected = [paths[row] for row in np.argsort(-scores, kind="stable")[:5]]
    assert search("D/val/cat/1.png", "--top_k", 5, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["image"] == "D/val/cat/1.png"
    assert [each["path"] for each in record["neighbours"]] == expected
    np.testing.assert_allclose([each["score"] for each in record["neighbours"]], np.sort(scores)[::-1][:5], atol=1e-5)
    assert record["neighbours"][0] | {"score": 1} == {"path": expected[0], "score": 1, "class": "cat", "label": 2}
    assert search("D/val/cat/1.png", "--top_k", 5, "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["neighbour"] for row in rows] == expected
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]


def test_by_a_graph(capsys, own_cache):
    pytest.importorskip("usearch")
    assert run_mindghost("index", "build", "v.npz", "-o", "g.index", "--approximate") == 0
    line = ["search", "--index", "g.index", "--ckpt_path", "run/ghostnet_050_best.ckpt", "D/val/ant/1.png", "--json"]
    capsys.readouterr()
    assert run_mindghost(*line) == 0
    found = json.loads(capsys.readouterr().out)
    assert run_mindghost(*line, "--exact") == 0
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.fault("images", "clean error")
def test_an_image_that_cannot_be_read(capsys):
    Path("bad\n.jpg").write_bytes(b"no image")
    assert search("bad\n.jpg", "D/val/ant/0.png", "none.jpg", "--json") == 1
    said = capsys.readouterr()
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [record["image"] for record in records] == ["bad\n.jpg", "D/val/ant/0.png", "none.jpg"]
    assert "not a readable image" in records[0]["error"]
    assert (records[0]["neighbours"], len(records[1]["neighbours"])) == ([], 10)
    assert said.err.splitlines()[-1] == "mindghost search: error: 2 of 3 images could not be read"


def test_a_picture(capsys):
    assert search("D/val/ant/0.png", "D/val/bee/0.png", "--top_k", 3, "--picture", "found.png") == 0
    assert capsys.readouterr().err.splitlines() == ["wrote found.png"]
    picture = Image.open("found.png")
    assert picture.size[0] == pytest.approx(4 * 170, abs=4)
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 500
    assert search("D/val/ant/0.png", "--picture", "found.png") == 0  # its own it replaces
    Path("mine.png").write_bytes(Path("D/val/ant/0.png").read_bytes())
    assert search("D/val/ant/0.png", "--picture", "mine.png") == 2


def test_an_index_through_its_commands(capsys):
    assert run_mindghost("index", "build", "v.npz", "-o", "j.index") == 0
    assert run_mindghost("index", "remove", "j.index", "D/train/bee", "D/val/ant/0.png") == 0
    assert (
        run_mindghost("embed", "D", "--split", "val", "--ckpt_path", "run/ghostnet_050_best.ckpt", "-o", "w.parquet")
        == 0
    )
    assert run_mindghost("index", "add", "j.index", "w.parquet") == 0
    Path("D/train/cat/0.png").rename("D/train/cat/00.png")
    sync = ["index", "sync", "j.index", "D", "--ckpt_path", "run/ghostnet_050_best.ckpt"]
    assert run_mindghost(*sync) == 0
    assert run_mindghost(*sync) == 0
    Path("D/train/cat/00.png").rename("D/train/cat/0.png")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("j.index: ")]
    assert lines[0].startswith("j.index: 18 vectors of 1280 numbers, of ghostnet_050 (weights ")
    assert lines[1:] == [
        "j.index: 0 added, 0 replaced, 5 removed; 13 vectors",
        "j.index: 1 added, 5 replaced, 0 removed; 14 vectors",
        "j.index: 5 added, 0 replaced, 1 removed; 18 vectors; 4 images embedded",
        "j.index: 0 added, 0 replaced, 0 removed; 18 vectors; 0 images embedded",
    ]
    assert run_mindghost("index", "info", "j.index", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["vectors"], facts["dimensions"], facts["model"], facts["classes"]) == (18, 1280, "ghostnet_050", 3)
    assert facts["preprocessing"]["center_crop"] == [32, 32]
    assert run_mindghost("index", "info", "j.index") == 0
    assert "center_crop    32, 32" in capsys.readouterr().out


@pytest.mark.fault("command lines", "clean error")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("embed D --ckpt_path W -o v.npz", "-o: v.npz exists; name another file, or give --overwrite"),
        ("embed D --ckpt_path W -o x.npy", "-o: x.npy: expected a name that ends in .npz or .parquet"),
        ("embed D --ckpt_path W -o none/x.npz", "--output: none/x.npz: there is no folder none"),
        ("embed D --ckpt_path W -o x.npz --split dev", "--split: D has no split 'dev'"),
        ("embed D --ckpt_path none.ckpt -o x.npz", "--ckpt_path: none.ckpt: no such file"),
        ("index", "the following arguments are required: ACTION"),
        ("index biuld", "ACTION: invalid choice: 'biuld'"),
        ("index build none.npz -o x", "none.npz: no such file; give a file of vectors"),
        ("index build v.npz -o i.index", "-o: i.index exists; name another file, or give --overwrite to replace it"),
        ("index build v.npz -o v.npz --overwrite", "-o: v.npz: is what is read; name another file"),
        ("index build W -o x", "run/ghostnet_050_best.ckpt: not an .npz file, or a damaged one"),
        ("index info v.npz", "v.npz: not an index; build it again"),
        ("index remove i.index nothing", "i.index: 1 of the paths are not in it: nothing; nothing was removed"),
        ("index sync i.index none --ckpt_path W", "none: no such folder"),
        ("search D/val/ant/0.png --index v.npz --ckpt_path W", "v.npz: not an index"),
        (
            "search D/val/ant/0.png --index i.index --ckpt_path O",
            "other/ghostnet_050_best.ckpt: not of the network of i.in",
        ),
        ("index sync i.index D --ckpt_path O", "other/ghostnet_050_best.ckpt: not of the network of i.index: weights"),
        (
            "search D/val/ant/0.png --index i.index --ckpt_path W --picture x.jpg",
            "--picture: x.jpg does not end with .png",
        ),
        ("search D/val/ant/0.png --index i.index --ckpt_path W --exact --approximate", "--approximate: not allowed"),
        ("search D/val/ant/0.png --index i.index --ckpt_path W --top_k 0", "--top_k: expected an integer from 1"),
    ],
)
def test_one_line_for_what_cannot_be(words, expected, home, capsys):
    if " O" in words and not (home / "other").exists():
        write_run(home / "other", **{**KEYS, "num_classes": 2})
    before = (home / "i.index").read_bytes()
    names = {"W": "run/ghostnet_050_best.ckpt", "O": "other/ghostnet_050_best.ckpt"}
    status = run_mindghost(*(names.get(word, word) for word in words.split()))
    last = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert last.startswith(f"mindghost {words.split()[0]}: error: {expected}")
    assert (home / "i.index").read_bytes() == before
    assert not list(home.glob("x*"))


def test_what_is_not_of_a_known_network_is_said(capsys):
    np.savez("s.npz", vectors=np.eye(3, dtype=np.float32), paths=["a", "b", "c"])
    assert run_mindghost("index", "build", "s.npz", "-o", "s.index") == 0
    assert "s.npz: does not say which network made its vectors: nothing keeps others out" in capsys.readouterr().err
    assert (
        run_mindghost("search", "D/val/ant/0.png", "--index", "s.index", "--ckpt_path", "run/ghostnet_050_best.ckpt")
        == 2
    )
    assert "s.index: does not say which network made its vectors" in capsys.readouterr().err
