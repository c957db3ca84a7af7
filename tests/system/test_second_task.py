"""Another task than classification goes through the same code: trained, resumed, validated, exported, predicted."""

import json

import numpy as np
import pytest
from PIL import Image

from mindghost import tasks
from mindghost.config import Config
from mindghost.deploy import export
from mindghost.errors import UserError
from mindghost.evaluate.validate import validate
from mindghost.inference import artifact
from mindghost.inference.network import open_network
from mindghost.inference.predictor import Predictor
from mindghost.models import ghostnet
from mindghost.train.trainer import train
from tests.helpers.run_records import records

VALUES = (0.0, 0.25, 0.5, 1.0)
KEYS = {
    "task": "regression",
    "model": "ghostnet_050",
    "image_resize": 32,
    "batch_size": 8,
    "warmup_epochs": 0,
    "val_while_train": True,
    "num_parallel_workers": 1,
    "opt": "adam",
    "lr": 0.005,
    "clip_grad": True,
    "clip_value": 1.0,
    "hflip": 0.0,
    "color_jitter": None,
    "auto_augment": None,
    "scale": (1.0, 1.0),
    "dataset_sink_mode": False,
}


@pytest.fixture
def regression(monkeypatch):
    monkeypatch.setitem(tasks.MODULES, "regression", "tests.helpers.regression")
    stages = tuple((ghostnet.STAGES[stage][0],) for stage in (0, 1, 3, 4))
    monkeypatch.setattr(ghostnet, "STAGES", stages)


@pytest.fixture
def grey(tmp_path):
    """Grey images, in folders called by their brightness."""
    for split, count in (("train", 8), ("val", 3)):
        for value in VALUES:
            folder = tmp_path / "images" / split / str(value)
            folder.mkdir(parents=True)
            for index in range(count):
                noise = np.random.default_rng(index).integers(0, 8, (36, 36, 3))
                Image.fromarray(np.uint8(noise + 240 * value)).save(folder / f"{index}.png")
    return tmp_path / "images"


def test_a_task_that_knows_no_classes(regression, grey, tmp_path):
    run = tmp_path / "run"
    config = Config(**KEYS, data_dir=str(grey), ckpt_save_dir=str(run), epoch_size=6, decay_epochs=6)
    train(config)
    written = records(run)
    assert [set(record) >= {"val_loss", "closeness"} and "top_1" not in record for record in written] == [True] * 6
    # It learns: constant answers are wrong by 0.31 at the least.
    best = max(record["closeness"] for record in written)
    assert 1 / best - 1 < 0.25
    assert f"best closeness {best:.2f}: " in (run / "train.log").read_text()
    assert json.loads((run / "classes.json").read_text()) == ["value"]

    weights = run / "ghostnet_050_best.ckpt"
    found = validate(config.replace(ckpt_path=str(weights), report=str(tmp_path / "report")))
    assert found.metrics.score == best
    assert found.record()["closeness"] == best
    assert (tmp_path / "report" / "errors.txt").read_text().count("\n") == 3 * len(VALUES)

    [exported] = export.export(artifact.of_file(weights), ["onnx"], tmp_path / "out")
    deployed = artifact.of_file(exported.path)
    assert (deployed.config.task, deployed.classes) == ("regression", ("value",))
    rows = tmp_path / "rows.jsonl"
    again = validate(config.replace(ckpt_path=str(exported.path), predictions=str(rows)))
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["true"] for row in found] == [value for value in VALUES for _ in range(3)]
    errors = [abs(row["true"] - row["output"][0]) for row in found]
    assert sum(errors) / len(errors) == pytest.approx(again.record()["error"])
    assert again.metrics.score == pytest.approx(best, abs=1e-4)

    predictor = Predictor(deployed, open_network(deployed))
    answers = {p.image: p.answers[0].probability for p in predictor.predict([str(grey / "val" / "1.0" / "0.png")])}
    assert list(answers.values()) == pytest.approx([1.0], abs=0.5)


def test_a_task_that_is_none():
    with pytest.raises(
        UserError, match=r"^task: 'clasification' is no task; give one of classification, multi_label, segmentation$"
    ):
        tasks.of(Config(task="clasification"))
