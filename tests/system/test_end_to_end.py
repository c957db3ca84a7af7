"""The real loop and both entry points, on small generated images."""

import ast
import csv
import json
import math
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

import train
import validate
from mindghost.checkpoint import weights as weights_file
from mindghost.config import Config
from mindghost.evaluate import validate as validator
from mindghost.models import create_model
from mindghost.train import trainer
from tests.helpers.commands import command, flags, process
from tests.helpers.pictures import CLASSES, write_images
from tests.helpers.places import RECIPE, ROOT
from tests.helpers.run_records import records
from tests.helpers.training import SHORT


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """`python train.py` for two epochs, as a user types it."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    keys = {**SHORT, "num_classes": 6, "drop_rate": 0.2, "data_dir": images, "ckpt_save_dir": folder}
    return folder, process(ROOT / "train.py", "-c", RECIPE, *flags(**keys))


def test_training_ends_well_and_says_little(run):
    folder, result = run
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert "learning rate 0.003125 (0.4 x global batch 8 / reference batch 1024)" in result.stdout
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert len(lines) <= 11
    logged = (folder / "train.log").read_text()
    assert all(line in logged for line in lines)


def test_the_files_of_a_run(run):
    folder, _ = run
    found = {file.name for file in folder.iterdir()}
    weights = {f"ghostnet_050{end}.ckpt" for end in ("_best", "_last", "-1_4", "-2_4")}
    states = {"run_state.ckpt", "run_state_previous.ckpt"}
    sums = {f"{name}.sha256" for name in weights | states}
    texts = {"config.yaml", "classes.json", "run.json", "metrics.jsonl", "train.log"}
    assert found == weights | states | sums | texts | {".lock"}
    assert json.loads((folder / "classes.json").read_text()) == list(CLASSES)
    resolved = Config.from_file(folder / "config.yaml")
    assert (resolved.model, resolved.num_classes, resolved.batch_size) == ("ghostnet_050", 6, 8)
    (session,) = json.loads((folder / "run.json").read_text())
    typed = shlex.join(["python", str(ROOT / "train.py"), "-c", str(RECIPE), "--epoch_size", "2"])
    assert session["command"].startswith(f"{typed} ")
    assert (session["device"], session["ranks"], session["epoch"]) == ("CPU", 1, 0)
    assert session["images"] == {"train": 36, "val": 18}
    parameters = {p.name for p in create_model("ghostnet_050").get_parameters()}
    for name in weights:
        assert set(weights_file.read(folder / name)) == parameters


def test_the_records_of_a_run(run):
    folder, _ = run
    first, second = records(folder)
    assert (first["epoch"], first["step"], second["epoch"], second["step"]) == (1, 4, 2, 8)
    base, low = 0.4 * 8 / 1024, 1e-7
    expected = [low + (base - low) / 2 * (1 + math.cos(math.pi * (step - 1) / 8)) for step in (4, 8)]
    assert [first["lr"], second["lr"]] == pytest.approx(expected)
    assert first["base_lr"] == pytest.approx(base)
    for record in (first, second):
        assert 0 < record["train_loss"] < 20
        assert record["val_loss"] > 0
        assert 0 <= record["top_1"] <= record["top_5"] <= 100
        assert record["images_per_second"] > 0
        assert record["seconds"] > 0


def test_without_the_class_names_a_config_must_be_given(run, images, tmp_path, monkeypatch, capsys):
    """Labels would follow the folders that happen to be there."""
    for name in ("config.yaml", "ghostnet_050_last.ckpt"):
        (tmp_path / name).write_bytes((run[0] / name).read_bytes())
    line = ["--ckpt_path", tmp_path / "ghostnet_050_last.ckpt", "--data_dir", images]
    status, error = command(validate.main, "validate.py", *line, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert f"-c: {tmp_path / 'classes.json'} does not exist" in error


@pytest.mark.parametrize("config", [(), ("-c", RECIPE)], ids=["beside", "recipe"])
def test_validation_equals_the_evaluation_in_training(run, images, config, tmp_path):
    folder, _ = run
    predictions = tmp_path / "predictions.csv"
    arguments = ["--ckpt_path", folder / "ghostnet_050_last.ckpt", "--data_dir", images, "--predictions", predictions]
    if config:
        arguments += flags(num_classes=6, batch_size=8, image_resize=32)
    result = process(ROOT / "validate.py", *config, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    *_, words, line = result.stdout.splitlines()
    found = json.loads(line)
    expected = records(folder)[-1]
    error = found.pop("calibration_error")
    assert found == {
        "model": "ghostnet_050",
        "ckpt_path": str(folder / "ghostnet_050_last.ckpt"),
        "top_1": expected["top_1"],
        "top_5": expected["top_5"],
        "loss": expected["val_loss"],
        "num_samples": 18,
    }
    shares = {"Top_1_Accuracy": found["top_1"] / 100, "Top_5_Accuracy": found["top_5"] / 100, "loss": found["loss"]}
    assert ast.literal_eval(words) == pytest.approx(shares)
    rows = list(csv.DictReader(predictions.open()))
    sure = np.array([float(row["top_1_probability"]) for row in rows])
    right = np.array([row["true_label"] == row["top_1_label"] for row in rows])
    bins = np.minimum((sure * 15).astype(int), 14)
    gaps = [abs((right[bins == each] - sure[bins == each]).sum()) for each in range(15)]
    assert error == pytest.approx(100 * sum(gaps) / 18, rel=1e-4)
    assert [row["path"] for row in rows] == sorted(str(path) for path in (images / "val").glob("*/*"))
    assert [row["true_class"] for row in rows] == [Path(row["path"]).parent.name for row in rows]
    assert 100 * np.mean([row["true_label"] == row["top_1_label"] for row in rows]) == pytest.approx(found["top_1"])
    assert math.fsum(float(row["loss"]) for row in rows) / 18 == found["loss"]


def test_validation_maps_classes_by_name(run, images, tmp_path):
    """A folder with half of the classes: their labels are those of the run, not 0, 1, 2."""
    folder, _ = run
    config = Config.from_file(folder / "config.yaml").replace(ckpt_path=str(folder / "ghostnet_050_last.ckpt"))
    halves = [
        validator.validate(config.replace(data_dir=str(_with_classes(images, names, tmp_path)))).record()
        for names in (CLASSES[:3], CLASSES[3:])
    ]
    whole = records(folder)[-1]
    assert sum(half["num_samples"] for half in halves) == 18
    assert np.mean([half["top_1"] for half in halves]) == pytest.approx(whole["top_1"])
    assert np.mean([half["loss"] for half in halves]) == pytest.approx(whole["val_loss"], rel=1e-5)


def _with_classes(root: Path, names: tuple[str, ...], folder: Path) -> Path:
    target = folder / names[0]
    (target / "val").mkdir(parents=True)
    for name in names:
        (target / "val" / name).symlink_to(root / "val" / name)
    return target


def short_config(images: Path, folder: Path, **keys) -> Config:
    """One epoch, operator by operator: nothing is compiled, which takes most of the time otherwise."""
    options = {
        **SHORT,
        "mode": 1,
        "epoch_size": 1,
        "decay_epochs": 1,
        "data_dir": str(images),
        "ckpt_save_dir": str(folder),
    }
    return Config.from_file(RECIPE).replace(**{**options, "num_classes": 6, **keys})


def test_averaged_weights_accumulation_and_a_second_equal_run(short_network, images, tmp_path):
    """best and last are the averaged weights, the run state keeps the raw ones; the same seed gives the same bits."""
    states = []
    for name in ("a", "b"):
        folder = tmp_path / name
        options = {"ema": True, "gradient_accumulation_steps": 2, "clip_grad": True, "mixup": 0.2, "drop_rate": 0.2}
        trainer.train(short_config(images, folder, **options))
        state = weights_file.read(folder / "run_state.ckpt")
        last = weights_file.read(folder / "ghostnet_050_last.ckpt")
        assert all((state[f"ema.{weight}"] == array).all() for weight, array in last.items())
        assert (state["conv_stem.weight"] != last["conv_stem.weight"]).any()
        assert state["global_step"] == 2
        states.append(state)
    assert set(states[0]) == set(states[1])
    for name in set(states[0]) - {"run_log_bytes", "run_metrics_bytes"}:  # of text that holds times
        np.testing.assert_array_equal(states[1][name], states[0][name], err_msg=name)


def test_fine_tuning_the_classifier_alone(run, images, tmp_path, capsys):
    folder, _ = run
    other = write_images(tmp_path / "other", classes=("x", "y", "z"))
    source = folder / "ghostnet_050_best.ckpt"
    config = short_config(other, tmp_path / "out", ckpt_path=str(source), num_classes=3, freeze_backbone=True)
    trainer.train(config)
    assert "fresh, since the number of classes differs: classifier.weight, classifier.bias" in capsys.readouterr().out
    before, after = (weights_file.read(p) for p in (source, tmp_path / "out" / "ghostnet_050_last.ckpt"))
    assert after["classifier.weight"].shape == (3, 1280)
    for name, array in before.items():
        if not name.startswith("classifier."):
            np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert records(tmp_path / "out")[0]["top_5"] is None


def test_the_ascend_recipe_on_a_cpu(short_network, images, tmp_path, capsys):
    """float16 with a dynamic loss scale: one line says what is replaced; overflows lower the scale."""
    config = Config.from_file(RECIPE.with_name("ghostnet_050_ascend.yaml"))
    options = {**SHORT, "epoch_size": 1, "decay_epochs": 1, "data_dir": str(images), "num_classes": 6}
    trainer.train(config.replace(distribute=False, ckpt_save_dir=str(tmp_path / "run"), **options))
    printed = capsys.readouterr().out
    line = "on the CPU: no sink mode, our own finite check in place of MindSpore's dynamic loss scaling"
    assert printed.splitlines().count(line) == 1
    state = weights_file.read(tmp_path / "run" / "run_state.ckpt")
    skipped = int(math.log2(16777216 / state["loss_scale"]))
    assert state["global_step"] == 4 - skipped
    assert (f"{skipped} updates skipped" in printed) == (skipped > 0)


@pytest.mark.fault("command lines", "clean error")
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"distribute": True}, "distribute: True needs a launcher"),
        ({"device_target": "Ascend"}, "device_target: MindSpore finds no Ascend device"),
        ({"opt": "lamb", "native_ops": "off"}, "opt: lamb on a CPU takes our native operators"),
        ({"drop_path_rate": 0.1}, "drop_path_rate: ghostnet_050 has no stochastic depth"),
        ({"model": "ghostnet_105"}, "the nearest is 'ghostnet_1"),
        ({"num_classes": 4}, "6 classes, but num_classes is 4"),
        ({"data_dir": "/nowhere"}, "/nowhere"),
        ({"ckpt_path": "/nowhere.ckpt"}, "/nowhere.ckpt: no such file"),
        ({"epoch_size": 2, "warmup_epochs": 2}, "warmup_epochs"),
        ({"amp_level": "O1", "amp_cast_list": "[nn.Convolution]"}, "mindspore.nn has no layer 'Convolution'"),
        ({"batch_size": 100}, "batch_size"),
        ({"lr_": 1}, "--lr"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(keys, expected, images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    given = {**SHORT, "num_classes": 6, "data_dir": images, "ckpt_save_dir": out, **keys}
    status, error = command(
        train.main, "train.py", "-c", RECIPE, *flags(**given), monkeypatch=monkeypatch, capsys=capsys
    )
    assert status == 2
    assert error.startswith("train.py: error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not out.exists()


def test_a_folder_with_a_run_is_refused(run, images, monkeypatch, capsys):
    folder, _ = run
    before = {file: file.read_bytes() for file in folder.glob("[!.]*")}
    given = {**SHORT, "num_classes": 6, "data_dir": images, "ckpt_save_dir": folder}
    status, error = command(
        train.main, "train.py", "-c", RECIPE, *flags(**given), monkeypatch=monkeypatch, capsys=capsys
    )
    assert status == 2
    assert "already holds a run" in error
    assert {file: file.read_bytes() for file in folder.glob("[!.]*")} == before


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (None, (), "w.ckpt: no such file"),
        (b"", (), "config.yaml does not exist"),
        (None, ("-c", RECIPE), "no such file"),
        (b"text, not weights", ("-c", RECIPE), "not a MindSpore checkpoint"),
        ("last", ("-c", RECIPE, "--num_classes", 10), "give the num_classes that the file was made with"),
        ("last", ("-c", RECIPE, "--num_classes", 6, "--model", "ghostnet_100"), "of another shape"),
        ("none given", ("-c", RECIPE), "ckpt_path: needed"),
        ("none given", (), "-c: without it"),
    ],
)
def test_validation_never_takes_random_weights(
    run, content, arguments, expected, images, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "w.ckpt"
    if content == "last":
        path.write_bytes((run[0] / "ghostnet_050_last.ckpt").read_bytes())
    elif isinstance(content, bytes):
        path.write_bytes(content)
    weights = () if content == "none given" else ("--ckpt_path", path)
    line = [*arguments, *weights, "--data_dir", images]
    status, error = command(validate.main, "validate.py", *line, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2
    assert error.count("\n") == 1
    assert expected in error


@pytest.mark.fault("NaN, infinity", "clean error")
def test_a_loss_that_is_not_finite_stops_the_run(short_network, images, tmp_path, monkeypatch, capsys):
    given = {**SHORT, "num_classes": 6, "data_dir": images, "ckpt_save_dir": tmp_path / "run", "lr": 1e30, "mode": 1}
    status, error = command(
        train.main, "train.py", "-c", RECIPE, *flags(**given), monkeypatch=monkeypatch, capsys=capsys
    )
    assert status == 1
    assert "train.py: error: epoch 1, step " in error
    assert "lower lr" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "run").glob("*.ckpt"))
    last = (tmp_path / "run" / "train.log").read_text().splitlines()[-1]
    # Which overflows first depends on the operators.
    assert "the loss is" in last or "a gradient is not finite" in last
