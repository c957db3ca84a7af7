"""The key `exclude_list`: images that a training leaves out, and nothing else."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindghost.data import excluded
from mindghost.data.dataset import open_split
from mindghost.errors import UserError
from tests.helpers.configs import message_of
from tests.helpers.data_folders import config_for
from tests.helpers.pictures import save_image

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def data(tmp_path) -> Path:
    """D/{train,val}/{daisy,rose}, four and two images each."""
    for split, count in (("train", 4), ("val", 2)):
        for name in ("daisy", "rose"):
            for number in range(count):
                save_image(tmp_path / "D" / split / name / f"{number}.png", number)
    return tmp_path / "D"


def train(data: Path, **keys) -> list[str]:
    samples = open_split(config_for(data, **keys), "train")
    return [os.path.relpath(samples.name(index), data) for index in range(len(samples))]


def listed(folder: Path, *lines: str) -> str:
    (folder / "out.txt").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / "out.txt")


def test_paths_begin_in_data_dir_or_the_lists_folder_or_at_the_top(data, tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    absolute = str(data / "train" / "rose" / "3.png")
    file = listed(tmp_path, "train/daisy/0.png", "D/train/daisy/2.png", absolute, "", "nowhere.png", "D/val/rose/0.png")
    left = train(data, exclude_list=file)
    assert left == [
        f"train/{name}" for name in ("daisy/1.png", "daisy/3.png", "rose/0.png", "rose/1.png", "rose/2.png")
    ]
    said = "exclude_list: 3 of 8 training images are left out (2 of its lines name no image of the training: "
    assert any(said in line for line in caplog.messages)


def test_validation_images_stay(data, tmp_path):
    file = listed(tmp_path, "val/daisy/0.png", "train/daisy/0.png")
    assert len(open_split(config_for(data, exclude_list=file), "val", ("daisy", "rose"))) == 4


def test_labels_stay_with_their_images_and_the_digest_says_what_is_left(data, tmp_path):
    whole = open_split(config_for(data), "train")
    file = listed(tmp_path, "train/daisy/1.png")
    part = open_split(config_for(data, exclude_list=file), "train")
    assert part.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert part.classes == whole.classes
    assert part.digest() != whole.digest()
    # That of a folder which never had it: a run may go on there.
    shutil.copytree(data, tmp_path / "less")
    (tmp_path / "less" / "train" / "daisy" / "1.png").unlink()
    assert part.digest() == open_split(config_for(tmp_path / "less"), "train").digest()


def test_the_part_that_is_made_for_validation_is_the_same_with_a_list(data, tmp_path):
    config = config_for(data / "train", val_fraction=0.3)
    val = open_split(config, "val", ("daisy", "rose"))
    first = open_split(config, "train")
    rest = open_split(config.replace(exclude_list=listed(tmp_path, first.name(0))), "train")
    assert len(rest) == len(first) - 1
    again = open_split(config.replace(exclude_list=str(tmp_path / "out.txt")), "val", ("daisy", "rose"))
    assert again.digest() == val.digest()


def test_odd_names_come_back(tmp_path):
    names = ["/a/b c.jpg", "/a/ b", "/a/x\ny.jpg", '/a/"q".jpg', "/ü\udcff.jpg", "cifar10 train #17", '"', " "]
    file = tmp_path / "out.txt"
    file.write_bytes(excluded.encode(names))
    assert excluded.read(file) == names


def test_images_without_files_are_named_as_messages_name_them(tmp_path):
    from mindghost.data.samples import ArraySamples

    samples = ArraySamples(("a", "b"), np.array([0, 1, 0], np.int32), "cifar10 train", np.zeros((3, 2, 2, 3), np.uint8))
    left = excluded.left_out(samples, Path(listed(tmp_path, "cifar10 train #2")), tmp_path)
    assert left.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nowhere.png", "names no image of the training, such as"),
        ('"unclosed', "out.txt:1"),
        ("a\0b", "no text"),
    ],
)
def test_a_bad_list_is_one_line(data, tmp_path, line, said):
    message = message_of(train, data, exclude_list=listed(tmp_path, line))
    assert said in message
    assert "\n" not in message


def test_a_list_that_is_not_there(data):
    assert "exclude_list: " in message_of(train, data, exclude_list="none.txt")


def test_an_empty_list_leaves_all(data, tmp_path):
    assert len(train(data, exclude_list=listed(tmp_path))) == 8


def test_no_class_may_lose_all_images(data, tmp_path):
    file = listed(tmp_path, *(f"train/rose/{number}.png" for number in range(4)))
    with pytest.raises(UserError, match="leaves no image of the class rose"):
        train(data, exclude_list=file)


def test_masks_are_refused(data):
    with pytest.raises(UserError, match="exclude_list"):
        config_for(data, exclude_list="x", task="segmentation", model="ghost_unet")
