"""Which files of a folder are images: the same ones for training, prediction, packing and calibration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost.data import pack as packs
from mindghost.data import walk
from mindghost.data.dataset import open_split
from mindghost.data.folders import open_folders
from mindghost.data.pack import writer as pack_writer
from mindghost.deploy import quantize
from mindghost.errors import UserError
from mindghost.inference.sources import expand
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.pictures import save_image


def names_below(root: Path, files: list[str]) -> list[str]:
    return [os.path.relpath(file, root) for file in files]


@pytest.fixture
def odd_tree(tmp_path) -> Path:
    """Two classes, one of them linked, among all that is to be left out."""
    root = tmp_path / "data" / "train"
    save_image(tmp_path / "elsewhere" / "Z.PNG", 1)
    save_image(tmp_path / "elsewhere" / "deep" / "er" / "a.png", 2)
    save_image(root / "bee" / "b.png", 3)
    save_image(root / "bee" / ".hidden" / "c.png", 4)
    save_image(root / "bee" / ".d.png", 5)
    (root / "ant").symlink_to(tmp_path / "elsewhere")
    (root / "bee" / "up").symlink_to(root)
    os.mkfifo(root / "bee" / "pipe.png")
    for name in ("a.txt", "b.TXT", "photo.heic", "Makefile"):
        (root / "bee" / name).write_text("x")
    return root


FOUND = ["ant/Z.PNG", "ant/deep/er/a.png", "bee/b.png"]
LEFT_OUT = "4 files are no images by their ending and are left out (.txt 2, .heic 1, without one 1)"


def by_training(root: Path) -> list[str]:
    samples = open_split(config_for(root.parent), "train")
    return names_below(root, [samples.name(index) for index in range(len(samples))])


def by_prediction(root: Path) -> list[str]:
    return names_below(root, expand([str(root)]))


def by_packing(root: Path) -> list[str]:
    target = root.parent.parent / "pack"
    pack_writer.pack(root, target, pack_writer.Options())
    return [os.fsdecode(name) for name in packs.open_pack(target).files]


def by_calibration(root: Path) -> list[str]:
    inputs = quantize.calibration_images(config_for(root.parent), root, 99, ("ant", "bee"))
    # The red channel says which image it is.
    return sorted(FOUND[int(image[0, 0, 0]) - 1] for image in inputs)


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("who", [by_training, by_prediction, by_packing, by_calibration])
def test_all_find_the_same_images_and_count_the_rest(odd_tree, caplog, who):
    assert who(odd_tree) == FOUND
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{odd_tree}: {LEFT_OUT}" in said
    [odd] = [line for line in said if "no regular files" in line]
    assert odd.startswith("2 entries")


@pytest.mark.fault("pictures", "ok")
def test_one_file_is_counted_in_the_singular_and_many_endings_are_cut_short(tmp_path, caplog):
    save_image(tmp_path / "a.png", 1)
    (tmp_path / "b.heic").write_text("x")
    walk.image_files(tmp_path)
    for number in range(8):
        (tmp_path / f"c.x{number}").write_text("x")
    walk.image_files(tmp_path)
    one, many = [record.getMessage() for record in caplog.records]
    assert one == f"{tmp_path}: 1 file is no image by its ending and is left out (.heic 1)"
    assert many.endswith(" and 3 more)")
    assert "9 files" in many


@pytest.mark.fault("pictures", "ok")
def test_images_beside_the_class_folders_are_counted(tmp_path, caplog):
    save_image(tmp_path / "ant" / "a.png", 1)
    save_image(tmp_path / "stray.jpg", 1)
    assert len(open_folders(tmp_path)) == 1
    assert caplog.records[0].getMessage() == (
        f"{tmp_path}: images in no class folder are left out: 1, such as {tmp_path}/stray.jpg"
    )


@pytest.mark.fault("folders", "ok")
def test_a_class_whose_link_is_broken_is_said(tmp_path, caplog):
    save_image(tmp_path / "ant" / "a.png", 1)
    (tmp_path / "bee").symlink_to(tmp_path / "unmounted")
    assert open_folders(tmp_path).classes == ("ant",)
    assert f"{tmp_path}: 1 link(s) that lead nowhere are no classes: {tmp_path}/bee" in caplog.text


@pytest.mark.fault("pictures", "ok")
def test_patterns_of_any_depth_go_through_loops_once(odd_tree, monkeypatch, caplog):
    """Two links back up: Python's own `**` would follow them to forty levels, two to the power of forty paths."""
    (odd_tree / "bee" / "again").symlink_to(odd_tree)
    (odd_tree / "bee" / "pipe.png").unlink()
    monkeypatch.chdir(odd_tree)
    assert expand(["**/*.png"]) == ["ant/deep/er/a.png", "bee/b.png"]
    assert expand(["./**/*.png"]) == ["./ant/deep/er/a.png", "./bee/b.png"]
    assert names_below(odd_tree, expand([f"{odd_tree}/**/er/*.png"])) == ["ant/deep/er/a.png"]
    assert names_below(odd_tree, expand([f"{odd_tree}/a*/**/d*/**/*.png"])) == ["ant/deep/er/a.png"]
    assert expand([f"{odd_tree}/**"]) == [f"{odd_tree}/{name}" for name in FOUND]
    # Each source by itself: what is named twice is looked at twice.
    assert expand(["bee/*g", "b**"]) == ["bee/b.png", "bee/b.png"]
    assert expand(["*ee", "bee/b*"]) == ["bee/b.png", "bee/b.png"]
    with pytest.raises(UserError, match="no file matches"):
        expand(["**/*.webp"])
    # What is matched but no image is counted, unless nothing else is.
    caplog.clear()
    assert expand(["bee/[b-p]*"]) == ["bee/b.png"]
    assert "bee/[b-p]*: 2 files are no images by their ending and are left out (.heic 1, .txt 1)" in caplog.text
    assert expand(["bee/*.heic"]) == ["bee/photo.heic"]


@pytest.mark.fault("pictures", "ok")
def test_a_name_never_makes_a_second_line(tmp_path, caplog):
    (tmp_path / "a.x\nforged: y").write_text("x")
    walk.image_files(tmp_path)
    assert "\n" not in caplog.records[0].getMessage()


@pytest.mark.fault("pictures", "ok")
def test_folders_a_thousand_deep(tmp_path):
    """More than Python has calls; and beyond what a path may measure it is one line."""
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Image.new("L", (1, 1)).save("a.png")
        assert names_below(tmp_path, walk.image_files(tmp_path)) == ["d/" * 1200 + "a.png"]
        for _ in range(1000):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    with pytest.raises(UserError) as caught:
        walk.image_files(tmp_path)
    message_of(caught, tmp_path, "File name too long")
    # Python's own way to remove a tree calls itself once a level: pytest would fail at it, three runs later.
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


# --- Data that lie one level too deep


@pytest.mark.fault("folders", "clean error")
@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (("train/ant/0.png", "train/bee/0.png"), "train"),
        (("a/b/ant/0.png", "a/b/bee/more/0.png"), "a/b"),
        (("ant/2020/0.png",), "ant"),
        (("a/ant/0.png", "a/ant/more/0.png"), "a"),
    ],
)
def test_one_class_without_an_image_of_its_own_is_a_split(tmp_path, files, meant):
    for file in files:
        save_image(tmp_path / "train" / file, 1)
    for use in (
        lambda: open_split(config_for(tmp_path), "train"),
        lambda: pack_writer.pack(tmp_path / "train", tmp_path / "pack", pack_writer.Options()),
    ):
        with pytest.raises(UserError) as caught:
            use()
        message_of(caught, f"{tmp_path}/train: its only folder", f"the split is {tmp_path}/train/{meant}:")
    assert not (tmp_path / "pack").exists()


@pytest.mark.fault("folders", "clean error")
@pytest.mark.parametrize(("made", "given", "meant"), [("x/train", ".", "x"), ("train", "train", ".")])
def test_a_split_that_lies_a_level_off_is_named(tmp_path, made, given, meant):
    save_image(tmp_path / "data" / made / "ant" / "a.png", 1)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path / "data" / given), "train")
    message_of(caught, tmp_path / "data" / given / "train", f"such as data_dir: {tmp_path / 'data' / meant}")


# --- Calibration


@pytest.mark.fault("pictures", "ok")
def test_calibration_is_spread_over_the_classes(tmp_path, caplog):
    """Ten classes of 1, 3, 5, ... images: of twenty, the small class has its one and no class over three."""
    caplog.set_level("INFO", "mindghost")
    root = tmp_path / "train"
    for label in range(10):
        for number in range(2 * label + 1):
            save_image(root / f"c{label}" / f"{number}.png", label)
    classes = tuple(f"c{label}" for label in range(10))
    inputs = quantize.calibration_images(config_for(tmp_path), root, 20, classes)
    seen = np.bincount(inputs[:, 0, 0, 0].astype(int), minlength=10)
    assert seen[0] == 1
    assert set(seen[1:]) <= {2, 3}
    assert seen.sum() == 20
    again = quantize.calibration_images(config_for(tmp_path), root, 20, classes)
    np.testing.assert_array_equal(again, inputs)
    assert f"calibration: 20 images of {root}, from 10 of its 10 folder(s) or classes" in caplog.text
    assert "lose less" not in caplog.text
    # A pack of them is read, too.
    pack_writer.pack(root, tmp_path / "pack", pack_writer.Options())
    of_pack = quantize.calibration_images(config_for(tmp_path), tmp_path / "pack", 10, classes)
    assert sorted(of_pack[:, 0, 0, 0].astype(int)) == list(range(10))


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("classes", [tuple("abcdefghij"), None], ids=["named", "numbered"])
def test_calibration_on_one_class_of_ten_is_said(tmp_path, caplog, classes):
    save_image(tmp_path / "c1" / "a.png", 1)
    config = config_for(tmp_path).replace(num_classes=10)
    quantize.calibration_images(config, tmp_path / "c1", 20, classes)
    assert f"{tmp_path}/c1 has images in 1 folder(s), and the network 10 classes" in caplog.text


def test_one_class_with_an_image_of_its_own_and_others_below_is_a_class(tmp_path):
    for name in ("0.png", "more/1.png"):
        save_image(tmp_path / "train" / "ant" / name, 1)
    assert len(open_split(config_for(tmp_path), "train")) == 2
