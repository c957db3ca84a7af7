"""`mindghost label-errors` as a user types it: planted flips, what is written, what is refused."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindghost.data import excluded
from mindghost.search import vector_file
from mindghost.search.vectors import Vectors
from tests.helpers.commands import run_mindghost
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run

WEIGHTS = "run/ghostnet_050_best.ckpt"
KEYS = {"model": "ghostnet_050", "image_resize": 32, "crop_pct": 0.8, "num_parallel_workers": 2}
FILES = ["exclude.txt", "labels.csv", "suspects.html"]


@pytest.fixture
def home(tmp_path, short_network, monkeypatch, own_cache) -> Path:
    """A run, and images D whose classes differ in colour; one of the bees in D/train is called an ant."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "D", CLASSES, 8, 2)
    write_run(tmp_path / "run", **KEYS)
    shutil.copy("D/train/bee/0.png", "D/train/ant/not <an> ant.png")
    return tmp_path


def clusters(seed: int, images: int = 400) -> tuple[Vectors, set[str]]:
    """Vectors of four classes with 5 % of the labels flipped, and the paths of these."""
    rng = np.random.default_rng(seed)
    true = rng.integers(4, size=images)
    found = 3 * rng.normal(size=(4, 24))[true] + rng.normal(size=(images, 24))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    flipped = rng.choice(images, images // 20, replace=False)
    labels = true.astype(np.int32)
    labels[flipped] = (labels[flipped] + rng.integers(1, 4, len(flipped))) % 4
    paths = np.array([f"none/{number}.jpg" for number in range(images)])
    return Vectors(found.astype(np.float32), paths, labels, ("a", "b", "c", "d")), set(paths[flipped].tolist())


def write(file: Path, vectors: Vectors) -> None:
    file.write_bytes(b"".join(vector_file.encode(file, vectors)))


def rows(folder: str = "label-errors") -> list[dict[str, str]]:
    with open(Path(folder, "labels.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("seed", [3, 14, 159])
@pytest.mark.parametrize("order", ["self_confidence", "normalized_margin"])
def test_planted_flips_come_first(tmp_path, monkeypatch, capsys, seed, order):
    monkeypatch.chdir(tmp_path)
    vectors, flipped = clusters(seed)
    write(Path("v.npz"), vectors)
    assert run_mindghost("label-errors", "v.npz", "--order", order) == 0
    found = rows()
    assert len(found) == 400
    assert len(flipped & {row["path"] for row in found[:24]}) >= 16  # 80 % of 20 in the first 6 %
    suspects = [row["path"] for row in found if row["suspect"] == "yes"]
    assert len(flipped & set(suspects)) >= 16
    assert excluded.read(Path("label-errors/exclude.txt")) == [str(tmp_path / path) for path in suspects]
    said = capsys.readouterr().out.splitlines()
    assert said[-3] == f"{len(suspects)} of 400 labels are suspects ({len(suspects) / 4:.2f} %)"
    assert said[-1] == "next: mindghost train ... --exclude_list label-errors/exclude.txt"


def test_a_folder_of_data(home, capsys):
    assert run_mindghost("label-errors", "D", "--split", "train", "--ckpt_path", WEIGHTS, "-o", "deep/out") == 0
    assert sorted(file.name for file in Path("deep/out").iterdir()) == FILES
    found = rows("deep/out")
    assert len(found) == 25
    first = found[0]
    assert (first["path"], first["given"], first["probable"]) == ("D/train/ant/not <an> ant.png", "ant", "bee")
    assert first["suspect"] == "yes"
    margin = float(first["given_probability"]) - float(first["probable_probability"])
    assert float(first["margin"]) == pytest.approx(margin, abs=1e-5)
    page = Path("deep/out/suspects.html").read_text(encoding="utf-8")
    assert "not &lt;an&gt; ant.png" in page
    assert "given: ant" in page
    assert page.count("<figure>") == sum(row["suspect"] == "yes" for row in found)
    said = capsys.readouterr().out.splitlines()
    assert said[[line.split()[0] for line in said].index("rank") + 1].split()[:3] == ["1", "ant", "bee"]


def test_by_the_networks_own_probabilities(home):
    line = ["label-errors", "D", "--ckpt_path", WEIGHTS, "--folds", "0"]
    assert run_mindghost(*line) == 0
    line = ["validate", "--ckpt_path", WEIGHTS, "--data_dir", "D", "--predictions", "p.jsonl"]
    assert run_mindghost(*line) == 0
    said = [json.loads(text) for text in Path("p.jsonl").read_text(encoding="utf-8").splitlines()]
    theirs = {record["path"]: record["probability"][record["true_label"]] for record in said}
    ours = {row["path"]: float(row["given_probability"]) for row in rows()}
    assert len(ours) == 31
    assert {path: ours[path] for path in theirs} == pytest.approx(theirs, abs=1e-5)


def test_nothing_is_replaced_unasked(home, capsys):
    write(Path("v.npz"), clusters(1)[0])
    assert run_mindghost("label-errors", "v.npz") == 0
    Path("label-errors/exclude.txt").write_text("mine")
    assert run_mindghost("label-errors", "v.npz") == 2
    assert "give --overwrite to replace it" in capsys.readouterr().err
    assert Path("label-errors/exclude.txt").read_text() == "mine"
    assert run_mindghost("label-errors", "v.npz", "--overwrite") == 0
    assert Path("label-errors/exclude.txt").read_text() != "mine"


@pytest.mark.fault("images", "clean error")
def test_an_image_that_cannot_be_read(home, capsys):
    Path("D/train/cat/bad.png").write_bytes(b"no image")
    assert run_mindghost("label-errors", "D", "--ckpt_path", WEIGHTS) == 1
    assert "1 of 32 images could not be read" in capsys.readouterr().err
    assert len(rows()) == 31


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["D"], "--ckpt_path: needed to judge images"),
        (["none", "--ckpt_path", WEIGHTS], "none: "),
        (["D", "--ckpt_path", WEIGHTS, "--folds", "1"], "--folds: 1 part has no others"),
        (["D/train/ant", "--ckpt_path", WEIGHTS], "D/train/ant: its images have no labels"),
        (["v.npz", "--ckpt_path", WEIGHTS], "--ckpt_path: v.npz is a file of vectors"),
        (["v.npz", "--folds", "0"], "--folds 0: v.npz is a file of vectors"),
        (["one.npz"], "one.npz: images of 1 class(es) that have two and more"),
        (["none.npz"], "none.npz: "),
        (["E", "--ckpt_path", WEIGHTS, "--folds", "0"], "E: --folds 0: classes that run/"),
    ],
)
def test_what_is_refused_is_one_line(home, capsys, words, said):
    vectors, _ = clusters(1)
    write(Path("v.npz"), vectors)
    write(Path("one.npz"), replace(vectors, labels=np.zeros(400, np.int32)))
    shutil.copytree("D/train/ant", "E/yak")
    assert run_mindghost("label-errors", *words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"mindghost label-errors: error: {said}")
    assert not Path("label-errors/labels.csv").exists()


def test_an_only_image_of_its_class_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vectors, _ = clusters(2)
    labels = vectors.labels.copy()
    labels[0], labels[1] = 4, -1
    write(Path("v.npz"), replace(vectors, labels=labels, classes=(*vectors.classes, "e")))
    assert run_mindghost("label-errors", "v.npz") == 0
    assert len(rows()) == 398
    assert {row["given"] for row in rows()} == {"a", "b", "c", "d"}


def test_where_few_images_are_recognised_a_line_says_what_that_means(tmp_path, monkeypatch, capsys):
    """Vectors that hardly know the classes: nearly every mistake of the classifier is a suspect."""
    monkeypatch.chdir(tmp_path)
    vectors, _ = clusters(1)
    noise = np.random.default_rng(1).normal(size=vectors.vectors.shape).astype(np.float32)
    unclear = vectors.vectors + noise / 3
    write(Path("v.npz"), replace(vectors, vectors=unclear / np.linalg.norm(unclear, axis=1, keepdims=True)))
    assert run_mindghost("label-errors", "v.npz") == 0
    found = rows()
    recognised = sum(float(row["margin"]) >= 0 for row in found) / 400
    suspects = sum(row["suspect"] == "yes" for row in found)
    assert 0.3 < recognised < 0.9
    said = capsys.readouterr().out
    line = f"only {100 * recognised:.1f} % of the images were taken for what their label says: unless over"
    assert f"{line} {50 * suspects / 400:.1f} % of all labels are wrong" in said
    page = Path("label-errors/suspects.html").read_text(encoding="utf-8")
    assert line.replace("only", "Only") in page
    # Names on the page are those below the folder that all images share.
    assert "<span class=file>1.\xa0" in page
    assert "none/" not in page.partition("<figure>")[2]
    write(Path("v.npz"), vectors)
    assert run_mindghost("label-errors", "v.npz", "--overwrite") == 0
    assert "were taken for what" not in capsys.readouterr().out
