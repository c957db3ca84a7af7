"""What lies beside weights may be anybody's: it is asked for a network and its images, within what the weights hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import validate
from mindghost import build
from mindghost.checkpoint import weights as weights_file
from mindghost.cli.command import run_command
from mindghost.config import Config
from mindghost.data import dataset
from mindghost.errors import UserError
from mindghost.parallel.ranks import ALONE
from mindghost.runs import curves
from mindghost.runs.metrics import LARGEST, read_records
from mindghost.runtime import Runtime
from mindghost.tasks import names as class_names
from mindghost.train.training_data import open_images
from tests.helpers import short
from tests.helpers.commands import command, flags, run_mindghost
from tests.helpers.pictures import write_images
from tests.helpers.trained import CLASSES, write_run

WEIGHTS = "ghostnet_050_best.ckpt"
NUMBERS = tuple(map(str, range(12)))


@pytest.fixture(scope="module", autouse=True)
def short_network():
    """GhostNet of four bottlenecks in this process."""
    with short.network():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, short_network) -> Path:
    """The folder of a run of three classes."""
    folder = tmp_path_factory.mktemp("run")
    write_images(folder / "images", CLASSES, 1, 2)
    write_run(folder, model="ghostnet_050", data_dir=str(folder / "images"), num_parallel_workers=1, batch_size=4)
    return folder


def copied(run: Path, folder: Path, classes: object = CLASSES, **keys) -> Path:
    """Weights of a run with other files beside them; `classes` None: no classes.json."""
    shutil.copy(run / WEIGHTS, folder / WEIGHTS)
    lines = (run / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if line.split(":")[0] not in keys]
    (folder / "config.yaml").write_text("\n".join([*kept, *(f"{key}: {value}" for key, value in keys.items())]) + "\n")
    if classes is not None:
        (folder / "classes.json").write_text(classes if isinstance(classes, str) else json.dumps(classes))
    return folder / WEIGHTS


BOUNDS = {
    "classes": ({"num_classes": 900_000}, "num_classes: 900000, but the classifier in {path} has 3 outputs"),
    "fewer classes": ({"num_classes": 2}, "3 names, but the network has 2 outputs"),
    "one more": ({"num_classes": 4}, "num_classes: 4, but the classifier in {path} has 3 outputs"),
    "channels": ({"in_channels": 900}, "in_channels: 900, but the weights in {path} take 3"),
    "two billion": ({"num_classes": 2_000_000_000}, "num_classes: expected at most 1,000,000, got 2000000000"),
    "pixels": ({"image_resize": 100_000}, "image_resize: expected at most 4,096 pixels"),
    "a name": ({"model": "x" * 50_000}, "is not known; the nearest is"),
    "deep names": ({"classes": "[" * 5_000 + "]" * 5_000}, "classes.json: nested too deep"),
    "no names": ({"classes": '{"ant": null}'}, "classes.json: expected a list or a map of class names"),
    "a name twice": ({"classes": '["ant", "bee", "ant"]'}, "classes.json: labels 0 and 2 have one name"),
    "more names": ({"classes": '["ant", "bee", "cat", "dog"]'}, "classes.json: 4 names, but the network has 3 outputs"),
}


@pytest.mark.fault("settings", "clean error")
@pytest.mark.parametrize("what", BOUNDS)
def test_sizes_are_those_of_the_weights(run, tmp_path, monkeypatch, capsys, what):
    """Said in one line, before a network of such a size is built."""
    keys, words = BOUNDS[what]
    path = copied(run, tmp_path, **keys)
    status = run_mindghost("predict", run / "images" / "val", *flags(ckpt_path=path))
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1)
    assert words.format(path=path) in error
    assert len(error) < 800
    if what in ("classes", "channels", "deep names"):
        line = flags(ckpt_path=path, mode=1)
        status, said = command(validate.main, "validate.py", *line, monkeypatch=monkeypatch, capsys=capsys)
        assert status == 2
        assert said.partition("error: ")[2] == error.partition("error: ")[2]


def test_sizes_are_found_under_any_prefix_and_bounded_without_one(tmp_path):
    shapes = {"net.blocks.0.fc.weight": (9, 4), "net.fc.weight": (5, 4), "net.conv1.weight": (8, 3, 3, 3)}
    assert build._size_of(shapes, "fc", 0) == 5
    assert build._size_of(shapes, "conv1", 1) == 3
    assert build._size_of(shapes, "fc", 2) is None
    assert build._size_of(shapes, "classifier", 0) is None
    path = tmp_path / "x.ckpt"
    weights_file.write(path, {"some": np.zeros((7, 2), np.float32)})
    config = Config(model="ghostnet_050", num_classes=8, ckpt_path=str(path))
    with pytest.raises(UserError, match=f"num_classes: 8, but no weight in {path} is as large"):
        build.trained_network(config)
    with pytest.raises(UserError, match=f"{path}: does not fit the network|missing"):
        build.trained_network(config.replace(num_classes=7))


@pytest.mark.fault("settings", "ok")
def test_nothing_is_done_that_a_stranger_asks_for(run, tmp_path, monkeypatch, capsys):
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.html").write_text("mine")
    asked = {"report": str(report), "overwrite": "true", "dataset_download": "true", "pretrained": "true"}
    asked |= {"native_ops": "'on'", "device_target": "Ascend", "num_parallel_workers": 2_000_000_000}
    folder = tmp_path / "theirs"
    folder.mkdir()
    monkeypatch.setattr("sys.argv", ["validate.py", *flags(ckpt_path=copied(run, folder, **asked), mode=1)])
    assert run_command("validate.py", validate.main) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["num_samples"] == 6
    assert [(file.name, file.read_text()) for file in report.iterdir()] == [("report.html", "mine")]


@pytest.mark.fault("settings", "clean error")
def test_another_network_than_that_of_the_run_is_named(run, tmp_path, monkeypatch, capsys):
    """By validate.py and predict.py alike."""
    path = copied(run, tmp_path)
    line = flags(ckpt_path=path, model="ghostnet_100")
    expected = f"error: --model: {tmp_path / 'config.yaml'} has ghostnet_050, got ghostnet_100; leave the key out\n"
    status, error = command(validate.main, "validate.py", *line, monkeypatch=monkeypatch, capsys=capsys)
    assert (status, error) == (2, f"validate.py: {expected}")
    assert run_mindghost("predict", run / "images", *line) == 2
    assert capsys.readouterr().err == f"mindghost predict: {expected}"


@pytest.mark.fault("class names", "ok")
def test_weights_without_names_say_what_the_classes_are_called(run, tmp_path, monkeypatch, capsys):
    """A label is not taken for the folder of that name: 2 is no class here, but the label of cat."""
    path = copied(run, tmp_path, None)
    images = run / "images" / "val" / "ant"
    assert run_mindghost("predict", images, *flags(ckpt_path=path), "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == (
        f"mindghost predict: {path}: no class names are known: classes are called by their labels; give "
        "--class_names FILE, or imagenet for its 1,000 classes\n"
    )
    guesses = json.loads(printed.out.splitlines()[0])["predictions"]
    assert {(guess["class"], guess["label"]) for guess in guesses} == {("0", 0), ("1", 1), ("2", 2)}
    # Validation needs the order, and says which one it took.
    recipe = ["-c", tmp_path / "config.yaml", *flags(ckpt_path=path, mode=1)]
    monkeypatch.setattr("sys.argv", ["validate.py", *map(str, recipe)])
    assert run_command("validate.py", validate.main) == 0
    said = capsys.readouterr().out
    assert "no classes.json lies beside the weights: labels follow the sorted names of the class folders: 0 ant" in said


@pytest.mark.fault("class names", "ok")
def test_a_number_that_is_also_a_name_is_no_label(run, tmp_path, capsys):
    """Two outputs have names, one of them "2": the third is not called 2 as well."""
    path = copied(run, tmp_path, ["2", "0"])
    assert run_mindghost("predict", run / "images" / "val" / "ant", *flags(ckpt_path=path), "--json") == 0
    guesses = json.loads(capsys.readouterr().out.splitlines()[0])["predictions"]
    assert {(guess["class"], guess["label"]) for guess in guesses} == {("2", 0), ("0", 1), ("#2", 2)}


@pytest.mark.fault("class names", "ok")
def test_folders_that_are_numbers_have_one_order_everywhere(tmp_path, caplog):
    """Sorted as text, and said; a classes.json has the last word."""
    write_images(tmp_path, NUMBERS, 1, 1)
    config = Config(data_dir=str(tmp_path))
    trained, validated = (dataset.open_split(config, split) for split in ("train", "val"))
    assert trained.classes == validated.classes == tuple(sorted(NUMBERS))
    assert class_names.in_other_order(trained.classes)
    with caplog.at_level("INFO", "mindghost"):
        class_names.say_order(trained.classes, "why")
    assert caplog.messages == [
        "why: labels follow the sorted names of the class folders; numbers are sorted as text, too: 0 0, 1 1, 2 10, "
        "3 11, 4 2, 5 3, 6 4, 7 5, 8 6, 9 7, 10 8, 11 9"
    ]
    caplog.clear()
    settled = Runtime(config.replace(val_while_train=True, batch_size=4), "CPU", ALONE, 1, [])
    with caplog.at_level("INFO", "mindghost"):
        _, samples, val_samples = open_images(settled)
    assert samples.classes == val_samples.classes == tuple(sorted(NUMBERS))
    assert caplog.messages[0].startswith("the class folders are numbers: labels follow the sorted names")
    counted = dataset.open_split(config, "val", NUMBERS)
    assert [Path(counted.name(index)).parent.name for index in range(12)] == sorted(NUMBERS)
    assert counted.labels.tolist() == [int(name) for name in sorted(NUMBERS)]
    for others in (("0", "1", "2"), ("a", "10", "2"), ("1", "x")):
        assert not class_names.in_other_order(others)


def test_the_largest_numbers_of_a_metrics_file_are_drawn(tmp_path):
    values = {"train_loss": LARGEST, "val_loss": -LARGEST, "top_1": 2**62, "top_5": 5e-324, "lr": 0}
    lines = [json.dumps({"epoch": epoch, **values}) for epoch in (-(2**62), 2**62)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert curves.png([("run", read_records(path))], {}).startswith(b"\x89PNG")
