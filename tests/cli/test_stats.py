"""`mindghost stats`: lines for a recipe, one JSON object, one line for what is wrong."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mindghost import tasks
from mindghost.cli import main, stats
from mindghost.config import Config
from mindghost.data.statistics import Sizes, Statistics
from tests.helpers.masks import write_scenes
from tests.helpers.pictures import CLASSES, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def run(*words: object, capsys) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main.run(["stats", *map(str, words)])
    return status, *capsys.readouterr()


def test_what_it_prints_is_a_recipe(images, tmp_path, capsys):
    """Added to one, it gives the keys that `--json` has."""
    status, said, error = run("--data_dir", images, "--image_resize", 32, capsys=capsys)
    assert (status, error) == (0, "")
    status, line, error = run("--data_dir", images, "--image_resize", 32, "--json", capsys=capsys)
    assert (status, error, line.count("\n")) == (0, "", 1)
    found = json.loads(line)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"model: ghostnet_050\n{said}")
    config = Config.from_file(recipe)
    assert config.mean == pytest.approx(found["mean"], rel=1e-5)
    assert config.std == pytest.approx(found["std"], rel=1e-5)
    assert (found["images"], found["image_resize"], found["crop_pct"]) == (36, 32, 0.875)
    assert found["classes"] == dict.fromkeys(CLASSES, 6)
    assert found["height"] == {"smallest": 40, "median": 40, "largest": 40}
    assert f"# 36 images of {images}/train, 32 x 32 as evaluation cuts them (crop_pct 0.875)\n" in said
    assert "# 6 classes; the largest has 1.0 times the images of the smallest\n" in said


def test_a_recipe_that_leaves_the_size_open_gets_the_size_of_its_run(images, capsys):
    status, line, said = run("-c", "finetune", "--data_dir", images, "--json", capsys=capsys)
    assert status == 0
    assert "weights" not in said  # none are asked for
    assert json.loads(line)["image_resize"] == 96


def test_of_many_classes_the_largest_and_the_smallest_are_listed():
    class Samples:
        classes = tuple(f"c{label}" for label in range(51))

    counts = tuple(range(51))
    found = Statistics(sum(counts), counts, (1.0, 2.0, 3.0), (1.0, 0.0, 1.0), Sizes(1, 1.5, 2), Sizes(1, 2, 3))
    lines = stats._lines(Config(dataset="cifar10", data_dir="D"), Samples(), found, tasks.of(Config()))
    assert lines[:2] == ["mean: [1, 2, 3]", "std: [1, 0, 1]"]
    assert lines[2].startswith("# 1,275 images of D, 224 x 224 as evaluation cuts them (crop_pct 1)")
    text = "\n".join(lines)
    assert "cifar10 is always normalised as in MindCV" in text
    assert "its std of 0 is no value for the key" in text
    listed = re.findall(r"^# +(c\d+) ", text, re.MULTILINE)
    assert listed == [f"c{label}" for label in (*range(50, 40, -1), *range(9, -1, -1))]
    assert "# ... 31 more ..." in lines
    assert lines[-1] == "# 51 classes; the largest has images, another has none"


def test_pixels_of_masks(own_cache, tmp_path, capsys):
    write_scenes(tmp_path, 3, 1)
    words = ["--task", "segmentation", "--data_dir", tmp_path, "--image_resize", 30, 40]
    status, said, error = run(*words, capsys=capsys)
    assert (status, error) == (0, "")
    masks = [np.asarray(Image.open(tmp_path / "train" / "masks" / f"{index}.png")) for index in range(3)]
    counts = [sum(int((mask == label).sum()) for mask in masks) for label in range(3)]
    smallest, largest = min(counts), max(counts)
    for label, count in enumerate(counts):
        assert re.search(rf"^# {label} +3 +{count:,} +{100 * count / sum(counts):.2f}$", said, re.MULTILINE)
    assert f"# 3 images of {tmp_path}, 30 x 40 into which evaluation fits them\n" in said
    assert f"# 3 classes; the largest has {largest / smallest:.1f} times the pixels of the smallest\n" in said
    found = json.loads(run(*words, "--json", capsys=capsys)[1])
    assert (found["classes"], found["pixels"]) == ({"0": 3, "1": 3, "2": 3}, dict(zip("012", counts, strict=True)))


@pytest.mark.fault("command lines", "clean error")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data_dir", "/nowhere"], "/nowhere/train: no such folder"),
        (["--jsn"], "'--jsn': unknown flag"),
        (["--image_resize", "9999999", "--data_dir", "/tmp"], "image_resize: expected at most 4,096 pixels"),
    ],
)
def test_what_is_wrong_is_one_line(words, expected, capsys):
    status, said, error = run(*words, capsys=capsys)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert error.startswith("mindghost stats: error: ")
    assert expected in error
