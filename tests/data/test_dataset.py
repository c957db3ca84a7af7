"""Image folders and binary sets: classes, labels, and one line for what is wrong with them."""

from __future__ import annotations

import gzip
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mindghost.data import dataset
from mindghost.data.dataset import open_split
from mindghost.data.samples import ArraySamples
from mindghost.errors import UserError
from tests.helpers.data_folders import CLASSES, config_for, message_of
from tests.helpers.pictures import save_image


def test_classes_are_the_sorted_direct_subfolders(folder):
    samples = open_split(config_for(folder), "train")
    assert samples.classes == CLASSES
    assert len(samples) == 23
    assert samples.labels.dtype == np.int32
    assert samples.labels.tolist() == [index * 3 // 23 for index in range(23)]
    assert samples.read(5)[0, 0].tolist() == [5, 0, 7]
    assert samples.name(5) == str(folder / "train" / "ant" / "005.png")


@pytest.mark.fault("folders", "ok")
def test_odd_entries_are_ignored_and_never_opened(tmp_path, caplog):
    root = tmp_path / "train"
    save_image(root / "bee" / "x.PNG", 1)
    save_image(root / "bee" / "deep" / "er" / "y.jpeg", 2)
    save_image(root / "ant" / "z.png", 3)
    save_image(root / ".hidden" / "a.png", 4)
    save_image(root / "ant" / ".b.png", 5)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "README.txt").write_text("x")
    (root / "bee" / "notes.txt").write_text("x")
    os.mkfifo(root / "bee" / "pipe.jpg")
    (root / "bee" / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "bee" / "self.jpg").symlink_to(root / "bee" / "self.jpg")
    (root / "bee" / "loop").symlink_to(root / "bee")
    (root / "self").symlink_to(root / "self")
    save_image(tmp_path / "elsewhere" / "w.png", 6)
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    samples = open_split(config_for(tmp_path), "train")
    assert samples.classes == ("ant", "bee", "cat")
    names = [Path(samples.name(index)).name for index in range(len(samples))]
    assert names == ["z.png", "y.jpeg", "x.PNG", "w.png"]
    assert samples.labels.tolist() == [0, 1, 1, 2]
    assert "4 entries that are no regular files" in caplog.text


def test_empty_split_name_is_data_dir_itself(folder):
    assert len(open_split(config_for(folder / "train", train_split=""), "train")) == 23


@pytest.mark.fault("folders", "ok")
def test_validation_labels_follow_the_training_classes_by_name(folder):
    config = config_for(folder, val_split="val")
    samples = open_split(config, "val", classes=("zebra", "cat", "bee", "aardvark", "ant"))
    assert samples.classes == ("zebra", "cat", "bee", "aardvark", "ant")
    assert samples.labels.tolist() == [4, 4, 4, 2, 2, 1, 1]


def test_where_an_image_may_have_several_labels_class_folders_give_rows_with_one(folder):
    one = open_split(config_for(folder), "val", classes=("zebra", "cat", "bee", "ant"))
    rows = open_split(config_for(folder), "val", classes=("zebra", "cat", "bee", "ant"), several=True)
    assert rows.labels.dtype == np.float32
    np.testing.assert_array_equal(rows.labels, np.eye(4, dtype=np.float32)[one.labels])
    assert rows.labels[0].tolist() == [0, 0, 0, 1]
    assert len({one.digest(), rows.digest()}) == 2


def _missing_data_dir(root: Path) -> tuple[dict, str, Path]:
    return {"data_dir": str(root / "nowhere")}, "train", root / "nowhere" / "train"


def _missing_split(root: Path) -> tuple[dict, str, Path]:
    return {"val_split": "validation"}, "val", root / "validation"


def _no_class(root: Path) -> tuple[dict, str, Path]:
    (root / "train").mkdir()
    (root / "train" / "a.jpg").write_bytes(b"x")
    return {}, "train", root / "train"


def _empty_class(root: Path) -> tuple[dict, str, Path]:
    save_image(root / "train" / "ant" / "a.png", 1)
    (root / "train" / "bee").mkdir()
    (root / "train" / "bee" / "notes.txt").write_text("x")
    return {}, "train", root / "train" / "bee"


def _too_many_classes(root: Path) -> tuple[dict, str, Path]:
    for name in CLASSES:
        save_image(root / "train" / name / "a.png", 1)
    return {"num_classes": 2}, "train", root / "train"


@pytest.mark.fault("folders", "clean error")
@pytest.mark.parametrize("prepare", [_missing_data_dir, _missing_split, _no_class, _empty_class, _too_many_classes])
def test_folder_errors_name_the_path(tmp_path, prepare):
    keys, split, path = prepare(tmp_path)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path, **keys), split)
    message_of(caught, path)


@pytest.mark.fault("folders", "clean error")
def test_unknown_classes_are_refused_by_name(folder):
    with pytest.raises(UserError) as caught:
        open_split(config_for(folder), "val", classes=("ant", "cat"))
    message_of(caught, folder / "val", "bee")


@pytest.mark.fault("folders", "ok")
def test_absent_classes_are_one_line_in_the_log(folder, caplog):
    caplog.set_level("INFO", "mindghost")
    samples = open_split(config_for(folder), "val", classes=("ant", "bee", "cat", "dog"))
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'val'}: no image of {4 - len(set(samples.labels))} of the 4 classes: "
        + ", ".join(name for label, name in enumerate(samples.classes) if label not in samples.labels)
    ]


def test_imagenet_is_not_downloaded(folder):
    with pytest.raises(UserError, match=r"^dataset_download: "):
        open_split(config_for(folder, dataset_download=True), "train")


def write_cifar10(folder: Path, records: int = 3) -> np.ndarray:
    """Five training files and a test file; returns the test images (n, 3, 32, 32)."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (records, 3, 32, 32), dtype=np.uint8)
    rows = [bytes([(7 + i) % 10]) + image.tobytes() for i, image in enumerate(pixels)]
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(b"".join(rows))
    (folder / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n\n")
    return pixels


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
@pytest.mark.parametrize("usage", ["val", "test"])
def test_cifar10(tmp_path, below, usage):
    pixels = write_cifar10(tmp_path / below)
    config = config_for(tmp_path, dataset="cifar10", val_split=usage)
    train, val = open_split(config, "train"), open_split(config, "val")
    assert (len(train), len(val)) == (15, 3)
    assert val.classes[9] == "class9"
    assert val.labels.tolist() == [7, 8, 9]
    assert val.labels.dtype == np.int32
    np.testing.assert_array_equal(val.read(2), pixels[2].transpose(1, 2, 0))
    assert val.name(2) == f"cifar10 {usage} #2"


def test_cifar100_takes_the_fine_label(tmp_path):
    for name, label in (("train.bin", 42), ("test.bin", 99)):
        (tmp_path / name).write_bytes(bytes([3, label]) + bytes(3072))
    config = config_for(tmp_path, dataset="cifar100")
    assert open_split(config, "train").labels.tolist() == [42]
    samples = open_split(config, "val")
    assert samples.labels.tolist() == [99]
    assert samples.classes == tuple(map(str, range(100)))


def write_mnist(folder: Path, packed: bool) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        files = {
            f"{part}-images-idx3-ubyte": struct.pack(">4I", 0x803, 4, 28, 28) + pixels.tobytes(),
            f"{part}-labels-idx1-ubyte": struct.pack(">2I", 0x801, 4) + bytes([9, 0, 5, 1]),
        }
        for name, data in files.items():
            path = folder / (name + ".gz" if packed else name)
            path.write_bytes(gzip.compress(data) if packed else data)
    return pixels


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(tmp_path, packed):
    pixels = write_mnist(tmp_path, packed)
    samples = open_split(config_for(tmp_path, dataset="mnist"), "val")
    assert samples.labels.tolist() == [9, 0, 5, 1]
    assert samples.read(1).shape == (28, 28, 1)
    np.testing.assert_array_equal(samples.read(1)[..., 0], pixels[1])


def _damage(path: Path, change) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.fault("binary data sets", "clean error")
@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("cifar10", "test_batch.bin", lambda data: data[:-1]),
        ("cifar10", "test_batch.bin", lambda data: b""),
        ("cifar10", "test_batch.bin", lambda data: b"\x0a" + data[1:]),
        ("cifar10", "batches.meta.txt", lambda data: b"cat\ndog\n"),
        ("mnist", "t10k-images-idx3-ubyte", lambda data: data[:-5]),
        ("mnist", "t10k-images-idx3-ubyte", lambda data: b"\x89PNG" + data),
        ("mnist", "t10k-images-idx3-ubyte", lambda data: struct.pack(">4I", 0x803, 1 << 31, 1 << 31, 4)),
        ("mnist", "t10k-labels-idx1-ubyte", lambda data: data[:-1] + b"\x0a"),
        ("mnist", "t10k-labels-idx1-ubyte", lambda data: struct.pack(">2I", 0x801, 1) + b"\x01"),
    ],
)
def test_damaged_binary_files_are_named(tmp_path, kind, name, change):
    write_cifar10(tmp_path)
    write_mnist(tmp_path, packed=False)
    path = _damage(tmp_path / name, change)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path, dataset=kind), "val")
    message_of(caught, path)


@pytest.mark.fault("binary data sets", "clean error")
def test_damaged_gz_and_missing_files_are_named(tmp_path):
    write_mnist(tmp_path, packed=True)
    path = _damage(tmp_path / "t10k-images-idx3-ubyte.gz", lambda data: data[:-20])
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path, dataset="mnist"), "val")
    message_of(caught, path)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path, dataset="cifar10"), "train")
    message_of(caught, tmp_path / "data_batch_1.bin", "dataset_download")
    with pytest.raises(UserError, match=r"^val_split: 'night'"):
        open_split(config_for(tmp_path, dataset="mnist", val_split="night"), "val")


def test_the_digest_of_images_in_memory_is_that_of_classes_labels_and_pixels():
    def digest(classes=("a", "b"), labels=(0, 1), pixel=7) -> str:
        pixels = np.full((2, 2, 2, 1), 7, np.uint8)
        pixels[1, 1, 1] = pixel
        return ArraySamples(classes, np.array(labels, np.int32), "mnist train", pixels).digest()

    assert digest() == digest()
    assert len({digest(), digest(classes=("a", "c")), digest(labels=(1, 0)), digest(pixel=8)}) == 4


def test_some_images_are_spread_over_a_split_and_none_comes_twice(folder):
    def some(split: str, count: int) -> list[int]:
        return [int(image[0, 0, 0]) for image in dataset.some_images(config_for(folder), split, count)]

    assert some("val", 99) == list(range(7))
    assert some("val", 3) == [0, 3, 6]
    assert dataset.some_images(config_for(folder, val_split="none"), "val", 3) == []


def test_some_samples_have_every_column_of_theirs():
    pixels = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    samples = ArraySamples(
        ("a", "b"), np.array([0, 1, 1, 0], np.int32), "four", pixels, weights=np.array([1, 2, 3, 4], np.float32)
    )
    some = samples.take(np.array([3, 1]))
    assert list(some.labels) == [0, 1]
    assert list(some.weights) == [4, 2]
    assert np.array_equal(some.read(0), pixels[3])
    assert len({samples.digest(), some.digest(), replace(samples, weights=None).digest()}) == 3
