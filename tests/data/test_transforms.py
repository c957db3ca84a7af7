"""Transforms and mixing: hand-computed values, mindcv's pixels and labels, draws that their seed decides."""

from __future__ import annotations

import random

import numpy as np
import pytest
from mindcv.data import auto_augment, create_transforms, transforms_factory
from mindspore.dataset import vision
from PIL import Image

from mindghost.config import Config
from mindghost.data import transforms
from mindghost.data.images import read_image
from mindghost.data.transforms import as_rgb, eval_transform, train_transform
from mindghost.errors import UserError
from tests.helpers.draws import photo, rng

POLICIES = [
    "randaug-m9-mstd0.5",
    "randaug-m9-n3-w0-mstd0.5-mmax10-inc1",
    "autoaug",
    "autoaugr-mstd0.5",
    "3a-mstd0.5",
    "augmix-m5-w4-d2",
    "trivialaugwide-m20",
]


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


@pytest.mark.parametrize("size", [48, (32, 40)])
@pytest.mark.parametrize("policy", POLICIES)
def test_policies_get_the_parameters_that_mindcv_gives_them(monkeypatch, policy, size):
    """Its fill colour, distances and interpolation; MindCV's own transforms are asked for theirs."""
    asked = []
    for module in (auto_augment, transforms_factory):
        for factory in (
            "rand_augment_transform",
            "auto_augment_transform",
            "augment_and_mix_transform",
            "trivial_augment_wide_transform",
        ):
            monkeypatch.setattr(module, factory, lambda *given, factory=factory: asked.append((factory, *given)))
    keys = {"image_resize": size, "auto_augment": policy, "interpolation": "bicubic", "mean": (250.6, 254.4, 9.5)}
    create_transforms("imagenet", is_training=True, **keys)
    train_transform(Config(**keys, std=(1.0, 1.0, 1.0)))
    theirs, ours = asked
    assert ours == theirs


@pytest.mark.parametrize(
    ("keys", "fill"),
    [
        ({"dataset": "cifar10"}, (125, 123, 114)),  # 0.4914, 0.4822 and 0.4465 of 255
        ({"mean": (300.0, 1.4, 2.6)}, (255, 1, 3)),
        ({"mean": (9.0,), "std": (1.0,), "in_channels": 1}, (9, 9, 9)),
    ],
)
def test_policies_fill_with_the_mean(monkeypatch, keys, fill):
    asked = []
    monkeypatch.setattr(auto_augment, "rand_augment_transform", lambda name, keys: asked.append(keys["img_mean"]))
    train_transform(Config(auto_augment="randaug", image_resize=32, **keys))
    assert asked == [fill]


PLAIN = {"image_resize": 32, "scale": (1.0, 1.0), "ratio": (1.0, 1.0), "crop_pct": 1.0, "color_jitter": None}


@pytest.mark.parametrize(("hflip", "vflip"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_hflip_exchanges_left_and_right_and_vflip_top_and_bottom(hflip, vflip):
    config = Config(**PLAIN, hflip=hflip, vflip=vflip)
    image = photo(32, 32)
    wanted = image[:: -1 if vflip else 1, :: -1 if hflip else 1]
    found = train_transform(config)(image, rng())
    np.testing.assert_array_equal(found, eval_transform(config)(np.ascontiguousarray(wanted)))


def test_digits_are_neither_cropped_nor_flipped_and_other_small_images_are():
    image = photo(32, 32)
    for dataset, alike in (("mnist", True), ("cifar10", False)):
        config = Config(dataset=dataset, image_resize=32, hflip=1.0, vflip=1.0)
        found, plain = train_transform(config)(image, rng()), eval_transform(config)(image)
        assert np.array_equal(found, plain) is alike


def test_small_images_become_the_shape_that_is_asked_for():
    for dataset in ("mnist", "cifar10"):
        config = Config(dataset=dataset, image_resize=(40, 48))
        assert train_transform(config)(photo(32, 32), rng()).shape == (3, 40, 48)
        assert eval_transform(config)(photo(32, 32)).shape == (3, 40, 48)


def test_colour_jitter_is_for_folders_without_a_policy():
    image = photo(32, 32)
    jittered = {"color_jitter": (0.9, 0.0, 0.0)}
    plain, changed = (train_transform(Config(**{**PLAIN, **keys}))(image, rng(2)) for keys in ({}, jittered))
    assert np.abs(plain - changed).max() > 0.1
    for keys in ({"auto_augment": "autoaug"}, {"dataset": "cifar10"}):
        plain, same = (train_transform(Config(**{**PLAIN, **keys, **more}))(image, rng(2)) for more in ({}, jittered))
        np.testing.assert_array_equal(plain, same)


@pytest.mark.parametrize(("value", "strengths"), [(0.3, (0.3, 0.3, 0.3)), ((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4))])
def test_one_strength_is_that_of_brightness_contrast_and_saturation(monkeypatch, value, strengths):
    given = []
    monkeypatch.setattr(transforms, "ColorJitter", lambda *found: given.append(found))
    train_transform(Config(color_jitter=value))
    assert given == [strengths]


def test_erasing_is_told_all_of_its_keys():
    """A sixteenth of 32 x 32 pixels at an aspect ratio of 4: 16 x 4 of them, of each channel's own value."""
    keys = {"re_prob": 1.0, "re_scale": (1 / 16, 1 / 16), "re_ratio": (4.0, 4.0), "re_value": (7.0, 8.0, 9.0)}
    found = train_transform(Config(**PLAIN, **keys, re_max_attempts=1))(photo(32, 32), rng())
    for channel, value in zip(found, (7.0, 8.0, 9.0), strict=True):
        box = channel == value
        assert (box.any(axis=1).sum(), box.any(axis=0).sum(), box.sum()) == (4, 16, 64)
    never = Config(**PLAIN, **{**keys, "re_scale": (1.0, 1.0), "re_ratio": (1.0, 1.0)})
    np.testing.assert_array_equal(
        train_transform(never.replace(hflip=0.0))(photo(32, 32), rng()), eval_transform(never)(photo(32, 32))
    )


def test_transforms_write_to_the_batch_that_they_are_given():
    config = Config(**PLAIN, re_prob=1.0)
    for transform, draws in ((train_transform(config), [rng()]), (eval_transform(config), [])):
        batch = np.full((2, 3, 32, 32), 77, np.float32)
        transform(photo(32, 32), *draws, batch[1])
        assert (batch[0] == 77).all()
        assert not (batch[1] == 77).any()


@pytest.mark.parametrize(
    ("keys", "facts"),
    [
        ({}, ("RGB", [256, 256], "bilinear", [224, 224], [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])),
        (
            {"image_resize": (32, 48), "crop_pct": 0.9, "interpolation": "area", "mean": (1.0, 2.0, 3.0)},
            ("RGB", [35, 53], "area", [32, 48], [1.0, 2.0, 3.0], [58.395, 57.12, 57.375]),
        ),
        ({"in_channels": 1, "mean": (9.0,), "std": (2.0,)}, ("L", [256, 256], "bilinear", [224, 224], [9.0], [2.0])),
        (
            {"dataset": "cifar10", "image_resize": 32, "interpolation": "area", "crop_pct": 0.5},
            ("RGB", [32, 32], "bilinear", [32, 32], [125.307, 122.961, 113.8575], [51.5865, 50.847, 51.255]),
        ),
        (
            {"dataset": "mnist", "image_resize": 28, "in_channels": 1},
            ("L", [28, 28], "bilinear", [28, 28], [33.3285], [78.5655]),
        ),
        (
            {"dataset": "mnist", "image_resize": 28},
            ("RGB", [28, 28], "bilinear", [28, 28], [33.3285] * 3, [78.5655] * 3),
        ),
    ],
    ids=str,
)
def test_the_description_says_what_evaluation_does(keys, facts):
    config = Config(**keys)
    found = transforms.describe_evaluation(config)
    color, resize, interpolation, crop, mean, std = facts
    words = {"color": color, "resize": resize, "interpolation": interpolation, "center_crop": crop, "antialias": False}
    assert {key: found[key] for key in words} == words
    assert found["mean"] == pytest.approx(mean)
    assert found["std"] == pytest.approx(std)
    pixels = as_rgb(np.full((60, 60, 1), 200, np.uint8), config.in_channels)
    wanted = [(200 - m) / s for m, s in zip(mean, std, strict=True)]
    np.testing.assert_allclose(eval_transform(config)(pixels)[:, 0, 0], wanted, rtol=1e-4)


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
