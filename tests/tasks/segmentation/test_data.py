"""Images with masks: the layouts, what is checked before the first epoch, classes and their colours."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindghost import tasks
from mindghost.config import Config
from mindghost.data.scan import Part
from mindghost.errors import UserError
from mindghost.tasks.segmentation import classes, masks
from tests.helpers.masks import save, scene, write_scenes

pytestmark = pytest.mark.usefixtures("own_cache")
TASK = tasks.of(Config(task="segmentation"))


def opened(root, split="train", known=None, **keys):
    return TASK.open_split(Config(**{"task": "segmentation", "data_dir": str(root), **keys}), split, known)


def refused(root, split="train", **keys) -> str:
    with pytest.raises(UserError) as caught:
        opened(root, split, **keys)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def names(samples) -> list[tuple[str, str]]:
    return [(samples.name(index), samples.mask_name(index)) for index in range(len(samples))]


@pytest.fixture
def pair():
    return scene(1)


# --- Layouts


def check_layout(root, pairs, split="train", **keys):
    """That a tree of these images and masks gives just these pairs, with their pixels."""
    expected = []
    for number, (image, mask) in enumerate(pairs):
        pixels, truth = scene(number)
        expected.append(
            (str(save(root / image, pixels)), str(save(root / mask, truth, palette=number % 2 == 1)), truth)
        )
    samples = opened(root, split, **keys)
    assert names(samples) == [(image, mask) for image, mask, _ in expected]
    assert samples.classes == ("0", "1", "2")
    assert samples.numbered
    for index, (_, _, truth) in enumerate(expected):
        np.testing.assert_array_equal(samples.mask(index), truth)
        np.testing.assert_array_equal(samples.pixels()[index], np.bincount(truth.ravel(), minlength=3))
    return samples


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ("train/images", "train/masks"),
        ("train/imgs", "train/labels"),
        ("images/train", "annotations/train"),
        ("images/training", "annotations/training"),
        ("train", "trainannot"),
    ],
)
def test_folders_of_equal_stems(tmp_path, images, found):
    check_layout(tmp_path, [(f"{images}/{n}.{e}", f"{found}/{n}.png") for n, e in (("a/1", "jpg"), ("b", "png"))])


def test_voc(tmp_path):
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_2\n2007_1\n\n")
    (lists / "val.txt").write_text("2007_9\n")
    save(tmp_path / "SegmentationClass" / "2007_9.png", scene(5)[1])
    pairs = [(f"JPEGImages/{stem}.jpg", f"SegmentationClass/{stem}.png") for stem in ("2007_2", "2007_1")]
    check_layout(tmp_path, pairs)
    assert "val.txt:1" in refused(tmp_path, "val")
    (lists / "train.txt").write_text("2007_2\n2007_2\n")
    assert "train.txt:2: 2007_2 is named twice" in refused(tmp_path)


def test_cityscapes(tmp_path):
    cities = [("aachen", "aachen_000001_000019"), ("bonn", "bonn_000002_000019")]
    pairs = [
        (f"leftImg8bit/train/{city}/{key}_leftImg8bit.png", f"gtFine/train/{city}/{key}_gtFine_labelTrainIds.png")
        for city, key in cities
    ]
    for city, key in cities:
        save(tmp_path / "gtFine" / "train" / city / f"{key}_gtFine_labelIds.png", np.full((9, 9), 33, np.uint8))
    check_layout(tmp_path, pairs)
    for _, mask in pairs:
        (tmp_path / mask).unlink()
    message = refused(tmp_path)
    assert str(tmp_path / "gtFine" / "train") in message
    assert "only labelIds" in message
    assert "csCreateTrainIdLabelImgs" in message


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("train.txt", "x/1.png y/b.png\nx/2.png y/a.png\n"),
        ("train.csv", "image,mask\nx/2.png,y/a.png\nx/1.png,y/b.png\n"),
        ("train.jsonl", '{"path": "x/1.png", "mask": "y/b.png"}\n{"path": "x/2.png", "mask": "y/a.png"}\n'),
    ],
)
def test_lists_of_two_columns(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    pairs = [("x/1.png", "y/b.png"), ("x/2.png", "y/a.png")]
    samples = check_layout(tmp_path, pairs, train_list=str(tmp_path / file))
    assert samples.where(0).startswith(f"{tmp_path / file}:")
    message = refused(tmp_path, "val", train_list=str(tmp_path / file))
    assert "no images with masks for the split 'val'" in message


def test_lists_with_splits_and_weights(tmp_path):
    rows = [("1", "train", 2), ("2", "val", 1), ("3", "train", 0.5)]
    lines = [f"x/{name}.png,y/{name}.png,{split},{weight}" for name, split, weight in rows]
    (tmp_path / "all.csv").write_text("\n".join(["image,mask,split,weight", *lines]))
    for name, _, _ in rows:
        pixels, mask = scene(int(name))
        save(tmp_path / "x" / f"{name}.png", pixels)
        save(tmp_path / "y" / f"{name}.png", mask)
    train, val = (opened(tmp_path, split, train_list=str(tmp_path / "all.csv")) for split in ("train", "val"))
    assert [os.path.basename(image) for image, _ in names(train)] == ["1.png", "3.png"]
    assert train.weights.tolist() == [2, 0.5]
    assert [os.path.basename(image) for image, _ in names(val)] == ["2.png"]


@pytest.mark.fault("masks", "clean error")
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x.png y.png\nx.png z.png\n", ("train.txt:2", "another mask in line 1")),
        ("x.png 3\n", ("train.txt:1", "3: no such file", "give lines `image mask`")),
        ("x.png gone.png\n", ("train.txt:1", "gone.png: no such file")),
    ],
)
def test_bad_lists(tmp_path, pair, text, parts):
    (tmp_path / "train.txt").write_text(text)
    for name in ("x", "y", "z"):
        save(tmp_path / f"{name}.png", pair[name != "x"])
    message = refused(tmp_path, train_list=str(tmp_path / "train.txt"))
    assert all(part in message for part in parts), message


def test_a_part_of_a_set_without_splits_is_for_validation(tmp_path, caplog):
    for index in range(20):
        pixels, mask = scene(index)
        save(tmp_path / "images" / f"{index}.jpg", pixels)
        save(tmp_path / "masks" / f"{index}.png", mask)
    assert "set val_fraction: 0.1" in refused(tmp_path)
    train, val = (opened(tmp_path, split, val_fraction=0.2) for split in ("train", "val"))
    assert set(names(train)) & set(names(val)) == set()
    assert len(train) + len(val) == 20
    assert 0 < len(val) < 10


def test_a_digest_does_not_depend_on_where_a_list_says_that_files_lie(tmp_path):
    root = write_scenes(tmp_path / "a")
    pairs = names(opened(root))
    (tmp_path / "list.txt").write_text("".join(f"{image} {mask}\n" for image, mask in pairs))
    keys = {"train_list": str(tmp_path / "list.txt")}
    before = opened(root, **keys).digest()
    moved = shutil.copytree(root, tmp_path / "elsewhere" / "b")
    (tmp_path / "list.txt").write_text("".join(f"{i} {m}\n" for i, m in pairs).replace(str(root), str(moved)))
    assert opened(moved, **keys).digest() == before
    # A mask of other content is other data.
    mask = np.asarray(Image.open(pairs[0][1]))
    save(Path(pairs[0][1].replace(str(root), str(moved))), np.uint8(np.where(mask == 0, 1, mask)))
    assert opened(moved, **keys).digest() != before


# --- What is checked


@pytest.fixture
def tree(tmp_path):
    return write_scenes(tmp_path / "data", border=False)


@pytest.mark.fault("masks", "clean error")
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda file: save(file, scene(0, (39, 56))[1]), ("56 x 39 pixels", "images/1.png has 56 x 40")),
        (lambda file: save(file, scene(0, (56, 40))[1]), ("40 x 56 pixels", "EXIF")),
        (lambda file: save(file, scene(0)[0]), ("a colour image (RGB)", "index of its class")),
        (lambda file: save(file, np.repeat(scene(0)[1][..., None], 3, 2)), ("one of its channels, which are equal",)),
        (lambda file: Image.fromarray(scene(0)[1]).save(file, "JPEG"), ("a JPEG file, which keeps no exact values",)),
        (lambda file: save(file, scene(0)[1] + np.uint8(10)), ("pixels of 10, 11, 12", "3 classes (0 to 2)")),
        (lambda file: save(file, np.uint16(scene(0)[1]) + 26_000), ("pixels of 26000",)),
        (lambda file: file.write_bytes(file.read_bytes()[:60]), ("not a readable image",)),
        (lambda file: file.unlink(), ("images/1.png: no mask of its name", "train/masks/STEM.png")),
        (lambda file: save(file, np.full((40, 56), 3, np.uint8)), ("2,240 pixels of 3",)),
    ],
    ids=[
        "size",
        "turned",
        "colours",
        "gray colours",
        "JPEG",
        "values",
        "16 bits",
        "damaged",
        "missing",
        "one too many",
    ],
)
def test_masks_that_lie(tree, change, parts):
    change(tree / "train" / "masks" / "1.png")
    message = refused(tree, num_classes=3)
    name = "images" if "no mask" in message else "masks"
    assert message.startswith(str(tree / "train" / name / "1.png")), message
    assert all(part in message for part in parts), message


@pytest.mark.fault("masks", "ok")
def test_what_cannot_be_used_is_left_out_if_that_is_asked_for(tree, caplog):
    (tree / "train" / "masks" / "1.png").unlink()
    save(tree / "train" / "masks" / "2.png", scene(0)[0])
    (tree / "train" / "images" / "3.png").write_bytes(b"nothing")
    save(tree / "train" / "masks" / "lone.png", scene(0)[1])
    with caplog.at_level("WARNING", "mindghost"):
        samples = opened(tree, on_bad_image="skip")
    assert len(samples) == 5
    assert len(samples.values) == len(samples.masks) == 5
    for part in ("1 images without a mask", "1 masks without an image", "masks/2.png: a colour image", "images/3.png"):
        assert part in caplog.text


@pytest.mark.fault("masks", "clean error")
def test_black_and_white_masks_are_no_classes(tree):
    for file in (tree / "train" / "masks").iterdir():
        save(file, np.uint8(255 * (np.asarray(Image.open(file)) > 0)))
    for keys in ({}, {"num_classes": 2}):
        assert "have only pixels of 0 and 255" in refused(tree, **keys)
    assert len(opened(tree, ignore_index=254, num_classes=256)) == 8


@pytest.mark.fault("masks", "clean error")
def test_colours_turned_gray_are_no_classes(tree):
    for file in (tree / "train" / "masks").iterdir():
        save(file, np.uint8([0, 76, 149])[np.asarray(Image.open(file))])
    assert "3 values up to 149 (0, 76, 149), as colours turned gray do" in refused(tree)
    assert opened(tree, num_classes=150).labels.sum(axis=0).nonzero()[0].tolist() == [0, 76, 149]


@pytest.mark.fault("masks", "clean error")
def test_another_folder_was_meant(tree):
    assert refused(tree.parent).endswith(f"; give another data_dir, such as {tree}")
    message = refused(tree, train_split="test")
    assert f"{tree}: no images with masks for the split 'test'; expected {tree}/test/images/*.jpg" in message


@pytest.mark.fault("masks", "clean error")
def test_nothing_counts(tree):
    for file in (tree / "train" / "masks").iterdir():
        save(file, np.full(np.asarray(Image.open(file)).shape, 7, np.uint8))
    assert "every pixel of all masks is ignore_index: 7" in refused(tree, ignore_index=7)


def test_a_palette_of_16_bits_or_one_bit_or_none_is_read_by_its_values(tmp_path, pair):
    _, mask = pair
    for name, kind in (("a", np.uint8), ("b", np.uint16)):
        np.testing.assert_array_equal(masks.read(str(save(tmp_path / f"{name}.png", mask.astype(kind)))), mask)
    np.testing.assert_array_equal(masks.read(str(save(tmp_path / "p.png", mask, palette=True))), mask)
    Image.fromarray(mask == 1).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(masks.read(str(tmp_path / "bit.png")), mask == 1)
    # Pillow writes small palettes with fewer bits.
    image = Image.fromarray(mask, "P")
    image.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0])
    image.save(tmp_path / "few.png", bits=2)
    np.testing.assert_array_equal(masks.read(str(tmp_path / "few.png")), mask)


def test_masks_are_looked_at_once(tree, monkeypatch):
    seen, read = [], masks.read
    monkeypatch.setattr(masks, "read", lambda path: seen.append(path) or read(path))
    first = opened(tree)
    assert len(seen) == 8
    again = opened(tree)
    assert len(seen) == 8
    assert again.digest() == first.digest()
    np.testing.assert_array_equal(again.pixels(), first.pixels())
    # A mask that changes is looked at again; its image does not change.
    save(tree / "train" / "masks" / "4.png", scene(9)[1])
    assert opened(tree).digest() != first.digest()
    assert [os.path.basename(path) for path in seen[8:]] == ["4.png"]
    assert len(opened(tree, num_classes=5).classes) == 5
    assert len(seen) == 9


def test_ranks_share_the_work_and_all_know_what_was_found(tree, monkeypatch):
    """Two processes, one after the other: what the first found is told to the second."""
    alone = opened(tree)
    told: dict[int, str] = {}

    def merged(found):
        told.update(found)
        return dict(told)

    config = Config(task="segmentation", data_dir=str(tree), ignore_index=254)
    tasks_of = [Part(number, 2, merged) for number in range(2)]
    with pytest.raises(KeyError):  # the second has told nothing yet
        TASK.open_split(config, "train", None, tasks_of[0])
    samples = TASK.open_split(config, "train", None, tasks_of[1])
    assert samples.values.tolist() == alone.values.tolist()


# --- Classes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.csv", "name,r,g,b\nsky,1,2,3\ntree,4,5,6\ncar,7,8,9\n"),
        ("c.txt", "sky,1,2,3\ntree,4,5,6\ncar,7,8,9"),
        ("label_colors.txt", "1 2 3\tsky\n4 5 6\t\ttree\n7 8 9 car\n"),
        ("c.json", json.dumps({"sky": [1, 2, 3], "tree": [4, 5, 6], "car": [7, 8, 9]})),
        (
            "list.json",
            json.dumps([{"name": n, "color": [i, i + 1, i + 2]} for n, i in (("sky", 1), ("tree", 4), ("car", 7))]),
        ),
    ],
)
def test_names_with_colours(tmp_path, tree, name, text):
    file = tmp_path / name
    file.write_text(text)
    found = classes.read(file)
    assert found == (["sky", "tree", "car"], [(1, 2, 3), (4, 5, 6), (7, 8, 9)])
    samples = opened(tree, class_names=str(file))
    assert (samples.classes, samples.numbered) == (("sky", "tree", "car"), False)
    assert opened(tree, "val", samples.classes).classes == samples.classes


def test_names_without_colours(tmp_path):
    file = tmp_path / "names.txt"
    for text in ("sky\ntree", "0 sky\n1 tree", '["sky", "tree"]', '{"0": "sky", "1": "tree"}'):
        file.write_text(text)
        assert classes.read(file) == (["sky", "tree"], None)


@pytest.mark.fault("class names", "clean error")
@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("c.csv", "name,r,g,b\nsky,1,2,3\ntree,4,5\n", "line 3: 3 cell(s), expected name,r,g,b"),
        ("c.csv", "sky,1,2,3\ntree,4,5,256\n", "line 2: expected a colour of three numbers from 0 to 255"),
        ("c.csv", "sky,1,2,3\nsky,4,5,6\n", "labels 0 and 1 have one name"),
        ("c.json", '{"sky": [1, 2, 300]}', "sky: expected a colour"),
        ("c.json", '[{"name": "sky"}]', "entry 1: expected a colour"),
    ],
)
def test_bad_files_of_names_and_colours(tmp_path, name, text, part):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        classes.read(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert part in str(caught.value)


@pytest.mark.fault("class names", "clean error")
def test_names_that_do_not_fit(tmp_path, tree):
    file = tmp_path / "c.txt"
    file.write_text("sky\ntree\n")
    assert "but there are 2 classes (0 to 1)" in refused(tree, class_names=str(file))
    assert "2 names, but num_classes is 5" in refused(tree, class_names=str(file), num_classes=5)


# --- Keys


@pytest.mark.fault("masks", "clean error")
@pytest.mark.parametrize(
    "keys",
    [
        {"auto_augment": "randaug"},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"re_prob": 0.1},
        {"crop_padding": 4},
        {"sampler": "balanced"},
        {"teacher": "ghostnet_100"},
        {"loss": "BCE"},
        {"dataset": "cifar10"},
        {"random_scale": (0.5, 9.0)},
    ],
)
def test_keys_of_other_tasks_are_refused(tree, keys):
    assert refused(tree, **keys).startswith(next(iter(keys)))


def test_doubts(tree):
    samples = opened(tree, num_classes=5)
    config = Config(task="segmentation", num_classes=5, ignore_index=1, scale=(0.5, 1.0))
    assert TASK.doubts(config, samples) == [
        "ignore_index 1 is the class 1, too: its pixels do not count",
        "no training mask has 2 of the 5 classes: 3, 4",
        "scale: not used by task segmentation; random_scale says how images are cropped",
    ]
    assert tasks.doubts(Config(ohem=0.5)) == ["ohem: only task segmentation reads it"]
    assert tasks.doubts(config.replace(ohem=0.5)) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("balanced", [400 / (3 * 300), 400 / (3 * 60), 400 / (3 * 40), 1]),
        ("median_frequency", [0.3 / 0.75, 1, 0.3 / 0.2, 1]),
        ("enet", [1 / np.log(1.02 + share) for share in (0.75, 0.15, 0.1)] + [1]),
    ],
)
def test_class_weights_from_pixels(tmp_path, name, expected, caplog):
    """200 pixels of 0 and 60, 40 of others in one image; 100 and 0 in the other one: by hand."""
    rows = [np.repeat([0, 1], [140, 60]), np.repeat([0, 2], [160, 40])]
    for index, row in enumerate(rows):
        mask = np.uint8(row.reshape(10, 20))
        save(tmp_path / "train" / "masks" / f"{index}.png", mask)
        save(tmp_path / "train" / "images" / f"{index}.png", np.zeros((10, 20, 3), np.uint8))
    samples = opened(tmp_path, num_classes=4)
    config = TASK.settled(Config(task="segmentation", num_classes=4, class_weights=name), samples)
    assert config.class_weights == pytest.approx(tuple(expected))
    assert TASK.settled(config, samples) == config
