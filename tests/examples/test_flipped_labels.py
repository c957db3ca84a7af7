"""examples/evidence/flipped_labels.py: labels are flipped as it says, and counted right. Trainings are not run here."""

import csv
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import flipped_labels
import pytest

import runner
from tests.helpers.commands import command
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run

# A training that writes an accuracy, what it was given, and the weights of another run.
TRAINER = """
import json, shutil, sys
from pathlib import Path
words = sys.argv[1:]
folder = Path(words[words.index("--ckpt_save_dir") + 1])
shutil.copytree("run", folder)
for file in list(folder.glob("*_best.ckpt*")):
    file.rename(folder / file.name.replace("best", "last"))
(folder / "words.json").write_text(json.dumps(words))
record = {"epoch": 1, "train_loss": 1.0, "val_loss": 1.0, "lr": 0.1, "top_1": 50.0}
(folder / "metrics.jsonl").write_text(json.dumps(record) + "\\n")
"""


@pytest.fixture
def home(tmp_path, short_network, own_cache, monkeypatch) -> Path:
    """Photos of classes that differ in colour, and a run whose network is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "MINDGHOST", (sys.executable, "-c", TRAINER))
    write_images(tmp_path / "photos", CLASSES, train_images=20, val_images=2)
    write_run(tmp_path / "run", model="ghostnet_050", image_resize=32, num_parallel_workers=1)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str]:
        line = ("--data_dir", "photos", "--output", "out", *words)
        return command(flipped_labels.main, flipped_labels.PROG, *line, monkeypatch=monkeypatch, capsys=capsys)

    return run


def test_a_share_of_the_labels_is_another_one(home):
    images = flipped_labels.flipped(Path("photos"), 0.1, 4, 3)
    count = 20 * len(CLASSES)
    assert len(images) == count
    assert sum(image.label != image.file.parent.name for image in images) == count // 10
    assert {image.label for image in images} <= set(CLASSES)
    assert Counter(image.part for image in images) == Counter(index % 3 for index in range(count))
    assert images == flipped_labels.flipped(Path("photos"), 0.1, 4, 3)
    assert images != flipped_labels.flipped(Path("photos"), 0.1, 5, 3)


def checked(folder: Path, seed: int, found: str, parts: int = 1) -> None:
    """The numbers of a seed are those of the tables that `label-errors` has written."""
    (result,) = (each for each in json.loads(Path("out/flips.json").read_text())["results"] if each["seed"] == seed)
    flips = first = suspects = 0
    for part in range(parts):
        with open(Path("out/found", f"{found}-{part}", "labels.csv"), newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        wrong = [os.path.realpath(row["path"]).split("/")[-2] != row["given"] for row in table]
        flips += sum(wrong)
        first += sum(wrong[: round(0.5 * len(table))])
        suspects += sum(row["suspect"] == "yes" for row in table)
    assert (result["images"], result["flips"], result["suspects"]) == (20 * len(CLASSES), flips, suspects)
    assert flips == round(0.05 * 20 * len(CLASSES))
    assert result["found"] == pytest.approx(first / flips, abs=1e-4)


def test_vectors_of_a_network_that_is_there(home, run):
    weights = home / "run" / "ghostnet_050_best.ckpt"
    assert run("--ckpt_path", weights, "--seeds", 1, 2, "--first", 0.5)[0] == 0
    for seed in (1, 2):
        checked(home, seed, f"0.05-seed-{seed}-parts-1")
    assert not list(Path("out/runs").iterdir())
    with open("out/data/0.05-seed-1-parts-1/train-0.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 20 * len(CLASSES)


def test_networks_that_are_trained_on_the_other_half(home, run):
    line = ("--train", "-c recipe --epoch_size 2", "--folds", 0, "--seeds", 3, "--first", 0.5)
    assert run(*line)[0] == 0
    checked(home, 3, "0.05-seed-3-parts-2", 2)
    lists = []
    for part in range(2):
        words = json.loads(Path(f"out/runs/photos-5-flipped-without-part-{part}-of-2-seed-3/words.json").read_text())
        lists.append(Path(words[words.index("--train_list") + 1]))
        assert words[words.index("--epoch_size") + 1] == "2"
        with open(lists[-1], newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 10 * len(CLASSES)
        assert all(row["path"].startswith(f"part-{1 - part}/{row['label']}/") for row in rows)
        assert all((lists[-1].parent / row["path"]).exists() for row in rows)
    # And again: nothing is trained.
    shutil.rmtree("run")
    assert run(*line)[0] == 0


@pytest.mark.fault("examples", "clean error")
def test_what_cannot_be_used_is_refused(home, run):
    status, said = run("--train", "-c recipe", "--ckpt_path", home / "run" / "ghostnet_050_best.ckpt")
    assert (status, "not allowed with" in said, said.count("\n")) == (2, True, 1)
    shutil.rmtree("photos/train")
    Path("photos/train/one").mkdir(parents=True)
    status, said = run("--train", "-c recipe")
    assert (status, "expected images of two and more classes" in said, said.count("\n")) == (2, True, 1)
