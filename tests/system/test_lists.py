"""A training from a list is that from class folders, and its weights are validated without naming the list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.commands import flags, run_mindghost
from tests.helpers.lists import pairs
from tests.helpers.places import RECIPE
from tests.helpers.training import SHORT, without_times

KEYS = {**SHORT, "epoch_size": 1, "decay_epochs": 1, "val_while_train": True, "val_interval": 1}


def train(folder: Path, **keys: object) -> list[dict]:
    assert run_mindghost("train", "-c", RECIPE, *flags(**KEYS, ckpt_save_dir=folder, **keys)) == 0
    return without_times(folder)


def last_line(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


@pytest.mark.usefixtures("short_network")
def test_a_run_from_a_list_is_that_from_folders(images, tmp_path, capfd):
    rows = [f"{split}/{path},{name},{split}" for split in ("train", "val") for path, name in pairs(images / split)]
    (tmp_path / "all.csv").write_text("\n".join(["file_name,class,split", *sorted(rows, reverse=True)]))
    folders = train(tmp_path / "folders", data_dir=images)
    listed = train(tmp_path / "listed", data_dir=images, train_list=tmp_path / "all.csv")
    assert folders[-1]["top_1"] is not None
    assert listed == folders
    weights = [tmp_path / run / "ghostnet_050_best.ckpt" for run in ("folders", "listed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    # The run's config.yaml has the list; another folder takes its place.
    for number, arguments in enumerate([(), ("--data_dir", images)]):
        capfd.readouterr()
        report = tmp_path / f"report{number}"
        assert run_mindghost("validate", "--ckpt_path", weights[1], *arguments, "--report", report) == 0
        result = last_line(capfd.readouterr().out)
        assert (result["num_samples"], result["top_1"]) == (18, folders[-1]["top_1"])
        place = (tmp_path / "all.csv", images / "val")[number]
        assert f"{place}, 6 classes" in (report / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("short_network")
def test_a_set_without_splits_is_trained_and_validated_on_its_two_parts(images, tmp_path, capfd):
    record = train(tmp_path / "run", data_dir=images / "train", val_fraction=0.3)[-1]
    text = capfd.readouterr().out
    assert f"images of {images}/train" in text
    assert run_mindghost("validate", "--ckpt_path", tmp_path / "run" / "ghostnet_050_best.ckpt") == 0
    result = last_line(capfd.readouterr().out)
    assert result["top_1"] == record["top_1"]
    assert f"{result['num_samples']} of 36 images" in text
