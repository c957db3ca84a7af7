"""What the task of several labels makes of splits, configurations and outputs."""

import numpy as np
import pytest

from mindghost import tasks
from mindghost.config import Config
from mindghost.data.samples import ArraySamples
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for
from tests.helpers.pictures import save_image

TASK = tasks.of(Config(task="multi_label"))


def samples(labels, names=("a", "b", "c")) -> ArraySamples:
    labels = np.array(labels, np.float32)
    return ArraySamples(names, labels, "made up", np.zeros((len(labels), 2, 2, 3), np.uint8))


def test_class_folders_are_one_label_each(tmp_path):
    for name in "ab":
        save_image(tmp_path / "train" / name / "1.png", 3)
    found = TASK.open_split(config_for(tmp_path, task="multi_label", num_classes=4), "train")
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert TASK.open_split(config_for(tmp_path, task="multi_label"), "train").labels.shape == (2, 2)


def test_what_makes_little_sense_is_said():
    config = Config(task="multi_label", num_classes=3)
    assert TASK.doubts(config, samples([[1, 1, 0], [0, 0, 1]])) == []
    (line,) = TASK.doubts(config, samples([[1, 1, 0], [0, 0, 0]]))
    assert line == "no training image has 1 of the labels: c"
    (line,) = TASK.doubts(config, samples([[1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    assert "exactly one label" in line


def test_the_loss_is_settled(caplog):
    config = Config(task="multi_label", num_classes=3, class_weights="balanced")
    with caplog.at_level("INFO", "mindghost"):
        settled = TASK.settled(config, samples([[1, 1, 0], [1, 0, 1]]))
    assert settled.loss == "BCE"
    assert settled.class_weights == pytest.approx((4 / 6, 4 / 3, 4 / 3))
    assert "(loss: BCE)" in caplog.text
    caplog.clear()
    assert TASK.settled(settled, samples([[1, 1, 0]])) == settled
    assert caplog.text == ""


def test_answers():
    outputs = np.array([[0.0, 2.0, -2.0], [-9.0, -9.0, -9.0], [1.0, 1.0, 1.0]], np.float32)
    rows = TASK.answers(outputs, "abc")
    assert [[guess.name for guess in row] for row in rows] == [["b", "a"], [], ["a", "b", "c"]]
    assert rows[0][0].probability == pytest.approx(1 / (1 + np.exp(-2)))
    rows = TASK.answers(outputs, "abc", 1, (0.1, 0.9, 0.1))
    assert [[guess.name for guess in row] for row in rows] == [["a"], [], ["a"]]
    for row in (rows[1], rows[0]):
        assert TASK.draw(np.zeros((40, 50, 3), np.uint8), row).size == (350, 280 + 32)


@pytest.mark.fault("labels", "clean error")
def test_a_teacher_is_refused():
    with pytest.raises(UserError, match="^teacher: what is learnt from a teacher are its softmax probabilities"):
        Config(task="multi_label", teacher="ghostnet_100")
