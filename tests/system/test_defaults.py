"""Keys that are left out: what training, validation and shipping make of their defaults is one consistent thing."""

import json
import sys
from pathlib import Path

import onnxruntime
import pytest

import train
import validate
from mindghost import build
from mindghost.checkpoint import weights as weights_file
from mindghost.cli.command import run_command
from mindghost.config import Config
from mindghost.models import list_models
from tests.helpers.commands import run_mindghost
from tests.helpers.launchers import run
from tests.helpers.pictures import write_images
from tests.helpers.run_records import records

CLASSES = ("ant", "bee", "cat")
# Nothing but what makes it small: network, number of classes, optimizer, schedule and all else are the defaults.
SMALL = ["--image_resize", "32", "--batch_size", "8", "--epoch_size", "2"]
MODEL = Config().model


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """`python train.py --data_dir D` and sizes; the run's folder."""
    root = tmp_path_factory.mktemp("defaults")
    write_images(root / "D", CLASSES, train_images=8, val_images=3)
    done = run([sys.executable, "tests/helpers/short.py", "train.py", *arguments(root / "run")], root)
    assert (done.returncode, done.stderr) == (0, "")
    return root / "run"


def arguments(folder: Path) -> list[str]:
    return ["--data_dir", str(folder.parent / "D"), "--ckpt_save_dir", str(folder), "--val_while_train", "True", *SMALL]


@pytest.mark.fault("defaults", "ok")
def test_weights_have_the_classes_of_the_data(trained):
    assert Config.from_file(trained / "config.yaml").num_classes == len(CLASSES)
    assert json.loads((trained / "classes.json").read_text()) == list(CLASSES)
    files = sorted(trained.glob(f"{MODEL}*.ckpt"))
    assert len(files) == 4
    for file in files:
        assert weights_file.read(file)["classifier.weight"].shape == (len(CLASSES), 1280)


@pytest.mark.fault("defaults", "ok")
def test_what_becomes_of_defaults_in_such_a_short_run_is_said(trained):
    """Three epochs of warm-up and 100 of decay would not fit."""
    config = Config.from_file(trained / "config.yaml")
    assert (config.warmup_epochs, config.decay_epochs, config.warnings()) == (0, 2, [])
    line = "epoch_size 2: warmup_epochs 0 (3 of 90) and decay_epochs 2 (100 of 90), in proportion"
    assert line in (trained / "train.log").read_text()


@pytest.mark.fault("defaults", "ok")
def test_validation_gives_the_numbers_of_training(trained, short_network, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["validate.py", "--ckpt_path", str(trained / f"{MODEL}_last.ckpt")])
    assert run_command("validate.py", validate.main) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = records(trained)[-1]
    assert (found["top_1"], found["loss"], found["num_samples"]) == (expected["top_1"], expected["val_loss"], 9)


@pytest.mark.fault("defaults", "ok")
def test_a_run_is_resumed_by_the_same_line(trained, short_network, monkeypatch, capsys):
    before = (trained / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments(trained), "--resume"])
    assert run_command("train.py", train.main) == 0
    assert "2 epochs and 0 steps are done" in capsys.readouterr().out
    assert (trained / "metrics.jsonl").read_bytes() == before


@pytest.mark.fault("defaults", "ok")
def test_files_that_are_shipped_have_the_classes_of_the_data(trained, short_network, capsys):
    """Predictions of the checkpoint, the ONNX file and the int8 file name the classes; the first two are alike."""
    checkpoint = trained / f"{MODEL}_last.ckpt"
    assert run_mindghost("export", "--ckpt_path", checkpoint, "--format", "onnx") == 0
    exported = checkpoint.with_suffix(".onnx")
    quantize = [exported, "--calib_dir", trained.parent / "D" / "train", "--calib_images", 8, "--max_drop", 100]
    assert run_mindghost("quantize", *quantize) == 0
    tops = []
    for file in (checkpoint, exported, exported.with_name(f"{MODEL}_last_int8.onnx")):
        capsys.readouterr()
        assert run_mindghost("predict", trained.parent / "D" / "val", "--ckpt_path", file, "--json") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        assert [{guess["class"] for guess in line["predictions"]} for line in lines] == [set(CLASSES)] * 9
        tops.append([line["predictions"][0]["class"] for line in lines])
        if file.suffix == ".onnx":
            (output,) = onnxruntime.InferenceSession(str(file)).get_outputs()
            assert output.shape[1] == len(CLASSES)
    assert tops[0] == tops[1]


@pytest.mark.fault("defaults", "ok")
def test_the_default_network_is_one_of_ours():
    assert MODEL in list_models()


def test_no_network_is_made_of_a_configuration_that_is_not_settled():
    """It would have the 1,000 classes of its own default."""
    with pytest.raises(ValueError, match="num_classes: not settled"):
        build.network(Config())


@pytest.mark.fault("defaults", "clean error")
def test_an_unknown_network_is_said_before_the_images_are_looked_at(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--model", "mobilenet_v2_035_224", "--data_dir", "/nowhere"])
    assert run_command("train.py", train.main) == 2
    assert "model: 'mobilenet_v2_035_224' is not known" in capsys.readouterr().err
