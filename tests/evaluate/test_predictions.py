"""Rows of what a network says: by hand, over ranks, and where their file goes."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from mindghost import tasks
from mindghost.config import Config
from mindghost.data.samples import ArraySamples
from mindghost.errors import UserError
from mindghost.evaluate import predictions as file
from mindghost.evaluate.evaluator import Evaluator
from mindghost.evaluate.predictions import Predictions
from tests.helpers.configs import message_of
from tests.helpers.runtimes import runtime_of
from tests.helpers.two_ranks import both

CLASSES = ("a", "b", "c")
CONFIG = Config(
    image_resize=8, crop_pct=1.0, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest", batch_size=4, num_classes=3
)


def grey(count: int) -> ArraySamples:
    """Images that are as bright as their number."""
    pixels = np.zeros((count, 8, 8, 3), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
    return ArraySamples(CLASSES, np.arange(count, dtype=np.int32) % 3, "grey", pixels)


def brightness(images: np.ndarray) -> np.ndarray:
    """Logits: the brightness for the second class, a fraction of it for the last."""
    level = images[:, 0, 0, 0]
    return np.stack([np.zeros(len(images)), level / 8, level / 16], axis=1).astype(np.float32)


def rows_of(config: Config, count: int, ranks=None) -> bytes:
    """The CSV file of one process, or what one of two ranks makes."""
    samples = grey(count)
    runtime = runtime_of(config) if ranks is None else runtime_of(config, ranks)
    found = Predictions(tasks.of(config), samples, 3)
    evaluator = Evaluator(runtime, samples)
    evaluator.outcomes(brightness, found)
    rows = found.gathered(evaluator.batches.order_over_ranks, runtime.ranks)
    return b"".join(found.content(Path("x.csv"), rows))


def test_a_row_by_hand():
    table = list(csv.DictReader(io.StringIO(rows_of(CONFIG, 10).decode())))
    assert [row["path"] for row in table] == [f"grey #{index}" for index in range(10)]
    assert [row["true_class"] for row in table] == [CLASSES[index % 3] for index in range(10)]
    row = table[8]
    odds = np.exp([0, 1, 0.5])
    shares = odds / odds.sum()
    assert [row[f"top_{place}_class"] for place in (1, 2, 3)] == ["b", "c", "a"]
    assert [int(row[f"top_{place}_label"]) for place in (1, 2, 3)] == [1, 2, 0]
    assert [float(row[f"top_{place}_probability"]) for place in (1, 2, 3)] == pytest.approx(shares[[1, 2, 0]])
    assert [float(row[f"probability {name}"]) for name in CLASSES] == pytest.approx(shares)
    assert float(row["loss"]) == pytest.approx(-np.log(shares[2]))
    # Of equal logits, the first label.
    assert [table[0][f"top_{place}_class"] for place in (1, 2, 3)] == ["a", "b", "c"]


def test_the_metrics_are_those_of_the_rows():
    samples = grey(10)
    found = Predictions(tasks.of(CONFIG), samples, 3)
    metrics = Evaluator(runtime_of(CONFIG), samples).outcomes(brightness, found).metrics()
    rows = found.gathered(np.arange(10))
    assert 100 * np.mean(rows["true_label"] == rows["top_1_label"]) == metrics.top_1
    assert np.mean(rows["loss"]) == pytest.approx(metrics.loss, rel=1e-15)


@pytest.mark.parametrize("block", [1, 3, 10_000])
@pytest.mark.parametrize("shuffle", [False, True])
def test_two_ranks_write_what_one_process_writes(monkeypatch, shuffle, block):
    """To the last bit; the second rank writes nothing."""
    monkeypatch.setattr(file, "_BLOCK", block)
    config = CONFIG.replace(eval_shuffle=shuffle)
    alone = rows_of(CONFIG, 11)
    first, second = both(lambda ranks: rows_of(config, 11, ranks))
    assert first == alone == rows_of(config, 11)
    assert second.count(b"\n") == 1


def test_many_classes_have_the_first_five_alone():
    columns = tasks.of(CONFIG).columns(CLASSES, 101)
    assert [column.name for column in columns] == [
        *("true_label", "true_class", "loss"),
        *(f"top_{place}_{what}" for place in range(1, 6) for what in ("label", "class", "probability")),
    ]
    assert columns[1].names[:4] == ["a", "b", "c", "#3"]
    values = tasks.of(CONFIG).values(np.eye(101, dtype=np.float32)[:2], np.array([0, 5]), grey(2))
    assert set(values) == {column.name for column in columns}
    assert values["top_1_label"].tolist() == [0, 1]


def test_the_likeliest_classes_are_those_of_a_stable_sort():
    """Few levels, so that many logits are equal."""
    logits = np.random.default_rng(0).integers(-3, 3, (50, 20)).astype(np.float32)
    values = tasks.of(CONFIG).values(logits, np.zeros(50, int), grey(2))
    found = np.stack([values[f"top_{place}_label"] for place in range(1, 6)], axis=1)
    np.testing.assert_array_equal(found, np.argsort(-logits, axis=1, kind="stable")[:, :5])


def config(path: Path, **keys) -> Config:
    return Config(predictions=str(path), **keys)


@pytest.mark.fault("overwriting", "clean error")
def test_a_file_that_is_there_is_replaced_by_order_alone(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("mine")
    expected = f"predictions: {path} exists; name another file, or give --overwrite True to replace it"
    assert message_of(file.prepare, config(path)) == expected
    file.prepare(config(path, overwrite=True)).write([b"a", b"b"])
    assert path.read_text() == "ab"
    path.unlink()
    path.symlink_to("nowhere")
    assert message_of(file.prepare, config(path)) == expected


@pytest.mark.fault("overwriting", "clean error")
def test_no_file_of_a_run_is_replaced(tmp_path):
    for name in ("metrics.jsonl", "classes.json", "run.json"):
        (tmp_path / name).write_text("{}")
        given = config(tmp_path / name, overwrite=True, ckpt_path=str(tmp_path / "w.ckpt"))
        assert message_of(file.prepare, given) == f"predictions: {tmp_path / name}: is what is read; name another file"


@pytest.mark.fault("overwriting", "clean error")
def test_the_list_of_the_images_is_not_replaced(tmp_path):
    images = tmp_path / "val.csv"
    images.write_text("path,label\n")
    (tmp_path / "link.csv").symlink_to(images)
    given = config(tmp_path / "link.csv", overwrite=True, val_list=str(images))
    assert message_of(file.prepare, given).endswith("link.csv: is what is read; name another file")


@pytest.mark.fault("folders", "clean error")
def test_a_place_that_takes_no_file_is_refused(tmp_path):
    assert "there is no folder" in message_of(file.prepare, config(tmp_path / "none" / "p.csv"))
    (tmp_path / "d.csv").mkdir()
    assert "a folder, not a file" in message_of(file.prepare, config(tmp_path / "d.csv", overwrite=True))
    with pytest.raises(UserError, match="expected a name that ends in"):
        file.prepare(config(tmp_path / "p.txt"))


def test_a_task_without_columns_of_its_own_has_its_outputs(monkeypatch):
    monkeypatch.setitem(tasks.MODULES, "regression", "tests.helpers.regression")
    given = CONFIG.replace(task="regression")
    samples = grey(4)
    found = Predictions(tasks.of(given), samples, 1)
    found.add(np.array([[0.5], [1], [2], [3]], np.float32), samples.labels)
    lines = b"".join(found.content(Path("x.jsonl"), found.gathered(np.arange(4)))).decode().splitlines()
    assert json.loads(lines[1]) == {"path": "grey #1", "true": 1.0, "output": [1.0]}
