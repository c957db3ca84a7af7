"""Runs that keep part of a network as it is, learn at several rates, or end early: real updates, files and resumes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.models import ghostnet
from mindghost.runs.folder import RunFolder
from mindghost.train.trainer import train
from tests.helpers import short
from tests.helpers.pictures import write_images
from tests.helpers.places import GOLDEN, RECIPE
from tests.helpers.training import SHORT, without_times


@pytest.fixture(autouse=True)
def short_network(monkeypatch) -> None:
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), ("ant", "bee", "cat"), train_images=8, val_images=3)


@pytest.fixture(scope="module")
def weights(images, tmp_path_factory) -> Path:
    """Weights to start from, of other classes."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnet, "STAGES", short.stages())
        train(configured(images, folder, num_classes=7, lr=1.0, epoch_size=1, decay_epochs=1, mode=1))
    return folder / "ghostnet_050_last.ckpt"


def configured(images: Path, folder: Path, **keys) -> Config:
    options = {**SHORT, "data_dir": str(images), "ckpt_save_dir": str(folder), "num_classes": 3, "auto_augment": None}
    return Config.from_file(RECIPE).replace(**{**options, **keys})


def assert_equal_runs(found: Path, expected: Path) -> None:
    assert without_times(found) == without_times(expected)
    first, second = (weights_file.read(folder / "run_state.ckpt") for folder in (found, expected))
    assert set(first) == set(second)
    for name in set(second) - {"run_log_bytes", "run_metrics_bytes"}:  # of text that holds times
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize("native", [pytest.param("off", marks=pytest.mark.slow), "on"])
def test_frozen_stages_stay_to_the_last_bit(native, images, weights, tmp_path):
    """Through weight decay, the average and several rates; all others, and their statistics, move."""
    keys = {"freeze_stages": 3, "ema": True, "weight_decay": 0.1, "layer_decay": 0.8, "head_lr_factor": 10.0, "lr": 4.0}
    train(configured(images, tmp_path / "run", ckpt_path=str(weights), native_ops=native, **keys))
    before = weights_file.read(weights)
    for file in ("ghostnet_050_last.ckpt", "run_state.ckpt"):
        after = weights_file.read(tmp_path / "run" / file)
        kept = [name for name in before if name.startswith(("conv_stem.", "bn1.", "blocks.0.", "blocks.1."))]
        assert len(kept) == 60
        for name, array in before.items():
            if not name.startswith("classifier."):
                assert np.array_equal(after[name], array) == (name in kept), name


def test_patience_ends_a_run_which_a_larger_one_takes_up_exactly(images, tmp_path, capsys):
    """At a rate of nearly nothing, no evaluation is better than the first."""
    keys = {"mode": 1, "epoch_size": 4, "decay_epochs": 4, "lr": 1e-9, "min_lr": 1e-12, "num_parallel_workers": 2}
    short_run = configured(images, tmp_path / "short", patience=1, **keys)
    train(short_run)
    assert "early stopping after epoch 2: no better top-1 than" in capsys.readouterr().out
    assert len(without_times(tmp_path / "short")) == 2
    assert weights_file.read(tmp_path / "short" / "run_state.ckpt")["run_waited"] == 1
    kept = {file.name for file in (tmp_path / "short").glob("*.ckpt")}
    assert {"ghostnet_050_best.ckpt", "ghostnet_050-2_3.ckpt"} < kept

    train(short_run.replace(resume=True))
    assert "in 1 evaluation; to go on, give a patience above 1" in capsys.readouterr().out
    assert len(without_times(tmp_path / "short")) == 2

    train(short_run.replace(resume=True, patience=2))
    train(short_run.replace(ckpt_save_dir=str(tmp_path / "long"), patience=2))
    assert capsys.readouterr().out.count("early stopping after epoch 3: ") == 2
    assert_equal_runs(tmp_path / "short", tmp_path / "long")


@pytest.mark.parametrize(
    ("scores", "waited"),
    [([44.4, 33.3], 1), ([1.0, 3.0, None, 3.0, 2.0], 2), ([None], 0), ([1.0, 2.0], 0), (["x", 1.0], 0)],
)
def test_a_state_of_an_older_version_is_counted_from_its_records(scores, waited, tmp_path):
    """Of its own epochs: a record that is written after the state is none of them."""
    shutil.copytree(GOLDEN / "run_before_the_move", tmp_path / "run")
    lines = [json.dumps({"epoch": epoch, "top_1": score}) + "\n" for epoch, score in enumerate(scores, 1)]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines) + '{"top_1": 0.0}\n')
    state = weights_file.read(tmp_path / "run" / "run_state.ckpt")
    state["run_metrics_bytes"] = np.array([len("".join(lines))])
    assert "run_waited" not in state
    weights_file.write(tmp_path / "run" / "run_state.ckpt", state)
    with RunFolder(Config(ckpt_save_dir=str(tmp_path / "run"))) as folder:
        assert folder.read_state(True).position.waited == waited


@pytest.fixture
def snapshots(monkeypatch, tmp_path):
    """Copies of the folder `run` as it was when a state was saved, by epochs and steps done."""
    save, copies = RunFolder.save_state, {}

    def save_and_copy(folder: RunFolder, state) -> None:
        save(folder, state)
        if folder.path == tmp_path / "run":
            position = (state.position.epoch, state.position.step)
            copies[position] = tmp_path / f"after {position}"
            shutil.copytree(folder.path, copies[position])

    monkeypatch.setattr(RunFolder, "save_state", save_and_copy)
    return copies


UNFROZEN = {
    "unfreeze_epoch": 3,
    "epoch_size": 3,
    "decay_epochs": 3,
    "ema": True,
    "drop_rate": 0.3,
    "lr": 1.0,
    "weight_decay": 0.1,
    "head_lr_factor": 3.0,
    "gradient_accumulation_steps": 1,
    "ckpt_save_interval_steps": 2,
    "mixup": 0.2,
}


@pytest.mark.parametrize("native", [pytest.param("off", marks=pytest.mark.slow), "auto"])
def test_a_run_unfreezes_and_is_resumed_before_at_and_after(native, images, weights, snapshots, tmp_path, capsys):
    keys = {**UNFROZEN, "ckpt_path": str(weights), "native_ops": native}
    config = configured(images, tmp_path / "run", **keys)
    train(config)
    printed = capsys.readouterr().out
    assert "ghostnet_050 on CPU: 3,843 trainable parameters" in printed
    assert "from epoch 3 on everything is trained: " in printed
    assert list(snapshots) == [(0, 2), (1, 0), (1, 2), (2, 0), (2, 2), (3, 0)]
    before, frozen, free = (
        weights_file.read(path) for path in (weights, *(snapshots[at] / "run_state.ckpt" for at in ((2, 0), (2, 2))))
    )
    body = [name for name in before if not name.startswith("classifier.")]
    assert all(np.array_equal(frozen[name], before[name]) for name in body)
    assert not any(np.array_equal(free[name], before[name]) for name in body)
    assert {name for name in frozen if name.startswith("moments.")} == {
        "moments.classifier.weight",
        "moments.classifier.bias",
    }
    assert (frozen["global_step"], free["global_step"]) == (6, 8)
    for position in ((1, 2), (2, 0), (2, 2)):
        train(config.replace(resume=True, ckpt_save_dir=str(snapshots[position])))
        assert_equal_runs(snapshots[position], tmp_path / "run")
