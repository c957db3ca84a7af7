"""examples/evidence/few_images.py: from scratch and fine-tuned, on shares of the images. Trainings are not run here."""

import json
import shlex
import sys
from pathlib import Path

import few_images
import pytest

import report
import runner
from mindghost.config import Config
from tests.helpers.commands import command
from tests.helpers.configs import cli
from tests.helpers.pictures import write_images

# A training that writes the configuration, and an accuracy: of 10 epochs, and more with weights to start from.
TRAINER = """
import json, sys
from pathlib import Path
words = sys.argv[1:]
def after(flag, otherwise=None):
    return words[words.index(flag) + 1] if flag in words else otherwise
folder = Path(after("--ckpt_save_dir"))
folder.mkdir(parents=True)
epochs = int(after("--epoch_size", 3))
keys = {"epoch_size": epochs, "decay_epochs": epochs, "warmup_epochs": 0, "batch_size": 8}
(folder / "config.yaml").write_text("".join(f"{key}: {value}\\n" for key, value in keys.items()))
images = len(list(Path(after("--data_dir")).glob("train/*/*")))
score = images + int(after("--seed")) + 30 * ("--ckpt_path" in words)
with open(folder / "metrics.jsonl", "w") as file:
    for epoch in range(1, epochs + 1):
        record = {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "lr": 0.1, "top_1": score - epochs + epoch}
        print(json.dumps(record), file=file)
"""


@pytest.fixture
def words(tmp_path) -> list:
    data = write_images(tmp_path / "photos", ("ant", "bee"), train_images=10, val_images=1)
    weights = tmp_path / "w.ckpt"
    weights.touch()
    return ["--data_dir", data, "--ckpt_path", weights, "--output", tmp_path / "out"]


@pytest.fixture
def run(monkeypatch, capsys):
    return lambda *words: command(few_images.main, few_images.PROG, *words, monkeypatch=monkeypatch, capsys=capsys)


def printed(words, capsys, monkeypatch) -> dict[str, list[str]]:
    monkeypatch.setattr(sys, "argv", [few_images.PROG, *map(str, words), "--print_commands"])
    few_images.main()
    lines = capsys.readouterr().out.splitlines()
    return {name[2:]: shlex.split(line) for name, line in zip(lines[::2], lines[1::2], strict=True)}


def test_our_flags_are_keys_of_the_recipe(words, capsys, monkeypatch):
    found = printed([*words, "--seeds", 4, "--flags", "--image_resize 64"], capsys, monkeypatch)
    assert list(found) == [
        f"photos, {share}, {way}, seed 4"
        for share in ("1 %", "10 %", "100 %")
        for way in ("from scratch", "fine-tuned")
    ]
    config = cli(*found["photos, 10 %, from scratch, seed 4"][4:])
    assert (config.ckpt_path, config.pretrained, config.patience, config.image_resize) == ("", False, None, 64)
    assert config.auto
    assert "epoch_size" not in config.given
    tuned = found["photos, 10 %, fine-tuned, seed 4"]
    assert tuned[tuned.index("--ckpt_path") + 1].endswith("w.ckpt")
    assert tuned[tuned.index("--data_dir") + 1].endswith("out/data/photos-0.1-4")
    assert found["photos, 100 %, fine-tuned, seed 4"][tuned.index("--data_dir") + 1] == str(words[1])


def test_all_is_trained_compared_and_drawn(words, tmp_path, run, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(runner, "MINDGHOST", (sys.executable, "-c", TRAINER))
    more = ("--seeds", 1, 3, "--shares", 0.1, 1, "--epochs_at", 0.1)
    assert run(*words, *more) == (0, "")
    entries = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert len(entries) == 8
    # A tenth of 2 x 10 images, for each seed its own; the seed is in the score, and 30 for weights to start from.
    assert entries["photos, 10 %, from scratch, seed 3"]["last"] == 2 + 3
    assert entries["photos, 10 %, fine-tuned, seed 3"]["last"] == 2 + 3 + 30
    assert len(entries["photos, 10 %, fine-tuned, seed 3"]["epochs"]) == 3  # as many as from scratch
    assert "--batch_size 8" in entries["photos, 10 %, fine-tuned, seed 3"]["command"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"| photos, 100 %, fine-tuned | 1 3 | 52.00 ± {2**0.5:.2f} |" in table
    assert "- photos, 10 % of the images: fine-tuning gives +30.00 points" in table
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in ("images.png", "epochs.png"))
    # What is drawn is what was found.
    monkeypatch.setattr(sys, "argv", [few_images.PROG, *map(str, (*words, *more))])
    args = few_images.make_parser().parse_args()
    figure = few_images.draw_images(runner.Results(args.output, few_images.PROG), args)
    lines = {bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in figure.axes[0].containers}
    assert lines == {"from scratch": [[10, 4], [100, 22]], "fine-tuned": [[10, 34], [100, 52]]}
    capsys.readouterr()
    assert run(*words, *more) == (0, "")  # and again: nothing is trained


def test_variants_are_named_by_folder_and_share():
    assert few_images.variant(Path("a/flowers"), 0.01, "fine-tuned") == "flowers, 1 %, fine-tuned"
    assert few_images.share_text(0.005) == "0.5 %"
    assert report.deviation([3.0]) == 0
    assert Config.default("patience") is None


@pytest.mark.fault("examples", "clean error")
def test_what_cannot_be_used_is_refused(words, tmp_path, run):
    twin = write_images(tmp_path / "b" / "photos", ("ant",))
    status, said = run("--data_dir", words[1], twin, *words[2:])
    assert (status, "two of the same name" in said, said.count("\n")) == (2, True, 1)
    status, said = run(*words, "--ckpt_path", tmp_path / "none")
    assert (status, "no such file; give the weights of a backbone" in said) == (2, True)
