"""Images of folders that have masks, too: those alone."""

import shutil

import numpy as np
import pytest
from PIL import Image

from mindghost import tasks
from mindghost.config import Config
from tests.helpers.masks import scene, write_scenes

CONFIG = Config(task="segmentation", model="ghost_lraspp")


@pytest.fixture
def data(tmp_path):
    return write_scenes(tmp_path / "data", train=4, val=2)


def test_some_images_are_those_of_a_split(data):
    task, config = tasks.of(CONFIG), CONFIG.replace(data_dir=str(data))
    found = task.some_images(config, "train", 3)
    wanted = [np.asarray(Image.open(data / "train" / "images" / f"{index}.png")) for index in (0, 1, 3)]
    assert [image.tolist() for image in found] == [image.tolist() for image in wanted]
    assert len(task.some_images(config, "val", 7)) == 2
    assert task.some_images(config.replace(data_dir=str(data / "none")), "val", 7) == []
    (data / "val" / "images" / "0.png").write_bytes(b"no image")
    assert len(task.some_images(config, "val", 7)) == 1


@pytest.mark.parametrize("folder", ["", "train", "train/images"])
def test_images_to_calibrate_on_are_never_masks(data, folder):
    """Of a set the training split; of a split its images; of a folder with images alone all of them."""
    Image.fromarray(scene(9)[0]).save(data / "train" / "images" / "without_mask.png")
    (files,) = tasks.of(CONFIG).image_groups(data / folder)
    names = ["0.png", "1.png", "2.png", "3.png", "without_mask.png"]
    assert sorted(files) == [str(data / "train" / "images" / name) for name in names]


def test_a_folder_without_images_has_none(data):
    for name in ("train", "val"):
        shutil.rmtree(data / name)
    assert tasks.of(CONFIG).image_groups(data) == []
