"""`mindghost duplicates` as a user types it."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mindghost.cli import duplicates
from mindghost.search import duplicates as search
from tests.helpers.commands import run_mindghost
from tests.helpers.pictures import scene
from tests.helpers.trained import write_run


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Two leaks, one of them mirrored and of another class, and one pair in train."""
    rng = np.random.default_rng(7)
    for number in range(6):
        path = tmp_path / "D" / "train" / ("ant", "bee")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(rng).save(path)
    (tmp_path / "D/val/bee").mkdir(parents=True)
    scene(rng).save(tmp_path / "D/val/bee/6.png")
    Image.open(tmp_path / "D/train/bee/1.png").save(tmp_path / "D/val/bee/x.bmp")
    ImageOps.mirror(Image.open(tmp_path / "D/train/ant/2.png")).save(tmp_path / "D/val/bee/m.jpg", quality=80)
    Image.open(tmp_path / "D/train/bee/3.png").resize((60, 45)).save(tmp_path / "D/train/bee/s.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_are_those_of_the_package():
    args = duplicates.make_parser().parse_args(["D"])
    assert (args.distance, args.network_distance) == (search.DISTANCE, search.NETWORK_DISTANCE)


def test_a_table_counts_the_leaks_first(data, capsys):
    assert run_mindghost("duplicates", "D") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""
    assert lines[:4] == [
        "leakage: 2 of 3 images of val are in train, too: 1 with equal pixels, 1 nearly",
        "3 groups with 6 of 10 images; 1 of them have equal pixels only",
        "labels contradict each other in 1 groups: 1",
        "",
    ]
    rows = [line.split() for line in lines[4:]]
    assert rows[0] == ["group", "distance", "how", "split", "class", "image"]
    assert rows[1] == ["1", "-", "val", "bee", "D/val/bee/m.jpg"]
    assert rows[2][1:] == ["mirrored", "train", "ant", "D/train/ant/2.png"]
    assert rows[4] == ["0.0000", "same", "train", "bee", "D/train/bee/1.png"]
    assert rows[6][1:] == ["similar", "train", "bee", "D/train/bee/s.png"]
    assert len(rows) == 7


def test_json_csv_a_picture_and_a_list(data, capsys):
    assert run_mindghost("duplicates", "D", "--json", "--picture", "d.png", "--leave_out", "l.txt") == 0
    said = capsys.readouterr()
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [(record["leaks"], record["contradicts"]) for record in records] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert records[1]["images"] == [
        {"path": "D/val/bee/x.bmp", "split": "val", "class": "bee", "label": 1},
        {
            **{"path": "D/train/bee/1.png", "split": "train", "class": "bee", "label": 1},
            **{"like": "D/val/bee/x.bmp", "distance": 0.0, "how": "same"},
        },
    ]
    assert Path("l.txt").read_text() == "D/train/ant/2.png\nD/train/bee/1.png\nD/train/bee/s.png\n"
    assert said.err.splitlines() == ["wrote d.png", "l.txt: 3 images that training can do without"]
    picture = np.asarray(Image.open("d.png").convert("RGB"))
    assert picture.shape[1] == pytest.approx(2 * 170, abs=4)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
    assert run_mindghost("duplicates", "D", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["group"] for row in rows] == ["1", "1", "2", "2", "3", "3"]
    assert [row["image"] for row in rows] == [image["path"] for record in records for image in record["images"]]


def test_one_split_files_and_equal_ones_alone(data, capsys):
    assert run_mindghost("duplicates", "D", "--exact", "--json") == 0
    assert [json.loads(line)["images"][0]["path"] for line in capsys.readouterr().out.splitlines()] == [
        "D/val/bee/x.bmp"
    ]
    assert run_mindghost("duplicates", "D", "--split", "train") == 0
    assert capsys.readouterr().out.startswith("1 groups with 2 of 7 images")
    assert run_mindghost("duplicates", "D/val/bee/*", "D/train/bee/1.png", "--leave_out", "l.txt") == 0
    assert "1 groups with 2 of 4 images" in capsys.readouterr().out
    assert Path("l.txt").read_text() == "D/train/bee/1.png\n"
    assert run_mindghost("duplicates", "D/val/bee/6.png") == 0
    assert capsys.readouterr().out == "0 groups with 0 of 1 images; 0 of them have equal pixels only\n"


def test_odd_names_and_images_that_cannot_be_read(data, capsys):
    odd = os.fsdecode(b"D/train/bee/o\xff.png")
    for name in (odd, "D/train/bee/two\nlines.png"):
        Path(name).write_bytes(Path("D/train/bee/5.png").read_bytes())
    Path("D/val/bee/bad.jpg").write_bytes(b"no image")
    assert run_mindghost("duplicates", "D", "--leave_out", "l.txt") == 1
    said = capsys.readouterr()
    assert r"o\xff.png" in said.out
    assert r"two\nlines.png" in said.out
    assert os.fsencode(odd) in Path("l.txt").read_bytes()
    assert r"not in l.txt, for its name has a line break: D/train/bee/two\nlines.png" in said.err
    assert said.err.splitlines()[-1] == "mindghost duplicates: error: 1 of 13 images could not be read"


def test_with_a_network(data, short_network, capsys):
    write_run(data / "run", model="ghostnet_050", image_resize=32, crop_pct=0.8, num_parallel_workers=2)
    line = ["duplicates", "D", "--ckpt_path", "run/ghostnet_050_best.ckpt", "--json"]
    assert run_mindghost(*line, "--network_distance", 0) == 0
    few = len(capsys.readouterr().out.splitlines())
    assert run_mindghost(*line, "--network_distance", 1) == 0
    said = capsys.readouterr()
    (record,) = map(json.loads, said.out.splitlines())
    by_network = sum(image.get("how") == "network" for image in record["images"])
    line = f"{10 * by_network} % of the images are within 1 of another one by the network"
    assert (line in said.err) == (by_network > 1)
    assert few == 3
    assert len(record["images"]) == 10  # nothing is further away than that behind a ReLU
    assert "network" in {image.get("how") for image in record["images"]}


@pytest.mark.fault("command lines", "clean error")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "the following arguments are required: DATA"),
        ("none", "none: no such file"),
        ("D --split dev", "--split: D has no split 'dev'"),
        ("D --distance 2", "--distance: expected a number from 0 to 1, got '2'"),
        ("D --picture x.jpg", "--picture: x.jpg does not end with .png"),
        ("D --leave_out mine.txt", "--leave_out: mine.txt exists; name another file, or give --overwrite"),
        ("D --json --csv", "--csv: not allowed with argument --json"),
        ("D --ckpt_path none.ckpt", "--ckpt_path: none.ckpt: no such file"),
        ("D --dataset cifar", "--dataset: invalid choice: 'cifar'"),
    ],
)
def test_one_line_for_what_cannot_be(words, expected, data, capsys):
    Path("mine.txt").write_text("mine")
    assert run_mindghost("duplicates", *words.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"mindghost duplicates: error: {expected}")
    assert Path("mine.txt").read_text() == "mine"
