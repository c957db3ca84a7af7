"""Model cards: every value equals that of the run's files; what is missing or damaged is one line."""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mindghost.cli import main
from mindghost.config import Config
from mindghost.process.launch import Launch
from mindghost.runs import provenance
from mindghost.runs.folder import RunFolder
from tests.helpers.card_runs import SESSION, write_run
from tests.helpers.places import ROOT


def command(*arguments: object, capsys) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    status = main.run(["model-card", *map(str, arguments)])
    return status, *capsys.readouterr()


def parsed(card: Path) -> tuple[dict, str]:
    """Front matter and text, as MindSpore Hub's checker splits them: at the lines that start with three dashes."""
    header, body, inside = [], [], False
    for line in card.read_text().splitlines():
        if line.startswith("---"):
            inside = not inside
        else:
            (header if inside else body).append(line)
    assert not inside
    return yaml.safe_load("\n".join(header)), "\n".join(body)


def test_the_values_are_those_of_the_files(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    (run / "ghostnet_050_best.onnx").write_bytes(b"exported")
    status, said, error = command(run, capsys=capsys)
    assert (status, error) == (0, "")
    assert said == f"wrote {run / 'model_card.md'} and {run / 'model_card.png'}\n"
    header, body = parsed(run / "model_card.md")
    digest = (run / "ghostnet_050_best.ckpt.sha256").read_text().split()[0]
    assert header.pop("update-time").isoformat() == "2026-11-22"
    assert header == {
        "model-name": "ghostnet_050",
        "backbone-name": "ghostnet_050",
        "module-type": "cv-classification",
        "fine-tunable": True,
        "input-shape": [3, 96, 96],
        "model-version": "0.1.0",
        "train-dataset": "animals",
        "evaluation": "top1acc61.46 | top5acc100.00",
        "author": "unknown",
        "user-id": "unknown",
        "used-for": "inference/transfer-learning",
        "train-backend": "cpu",
        "infer-backend": "cpu",
        "mindspore-version": "2.10.0",
        "asset": [
            {"file-format": "ckpt", "asset-link": "ghostnet_050_best.ckpt", "asset-sha256": digest},
            {
                "file-format": "onnx",
                "asset-link": "ghostnet_050_best.onnx",
                "asset-sha256": hashlib.sha256(b"exported").hexdigest(),
            },
        ],
        "license": "Apache2.0",
        "summary": "ghostnet_050 that tells 5 classes of animals apart",
    }
    assert hashlib.sha256((run / "ghostnet_050_best.ckpt").read_bytes()).hexdigest() == digest
    for text in (
        "\n22 trainable parameters, 5 classes, images of 3 x 96 x 96.\n",
        f"\n{SESSION['command']}\n",
        "| top-1 | 61.46 % |",
        "| loss (cross-entropy, nats) | 1.2500 |",
        "| validation images | 567 |",
        "| training images | 1,234 |",
        "| epoch | 2 of 4 |",
        "| last training loss | 0.7500 |",
        "| time, evaluation included | 41 s |",
        f"| speed, median of the epochs | {statistics.median([100.5, 201, 301.5, 402]):.1f} images/s |",
        "\nimage_resize: 96\n",
        "| device | CPU, 2 rank(s) |",
        "| processor | Some Processor, 3 core(s) |",
        "| commit | 0123456789abcdef-dirty |",
        "In label order: ant, a\\|b, \\*cat\\*, dog, elk.",
        "![Loss, accuracy and learning rate](model_card.png)",
    ):
        assert text in body, text
    assert "batch_size" not in body
    assert "started from" not in body
    assert Image.open(run / "model_card.png").format == "PNG"


def test_published_weights_that_a_run_started_from_are_named(tmp_path, capsys):
    assert command(write_run(tmp_path / "run", pretrained="910v2"), capsys=capsys)[0] == 0
    body = parsed(tmp_path / "run" / "model_card.md")[1]
    file = "ghostnet_050-ae7771cb-910v2.ckpt"
    address = f"https://download-mindspore.osinfra.cn/toolkits/mindcv/ghostnet/{file}"
    assert f"| started from | [{file}]({address}), 65.84 / 86.60 % top-1 / top-5 on ImageNet-1k by MindCV |" in body


@pytest.mark.fault("names", "ok")
def test_a_card_cannot_be_forged_by_names(tmp_path, capsys):
    """Neither classes, nor folders, nor what the files of a stranger's run say, are more than text in it."""
    folder = tmp_path / os.fsdecode(b"run )](x) \xff\n# forged")
    run = write_run(folder, data_dir="/data/a]b\n````\n# forged\n\x1b[2J\u202e")
    (run / "classes.json").write_text(json.dumps(["x](http://evil)", "`a`", "\n\n# forged", "a|b", "c\udcff"]))
    session = {**SESSION, "command": "python train.py\n`````\n# forged", "cpu": "a | b\n# forged"}
    (run / "run.json").write_text(json.dumps([session]))
    status, said, error = command(run, "--output", run / "a )b.md", capsys=capsys)
    assert (status, error, said.count("\n")) == (0, "", 1)
    header, body = parsed(run / "a )b.md")
    assert header["train-dataset"] == r"a]b\n````\n# forged\n\x1b[2J\u202e"
    assert not [line for line in body.splitlines() if line.startswith("# f")]
    assert "\x1b" not in body
    assert r"In label order: x\](http\://evil), \`a\`, \\n\\n# forged, a\|b, c\\xff." in body
    assert r"python train.py\n`````\n# forged" in body.splitlines()
    assert r"| processor | a \| b\\n# forged, 3 core(s) |" in body
    assert "![Loss, accuracy and learning rate](a%20%29b.png)" in body


@pytest.mark.parametrize("mirror", [False, True])
def test_accuracy_with_mirror_images_says_so(mirror, tmp_path, capsys):
    run = write_run(tmp_path / "run", eval_mirror=mirror)
    status, _, error = command(run, capsys=capsys)
    assert (status, error) == (0, "")
    _, body = parsed(run / "model_card.md")
    assert ("| counted | the mean logits of each image and its mirror image |" in body) == mirror


def test_what_no_file_knows_is_given(tmp_path, capsys):
    run = write_run(tmp_path / "run", dataset="cifar10")
    given = ["--author", "A. Uthor", "--link", "https://host/w/", "--license", "MIT", "--repository", "https://host/x"]
    card = tmp_path / "card.md"
    assert command(run, "--output", card, *given, capsys=capsys)[0] == 0
    header, _ = parsed(card)
    assert (header["author"], header["license"], header["repo-link"]) == ("A. Uthor", "MIT", "https://host/x")
    assert header["asset"][0]["asset-link"] == "https://host/w/ghostnet_050_best.ckpt"
    assert header["train-dataset"] == "cifar10"
    before = card.read_bytes()
    status, _, error = command(run, "--output", card, capsys=capsys)
    assert (status, card.read_bytes()) == (2, before)
    assert f"{card} exists; name another file with --output, or give --overwrite" in error
    line = [run, "--output", card, "--overwrite", "--dataset", "Animals"]
    assert command(*line, capsys=capsys)[0] == 0
    assert parsed(card)[0]["train-dataset"] == "Animals"


def test_a_run_without_validation_and_with_a_second_process(tmp_path, capsys):
    run = write_run(tmp_path / "run", validated=False)
    session = {**SESSION, "images": {"train": 1234, "val": None}}
    (run / "run.json").write_text(json.dumps([session, {**session, "command": "python again", "epoch": 2, "step": 7}]))
    assert command(run, capsys=capsys)[0] == 0
    header, body = parsed(run / "model_card.md")
    assert header["evaluation"] == "none"
    assert header["asset"][0]["asset-link"] == "ghostnet_050_last.ckpt"
    assert "The weights are those of epoch 4 of 4; no epoch was validated." in body
    assert f"\n{SESSION['command']}\npython again  # from epoch 2, step 7\n" in body


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.yaml", None, "config.yaml: no such file; give the folder of a run"),
        ("config.yaml", "lr: fast", "config.yaml:1: lr: expected a number"),
        ("classes.json", None, "classes.json: no such file"),
        ("classes.json", "{", "classes.json: not JSON"),
        ("classes.json", '["a", "b", "c", "d", "e", "f"]', "classes.json: 6 classes, but num_classes is 5"),
        ("metrics.jsonl", None, "metrics.jsonl: no such file"),
        ("metrics.jsonl", "what\n", "metrics.jsonl:1: expected a JSON object"),
        ("run.json", None, "run.json: no such file"),
        ("run.json", "[", "run.json: not JSON"),
        ("run.json", "[]", "run.json: expected a list with an entry"),
        ("run.json", '[{"command": 1}]', "run.json: entry 1 lacks 'command'"),
        ("run.json", "[" * 100_000, "run.json: nested too deep"),
        ("config.yaml", "model: ../../elsewhere\nnum_classes: 5\n", "model: '../../elsewhere' is not known"),
        ("run.json", json.dumps([{**SESSION, "ranks": True}]), "run.json: entry 1 lacks 'ranks'"),
        ("run.json", json.dumps([{**SESSION, "images": {"val": "many"}}]), "run.json: entry 1 lacks 'images'"),
        ("run.json", json.dumps([{**SESSION, "versions": {"numpy": [1]}}]), "run.json: entry 1 lacks 'versions'"),
        ("run.json", json.dumps([{**SESSION, "epoch": 2.5}]), "run.json: entry 1 lacks 'epoch'"),
        ("run.json", json.dumps([{**SESSION, "commit": ["x"]}]), "run.json: entry 1 lacks 'commit'"),
        ("metrics.jsonl", "[" * 100_000 + "\n", "metrics.jsonl:1: expected a JSON object"),
        ("metrics.jsonl", '{"epoch": true}\n', "metrics.jsonl:1: epoch: expected an integer, got True"),
        ("metrics.jsonl", '{"epoch": 1, "train_loss": NaN}\n', "metrics.jsonl:1: train_loss: expected a number"),
        ("metrics.jsonl", '{"epoch": 1, "train_loss": 1e300}\n', "metrics.jsonl:1: train_loss: expected a number"),
        ("run.json", json.dumps([{**SESSION, "started": "now"}]), "run.json: entry 1: started: Invalid isoformat"),
        ("ghostnet_050_best.ckpt", "damaged", "ghostnet_050_best.ckpt: damaged: its sha256 is not that in"),
        ("ghostnet_050_best.ckpt.sha256", None, "ghostnet_050_best.ckpt.sha256: no such file"),
        ("ghostnet_050_best.ckpt.sha256", "what", "ghostnet_050_best.ckpt.sha256: not what sha256sum writes"),
    ],
)
def test_a_missing_or_damaged_file_is_one_line(file, content, expected, tmp_path, capsys):
    run = write_run(tmp_path / "run")
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    status, said, error = command(run, capsys=capsys)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert error.startswith("mindghost model-card: error: ")
    assert expected in error
    assert not list(run.glob("model_card*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{run}", "--output", "{run}/card.txt"], "card.txt does not end with .md"),
        (["{run}", "--output", "{run}/none/card.md"], "none/card.md: there is no folder "),
        (["{run}", "--author", "me: myself"], "author: 'me: myself' has a colon"),
        (["{run}/nowhere"], "nowhere: no such folder; give that of a run"),
        (["{run}", "--outptu", "x.md"], "unrecognized arguments: --outptu"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_a_bad_command_line_is_one_line(arguments, expected, tmp_path, capsys):
    run = write_run(tmp_path / "run")
    line = [argument.format(run=run) for argument in arguments]
    status, said, error = command(*line, capsys=capsys)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert expected in error


def test_help_as_a_user_types_it():
    line = [sys.executable, "-m", "mindghost", "model-card", "--help"]
    result = subprocess.run(line, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(word in result.stdout for word in ("RUN", "--output FILE", "--author", "metrics.jsonl"))


# --- What training says about itself


def test_the_session_of_this_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data_dir", "my data"])
    found = provenance.session("CPU")
    assert found["command"] == "python train.py --data_dir 'my data'"
    assert found["versions"]["numpy"] == np.__version__
    assert (found["ranks"], found["device"]) == (1, "CPU")
    assert len(found["started"]) == len("2026-11-22T07:17:00+01:00")
    monkeypatch.setattr(provenance.launch, "detect", lambda: Launch("mpirun", 3))
    assert provenance.command_line(["train.py"]) == "mpirun -n 3 python train.py"


@pytest.mark.parametrize(
    ("arguments", "launch", "expected"),
    [
        (["/venv/bin/mindghost", "train", "-c", "a b"], Launch(), "mindghost train -c 'a b'"),
        (["/venv/bin/mindghost", "train"], Launch("mpirun", 2), "mpirun -n 2 mindghost train"),
        (["/venv/bin/mindghost", "train"], Launch("msrun", 2), "msrun --worker_num=2 python -m mindghost train"),
        (["/lib/mindghost/__main__.py", "train"], Launch(), "python -m mindghost train"),
        (["/lib/mindghost/__main__.py", "train"], Launch("mpirun", 2), "mpirun -n 2 python -m mindghost train"),
        (["my train.py", "--lr", "1"], Launch("msrun", 2), "msrun --worker_num=2 'my train.py' --lr 1"),
    ],
)
def test_the_command_that_a_run_notes(arguments, launch, expected, monkeypatch):
    monkeypatch.setattr(provenance.launch, "detect", lambda: launch)
    assert provenance.command_line(arguments) == expected


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_source_and_of_no_other_project(tmp_path):
    def git(*arguments: str) -> str:
        person = ["-c", "user.name=n", "-c", "user.email=e"]
        line = ["git", "-C", str(tmp_path), *person, *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert provenance.commit(package) is None
    git("init", "-q")
    assert provenance.commit(package) is None
    git("add", ".")
    git("commit", "-qm", "first")
    assert provenance.commit(package) == git("rev-parse", "HEAD")
    (package / "__init__.py").write_text("changed")
    assert provenance.commit(package) == git("rev-parse", "HEAD") + "-dirty"


def test_each_process_of_a_run_has_an_entry(tmp_path):
    """A new run starts the list anew; one that goes on, in its folder or another one, adds to it."""

    def added(name: str, epoch: int, source: Path | None) -> list[int]:
        folder = RunFolder(Config(ckpt_save_dir=str(tmp_path / name)))
        folder.path.mkdir(exist_ok=True)
        folder.add_session({"epoch": epoch}, source)
        return [entry["epoch"] for entry in json.loads((tmp_path / name / "run.json").read_text())]

    assert added("a", 0, None) == [0]
    assert added("a", 0, None) == [0]
    assert added("a", 3, tmp_path / "a") == [0, 3]
    assert added("b", 5, tmp_path / "a") == [0, 3, 5]
    (tmp_path / "a" / "run.json").write_text("damaged")
    assert added("a", 7, tmp_path / "a") == [7]
