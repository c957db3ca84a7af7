"""Images with masks, from training to validation: what a run leaves, that it resumes exactly."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.cli import main
from mindghost.config import Config
from mindghost.inference import predictor
from mindghost.models import ghostnet
from mindghost.train.trainer import train
from tests.helpers import launchers, short
from tests.helpers.masks import write_scenes
from tests.helpers.run_records import records
from tests.helpers.training import without_times

KEYS = {
    "task": "segmentation",
    "model": "ghost_lraspp",
    "backbone": "ghostnet_050",
    "decoder_width": 0.5,
    "image_resize": (32, 48),
    "batch_size": 4,
    "epoch_size": 16,
    "warmup_epochs": 0,
    "scheduler": "poly",
    "val_while_train": True,
    "num_parallel_workers": 1,
    "opt": "momentum",
    "lr": 0.05,
    "dice_weight": 0.5,
    "ohem": 0.8,
    "class_weights": "enet",
    "label_smoothing": 0.05,
}
NAMES = ["ground", "red", "blue"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = write_scenes(tmp_path_factory.mktemp("scenes"))
    (root / "classes.csv").write_text("name,r,g,b\n" + "".join(f"{name},{i},7,9\n" for i, name in enumerate(NAMES)))
    return root


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """A finished run, with its configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ghostnet, "STAGES", short.all_strides())
        folder = tmp_path_factory.mktemp("run") / "run"
        config = Config(
            **KEYS, data_dir=str(scenes), class_names=str(scenes / "classes.csv"), ckpt_save_dir=str(folder)
        )
        train(config)
        yield folder, config


def test_what_a_run_leaves(run):
    folder, _ = run
    found = records(folder)
    assert list(found[0])[5:8] == ["val_loss", "miou", "pixel_accuracy"]
    best = max(record["miou"] for record in found)
    assert best > 40
    log = (folder / "train.log").read_text()
    assert f"best mIoU {best:.2f} %: " in log
    assert f"mIoU {found[-1]['miou']:.2f} %  pixel accuracy {found[-1]['pixel_accuracy']:.2f} %" in log
    assert "class_weights: enet: from" in log
    assert json.loads((folder / "classes.json").read_text()) == NAMES


@pytest.mark.fault("masks", "ok")
def test_a_run_that_goes_on_ends_the_same(run, tmp_path):
    folder, config = run
    train(config.replace(ckpt_save_dir=str(tmp_path / "again"), resume=str(folder / "run_state_previous.ckpt")))
    assert without_times(tmp_path / "again") == without_times(folder)
    last = "ghost_lraspp_last.ckpt"
    assert (tmp_path / "again" / last).read_bytes() == (folder / last).read_bytes()


def test_validation_equals_the_evaluation_in_training(run, scenes, tmp_path, capsys):
    folder, _ = run
    rows = tmp_path / "rows.jsonl"
    call = ["validate", "--ckpt_path", str(folder / "ghost_lraspp_last.ckpt"), "--predictions", str(rows)]
    assert main.run([*call, "--batch_size", "4", "--report", str(tmp_path / "report")]) == 0
    found, last = json.loads(capsys.readouterr().out.splitlines()[-1]), records(folder)[-1]
    assert [found[key] for key in ("miou", "pixel_accuracy", "loss")] == [
        last[key] for key in ("miou", "pixel_accuracy", "val_loss")
    ]
    assert list(found["iou"]) == NAMES
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"<title>ghost_lraspp: mIoU {found['miou']:.2f} %</title>" in page
    # The colours of the run's classes, which it has kept.
    assert sorted(re.findall(r"background: rgb\((\d+), 7, 9\)", page)) == ["0", "1", "2"]
    assert found["num_samples"] == 3
    table = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["pixels"] for row in table] == [50 * 44, 40 * 55, 40 * 55]
    pixels = np.array([row["pixels"] for row in table])
    assert (pixels * [row["pixel_accuracy"] for row in table]).sum() / pixels.sum() == pytest.approx(
        last["pixel_accuracy"]
    )
    assert (pixels * [row["loss"] for row in table]).sum() / pixels.sum() == pytest.approx(last["val_loss"])


def test_curves(run, capsys):
    folder, _ = run
    assert main.run(["plot", str(folder), "--output", str(folder.parent / "curves.png")]) == 0


def test_model_card(run, tmp_path):
    folder, _ = run
    assert main.run(["model-card", str(folder), "--output", str(tmp_path / "card.md")]) == 0
    card = (tmp_path / "card.md").read_text()
    best = max(record["miou"] for record in records(folder))
    assert "module-type: cv-segmentation" in card
    assert "backbone-name: ghostnet_050" in card
    assert f"| mIoU | {best:.2f} % |" in card
    assert "With `config.yaml`, `classes.json` and `colors.json` of the run beside the weights" in card


def predict(run, *arguments) -> int:
    return main.run(["predict", "--ckpt_path", str(run[0] / "ghost_lraspp_last.ckpt"), *map(str, arguments)])


def test_predicted_masks_are_those_that_validation_counts(run, scenes, tmp_path, capsys):
    folders = ["--save_dir", tmp_path / "pictures", "--mask_dir", tmp_path / "masks"]
    assert predict(run, scenes / "val" / "images", "--json", *folders) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    correct = pixels = 0
    for record in found:
        image = Path(record["image"])
        assert record["mask"] == str(tmp_path / "masks" / image.name)
        with Image.open(record["mask"]) as picture, Image.open(image) as original:
            assert (picture.mode, picture.size) == ("P", original.size)
            mask = np.asarray(picture)
            assert picture.getpalette()[:9] == [0, 7, 9, 1, 7, 9, 2, 7, 9]
        with Image.open(scenes / "val" / "masks" / image.name) as picture:
            true = np.asarray(picture)
        correct, pixels = correct + ((mask == true) & (true != 255)).sum(), pixels + (true != 255).sum()
        shares = {answer["class"]: answer["share"] for answer in record["predictions"]}
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert shares == {NAMES[label]: (mask == label).mean() for label in np.unique(mask)}
        with Image.open(tmp_path / "pictures" / image.name) as picture:
            assert picture.size[0] % (2 * mask.shape[1]) == 0
    # Operator by operator, and in a compiled graph: a pixel on an edge may be another class's.
    assert 100 * correct / pixels == pytest.approx(records(run[0])[-1]["pixel_accuracy"], abs=0.1)


def test_names_and_colours_from_a_file(run, scenes, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("9 8 7 floor\n6 5 4 rouge\n3 2 1 bleu\n")
    image = scenes / "val" / "images" / "0.png"
    assert predict(run, image, "--json", "--class_names", tmp_path / "other.txt", "--mask_dir", tmp_path) == 0
    [record] = map(json.loads, capsys.readouterr().out.splitlines())
    assert {answer["class"] for answer in record["predictions"]} <= {"floor", "rouge", "bleu"}
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.getpalette()[:9] == [9, 8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.fault("masks", "ok")
def test_files_of_images_with_one_stem(run, scenes, tmp_path, capsys):
    images = [scenes / split / "images" / "0.png" for split in ("val", "train")]
    assert predict(run, *images, "--csv", "--top_k", 1, "--mask_dir", tmp_path) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading == "image,rank,class,label,share"
    assert [row.split(",")[0] for row in rows] == list(map(str, images))
    assert {file.name for file in tmp_path.iterdir()} == {"0.png", "0_2.png"}
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "0_2.png").read_bytes()
    # Its own files are replaced.
    assert predict(run, *images, "--mask_dir", tmp_path) == 0


def test_frames_of_a_video(run, scenes, tmp_path, monkeypatch, capsys):
    """They are named by their numbers; OpenCV, which reads them, is an option that need not be here."""
    pixels = [np.asarray(Image.open(scenes / "val" / "images" / f"{index}.png")) for index in range(2)]
    monkeypatch.setattr(predictor, "frames", lambda source, every: ((f"{source}#{n}", p) for n, p in enumerate(pixels)))
    folders = ["--save_dir", tmp_path / "pictures", "--mask_dir", tmp_path / "masks"]
    assert predict(run, tmp_path / "clip.mp4", "--json", *folders) == 0
    for number, line in enumerate(capsys.readouterr().out.splitlines()):
        mask = tmp_path / "masks" / f"clip_{number}.png"
        assert json.loads(line)["mask"] == str(mask)
        with Image.open(mask) as picture:
            assert picture.size[::-1] == pixels[number].shape[:2]
    assert len(list((tmp_path / "pictures").iterdir())) == 2


@pytest.mark.fault("masks", "clean error")
def test_masks_replace_nothing_of_the_users(run, scenes, capsys):
    images, masks = scenes / "val" / "images", scenes / "val" / "masks"
    before = {file: file.read_bytes() for folder in (images, masks) for file in folder.iterdir()}
    for folder, overwrite, why in (
        (masks, [], "0.png: exists, and is not what this command has written"),
        (images, ["--overwrite"], "0.png: is what is read"),
    ):
        assert predict(run, images, "--mask_dir", folder, *overwrite) == 2
        assert why in capsys.readouterr().err
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.fault("masks", "clean error")
def test_pictures_and_masks_in_one_folder(run, scenes, tmp_path, capsys):
    assert predict(run, scenes / "val" / "images", "--mask_dir", tmp_path, "--save_dir", f"{tmp_path}/.") == 2
    assert f"--mask_dir: {tmp_path} is --save_dir, too, and the files have equal names" in capsys.readouterr().err


@pytest.mark.slow
def test_ranks_by_a_recipe(scenes, tmp_path):
    """Two ranks that go on end as two that were never stopped; one, two and three find the same numbers."""

    def started(ranks: int, program: str, *arguments: object) -> str:
        line = ["tests/helpers/short.py", program, "--task", "segmentation", *arguments]
        done = launchers.run(launchers.mpirun_command(ranks, *line), tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    keys = ["--image_resize", 32, 48, "--batch_size", 2, "--epoch_size", 3, "--backbone", "ghostnet_050"]
    line = ["-c", "ghost_lraspp_cpu", "--data_dir", scenes, *keys, "--num_parallel_workers", 1]
    straight, again = tmp_path / "straight", tmp_path / "again"
    started(2, "train.py", *line, "--ckpt_save_dir", straight)
    started(2, "train.py", *line, "--ckpt_save_dir", again, "--resume", straight / "run_state_previous.ckpt")
    assert without_times(again) == without_times(straight)
    weights = straight / "ghost_lraspp_last.ckpt"
    assert (again / weights.name).read_bytes() == weights.read_bytes()
    found = [started(ranks, "validate.py", "--ckpt_path", weights, "--batch_size", 2) for ranks in (1, 2, 3)]
    results = [json.loads(text.splitlines()[-1]) for text in found]
    assert results[0] == results[1] == results[2]
    assert (results[0]["miou"], results[0]["loss"]) == tuple(records(straight)[-1][key] for key in ("miou", "val_loss"))
