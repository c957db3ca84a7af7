"""MindCV's fine-tuning guide, by the commands of docs/mindcv.md, on a few small images in the guide's layout."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.checkpoint import weights as weights_file
from mindghost.cli import main
from mindghost.models import ghostnet
from tests.helpers.places import ROOT
from tests.helpers.short import stages

VARIANTS = ("707-320", "Boeing 717", "F/A-18")
# As the guide calls them.
CLASSES = ["707-320", "Boeing 717", "F_A-18"]


@pytest.fixture
def aircraft(tmp_path, monkeypatch) -> Path:
    """The folder of the guide, in the current one; its annotation files name images without an ending."""
    monkeypatch.setattr(ghostnet, "STAGES", stages())
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    data = tmp_path / "aircraft" / "data"
    (data / "images").mkdir(parents=True)
    for name, count in (("trainval", 4), ("test", 2)):
        lines = []
        for label, variant in enumerate(VARIANTS):
            for index in range(count):
                image = f"{label}{index}{name[0]}"
                pixels = rng.integers(80 * label, 80 * label + 60, (40, 48, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(data / "images" / f"{image}.jpg")
                lines.append(f"{image} {variant}")
        (data / f"images_variant_{name}.txt").write_text("\n".join(lines) + "\n")
    return data


def commands() -> list[list[str]]:
    """The commands of the guide's block, with what its variable holds in its place."""
    page = (ROOT / "docs" / "mindcv.md").read_text()
    block = re.search(r"```bash\n(AIRCRAFT=.*?)```", page, re.S)[1]
    first, *others = re.sub(r"\\\n\s*", "", block).splitlines()
    name, _, value = first.partition("=")
    return [shlex.split(line.replace(f"${name}", value.strip('"'))) for line in others]


@pytest.mark.slow
def test_every_step_of_the_guide(aircraft, capsys):
    base = "runs/all/ghostnet_100_best.ckpt"
    small = ["--mode", "1", "--epoch_size", "1", "--batch_size", "4", "--num_parallel_workers", "1"]
    trained = []
    for program, command, *words in commands():
        assert program == "mindghost"
        words = ["32" if word == "448" else word for word in words]
        if command == "train":
            folder = words[words.index("--ckpt_save_dir") + 1]
            words += small if "--image_resize" in words else [*small, "--image_resize", "32"]
            # In place of published weights, which are not here.
            words += ["--ckpt_path", base] if trained else []
            trained.append(folder)
        assert main.run([command, *words]) == 0, capsys.readouterr().err
    assert json.loads(Path("runs/all/classes.json").read_text()) == CLASSES
    rows = list(csv.DictReader(Path("runs/all/predictions.csv").read_text().splitlines()))
    assert sorted(row["true_class"] for row in rows) == sorted(CLASSES * 2)
    before = weights_file.read(Path(base))
    changed = {folder: differing(before, folder) for folder in trained[1:]}
    assert changed["runs/probe"] == {"classifier.weight", "classifier.bias"}
    assert "conv_stem.weight" not in changed["runs/part"]
    assert len(changed["runs/probe"]) < len(changed["runs/part"]) < len(changed["runs/faster_head"])
    assert "conv_stem.weight" in changed["runs/faster_end"]


def differing(before: dict, folder: str) -> set[str]:
    """The entries that a run has changed."""
    after = weights_file.read(Path(folder) / "ghostnet_100_last.ckpt")
    return {name for name, value in after.items() if not np.array_equal(value, before[name])}
