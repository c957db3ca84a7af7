"""Validation images that are training images are named, whatever they are called."""

from __future__ import annotations

import os

import pytest

from mindghost.data import overlap
from mindghost.data.dataset import open_split
from tests.helpers.data_folders import config_for
from tests.helpers.lists import pairs, text
from tests.helpers.pictures import save_image
from tests.helpers.shards import image_files, tar


@pytest.fixture
def opened(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path / "cache"))
    for name, value in (("train/ant/a.bmp", 1), ("train/ant/b.bmp", 2), ("train/bee/c.bmp", 3), ("val/bee/d.bmp", 9)):
        save_image(tmp_path / name, value)
    save_image(tmp_path / "val/ant/e.bmp", 5, size=(30, 3))

    def both(config=None):
        return [open_split(config or config_for(tmp_path), split) for split in ("train", "val")]

    return both


def test_files_of_equal_content_are_named_in_one_line(tmp_path, opened, caplog):
    overlap.say_shared(*opened())
    assert caplog.messages == []
    for source, target in (("ant/b", "ant/x"), ("bee/c", "ant/y"), ("ant/b", "bee/z")):
        content = (tmp_path / "train" / f"{source}.bmp").read_bytes()
        (tmp_path / "val" / f"{target}.bmp").write_bytes(content)
    train, val = opened()
    assert overlap.shared(train, val) == [
        (f"{tmp_path}/val/ant/x.bmp", f"{tmp_path}/train/ant/b.bmp"),
        (f"{tmp_path}/val/ant/y.bmp", f"{tmp_path}/train/bee/c.bmp"),
        (f"{tmp_path}/val/bee/z.bmp", f"{tmp_path}/train/ant/b.bmp"),
    ]
    overlap.say_shared(train, val)
    assert caplog.messages == [
        "3 of the 5 validation images are also training images (files of equal content), such as "
        f"{tmp_path}/val/ant/x.bmp, which is {tmp_path}/train/ant/b.bmp: the accuracy is too high"
    ]


def test_files_of_one_size_are_told_apart_wherever_they_differ(tmp_path, opened):
    """In their last byte, behind what is compared first."""
    save_image(tmp_path / "train/ant/large.bmp", 7, size=(60, 60))
    content = bytearray((tmp_path / "train/ant/large.bmp").read_bytes())
    assert len(content) > 2 * overlap._START
    content[-1] ^= 1
    (tmp_path / "val/ant/large.bmp").write_bytes(content)
    assert overlap.shared(*opened()) == []


def test_one_list_for_both_splits_is_found_without_reading_any(tmp_path, opened, caplog, monkeypatch):
    (tmp_path / "l.txt").write_bytes(text(pairs(tmp_path / "train")))
    listed = config_for(tmp_path / "train", train_list=str(tmp_path / "l.txt"), val_list=str(tmp_path / "l.txt"))
    train, val = opened(listed)
    monkeypatch.setattr(overlap, "_start", lambda path: pytest.fail(path))
    overlap.say_shared(train, val)
    assert "3 of the 3 validation images" in caplog.text
    assert f"such as {tmp_path}/train/ant/a.bmp, which is in both" in caplog.text


def test_what_cannot_be_read_is_no_image_of_both(tmp_path, opened):
    train, val = opened()
    (tmp_path / "val/bee/d.bmp").unlink()
    os.mkfifo(tmp_path / "val/bee/d.bmp")
    assert overlap.shared(train, val) == []


def test_images_in_tar_files_are_compared_with_any_others(tmp_path, opened):
    save_image(tmp_path / "val/ant/x.bmp", 2)
    tar(tmp_path / "tars" / "train.tar", image_files(tmp_path / "train"))
    tar(tmp_path / "tars" / "val.tar", image_files(tmp_path / "val"))
    ours = (f"{tmp_path}/tars/val/ant/x.bmp (in val.tar)", f"{tmp_path}/tars/train/ant/b.bmp (in train.tar)")
    train, val = opened(config_for(tmp_path / "tars"))
    assert overlap.shared(train, val) == [ours]
    overlap.say_shared(train, val)
    assert overlap.shared(train, opened()[1]) == [(f"{tmp_path}/val/ant/x.bmp", ours[1])]
