"""What weights say of a configuration: it goes before the defaults, and nothing may contradict what they fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindghost.config import Config, Said, settled
from mindghost.runs.files import said_beside, saved_by_training
from tests.helpers.configs import message_of

FILE = Path("a.onnx")


def fixing(**keys) -> Said:
    return Said(keys, {}, keys, FILE)


@pytest.mark.parametrize(
    ("fixed", "given"),
    [
        ({"mean": (120.0,)}, {"mean": [120, 120, 120]}),
        ({"mean": (120.0, 120.0, 120.0), "std": (1.0,) * 3}, {"mean": [120], "std": [1]}),
        ({"crop_pct": 0.875}, {"crop_pct": 0.875 * (1 + 9e-7)}),
        ({"std": (57.12, 57.0, 58.0)}, {"std": [57.120000000000005, 57, 58]}),
        ({"num_classes": 10}, {"num_classes": None}),
        ({"model": "ghostnet_050"}, {"model": "ghostnet_050", "lr": 0.5}),
        ({"image_resize": (32, 48)}, {"image_resize": [32, 48]}),
    ],
)
def test_what_means_the_same_is_no_contradiction(fixed, given):
    config = settled(given, {}, fixing(**fixed))
    for key, value in fixed.items():
        found = getattr(config, key)
        pairs = zip(found * 3, value * 3, strict=False) if isinstance(value, tuple) else [(found, value)]
        assert all(one == pytest.approx(other) if isinstance(other, float) else one == other for one, other in pairs)
    assert config.lr == given.get("lr", Config().lr)


@pytest.mark.parametrize(
    ("fixed", "given"),
    [
        ({"mean": (120.0, 110.0, 100.0)}, {"mean": [120], "std": [1, 1, 1]}),
        ({"mean": (120.0, 110.0, 100.0)}, {"mean": [120, 110, 101]}),
        ({"crop_pct": 0.875}, {"crop_pct": 0.875 * (1 + 2e-6)}),
        ({"num_classes": 10}, {"num_classes": 11}),
        ({"image_resize": (32, 48)}, {"image_resize": [48, 32]}),
        ({"image_resize": 32}, {"image_resize": [32, 48]}),
        ({"pretrained": False}, {"pretrained": True}),
    ],
)
def test_a_contradiction_names_key_place_and_file(fixed, given):
    (key,) = fixed
    keys = {"std": (1.0,)} if given.get("mean") == [120] else {}
    message = message_of(settled, {**given, **keys}, {key: "r.yaml:3: "}, fixing(**fixed))
    assert message.startswith(f"r.yaml:3: {key}: {FILE} has ")


def test_what_is_given_goes_before_what_is_said_and_that_before_the_defaults():
    said = Said({"lr": 0.25, "batch_size": 4}, {}, {}, FILE)
    config = settled({"lr": 0.5}, {}, said)
    assert (config.lr, config.batch_size, config.epoch_size) == (0.5, 4, 90)


def test_who_names_another_place_does_not_mean_the_lists_of_training():
    values = {"train_list": "a.csv", "val_list": "b.csv", "val_fraction": 0.2, "data_dir": "d", "class_names": "n"}

    def lists(said: dict, **given) -> tuple[str, str, str, float]:
        config = settled(given, {}, Said(said, {}, {}, FILE))
        return config.train_list, config.val_list, config.class_names, config.val_fraction

    assert lists(values) == lists(values, lr=1.0) == ("a.csv", "b.csv", "n", 0.2)
    assert lists(values, data_dir="e") == ("", "", "n", 0.2)
    assert lists(values, data_dir="e", val_list="c.csv") == ("", "c.csv", "n", 0.2)
    # A folder in place of the validation list; or other rows of a list that has both splits.
    assert lists(values, val_split="test") == ("a.csv", "", "n", 0.2)
    assert lists({**values, "val_list": "a.csv"}, val_split="test") == ("a.csv", "a.csv", "n", 0.2)
    assert lists({**values, "val_list": ""}, val_split="test") == ("a.csv", "", "n", 0.2)
    elsewhere = Config(**values).of_folder("e")
    assert (elsewhere.data_dir, elsewhere.train_list, elsewhere.val_list) == ("e", "", "")


def test_a_bad_value_is_named_where_it_stands():
    said = Said({"lr": -1}, {"lr": "c.yaml:2: "}, {}, FILE)
    assert message_of(settled, {}, {}, said).startswith("c.yaml:2: lr: ")
    assert message_of(settled, {"lr": -2}, {"lr": "--"}, said).startswith("--lr: expected a number > 0, got -2")
    # A value that was not given has no place on the command line.
    assert message_of(settled, {}, {"lr": "--"}, said).startswith("c.yaml:2: lr: ")


def test_a_size_that_a_stranger_asks_for_needs_a_word_of_the_user():
    said = Said({"batch_size": 10**6}, {"batch_size": "c.yaml:2: "}, {}, FILE)
    message = message_of(settled, {}, {}, said)
    assert message.startswith("c.yaml:2: batch_size: expected at most ")
    assert message.endswith("; if it is right, give --batch_size")
    assert settled({"batch_size": 10**6}, {"batch_size": "--"}, said).batch_size == 10**6
    # Of two of them, one that was given speaks for itself alone.
    both = Said({"num_classes": 10**7, "batch_size": 1}, {"num_classes": "c.yaml:1: ", "batch_size": "c.yaml:2: "})
    assert message_of(settled, {"batch_size": 2}, {}, both).startswith("c.yaml:1: num_classes: ")


def run(folder: Path, config: str = "model: ghostnet_050\nlr: 3.0\nimage_resize: 64\n") -> Path:
    (folder / "w.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text(config)
    (folder / "classes.json").write_text("[]")
    return folder / "w.ckpt"


def test_of_a_run_network_and_data_are_taken(tmp_path):
    weights, file = run(tmp_path), tmp_path / "config.yaml"
    wanted = Said(
        {"model": "ghostnet_050", "image_resize": 64},
        {"model": f"{file}:1: ", "image_resize": f"{file}:3: "},
        {"model": "ghostnet_050"},
        file,
    )
    assert saved_by_training(str(weights)) == said_beside(weights) == wanted


def test_a_misspelt_key_does_not_pass(tmp_path):
    said = said_beside(run(tmp_path, "imge_resize: 64\n"))
    assert said.fixed == {}
    assert message_of(settled, {}, {}, said).startswith(f"{tmp_path / 'config.yaml'}:1: imge_resize: unknown key")


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("w.ckpt", "w.ckpt: no such file"),
        ("config.yaml", "-c: {}/config.yaml does not exist, so the network is not known; give -c CONFIG"),
        ("classes.json", "-c: {}/classes.json does not exist, so the order of the classes is not known"),
    ],
)
def test_what_is_missing_of_a_run_is_named(tmp_path, gone, words):
    weights = run(tmp_path)
    (tmp_path / gone).unlink()
    assert words.format(tmp_path) in message_of(saved_by_training, str(weights))


def test_weights_have_to_be_named():
    assert message_of(saved_by_training, "").startswith("-c: without it, --ckpt_path must name a weight file")
