"""`auto: True` and the recipe `finetune`: what is settled from images and machine, and who has the last word."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.config import AUTO_KEYS, Config, load, proportion, recipes
from mindghost.data.samples import ArraySamples
from mindghost.evaluate.validate import validate
from mindghost.inference.artifact import said
from mindghost.models import ghostnet
from mindghost.runs.state import changed_keys, taken_up
from mindghost.train import settle, trainer
from mindghost.train.settle import Facts, chosen
from mindghost.train.training_data import open_images
from tests.helpers import short
from tests.helpers.configs import cli, message_of, write
from tests.helpers.pictures import write_images
from tests.helpers.run_records import records
from tests.helpers.runtimes import runtime_of

GIGABYTES = 10**9


def of(*line: str, images=3000, side=300, mirrored=True, device="CPU", memory=16 * GIGABYTES) -> Config:
    """What `-c finetune` and these flags amount to, for such images on such a machine."""
    config = cli("-c", "finetune", *line)
    return config.replace(**chosen(config, Facts(images, side, mirrored, device, memory)))


def sizes(config: Config) -> tuple[int, int, int]:
    return config.image_resize, config.batch_size, config.epoch_size


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        # Photos: the network's own size; a batch that a CPU gains nothing beyond.
        ({}, (224, 32, 20)),
        ({"images": 50_000}, (224, 32, 20)),
        ({"device": "Ascend"}, (224, 64, 20)),
        ({"device": "Ascend", "images": 1000}, (224, 16, 20)),
        ({"side": 5000}, (224, 32, 20)),
        # Small pictures are enlarged, and more of them are taken at once.
        ({"images": 1433, "side": 32, "mirrored": False}, (64, 32, 20)),
        ({"images": 50_000, "side": 32}, (64, 128, 20)),
        ({"side": 8}, (64, 64, 20)),
        ({"side": 1}, (64, 64, 20)),
        ({"side": 64}, (128, 64, 20)),
        ({"side": 100}, (224, 32, 20)),
        # Small sets: updates enough in an epoch, and never more than the images that there are.
        ({"images": 200}, (224, 8, 24)),
        ({"images": 40}, (224, 8, 60)),
        ({"images": 6}, (224, 2, 60)),
        ({"images": 3}, (224, 1, 60)),
        ({"images": 1}, (224, 1, 60)),
        # Little memory.
        ({"memory": 4 * GIGABYTES}, (224, 8, 20)),
        ({"memory": GIGABYTES // 8}, (224, 1, 20)),
        ({"memory": GIGABYTES // 8, "device": "Ascend"}, (224, 64, 20)),
    ],
)
def test_sizes_follow_images_and_machine(facts, found):
    assert sizes(of(**facts)) == found


def test_a_schedule_fills_the_epochs():
    for images in (1, 40, 700, 3000, 100_000):
        config = of(images=images)
        assert config.warmup_epochs == round(config.epoch_size / 30)
        assert config.warmup_epochs + config.decay_epochs == config.epoch_size
        assert config.warnings() == []
        assert 5 <= config.patience < config.epoch_size


def test_trained_weights_take_fewer_epochs_and_a_lower_rate():
    fresh, trained = of(images=5000), of("--pretrained", "True", images=5000)
    assert (fresh.epoch_size, fresh.lr, fresh.head_lr_factor) == (20, 0.05, 1)
    assert (trained.epoch_size, trained.lr, trained.head_lr_factor) == (10, 0.01, 10)
    own = of("--ckpt_path", "own.ckpt", images=5000)
    assert own.replace(ckpt_path="", pretrained=True) == trained
    assert of("--opt", "adamw").lr == 1e-3
    assert of("--opt", "lion", "--pretrained", "True").lr == 3e-5
    assert of("--opt", "nadam", "--pretrained", "True").head_lr_factor == 1


def test_small_pictures_are_seen_whole_and_signs_are_not_mirrored():
    assert (of(side=32).crop_pct, of(side=300).crop_pct) == (1.0, 0.875)
    assert (of(mirrored=False).hflip, of().hflip) == (0.0, 0.5)
    # A network for CIFAR-10 keeps the size that it was made for.
    small = of("--model", "ghost_resnet56", side=32)
    assert (small.image_resize, small.crop_pct) == (32, 1.0)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--image_resize 96", {"image_resize": 96, "batch_size": 64}),
        ("--image_resize 96 128", {"image_resize": (96, 128), "crop_pct": 1.0}),
        ("--batch_size 7", {"batch_size": 7, "epoch_size": 20}),
        ("--epoch_size 5", {"epoch_size": 5, "warmup_epochs": 0, "decay_epochs": 5, "patience": 5}),
        ("--warmup_epochs 25", {"warmup_epochs": 25, "epoch_size": 26, "decay_epochs": 1}),
        ("--decay_epochs 3", {"decay_epochs": 3, "epoch_size": 20, "warmup_epochs": 1}),
        ("--patience None", {"patience": None}),
        ("--val_while_train False", {"patience": None}),
        ("--lr 0.3 --hflip 0.1 --crop_pct 0.5", {"lr": 0.3, "hflip": 0.1, "crop_pct": 0.5}),
        ("--num_cycles 2", {"decay_epochs": 9}),
        ("--gradient_accumulation_steps 4", {"batch_size": 32, "epoch_size": 27}),
    ],
)
def test_what_is_given_wins(line, found):
    config = of(*line.split())
    assert {key: getattr(config, key) for key in found} == found


def test_nothing_is_settled_that_was_not_asked_for():
    assert Config().open == cli("-c", "ghostnet_050_cpu").open == []
    assert cli("-c", "finetune").open == [*AUTO_KEYS, *proportion.KEYS]
    assert cli("-c", "finetune", "--lr", "1", "--epoch_size", "4").open == [
        key for key in AUTO_KEYS if key not in ("lr", "epoch_size")
    ]
    # A recipe's values are given, too.
    assert cli("-c", "ghostnet_050_cpu", "--auto").open == ["head_lr_factor", "patience", "val_fraction"]
    assert of().open == []


def test_the_printed_recipe_leaves_open_what_is_open(tmp_path, capsys):
    with pytest.raises(SystemExit):
        load(["-c", "finetune", "--lr", "0.3", "--print_config"], prog="train.py", description="")
    printed = capsys.readouterr().out
    assert "\nlr: 0.3\n" in printed
    assert "\n# batch_size: settled when the run starts\n" in printed
    again = cli("-c", str(write(tmp_path, printed)))
    assert again.open == cli("-c", "finetune", "--lr", "0.3").open


def test_a_resumed_run_keeps_what_was_settled():
    """On a machine that would choose otherwise; flags still win, and are then a change."""
    saved = of(device="Ascend")
    assert changed_keys(saved, taken_up(saved, cli("-c", "finetune"))) == []
    assert taken_up(saved, cli("-c", "finetune")).open == []
    changed = changed_keys(saved, taken_up(saved, cli("-c", "finetune", "--batch_size", "8")))
    assert changed == ["batch_size: 64 -> 8"]


@pytest.fixture
def log(caplog):
    caplog.set_level("INFO", "mindghost")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and hosts that are not there."""
    monkeypatch.setattr("mindghost.build.cache_dir", lambda: tmp_path / "cache")
    calls = []

    def refuse(request, timeout):
        calls.append(timeout)
        raise OSError("no route to host")

    monkeypatch.setattr("mindghost.files.download._opener.open", refuse)
    return calls


def starts_from(model: str, *flags: str) -> bool | str:
    """What becomes of `pretrained` for a set of two images."""
    pixels = np.zeros((2, 28, 28, 3), np.uint8)
    samples = ArraySamples(("a", "b"), np.array([0, 1], np.int32), "images", pixels)
    config = cli("-c", "finetune", "--model", model, *flags).replace(num_classes=2)
    return settle.from_images(runtime_of(config), samples).config.pretrained


@pytest.mark.fault("downloads", "ok")
def test_without_published_weights_a_run_starts_from_scratch_after_one_line(no_network, log):
    assert starts_from("ghostnet_100") is False
    line, _ = log()
    assert line.startswith(
        "ghostnet_100 starts from fresh weights: the published ones cannot be had (no route to host)"
    )
    assert re.search(r"saved as \S+/cache/ghostnet_100-bef8025a.ckpt, they are used$", line)
    # Each host is asked once, and not for long.
    assert len(no_network) == 2
    assert max(no_network) <= 10


def test_weights_that_nobody_published_or_nobody_wants_are_not_asked_for(no_network, log):
    assert starts_from("ghostnetv2_100") is False
    line, _ = log()
    assert line == (
        "ghostnetv2_100 starts from fresh weights: none are published for MindSpore; ckpt_path names weights of your "
        "own, or its PyTorch weights (https://huggingface.co/timm/ghostnetv2_100.in1k) after `mindghost convert`"
    )
    for given in (["--pretrained", "False"], ["--ckpt_path", "x.ckpt"]):
        assert starts_from("ghostnet_100", *given) is False
    assert len(log()) == 2 + 1 + 1
    assert no_network == []


def test_published_weights_are_taken_where_they_are(monkeypatch, log, tmp_path):
    monkeypatch.setattr("mindghost.build.published_file", lambda *_, **__: tmp_path)
    assert starts_from("ghostnet_100") is True
    (line,) = log()
    assert "trained weights" in line


def test_images_without_a_validation_split_are_parted(tmp_path):
    data = write_images(tmp_path / "data", ("ant", "bee"), 8, 3)

    def fraction(folder: Path, *more: str) -> float:
        config = cli("-c", "finetune", "--pretrained", "False", "--data_dir", str(folder), *more)
        return settle.before_images(runtime_of(config)).config.val_fraction

    # Class folders alone; with both splits; an empty place, which is refused for what it is.
    assert [fraction(folder) for folder in (data / "train", data, tmp_path)] == [0.1, 0.0, 0.0]
    assert fraction(data / "train", "--val_fraction", "0.25") == 0.25
    assert fraction(data / "train", "--val_while_train", "False") == 0.0
    shutil.rmtree(data / "val")
    assert fraction(data) == 0.1
    (tmp_path / "list.csv").write_text("path,label,split\na,b,train\n")
    assert fraction(tmp_path, "--train_list", str(tmp_path / "list.csv")) == 0.0
    (tmp_path / "list.csv").write_text("path,label\na,b\n")
    assert fraction(tmp_path, "--train_list", str(tmp_path / "list.csv")) == 0.1


def test_the_recipe_fits_every_network():
    from mindghost.models import CARDS

    for name, card in CARDS.items():
        config = of("--model", name, side=32)
        assert config.image_resize in (64, card.input_size)
    assert recipes.find("finetune").read_text().startswith("# Your own images")


@pytest.fixture
def small(monkeypatch, no_network):
    """GhostNet of four bottlenecks, on MindSpore's own operators: they compile at once."""
    monkeypatch.setattr(ghostnet, "STAGES", short.stages())


LINE = ["-c", "finetune", "--model", "ghostnet_050", "--mode", "1", "--num_parallel_workers", "1"]


def config_of(data: Path, run: Path, *more: str) -> Config:
    return cli(*LINE, "--data_dir", str(data), "--ckpt_save_dir", str(run), *more)


def test_one_short_line_trains_validates_and_resumes(small, tmp_path, capsys, monkeypatch):
    data, run = write_images(tmp_path / "data", ("ant", "bee"), 8, 3), tmp_path / "run"
    trainer.train(config_of(data, run, "--epoch_size", "2"))
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("auto: ")]
    assert "16 images, 40 pixels on their shorter sides, fresh weights: image_resize 96, batch_size 8, " in line
    assert lines[-1].startswith(
        f"next: mindghost validate --ckpt_path {run}/ghostnet_050_best.ckpt, or mindghost predict"
    )
    # What was settled is plain values, all of it.
    written = Config.from_file(run / "config.yaml")
    assert written.open == []
    assert set(AUTO_KEYS) <= written.given
    assert (written.image_resize, written.batch_size, written.num_classes) == (96, 8, 2)
    best = str(run / "ghostnet_050_best.ckpt")
    # Validated by the weights alone: bit for bit what training found.
    found = validate(load(["--ckpt_path", best, "--mode", "1"], prog="x", description="", weights=said))
    assert found.metrics.loss in [record["val_loss"] for record in records(run)]
    # Resumed by a machine with half the memory and another opinion: the saved values stand.
    monkeypatch.setattr(settle, "_SMALLEST_BATCH", 2)
    trainer.train(config_of(data, run, "--epoch_size", "2", "--resume"))
    assert any("2 epochs and 0 steps are done" in line for line in capsys.readouterr().out.splitlines())
    with_flag = config_of(data, run, "--epoch_size", "2", "--resume", "--batch_size", "4")
    assert "batch_size: 8 -> 4" in message_of(trainer.train, with_flag)


@pytest.mark.fault("settings", "clean error")
def test_what_settles_badly_is_refused_before_anything_is_written(small, tmp_path):
    data, run = write_images(tmp_path / "data", ("ant", "bee"), 8, 3), tmp_path / "run"
    message = message_of(trainer.train, config_of(data, run, "--freeze_backbone"))
    assert message.startswith("freeze_backbone: ")
    assert not run.exists()


def test_a_run_of_another_recipe_is_not_taken_for_ours(tmp_path):
    saved = Config(batch_size=4, epoch_size=7)
    now = taken_up(saved, cli("-c", "finetune"))
    assert (now.batch_size, now.epoch_size) == (4, 7)
    assert any(change.startswith("scale: ") for change in changed_keys(saved, now))


@pytest.mark.fault("settings", "clean error")
def test_a_folder_that_is_not_there_is_said_as_ever(no_network, tmp_path):
    message = message_of(open_images, runtime_of(config_of(tmp_path / "none", tmp_path / "run")))
    assert "none/train" in message


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_sizes_are_those_of_the_images(mode, tmp_path, log, no_network):
    """Of a few huge ones among small ones, the median; grey ones are like any others."""
    for name in "ab":
        for split in ("train", "val"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
        for index, size in enumerate([(30, 28), (28, 40), (900, 700)]):
            Image.new(mode, size).save(tmp_path / "data" / "train" / name / f"{index}.png")
        shutil.copy(tmp_path / "data" / "train" / name / "0.png", tmp_path / "data" / "val" / name / "0.png")
    runtime = runtime_of(config_of(tmp_path / "data", tmp_path / "run"))
    found, _, _ = open_images(runtime)
    assert (found.config.image_resize, found.config.batch_size) == (64, 2)
    assert any("6 images, 28 pixels on their shorter sides" in line for line in log())


def test_validate_takes_the_recipe_beside_the_weights(tmp_path):
    """What the recipe leaves open, the config.yaml beside the weights says."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(of(side=32).replace(num_classes=2).to_yaml())
    for name in ("x.ckpt", "classes.json"):
        (run / name).write_text("")
    config = cli("-c", "finetune", "--ckpt_path", str(run / "x.ckpt"), weights=said)
    assert (config.image_resize, config.crop_pct, config.batch_size) == (64, 1.0, 64)
