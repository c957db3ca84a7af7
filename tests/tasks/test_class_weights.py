"""What `class_weights` may say, and the numbers that it stands for."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from mindghost.config import Config
from mindghost.data.samples import ArraySamples
from mindghost.errors import UserError
from mindghost.tasks import class_weights
from tests.helpers import regression
from tests.helpers.configs import cli

NAMES = ("ant", "big bee", "cat")


def samples(labels=(0, 0, 1, 1, 1, 2)) -> ArraySamples:
    labels = np.array(labels, np.int32)
    return ArraySamples(NAMES, labels, "made up", np.zeros((len(labels), 2, 2, 3), np.uint8))


def settled(given, labels=(0, 0, 1, 1, 1, 2), outputs=3) -> tuple[float, ...]:
    config = Config(class_weights=given, num_classes=outputs)
    return class_weights.settled(config, samples(labels)).class_weights


def test_balanced_is_scikit_learns():
    labels = np.random.default_rng(0).choice(7, 500, p=np.arange(1, 8) / 28)
    expected = compute_class_weight("balanced", classes=np.arange(7), y=labels)
    assert class_weights.balanced(labels, 7) == pytest.approx(expected.tolist(), rel=1e-15)


def test_a_line_says_how_far_they_are_apart(caplog):
    with caplog.at_level("INFO", "mindghost"):
        settled("balanced")
    assert caplog.messages == ["class_weights: balanced: from 0.6667 (big bee) to 2 (cat)"]


def test_balanced_where_outputs_have_no_image():
    labels = np.array([0, 0, 0, 2])
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=labels)
    assert class_weights.balanced(labels, 4) == pytest.approx([expected[0], 1, expected[1], 1])


def test_balanced_of_several_labels_counts_labels():
    one_hot = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    assert class_weights.balanced(one_hot, 3) == class_weights.balanced(np.array([0, 0, 1, 2]), 3)
    several = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    assert class_weights.balanced(several, 3) == pytest.approx([3 / 4, 3 / 2, 1])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("w.json", "[1, 2.5, 0]", (1, 2.5, 0)),
        ("w.json", '{"cat": 3, "ant": 1, "big bee": 2}', (1, 2, 3)),
        ("w.txt", "ant 1\nbig bee\t2\n\ncat 3e0\n", (1, 2, 3)),
        ("w.txt", "name weight\nant 1\nbig bee 2\ncat 3", (1, 2, 3)),
        ("w.csv", 'class,weight\nant,1\n"big bee",2\ncat, 3\n', (1, 2, 3)),
        ("my weights", "\ufeffcat 3\r\nant 1\r\nbig bee 2\r\n", (1, 2, 3)),
    ],
)
def test_files(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text, newline="")
    assert settled(str(path)) == expected


def test_outputs_beyond_the_classes(tmp_path):
    path = tmp_path / "w.txt"
    path.write_text("ant 1\nbig bee 2\ncat 3\n")
    assert settled(str(path), outputs=5) == (1, 2, 3, 1, 1)


def test_numbers_and_none():
    assert settled((1, 0, 2), outputs=5) == (1, 0, 2, 1, 1)
    assert settled((1, 0, 2, 4, 5), outputs=5) == (1, 0, 2, 4, 5)
    assert settled((1, 0, 2)) == (1, 0, 2)
    assert settled(None) is None


@pytest.mark.fault("labels", "clean error")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.0, 2.0), r"^class_weights: 2 number\(s\) for 3 classes; give one for each, in label order$"),
        ((0.0, 0.0, 0.0), "^class_weights: all are 0"),
        ("nowhere.json", "^class_weights: nowhere.json: no such file; give numbers, the path of a file, or balanced$"),
    ],
)
def test_wrong_values(given, message):
    with pytest.raises(UserError, match=message):
        settled(given)


@pytest.mark.fault("labels", "clean error")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.json", '{"ant": 1, "big bee": 2, "dog": 3}', r"1 name\(s\) that no class has: dog; the classes are ant,"),
        ("w.json", '{"ant": 1, "big bee": 2}', "no number for 1 of the 3 classes: cat"),
        ("w.json", '{"ant": 1, "big bee": 2, "cat": "3"}', "expected a list of numbers, or a map"),
        ("w.json", '{"ant": 1, "big bee": 2, "cat": NaN}', "expected a list of numbers, or a map"),
        ("w.json", "[1, 2, 3", "not JSON"),
        ("w.txt", "ant 1\nbig bee two\ncat 3\n", "line 2: expected a class name and a number, got 'big bee two'"),
        ("w.txt", "ant 1\nant 2\n", "line 2: 'ant' has a number already"),
        ("w.txt", "ant -1\nbig bee 2\ncat 3\n", "label 0: expected a number >= 0, got -1"),
        ("w.txt", "ant inf\nbig bee 2\ncat 3\n", "label 0: expected a number >= 0, got inf"),
        ("w.csv", 'ant,1\n"big bee,2\ncat,3\n', "line 2: "),
        ("w.txt", "", "empty"),
        ("w.txt", "name weight\n", "empty"),
    ],
)
def test_wrong_files(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        settled(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.fault("labels", "clean error")
def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "w.txt"
    path.write_bytes(b"ant 1\n\xff\xfe 2\n")
    with pytest.raises(UserError, match="line 2: no UTF-8 text"):
        settled(str(path))


@pytest.mark.fault("labels", "clean error")
@pytest.mark.parametrize("keys", [{"class_weights": (1.0,)}, {"sampler": "balanced"}])
def test_tasks_without_classes_take_neither(keys):
    with pytest.raises(UserError, match=f"^{next(iter(keys))}: task regression has no classes that it could be for"):
        regression.TASK.settled(Config(**keys), samples())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["balanced"], "balanced"),
        (["1", "2", "0.5"], (1, 2, 0.5)),
        (["[1,2]"], (1, 2)),
        (["my weights.txt"], "my weights.txt"),
        (["None"], None),
    ],
)
def test_the_flag(words, expected):
    assert cli("--class_weights", *words).class_weights == expected


@pytest.mark.fault("labels", "clean error")
@pytest.mark.parametrize("value", [-1, [1, -1], 3, ["a"], "", True])
def test_values_that_are_none(value):
    with pytest.raises(UserError, match="^class_weights: expected numbers >= 0, one a class, the path of a file, or"):
        Config(class_weights=value)
