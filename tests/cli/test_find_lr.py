"""`mindghost find-lr`: real tests of a short network."""

import csv
import re
from pathlib import Path

import pytest

from mindghost.files import outputs
from tests.helpers.commands import flags, run_mindghost
from tests.helpers.pictures import write_images

KEYS = {
    "num_classes": 3,
    "image_resize": 32,
    "batch_size": 24,
    "num_parallel_workers": 1,
    "auto_augment": None,
    "re_prob": 0,
    "scale": "[1, 1]",
    "steps": 40,
    "lowest": 1e-4,
}


@pytest.fixture
def images(tmp_path) -> Path:
    return write_images(tmp_path / "images", ("ant", "bee", "cat"), train_images=8, val_images=1)


def find(images: Path, *more: str, **keys) -> int:
    line = ["find-lr", "-c", "ghostnet_050_cpu", "--data_dir", str(images), *flags(**{**KEYS, **keys}), *more]
    return run_mindghost(*line)


def test_two_tests_find_the_same_rate_and_leave_no_run(images, short_network, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = []
    for folder in (".", "there"):
        assert find(images, output=folder) == 0
        printed = capsys.readouterr().out.splitlines()
        made.append((Path(folder, "find_lr.csv").read_bytes(), printed[-2:]))
    assert made[0] == made[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["find_lr.csv", "find_lr.png", "images", "there"]
    rows = list(csv.DictReader(made[0][0].decode().splitlines()))
    # MindCV's rate is for 1,024 images.
    assert float(rows[3]["lr"]) == pytest.approx(1024 / 24 * float(rows[3]["learning_rate"]))
    scaled = "for 24 images an update = lr x 24 / lr_reference_batch 1024"
    said = re.fullmatch(rf"suggested learning rate (\S+) {scaled}", made[0][1][0])
    assert 1e-4 < float(said[1]) < 1
    assert made[0][1][1] == f"--lr {float(said[1]) * 1024 / 24:.2g}"
    assert outputs.png_of("find-lr")(Path("find_lr.png").read_bytes())


@pytest.mark.fault("command lines", "clean error")
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"lowest": 1, "highest": 0.1}, "--lowest: 1 is not below --highest: 0.1"),
        ({"steps": 3}, "--steps: expected an integer from 20 to 100,000, got '3'"),
        ({"freeze_stages": 3}, "freeze_stages: the features would stay the random ones"),
        ({"output": "images/train/ant/0.png"}, "--output: images/train/ant/0.png"),
        ({"learning_rate": 1}, "'--learning_rate': unknown flag"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(keys, expected, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert find(images, **keys) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mindghost find-lr: error: {expected}")
    assert error.count("\n") == 1


@pytest.mark.fault("overwriting", "clean error")
def test_a_table_of_somebody_elses_stays(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("find_lr.csv").write_text("mine\n")
    assert find(images) == 2
    assert "find_lr.csv: exists, and is not what this command has written" in capsys.readouterr().err
    assert Path("find_lr.csv").read_text() == "mine\n"
