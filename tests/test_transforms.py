"""Transforms and mixing: hand-computed values, mindcv's pixels and labels, draws that their seed decides."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from mindcv.data import create_transforms
from mindcv.data.mixup import Mixup
from mindspore.dataset import vision
from PIL import Image

from ghostnet.config import Config
from ghostnet.data import mix, transforms
from ghostnet.data.images import read_image
from ghostnet.data.operations import (
    ColorJitter,
    PaddedCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
)
from ghostnet.data.transforms import as_rgb, eval_transform, train_transform
from ghostnet.errors import UserError

POLICIES = [
    "randaug-m9-mstd0.5",
    "randaug-m9-n3-w0-mstd0.5-mmax10-inc1",
    "autoaug",
    "autoaugr-mstd0.5",
    "3a-mstd0.5",
    "augmix-m5-w4-d2",
    "trivialaugwide-m20",
]


def photo(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    """A smooth colour image: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- Evaluation


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic", "area"])
@pytest.mark.parametrize(("height", "width"), [(60, 90), (301, 200), (64, 64), (54, 80), (90, 54)])
def test_evaluation_pixels_equal_mindcv(tmp_path, interpolation, height, width):
    path = tmp_path / "photo.jpg"
    Image.fromarray(photo(height, width)).save(path, quality=90)
    keys = {"image_resize": 48, "crop_pct": 0.875, "interpolation": interpolation}
    wanted = np.fromfile(path, np.uint8)
    for operator in create_transforms("imagenet", is_training=False, **keys):
        wanted = operator(wanted)
    found = eval_transform(Config(**keys))(as_rgb(read_image(str(path)), 3))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("dataset", "shape"), [("cifar10", (32, 32, 3)), ("mnist", (28, 28, 1))])
def test_presets_equal_mindcv(dataset, shape):
    image = rng().integers(0, 256, shape, dtype=np.uint8)
    wanted = image
    for operator in create_transforms(dataset, image_resize=40, is_training=False):
        wanted = operator(wanted)
    channels = shape[2]
    config = Config(dataset=dataset, image_resize=40, in_channels=channels)
    np.testing.assert_array_equal(eval_transform(config)(as_rgb(image, channels)), wanted)


def test_mnist_for_a_colour_network_repeats_the_channel():
    image = rng().integers(0, 256, (28, 28, 1), dtype=np.uint8)
    found = eval_transform(Config(dataset="mnist", image_resize=32))(as_rgb(image, 3))
    assert found.shape == (3, 32, 32)
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()


def test_grayscale_input_is_pillows_luminance():
    image = photo(32, 32)
    config = Config(in_channels=1, image_resize=32, crop_pct=1.0, mean=(10.0,), std=(2.0,))
    luminance = np.asarray(Image.fromarray(image).convert("L")).astype(np.float32)
    np.testing.assert_array_equal(eval_transform(config)(as_rgb(image, 1))[0], (luminance - 10) / 2)


def test_grayscale_weights_rgb_mean_and_std_as_luminance():
    config = Config(in_channels=1, image_resize=32, crop_pct=1.0, mean=(100.0, 50.0, 10.0), std=(1.0, 1.0, 1.0))
    found = eval_transform(config)(as_rgb(np.full((32, 32, 3), 200, np.uint8), 1))
    assert found.shape == (1, 32, 32)
    assert found[0, 0, 0] == pytest.approx(200 - (29.9 + 29.35 + 1.14), abs=1e-4)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"in_channels": 2}, "in_channels"),
        ({"mean": (1.0,), "std": (1.0,)}, "mean"),
        ({"re_prob": 1.0, "re_value": (1.0, 2.0, 3.0), "in_channels": 1}, "re_value"),
    ],
)
def test_values_that_fit_no_image_are_refused(keys, key):
    with pytest.raises(UserError, match=f"^{key}: ") as caught:
        train_transform(Config(**keys))
    assert "\n" not in str(caught.value)


# --- Training


def test_crop_box_has_the_drawn_area_and_aspect_ratio():
    crop = RandomResizedCrop((8, 8), (0.2, 0.3), (0.75, 1.333), vision.Inter.BILINEAR)
    for seed in range(200):
        top, left, height, width = crop.box(300, 400, rng(seed))
        assert 0.19 < height * width / 120_000 < 0.31
        assert 0.74 < width / height < 1.35
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width


@pytest.mark.parametrize(("height", "width", "box"), [(10, 1000, (0, 490, 10, 20)), (1000, 10, (490, 0, 20, 10))])
def test_crop_box_falls_back_to_the_centre(height, width, box):
    # All of an extreme image never fits an aspect ratio of 1/2 to 2.
    crop = RandomResizedCrop((8, 8), (1.0, 1.0), (0.5, 2.0), vision.Inter.BILINEAR)
    assert crop.box(height, width, rng()) == box


def test_whole_image_crop_is_a_plain_resize():
    image = photo(40, 40)
    crop = RandomResizedCrop((24, 24), (1.0, 1.0), (1.0, 1.0), vision.Inter.BILINEAR)
    np.testing.assert_array_equal(crop(image, rng()), vision.Resize((24, 24))(image))


def test_padded_crop_shifts_by_at_most_the_padding():
    image = photo(32, 32) // 2 + 1  # no black pixel: black is padding
    seen = set()
    for seed in range(300):
        crop = PaddedCrop((32, 32), 4)(image, rng(seed))
        filled = (crop > 0).all(axis=2)
        seen.add((int(filled.any(axis=1).sum()), int(filled.any(axis=0).sum())))
    assert {size for sizes in seen for size in sizes} == {28, 29, 30, 31, 32}


@pytest.mark.parametrize("shape", [(32, 32), (48, 60)])
def test_crop_padding_shifts_the_centre_and_leaves_its_scale(shape):
    image = photo(*shape) // 2 + 1
    config = Config(image_resize=32, crop_pct=1.0, crop_padding=3, hflip=0.0, color_jitter=None)
    whole, black = (eval_transform(config)(each) for each in (image, np.zeros((32, 32, 3), np.uint8)))
    padded = np.tile(black[:, :1, :1], (1, 38, 38))
    padded[:, 3:35, 3:35] = whole
    places = {(top, left): padded[:, top : top + 32, left : left + 32] for top in range(7) for left in range(7)}
    transform, seen = train_transform(config), set()
    for seed in range(300):
        found = transform(image, rng(seed))
        [place] = [place for place, wanted in places.items() if np.array_equal(found, wanted)]
        seen.add(place)
    assert len(seen) > 40


def test_flips_mirror_with_their_probability():
    image = photo()
    np.testing.assert_array_equal(RandomFlip(1, 1.0)(image, rng()), image[:, ::-1])
    np.testing.assert_array_equal(RandomFlip(0, 1.0)(image, rng()), image[::-1])
    flipped = sum((RandomFlip(1, 0.3)(image, rng(seed)) != image).any() for seed in range(300))
    assert 60 < flipped < 120


def test_colour_jitter_factors_stay_within_their_range():
    image = np.full((4, 4, 3), 100, np.uint8)
    values = [int(ColorJitter(0.4, 0.0, 0.0)(image, rng(seed))[0, 0, 0]) for seed in range(200)]
    assert 60 <= min(values) < 70
    assert 130 < max(values) <= 140


def test_colour_jitter_without_strength_changes_nothing():
    image = photo()
    assert ColorJitter(0.0, 0.0, 0.0)(image, rng()) is image


@pytest.mark.parametrize("value", [7, (1.0, 2.0, 3.0), "random"])
def test_erasing_fills_one_box(value):
    for seed in range(50):
        image = np.full((3, 40, 50), 99.0, np.float32)
        found = RandomErasing(1.0, (0.1, 0.2), (0.5, 2.0), value, 10)(image, rng(seed))
        erased = found != 99
        rows, columns = erased[0].any(axis=1).sum(), erased[0].any(axis=0).sum()
        assert (erased == erased[:1]).all()
        assert erased[0].sum() == rows * columns
        assert 0.08 < rows * columns / 2000 < 0.22
        if value == "random":
            assert np.abs(found[erased]).max() < 7
            assert len(np.unique(found[erased])) > rows * columns
        else:
            np.testing.assert_array_equal(found[:, erased[0]][:, 0], np.broadcast_to(value, 3))


def test_erasing_gives_up_after_its_attempts():
    image = np.ones((3, 8, 8), np.float32)
    assert (RandomErasing(1.0, (1.0, 1.0), (1.0, 1.0), 0, 10)(image, rng()) == 1).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_depend_on_the_generator_alone(policy):
    config = Config(auto_augment=policy, image_resize=32)
    image, transform = photo(), train_transform(config)
    random.seed(1)
    np.random.seed(1)
    first = [transform(image, rng(seed)) for seed in range(8)]
    after = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    assert after == (random.random(), np.random.rand()), "the global generators must be left as they were"
    for seed in reversed(range(8)):
        np.testing.assert_array_equal(transform(image, rng(seed)), first[seed])
    assert any((first[seed] != first[0]).any() for seed in range(1, 8))
    assert first[0].shape == (3, 32, 32)
    assert first[0].dtype == np.float32


@pytest.mark.parametrize("dataset", ["cifar10", "mnist"])
def test_presets_train_with_policy_and_erasing(dataset):
    config = Config(dataset=dataset, image_resize=48, auto_augment="randaug-m9", re_prob=1.0, re_value=5)
    image = rng().integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = train_transform(config)(image, rng(3))
    assert found.shape == (3, 48, 48)
    assert (found == 5).any()


def test_mean_is_the_policys_fill_for_grayscale():
    config = Config(in_channels=1, image_resize=32, auto_augment="randaug-m9", mean=(120.0,), std=(60.0,))
    transform = train_transform(config)
    for seed in range(20):
        assert transform(as_rgb(photo(), 1), rng(seed)).shape == (1, 32, 32)


# --- Mixup and cutmix


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    return rng().normal(size=(size, 3, 10, 12)).astype(np.float32), np.arange(size, dtype=np.int32) % 4


def test_blend_and_labels_by_hand():
    images = np.array([10.0, 20.0, 30.0], np.float32).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(mix.blend(images, 0.75).ravel(), [15, 20, 25])
    labels = mix.soft_labels(np.array([0, 1, 2]), 3, 0.75)
    np.testing.assert_allclose(labels, [[0.75, 0, 0.25], [0, 1, 0], [0.25, 0, 0.75]])


def test_pasted_box_by_hand():
    images = np.stack([np.full((1, 4, 5), value, np.float32) for value in (1, 2)])
    mixed, lam = mix.paste_box(images, (slice(1, 3), slice(2, 5)))
    assert lam == pytest.approx(1 - 6 / 20)
    assert mixed[0].sum() == 14 * 1 + 6 * 2
    assert (mixed[0, 0, 1:3, 2:] == 2).all()
    assert (images[0] == 1).all()


def test_cut_box_is_clipped_at_the_borders():
    for seed in range(100):
        rows, columns = mix.cut_box(10, 12, 0.3, rng(seed))
        assert 0 <= rows.start < rows.stop <= 10
        assert 0 <= columns.start < columns.stop <= 12
        assert rows.stop - rows.start <= int(10 * math.sqrt(0.7))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0)])
def test_mixing_equals_mindcv_for_the_same_draws(monkeypatch, mixup, cutmix):
    images, labels = batch(6)
    draws = rng(5)
    assert draws.random() < 1.0  # mix at all
    lam = float(draws.beta(mixup or cutmix, mixup or cutmix))
    centres = iter([int(draws.integers(10)), int(draws.integers(12))])
    theirs = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=4)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (lam, cutmix > 0))
    monkeypatch.setattr(np.random, "randint", lambda *args, **kwargs: next(centres))
    wanted_images, wanted_labels = theirs(images.copy(), labels)
    keys = {"num_classes": 4, "mixup": mixup, "cutmix": cutmix, "probability": 1.0}
    found_images, found_labels = mix.mix_batch(images, labels, rng(5), **keys)
    np.testing.assert_allclose(found_images, wanted_images, atol=1e-6)
    np.testing.assert_allclose(found_labels, wanted_labels, atol=1e-6)
    assert found_images.dtype == found_labels.dtype == np.float32


def test_both_on_switches_between_them():
    images, labels = batch(5)
    keys = {"num_classes": 4, "mixup": 1.0, "cutmix": 1.0, "probability": 1.0}
    pasted = 0
    for seed in range(100):
        mixed, soft = mix.mix_batch(images, labels, rng(seed), **keys)
        pasted += np.isin(mixed[0], [images[0], images[4]]).all()
        np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    assert 30 < pasted < 70


def test_probability_leaves_batches_unmixed():
    images, labels = batch(3)
    keys = {"num_classes": 4, "mixup": 1.0, "cutmix": 0.0, "probability": 0.4}
    mixed = [mix.mix_batch(images, labels, rng(seed), **keys) for seed in range(200)]
    untouched = [soft for found, soft in mixed if found is images]
    assert 90 < len(untouched) < 150
    np.testing.assert_array_equal(untouched[0], np.eye(4)[labels])


@pytest.mark.parametrize(("shape", "resized"), [((40, 100), (40, 100)), ((100, 40), (150, 60)), ((80, 120), (40, 60))])
def test_images_that_are_not_square_are_covered_and_cropped(shape, resized):
    """image_resize [32, 48] with crop_pct 0.8: the image covers 40 x 60, of which 32 x 48 stay."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    config = Config(image_resize=(32, 48), crop_pct=0.8)
    found = transforms.eval_transform(config)(pixels)
    whole = vision.Resize(resized, vision.Inter.BILINEAR)(pixels)
    top, left = (resized[0] - 32) // 2, (resized[1] - 48) // 2
    cut = whole[top : top + 32, left : left + 48].astype(np.float32).transpose(2, 0, 1)
    expected = (cut - np.float32(config.mean)[:, None, None]) / np.float32(config.std)[:, None, None]
    np.testing.assert_array_equal(found, expected)
    trained = transforms.train_transform(config)(pixels, np.random.default_rng(0))
    assert trained.shape == (3, 32, 48)


def test_an_image_size_of_two_equal_numbers_is_one():
    assert Config(image_resize=(64, 64)).image_resize == 64
    assert transforms.input_size(Config(image_resize=64)) == (64, 64)
