"""Datasets and loaders: real small files, every sample once, batches that only seed and epoch decide."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from mindcv.data.distributed_sampler import RepeatAugSampler
from mindspore.dataset import vision
from PIL import Image

from ghostnet.config import Config
from ghostnet.data import dataset, images
from ghostnet.data.dataset import open_split
from ghostnet.data.images import read_image
from ghostnet.data.loader import EpochOrder, eval_batches, train_batches, user_error_from
from ghostnet.errors import UserError

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    # Two workers even where the tests are confined to one core.
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def save_image(path: Path, value: int, size: tuple[int, int] = (12, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, value // 256, 7)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """data_dir with 23 training, 7 validation images; the red channel of each is its index in the split."""
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 23), ("val", 7)):
        for index in range(count):
            name = CLASSES[index * len(CLASSES) // count]
            save_image(root / split / name / f"{index:03}.png", index)
    return root


def config_for(root: Path, **keys) -> Config:
    plain = {"hflip": 0.0, "color_jitter": None, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "image_resize": 8}
    as_read = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "crop_pct": 1.0}
    defaults = {"data_dir": str(root), "batch_size": 4, "num_parallel_workers": 1}
    return Config(**{**plain, **as_read, **defaults, **keys})


def indices(batch: np.ndarray) -> list[int]:
    """Which images of ``folder`` a batch holds."""
    return batch[:, 0, 0, 0].astype(int).tolist()


def epochs(batches, count: int = 1) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    iterator = batches.create_tuple_iterator(num_epochs=count, output_numpy=True)
    return [[(image.copy(), label.copy()) for image, label in iterator] for _ in range(count)]


def message_of(caught: pytest.ExceptionInfo, *parts: object) -> str:
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


# --- Image files


GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def _palette(transparency: bytes | None) -> Image.Image:
    image = Image.fromarray((GREY // 2).astype(np.uint8), "P")
    image.putpalette([value for i in range(256) for value in (i * 2 % 256, 255 - i * 2 % 256, i)])
    if transparency:
        image.info["transparency"] = transparency
    return image


def _with_alpha(mode: str, pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels).convert(mode)
    image.putalpha(Image.fromarray(GREY))
    return image


GREY_RGB = GREY[..., None].repeat(3, 2)
FORMATS = {
    "rgb.png": (Image.fromarray(COLOUR), COLOUR),
    "rgb.bmp": (Image.fromarray(COLOUR), COLOUR),
    "rgb.ppm": (Image.fromarray(COLOUR), COLOUR),
    "rgb.tiff": (Image.fromarray(COLOUR), COLOUR),
    "grey.png": (Image.fromarray(GREY), GREY_RGB),
    "grey.gif": (Image.fromarray(GREY), GREY_RGB),
    "grey_alpha.png": (_with_alpha("L", GREY), GREY_RGB),
    "rgb_alpha.png": (_with_alpha("RGB", COLOUR), COLOUR),
    "palette.png": (_palette(None), COLOUR),
    "palette_transparent.png": (_palette(bytes(range(200))), COLOUR),
    "bilevel.png": (Image.fromarray(GREY > 100), np.where(GREY_RGB > 100, 255, 0)),
    "grey16.png": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY_RGB),
    "grey16.tif": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY_RGB),
    "grey32.tif": (Image.fromarray(GREY.astype(np.int32) * 257), GREY_RGB),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FORMATS)
def test_formats_become_rgb(tmp_path, name):
    image, wanted = FORMATS[name]
    image.save(tmp_path / name)
    found = read_image(str(tmp_path / name))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("mode", "tolerance"), [("RGB", 0), ("L", 0), ("CMYK", 2)])
def test_jpeg_pixels_are_those_of_mindspore(tmp_path, mode, tolerance):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).resize((120, 100)).convert(mode).save(path, quality=85)
    theirs = vision.Decode()(np.fromfile(path, np.uint8))
    np.testing.assert_allclose(read_image(str(path)).astype(int), theirs, atol=tolerance)


def test_lossy_webp_is_read(tmp_path):
    path = tmp_path / "a.webp"
    Image.fromarray(COLOUR).save(path, lossless=True)
    np.testing.assert_array_equal(read_image(str(path)), COLOUR)


def test_16_bits_are_scaled_by_rounding(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 128, 129, 257, 65535]], np.uint16)).save(path)
    assert read_image(str(path))[0, :, 0].tolist() == [0, 0, 1, 1, 255]


def test_exif_rotation_is_left_alone(tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(path, exif=exif)
    assert read_image(str(path)).shape == (10, 12, 3)


def _broken(kind: str) -> bytes:
    if not kind.startswith("cut"):
        return {"empty": b"", "text": b"<html>not an image</html>", "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}[kind]
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind.removeprefix("cut "))
    return buffer.getvalue()[: buffer.tell() * 6 // 10]


@pytest.mark.parametrize("kind", ["empty", "text", "eps", "cut JPEG", "cut PNG"])
def test_damaged_images_are_found_before_the_first_epoch(tmp_path, kind):
    for split in ("train", "val"):
        save_image(tmp_path / split / "ant" / "good.png", 1)
    bad = tmp_path / "train" / "ant" / "bad.jpg"
    bad.write_bytes(_broken(kind))
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path), "train")
    message_of(caught, bad)


@pytest.mark.parametrize("values", [np.array([[0, 70_000]], np.int32), np.array([[0.5, 1.5]], np.float32)])
def test_pixels_without_an_8_bit_meaning_are_refused(tmp_path, values):
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(UserError) as caught:
        read_image(str(path))
    message_of(caught, path, "8 or 16 bits")


@pytest.mark.filterwarnings("ignore")
def test_huge_images_are_refused_by_their_header(tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", (10_000, 10_000)).save(path)
    with pytest.raises(UserError) as caught:
        images.check_image(str(path), decode=False)
    message_of(caught, path, "10000 x 10000")


def test_large_sets_have_only_their_headers_checked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "FULL_CHECK_LIMIT", 1)
    for value in range(2):
        save_image(tmp_path / "train" / "ant" / f"{value}.png", value)
    (tmp_path / "train" / "ant" / "cut.png").write_bytes(_broken("cut PNG"))
    assert len(open_split(config_for(tmp_path), "train")) == 3
    (tmp_path / "train" / "ant" / "text.png").write_bytes(_broken("text"))
    with pytest.raises(UserError, match=r"text\.png"):
        open_split(config_for(tmp_path), "train")


# --- Folders


def test_classes_are_the_sorted_direct_subfolders(folder):
    samples = open_split(config_for(folder), "train")
    assert samples.classes == CLASSES
    assert len(samples) == 23
    assert samples.labels.dtype == np.int32
    assert samples.labels.tolist() == [index * 3 // 23 for index in range(23)]
    assert samples.read(5)[0, 0].tolist() == [5, 0, 7]
    assert samples.name(5) == str(folder / "train" / "ant" / "005.png")


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


def test_validation_labels_follow_the_training_classes_by_name(folder):
    config = config_for(folder, val_split="val")
    samples = open_split(config, "val", classes=("zebra", "cat", "bee", "aardvark", "ant"))
    assert samples.classes == ("zebra", "cat", "bee", "aardvark", "ant")
    assert samples.labels.tolist() == [4, 4, 4, 2, 2, 1, 1]


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


@pytest.mark.parametrize("prepare", [_missing_data_dir, _missing_split, _no_class, _empty_class, _too_many_classes])
def test_folder_errors_name_the_path(tmp_path, prepare):
    keys, split, path = prepare(tmp_path)
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path, **keys), split)
    message_of(caught, path)


def test_unknown_classes_are_refused_by_name(folder):
    with pytest.raises(UserError) as caught:
        open_split(config_for(folder), "val", classes=("ant", "cat"))
    message_of(caught, folder / "val", "bee")


def test_absent_classes_are_one_line_in_the_log(folder, caplog):
    caplog.set_level("INFO", "ghostnet")
    samples = open_split(config_for(folder), "val", classes=("ant", "bee", "cat", "dog"))
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'val'}: no image of {4 - len(set(samples.labels))} of the 4 classes: "
        + ", ".join(name for label, name in enumerate(samples.classes) if label not in samples.labels)
    ]


def test_imagenet_is_not_downloaded(folder):
    with pytest.raises(UserError, match=r"^dataset_download: "):
        open_split(config_for(folder, dataset_download=True), "train")


# --- Binary forms


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


# --- Training batches: order


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_once_an_epoch_over_all_ranks(folder, ranks, shuffle):
    config = config_for(folder, batch_size=2, drop_remainder=False, shuffle=shuffle)
    orders = [EpochOrder(config, 23, rank, ranks) for rank in range(ranks)]
    assert len({order.steps for order in orders}) == 1
    for epoch in range(3):
        found = np.concatenate([order.epoch(epoch)[0] for order in orders])
        assert len(set(found)) == len(found) == 23 - 23 % ranks
    if shuffle:
        assert (orders[0].epoch(0)[0] != orders[0].epoch(1)[0]).any()
    else:
        assert orders[0].epoch(0)[0].tolist() == list(range(0, 23 - 23 % ranks, ranks))


def test_the_order_over_ranks_is_that_of_one_rank(folder):
    config = config_for(folder, batch_size=1)
    one = EpochOrder(config, 23, 0, 1).epoch(4)[0]
    two = [EpochOrder(config, 23, rank, 2).epoch(4)[0] for rank in range(2)]
    np.testing.assert_array_equal(np.stack(two, axis=1).ravel(), one[:22])
    assert (one != EpochOrder(config.replace(seed=1), 23, 0, 1).epoch(4)[0]).any()


@pytest.mark.parametrize(("ranks", "repeats"), [(1, 3), (2, 3), (3, 2), (4, 3)])
def test_repeated_augmentation_selects_as_mindcv(folder, ranks, repeats):
    config = config_for(folder, batch_size=1, aug_repeats=repeats, shuffle=False)
    for rank in range(ranks):
        order = EpochOrder(config, 23, rank, ranks)
        theirs = RepeatAugSampler(23, ranks, rank, shuffle=False, num_repeats=repeats, selected_round=0)
        assert order.epoch(0)[0].tolist() == list(theirs)
        assert len(order) == len(theirs)
    shuffled = config.replace(shuffle=True)
    epochs = [EpochOrder(shuffled, 23, rank, ranks).epoch(5) for rank in range(ranks)]
    seen = [pair for found in epochs for pair in zip(*(column.tolist() for column in found), strict=True)]
    assert len(set(seen)) == len(seen), "no copy may be augmented like another"
    assert max(Counter(index for index, _ in seen).values()) <= repeats


def test_num_samples_takes_a_subset(folder):
    config = config_for(folder, batch_size=2, num_samples=10)
    order = EpochOrder(config, 23, 0, 1)
    assert len(order) == 10
    subsets = [set(order.epoch(epoch)[0]) for epoch in range(3)]
    assert subsets[0] != subsets[1]
    assert all(len(subset) == 10 for subset in subsets)
    first = EpochOrder(config.replace(shuffle=False), 23, 0, 1)
    assert first.epoch(1)[0].tolist() == list(range(10))
    assert len(EpochOrder(config.replace(num_samples=99), 23, 0, 1)) == 22


@pytest.mark.parametrize(
    ("keys", "steps", "count"),
    [
        ({}, 5, 20),
        ({"drop_remainder": False}, 6, 23),
        ({"gradient_accumulation_steps": 2}, 4, 16),
        ({"gradient_accumulation_steps": 3, "drop_remainder": False}, 3, 12),
    ],
)
def test_steps_are_whole_updates(folder, keys, steps, count):
    order = EpochOrder(config_for(folder, **keys), 23, 0, 1)
    assert (order.steps, len(order)) == (steps, count)


def test_too_few_samples_are_refused(folder):
    samples = open_split(config_for(folder), "train")
    with pytest.raises(UserError) as caught:
        train_batches(config_for(folder, batch_size=24), samples, 3)
    message_of(caught, "batch_size: 24", "23 training samples")
    with pytest.raises(UserError) as caught:
        train_batches(config_for(folder, gradient_accumulation_steps=6), samples, 3)
    message_of(caught, "gradient_accumulation_steps: 6", "23 training samples")


# --- Training batches: content


AUGMENTED = {
    "scale": (0.2, 1.0),
    "ratio": (0.75, 1.333),
    "hflip": 0.5,
    "auto_augment": "randaug-m9-mstd0.5",
    "re_prob": 0.5,
    "re_value": "random",
    "mixup": 0.3,
    "cutmix": 1.0,
    "drop_remainder": False,
}


def test_batches_have_the_promised_form(folder):
    config = config_for(folder, drop_remainder=False)
    batches = train_batches(config, open_split(config, "train"), 3)
    assert batches.get_dataset_size() == 6
    assert batches.get_col_names() == ["image", "label"]
    (epoch,) = epochs(batches)
    assert [len(label) for _, label in epoch] == [4, 4, 4, 4, 4, 3]
    image, label = epoch[0]
    assert (image.dtype, image.shape) == (np.float32, (4, 3, 8, 8))
    assert (label.dtype, label.shape) == (np.int32, (4,))
    assert sorted(index for image, _ in epoch for index in indices(image)) == list(range(23))
    for image, label in epoch:
        assert label.tolist() == [index * 3 // 23 for index in indices(image)]


def test_mixed_batches_have_soft_labels(folder):
    config = config_for(folder, mixup=0.5, drop_remainder=False, batch_size=5)
    (epoch,) = epochs(train_batches(config, open_split(config, "train"), 7))
    assert [label.shape for _, label in epoch] == [(5, 7)] * 4 + [(3, 7)]
    assert all(label.dtype == np.float32 for _, label in epoch)
    np.testing.assert_allclose(np.concatenate([label for _, label in epoch]).sum(axis=1), 1, atol=1e-6)


def test_single_samples_are_never_mixed(folder):
    config = config_for(folder, mixup=0.5, batch_size=1)
    (epoch,) = epochs(train_batches(config, open_split(config, "train"), 7))
    assert epoch[0][1].shape == (1,)


def assert_equal_epochs(found, wanted) -> None:
    assert [len(epoch) for epoch in found] == [len(epoch) for epoch in wanted]
    for found_epoch, wanted_epoch in zip(found, wanted, strict=True):
        for found_batch, wanted_batch in zip(found_epoch, wanted_epoch, strict=True):
            np.testing.assert_array_equal(found_batch[0], wanted_batch[0])
            np.testing.assert_array_equal(found_batch[1], wanted_batch[1])


@pytest.mark.parametrize("keys", [{}, {"aug_repeats": 3}])
def test_batches_depend_on_seed_and_epoch_alone(folder, keys):
    config = config_for(folder, **AUGMENTED, **keys)
    samples = open_split(config, "train")
    wanted = epochs(train_batches(config, samples, 3), 3)
    two_workers = train_batches(config.replace(num_parallel_workers=2), samples, 3)
    assert_equal_epochs(epochs(two_workers, 3), wanted)
    for workers in (1, 2):
        resumed = train_batches(config.replace(num_parallel_workers=workers), samples, 3, start_epoch=1, start_step=3)
        assert resumed.get_dataset_size() == len(wanted[1])
        assert_equal_epochs(epochs(resumed, 2), [wanted[1][3:], wanted[2]])
    assert (wanted[0][0][0] != wanted[1][0][0]).any()
    other = epochs(train_batches(config.replace(seed=7), samples, 3))
    assert (wanted[0][0][0] != other[0][0][0]).any()


def test_resuming_reads_nothing_that_it_skips(folder):
    config = config_for(folder)
    samples = open_split(config, "train")
    read: list[int] = []

    class Recording(type(samples)):
        def read(self, index: int) -> np.ndarray:
            read.append(index)
            return super().read(index)

    recording = Recording(samples.classes, samples.labels, samples.root, samples.files)
    (epoch,) = epochs(train_batches(config, recording, 3, start_epoch=400, start_step=3))
    assert len(epoch) == 2
    assert sorted(read) == sorted(indices(epoch[0][0]) + indices(epoch[1][0]))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_damaged_while_training_is_named(folder, tmp_path, workers):
    for value in range(8):
        save_image(tmp_path / "train" / "ant" / f"{value}.png", value)
    config = config_for(tmp_path, num_parallel_workers=workers)
    samples = open_split(config, "train")
    bad = tmp_path / "train" / "ant" / "3.png"
    bad.write_bytes(b"x")
    with pytest.raises(RuntimeError) as caught:
        epochs(train_batches(config, samples, 1))
    error = user_error_from(caught.value)
    assert str(error).startswith(f"{bad}: not a readable image")
    assert "\n" not in str(error)


def test_other_exceptions_are_no_user_errors():
    assert user_error_from(RuntimeError("ValueError: x")) is None
    known = UserError("x")
    assert user_error_from(known) is known


def test_more_workers_than_cores_are_cut_down_with_one_line(folder, caplog):
    caplog.set_level("INFO", "ghostnet")
    config = config_for(folder, num_parallel_workers=64)
    epochs(train_batches(config, open_split(config, "train"), 3))
    assert [r.getMessage() for r in caplog.records] == [
        "num_parallel_workers: 64 cut down to the 2 core(s) that there are"
    ]


def test_small_shared_memory_means_fewer_workers(folder, caplog, monkeypatch):
    caplog.set_level("INFO", "ghostnet")
    config = config_for(folder, num_parallel_workers=2)
    batch_bytes = 4 * 4 * 3 * 8 * 8
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 7 * batch_bytes))
    batches = train_batches(config, open_split(config, "train"), 3)
    assert batches.num_parallel_workers == 1
    assert "/dev/shm: 0 MB free, enough for 1 worker(s)" in caplog.text


QUIET = """
import sys, time
import ghostnet
import psutil
from ghostnet.config import Config
from ghostnet.data.dataset import open_split
from ghostnet.data.loader import eval_batches, train_batches
import mindspore
import numpy as np
if __name__ == "__main__":
    config = Config(data_dir=sys.argv[1], batch_size=4, image_resize=32, num_parallel_workers=2)
    samples = open_split(config, "train")
    network = mindspore.nn.Conv2d(3, 8, 3)
    network(mindspore.Tensor(np.ones((2, 3, 64, 64), np.float32)))  # starts its threads
    iterator = train_batches(config, samples, 3).create_tuple_iterator(num_epochs=3)
    for _ in range(2):
        assert sum(1 for _ in iterator) == 5
        assert sum(len(labels) for _, labels in eval_batches(config, samples)) == 23
    next(iterator)
    # These workers are forked after the evaluation's threads used the same operators.
    late = train_batches(config, samples, 3).create_tuple_iterator(num_epochs=1)
    assert sum(1 for _ in late) == 5
    if sys.argv[2] == "drop":
        del iterator, late
        assert not psutil.Process().children(recursive=True)
    print("done")
"""


@pytest.mark.parametrize("end", ["drop", "exit"])
def test_workers_are_silent_and_leave_nothing_behind(folder, end, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(QUIET)
    environment = {**os.environ, "PYTHONPATH": str(Path(dataset.__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "done", "")
    deadline = time.monotonic() + 10
    while (left := _session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def _session(leader: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == leader:
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


# --- Evaluation batches


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_evaluation_sees_every_sample_once(folder, ranks, shuffle):
    config = config_for(folder, eval_shuffle=shuffle)
    samples = open_split(config, "train")
    seen = []
    for rank in range(ranks):
        batches = eval_batches(config, samples, rank, ranks)
        found = list(batches)
        assert len(batches) == len(found)
        assert all(len(labels) == 4 for _, labels in found[:-1])
        for image, label in found:
            assert (image.dtype, image.shape[1:], label.dtype) == (np.float32, (3, 8, 8), np.int32)
            assert label.tolist() == [index * 3 // 23 for index in indices(image)]
            seen += indices(image)
    assert sorted(seen) == list(range(23))
    if ranks == 1:
        assert (seen == sorted(seen)) is not shuffle


def test_evaluation_is_repeatable_and_ends_its_threads(folder):
    config = config_for(folder, num_parallel_workers=2)
    batches = eval_batches(config, open_split(config, "val"))
    before = threading.active_count()
    first, second = list(batches), list(batches)
    assert_equal_epochs([second], [first])
    for image, _ in batches:  # left in the middle
        assert len(image) == 4
        break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_an_image_damaged_before_evaluation_is_named(tmp_path):
    save_image(tmp_path / "val" / "ant" / "0.png", 1)
    config = config_for(tmp_path)
    samples = open_split(config, "val")
    (tmp_path / "val" / "ant" / "0.png").unlink()
    with pytest.raises(UserError) as caught:
        list(eval_batches(config, samples))
    message_of(caught, tmp_path / "val" / "ant" / "0.png")


def test_a_link_to_the_split_itself_brings_no_wrong_labels(folder):
    before = open_split(config_for(folder), "train")
    links = {folder / "train" / "ant" / "up": "..", folder / "train" / "bee" / "top": folder}
    for link, target in links.items():
        link.symlink_to(target)
    after = open_split(config_for(folder), "train")
    for link in links:
        link.unlink()
    assert [after.name(i) for i in range(len(after))] == [before.name(i) for i in range(len(before))]


def test_pixels_without_an_8_bit_meaning_are_found_before_the_first_epoch(folder):
    path = folder / "train" / "ant" / "float.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(UserError, match="floating-point pixels") as caught:
        open_split(config_for(folder), "train")
    path.unlink()
    assert str(path) in str(caught.value)


def test_accumulation_takes_full_batches_only(folder):
    count = len(open_split(config_for(folder), "train"))
    options = {"batch_size": count - 1, "drop_remainder": False}
    assert EpochOrder(config_for(folder, **options), count, 0, 1).steps == 2
    with pytest.raises(UserError, match="gradient_accumulation_steps"):
        EpochOrder(config_for(folder, **options, gradient_accumulation_steps=2), count, 0, 1)
