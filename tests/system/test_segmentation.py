"""Images with masks, from training to validation: what a run leaves, that it resumes exactly."""

import json

import numpy as np
import pytest

from mindghost.cli import main
from mindghost.config import Config
from mindghost.models import ghostnet
from mindghost.train.trainer import train
from tests.helpers import short
from tests.helpers.masks import write_scenes
from tests.helpers.training import without_times

KEYS = {
    "task": "segmentation",
    "model": "ghost_lraspp",
    "backbone": "ghostnet_050",
    "decoder_width": 0.5,
    "image_resize": (32, 48),
    "batch_size": 4,
    "epoch_size": 16,
    "warmup_epochs": 0,
    "scheduler": "poly",
    "val_while_train": True,
    "num_parallel_workers": 1,
    "opt": "momentum",
    "lr": 0.05,
    "dice_weight": 0.5,
    "ohem": 0.8,
    "class_weights": "enet",
    "label_smoothing": 0.05,
}
NAMES = ["ground", "red", "blue"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = write_scenes(tmp_path_factory.mktemp("scenes"))
    (root / "classes.csv").write_text("name,r,g,b\n" + "".join(f"{name},{i},7,9\n" for i, name in enumerate(NAMES)))
    return root


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """A finished run, with its configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnet, "STAGES", short.all_strides())
        folder = tmp_path_factory.mktemp("run") / "run"
        config = Config(
            **KEYS, data_dir=str(scenes), class_names=str(scenes / "classes.csv"), ckpt_save_dir=str(folder)
        )
        train(config)
        yield folder, config


def records(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(run):
    folder, _ = run
    found = records(folder)
    assert list(found[0])[5:8] == ["val_loss", "miou", "pixel_accuracy"]
    best = max(record["miou"] for record in found)
    assert best > 40
    log = (folder / "train.log").read_text()
    assert f"best mIoU {best:.2f} %: " in log
    assert f"mIoU {found[-1]['miou']:.2f} %  pixel accuracy {found[-1]['pixel_accuracy']:.2f} %" in log
    assert "class_weights: enet: from" in log
    assert json.loads((folder / "classes.json").read_text()) == NAMES


@pytest.mark.fault("masks", "ok")
def test_a_run_that_goes_on_ends_the_same(run, tmp_path):
    folder, config = run
    train(config.replace(ckpt_save_dir=str(tmp_path / "again"), resume=str(folder / "run_state_previous.ckpt")))
    assert without_times(tmp_path / "again") == without_times(folder)
    last = "ghost_lraspp_last.ckpt"
    assert (tmp_path / "again" / last).read_bytes() == (folder / last).read_bytes()


def test_validation_equals_the_evaluation_in_training(run, scenes, tmp_path, capsys):
    folder, _ = run
    rows = tmp_path / "rows.jsonl"
    call = ["validate", "--ckpt_path", str(folder / "ghost_lraspp_last.ckpt"), "--predictions", str(rows)]
    assert main.run([*call, "--batch_size", "4"]) == 0
    found, last = json.loads(capsys.readouterr().out.splitlines()[-1]), records(folder)[-1]
    assert [found[key] for key in ("miou", "pixel_accuracy", "loss")] == [
        last[key] for key in ("miou", "pixel_accuracy", "val_loss")
    ]
    assert list(found["iou"]) == NAMES
    assert found["num_samples"] == 3
    table = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["pixels"] for row in table] == [50 * 44, 40 * 55, 40 * 55]
    pixels = np.array([row["pixels"] for row in table])
    assert (pixels * [row["pixel_accuracy"] for row in table]).sum() / pixels.sum() == pytest.approx(
        last["pixel_accuracy"]
    )
    assert (pixels * [row["loss"] for row in table]).sum() / pixels.sum() == pytest.approx(last["val_loss"])


def test_curves(run, capsys):
    folder, _ = run
    assert main.run(["plot", str(folder), "--output", str(folder.parent / "curves.png")]) == 0


@pytest.mark.fault("masks", "clean error")
def test_what_is_not_there_yet_is_one_line(run, scenes, tmp_path, capsys):
    folder, _ = run
    weights = str(folder / "ghost_lraspp_last.ckpt")
    assert main.run(["validate", "--ckpt_path", weights, "--report", str(tmp_path / "report")]) == 2
    assert "report: task segmentation writes none" in capsys.readouterr().err
