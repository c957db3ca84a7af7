"""Images with several labels, from training to prediction: thresholds go with the weights and into exported files."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from mindghost.cli import main
from mindghost.config import Config
from mindghost.evaluate.validate import validate
from mindghost.models import ghostnet
from mindghost.train.trainer import train
from tests.helpers import short
from tests.helpers.places import ROOT
from tests.helpers.run_records import records
from tests.helpers.training import without_times

NAMES = ("red", "green", "blue")
KEYS = {
    "task": "multi_label",
    "model": "ghostnet_050",
    "image_resize": 32,
    "batch_size": 8,
    "epoch_size": 6,
    "warmup_epochs": 0,
    "decay_epochs": 6,
    "val_while_train": True,
    "num_parallel_workers": 1,
    "opt": "adam",
    "lr": 0.005,
    "hflip": 0.0,
    "color_jitter": None,
    "scale": (1.0, 1.0),
    "mixup": 0.1,
    "label_smoothing": 0.05,
    "tensorboard": True,
}


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory):
    """Images of three bars, each bright where the image has the label of its colour; lists of their labels."""
    root = tmp_path_factory.mktemp("mosaics")
    for split, copies in (("train", 6), ("val", 2)):
        lines = ["path,label"]
        for bits in range(8):
            for copy in range(copies):
                labels = [bits >> place & 1 for place in range(3)]
                pixels = np.random.default_rng((bits, copy, len(split))).integers(0, 60, (36, 36, 3))
                for place, has in enumerate(labels):
                    pixels[12 * place : 12 * place + 12, :, place] += 180 * has
                folder = root / split / "all"
                folder.mkdir(parents=True, exist_ok=True)
                file = folder / f"{''.join(map(str, labels))}_{copy}.png"
                Image.fromarray(np.uint8(pixels)).save(file)
                lines.append(f"{file.relative_to(root)},{';'.join(sorted(_named(file.name)))}")
        (root / f"{split}.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def run(mosaics, tmp_path_factory):
    """A finished run, with its configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnet, "STAGES", short.stages())
        folder = tmp_path_factory.mktemp("run") / "run"
        lists = {f"{split}_list": str(mosaics / f"{split}.csv") for split in ("train", "val")}
        config = Config(**KEYS, **lists, ckpt_save_dir=str(folder))
        train(config)
        yield folder, config


def test_what_a_run_leaves(run):
    folder, _ = run
    found = records(folder)
    assert list(found[0])[5:9] == ["val_loss", "mean_average_precision", "micro_f1", "macro_f1"]
    best = max(record["mean_average_precision"] for record in found)
    assert best > 90
    log = (folder / "train.log").read_text()
    assert "task multi_label: each label has a binary cross-entropy of its own (loss: BCE)" in log
    assert f"best mAP {best:.2f} %: " in log
    assert yaml.safe_load((folder / "config.yaml").read_text())["loss"] == "BCE"
    for name in ("ghostnet_050_best", "ghostnet_050_last", "ghostnet_050-6_6"):
        thresholds = json.loads((folder / f"{name}.thresholds.json").read_text())
        assert len(thresholds) == 3
        assert all(0 < threshold < 1 for threshold in thresholds)


@pytest.mark.fault("labels", "ok")
def test_a_run_that_goes_on_ends_the_same(run, tmp_path):
    folder, config = run
    resumed = config.replace(ckpt_save_dir=str(tmp_path / "again"), resume=str(folder / "run_state_previous.ckpt"))
    train(resumed)
    assert without_times(tmp_path / "again") == without_times(folder)
    for name in ("ghostnet_050_last.thresholds.json", "ghostnet_050_last.ckpt"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_validation_equals_the_evaluation_in_training(run, tmp_path):
    folder, config = run
    weights = folder / "ghostnet_050_last.ckpt"
    report, rows = tmp_path / "report", tmp_path / "rows.jsonl"
    found = validate(config.replace(ckpt_path=str(weights), report=str(report), predictions=str(rows))).record()
    last = records(folder)[-1]
    keys = ("mean_average_precision", "micro_f1", "macro_f1")
    assert [found[key] for key in keys] == [last[key] for key in keys]
    assert (found["loss"], found["num_samples"]) == (last["val_loss"], 16)
    lines = [line.split(",") for line in (report / "per_class.csv").read_text().splitlines()]
    assert [line[1] for line in lines[1:]] == sorted(NAMES)
    assert 100 * np.mean([float(line[5]) for line in lines[1:]]) == pytest.approx(last[keys[0]], abs=1e-3)
    page = (report / "report.html").read_text()
    assert f"mAP<b>{last[keys[0]]:.2f} %</b>" in page
    first = json.loads(rows.read_text().splitlines()[0])
    assert first["true"] == [int(name in _named(first["path"])) for name in sorted(NAMES)]
    assert len(first["probability"]) == 3


def predicted(*arguments: object, capsys) -> dict[str, list]:
    """The lines of `mindghost predict --json`, by image."""
    assert main.run(["predict", *map(str, arguments), "--json"]) == 0
    return {line["image"]: line["predictions"] for line in map(json.loads, capsys.readouterr().out.splitlines())}


def test_exported_files_give_the_answers_of_the_weights(run, mosaics, tmp_path, capsys):
    folder, _ = run
    weights, images = folder / "ghostnet_050_last.ckpt", sorted((mosaics / "val" / "all").iterdir())
    assert main.run(["export", "--ckpt_path", str(weights), "--format", "onnx", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    exported = tmp_path / "ghostnet_050_last.onnx"
    thresholds = json.loads((folder / "ghostnet_050_last.thresholds.json").read_text())
    assert json.loads(exported.with_suffix(".json").read_text())["thresholds"] == thresholds
    own, theirs = (predicted(*images, "--ckpt_path", path, capsys=capsys) for path in (weights, exported))
    assert {image: [answer["label"] for answer in answers] for image, answers in own.items()} == {
        image: [answer["label"] for answer in answers] for image, answers in theirs.items()
    }
    for answers in own.values():
        assert all(answer["probability"] >= thresholds[answer["label"]] for answer in answers)
        assert [a["probability"] for a in answers] == sorted((a["probability"] for a in answers), reverse=True)
    right = sum({answer["class"] for answer in answers} == _named(image) for image, answers in own.items())
    assert right >= 12
    # The example, which knows nothing of this package.
    command = [sys.executable, str(ROOT / "examples" / "predict_onnx.py"), str(exported), *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line, answers in zip(done.stdout.splitlines(), theirs.values(), strict=True):
        assert line.split("\t")[1:] == ([answer["class"] for answer in answers] or ["none"])


def _named(image: str) -> set[str]:
    return {name for name, bit in zip(NAMES, image.rpartition("/")[2], strict=False) if bit == "1"}


@pytest.mark.fault("labels", "clean error")
def test_no_label_is_an_answer(run, mosaics, tmp_path, capsys):
    """In every form, with thresholds that nothing reaches; without any file, they are 0.5 and that is said."""
    folder, _ = run
    for name in ("ghostnet_050_last.ckpt", "ghostnet_050_last.ckpt.sha256", "config.yaml", "classes.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights, image = tmp_path / "ghostnet_050_last.ckpt", next((mosaics / "val" / "all").iterdir())
    kept = tmp_path / "ghostnet_050_last.thresholds.json"
    kept.write_text("[1, 1, 1]")
    call = ["predict", str(image), "--ckpt_path", str(weights)]
    assert main.run([*call, "--save_dir", str(tmp_path / "seen")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [str(image), "none"]
    assert len(list((tmp_path / "seen").iterdir())) == 1
    assert main.run([*call, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"{image},,,,"]
    kept.unlink()
    assert main.run(call) == 0
    assert "no evaluation has left thresholds: labels are given from a probability of 0.5 on" in capsys.readouterr().err
    kept.write_text("[1, 2]")
    assert main.run(call) == 2
    assert f"{kept}: expected a list of thresholds from 0 to 1; restore" in capsys.readouterr().err
    kept.write_text("[1, 1]")
    assert main.run(call) == 2
    assert f"{kept}: 2 thresholds for 3 outputs; restore" in capsys.readouterr().err


def test_curves_and_card(run, capsys):
    folder, _ = run
    assert main.run(["plot", str(folder), "--output", str(folder.parent / "curves.png")]) == 0
    assert main.run(["model-card", str(folder), "--output", str(folder.parent / "card.md")]) == 0
    card = (folder.parent / "card.md").read_text()
    best = max(record["mean_average_precision"] for record in records(folder))
    assert f"evaluation: mAP{best:.2f}\n" in card
    assert f"| mAP | {best:.2f} % |" in card
    assert "| loss (binary cross-entropy, nats) |" in card
    assert "With `config.yaml`, `classes.json` and `ghostnet_050_best.thresholds.json` of the run beside" in card
