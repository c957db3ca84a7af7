"""The validation split that `val_fraction` makes: the same whatever is added, of every class."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest

from mindghost.data import splits
from mindghost.data.dataset import open_split
from mindghost.data.pack.writer import Options, pack
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.lists import pairs, table
from tests.helpers.pictures import save_image

pytestmark = pytest.mark.usefixtures("own_cache")


def flowers(root, count: int = 40, start: int = 0):
    for name in ("daisy", "rose"):
        for number in range(start, start + count):
            save_image(root / name / f"{number}.png", number)
    return config_for(root, val_fraction=0.25)


def names(samples) -> set[str]:
    return {os.fsdecode(file) for file in samples.files}


def test_the_two_parts_are_the_set_and_go_by_the_hash_of_the_path(tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    config = flowers(tmp_path)
    train, val = open_split(config, "train"), open_split(config, "val", ("daisy", "rose"))
    assert not names(train) & names(val)
    assert len(train) + len(val) == 80
    for name in names(train) | names(val):
        number = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
        assert (name in names(val)) == (number < 0.25)
    assert [line for line in caplog.messages if "val_fraction" in line] == [
        f"val_fraction 0.25: {len(val)} of 80 images of {tmp_path} ({100 * len(val) / 80:.1f} %) are for validation, "
        "by their paths"
    ]
    assert train.classes == val.classes == ("daisy", "rose")
    assert 12 <= len(val) <= 28
    # What is remembered of the one is not in the way of the other.
    assert len(list((tmp_path / ".cache" / "scans").iterdir())) == 2


def test_no_image_changes_its_side_when_others_are_added_or_removed(tmp_path):
    config = flowers(tmp_path)
    before = {split: names(open_split(config, split)) for split in ("train", "val")}
    flowers(tmp_path, 30, start=1000)
    shutil.rmtree(tmp_path / "rose")
    save_image(tmp_path / "iris" / "a.png", 1)
    save_image(tmp_path / "iris" / "b.png", 1)
    after = {split: names(open_split(config, split)) for split in ("train", "val")}
    for split in ("train", "val"):
        assert {name for name in before[split] if name.startswith("daisy")} <= after[split]
    assert sum(map(len, after.values())) == 72


def test_the_parts_are_of_about_the_size_that_is_asked_for():
    """Of 100 classes of 100 images: each within five standard deviations, all together within three."""
    files = np.array([f"{label}/{number}.jpg".encode() for label in range(100) for number in range(100)])
    labels = np.repeat(np.arange(100), 100)
    for fraction in (0.1, 0.3):
        chosen = splits.is_validation(files, labels, fraction)
        counts = np.bincount(labels[chosen], minlength=100)
        deviation = np.sqrt(100 * fraction * (1 - fraction))
        assert np.abs(counts - 100 * fraction).max() < 5 * deviation
        assert abs(chosen.mean() - fraction) < 3 * deviation / 1000


def test_each_class_of_two_images_and_more_is_on_both_sides():
    for count in (2, 3, 5):
        files = np.array([f"{label}/{number}.jpg".encode() for label in range(300) for number in range(count)])
        labels = np.repeat(np.arange(300), count)
        for fraction in (0.01, 0.5, 0.99):
            chosen = splits.is_validation(files, labels, fraction)
            counts = np.bincount(labels[chosen], minlength=300)
            assert counts.min() >= 1
            assert counts.max() <= count - 1
            # Only as many are moved as have to be.
            numbers = np.array([splits._number(file) for file in files])
            moved = chosen != (numbers < fraction)
            alone = np.bincount(labels[numbers < fraction], minlength=300)
            assert moved.sum() == np.isin(alone, (0, count)).sum()
    one = splits.is_validation(np.array([b"a/1.jpg"]), np.array([0]), 0.1)
    assert one.tolist() == [splits._number(b"a/1.jpg") < 0.1]


def test_a_list_and_a_pack_of_the_same_images_have_the_same_parts(tmp_path):
    config = flowers(tmp_path / "train", 20)
    (tmp_path / "train" / "l.csv").write_bytes(table(pairs(tmp_path / "train")))
    pack(tmp_path / "train", tmp_path / "packed" / "train", Options())
    listed = config.replace(data_dir="/nowhere", train_list=f"{tmp_path}/train/l.csv")
    packed = config.replace(data_dir=f"{tmp_path}/packed")
    for split in ("train", "val"):
        digests = {open_split(made, split).digest() for made in (config, listed, packed)}
        digests.add(open_split(config_for(tmp_path, val_fraction=0.25), split).digest())
        assert len(digests) == 1


@pytest.mark.fault("lists", "ok")
def test_a_validation_split_that_is_there_is_taken_which_one_line_says(folder, tmp_path, caplog):
    caplog.set_level("INFO", "mindghost")
    config = config_for(folder, val_fraction=0.5)
    assert [len(open_split(config, split)) for split in ("train", "val")] == [23, 7]
    assert caplog.messages == [f"val_fraction is not used: the validation images are those of {folder}/val"]
    assert [len(open_split(config.replace(val_split="train"), split)) for split in ("train", "val")] != [23, 23]
    (tmp_path / "l.csv").write_bytes(b"split," + table(pairs(folder / "val", folder)).replace(b"\nval", b"\nval,val"))
    caplog.clear()
    config = config.replace(train_list=str(tmp_path / "l.csv"), val_split="none")
    with pytest.raises(UserError, match="no row of the split 'none'"):
        open_split(config, "val")
    assert "those of train_list, which has a column for the split" in caplog.messages[0]
    config = config.replace(val_list=str(tmp_path / "l.csv"), val_split="val")
    assert len(open_split(config, "val")) == 7


@pytest.mark.fault("folders", "ok")
def test_a_class_whose_validation_images_are_bad_is_still_trained_on(tmp_path, caplog):
    config = flowers(tmp_path, 4).replace(on_bad_image="skip")
    for name in names(open_split(config, "val")):
        if name.startswith("rose"):
            (tmp_path / name).write_bytes(b"x")
    train, val = open_split(config, "train"), open_split(config, "val", ("daisy", "rose"))
    assert (set(train.labels.tolist()), set(val.labels.tolist())) == ({0, 1}, {0})
    for name in names(val):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="can be read"):
        open_split(config, "val", ("daisy", "rose"))


@pytest.mark.fault("folders", "ok")
def test_beside_classes_in_data_dir_itself_other_folders_may_lie(tmp_path, caplog):
    """As that of the runs, where a training was started in the folder of the images."""
    config = flowers(tmp_path)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "config.yaml").write_text("x")
    assert open_split(config, "train").classes == ("daisy", "rose")
    assert f"{tmp_path}: folders without images are no classes: ckpt" in caplog.messages
    shutil.rmtree(tmp_path / "daisy")
    shutil.rmtree(tmp_path / "rose")
    with pytest.raises(UserError, match="ckpt: no image in this class folder"):
        open_split(config, "train")


@pytest.mark.fault("lists", "clean error")
def test_too_few_images_to_be_parted(tmp_path):
    save_image(tmp_path / "ant" / "a.png", 1)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path, val_fraction=0.1), "train")
    message_of(caught, "val_fraction", "1 image(s) in 1 class(es), too few")


@pytest.mark.fault("folders", "clean error")
def test_classes_that_lie_in_data_dir_itself_are_told_what_to_set(tmp_path):
    save_image(tmp_path / "ant" / "a.png", 1)
    for split in ("train", "val"):
        with pytest.raises(UserError) as caught:
            open_split(config_for(tmp_path), split)
        message_of(caught, f"{tmp_path}/{split}", f"the folders in {tmp_path} are the classes, set val_fraction: 0.1")
