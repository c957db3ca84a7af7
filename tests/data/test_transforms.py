"""Transforms and mixing: hand-computed values, mindcv's pixels and labels, draws that their seed decides."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from mindcv.data import auto_augment, create_transforms, transforms_factory
from mindcv.data.mixup import Mixup
from mindspore.dataset import vision
from PIL import Image

from mindghost.config import Config
from mindghost.data import mix, operations, transforms
from mindghost.data.images import read_image
from mindghost.data.operations import (
    ColorJitter,
    CoveringResize,
    PaddedCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
)
from mindghost.data.transforms import as_rgb, eval_transform, train_transform
from mindghost.errors import UserError

POLICIES = [
    "randaug-m9-mstd0.5",
    "randaug-m9-n3-w0-mstd0.5-mmax10-inc1",
    "autoaug",
    "autoaugr-mstd0.5",
    "3a-mstd0.5",
    "augmix-m5-w4-d2",
    "trivialaugwide-m20",
]


@pytest.fixture(autouse=True)
def graph_mode() -> None:
    """Replaces conftest's: no network is made here, and collecting garbage takes most of the time."""


def photo(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    """A smooth colour image: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Scripted:
    """A generator of random numbers whose draws are given; keeps what was asked for."""

    def __init__(self, *draws: object) -> None:
        self.draws, self.asked = list(draws), []

    def __getattr__(self, name: str):
        def draw(*arguments: object) -> object:
            self.asked.append((name, *arguments))
            return self.draws.pop(0)

        return draw


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


def crop_box(height: int, width: int, scripted: Scripted) -> tuple[int, int, int, int]:
    return RandomResizedCrop((8, 8), (0.1, 0.9), (0.25, 4.0), vision.Inter.BILINEAR).box(height, width, scripted)


def test_crop_box_by_hand():
    """0.32 of 100 x 200 pixels at an aspect ratio of 4: 40 x 160, which has 61 x 41 places."""
    scripted = Scripted(0.32, math.log(4), 60, 40)
    assert crop_box(100, 200, scripted) == (60, 40, 40, 160)
    ratios = ("uniform", math.log(0.25), math.log(4))
    assert scripted.asked == [("uniform", 0.1, 0.9), ratios, ("integers", 61), ("integers", 41)]


def test_crop_box_is_drawn_again_until_it_fits_ten_times_at_most():
    """At an aspect ratio of 1/4, 0.32 of the area is 160 rows high; of nothing, there is no box."""
    too_high, empty, fits = (0.32, math.log(1 / 4)), (0.0, 0.0), (0.32, math.log(4))
    scripted = Scripted(*empty, *too_high * 8, *fits, 3, 5)
    assert crop_box(100, 200, scripted) == (3, 5, 40, 160)
    assert crop_box(100, 200, Scripted(*too_high * 10)) == (0, 0, 100, 200)
    too_wide = (0.32, math.log(4))
    assert crop_box(200, 100, Scripted(*too_wide, 0.32, math.log(1 / 4), 3, 5)) == (3, 5, 160, 40)


def test_crop_box_may_be_the_whole_image():
    assert crop_box(40, 160, Scripted(1.0, math.log(4), 0, 0)) == (0, 0, 40, 160)


@pytest.mark.parametrize(
    ("height", "width", "ratio", "wanted"), [(101, 1, (4.0, 5.0), (50, 0, 1, 1)), (1, 101, (0.1, 0.2), (0, 50, 1, 1))]
)
def test_the_central_box_has_a_pixel(height, width, ratio, wanted):
    crop = RandomResizedCrop((8, 8), (1.0, 1.0), ratio, vision.Inter.BILINEAR)
    assert crop.box(height, width, rng()) == wanted


def test_crops_reach_every_row_and_column():
    """A quarter of 8 x 8 pixels: 4 x 4, at five places each way, the last ones too."""
    crop = RandomResizedCrop((4, 4), (0.25, 0.25), (1.0, 1.0), vision.Inter.NEAREST)
    places = [crop.box(8, 8, rng(seed)) for seed in range(200)]
    assert {top for top, *_ in places} == {left for _, left, *_ in places} == {0, 1, 2, 3, 4}
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for seed, (top, left, *_) in enumerate(places[:20]):
        np.testing.assert_array_equal(crop(image, rng(seed)), image[top : top + 4, left : left + 4])


def test_covering_resize_leaves_an_image_of_its_size_alone():
    image = photo(24, 40)
    assert CoveringResize((24, 24), vision.Inter.BILINEAR)(image) is image


def test_only_the_middle_of_a_very_long_image_is_resized(monkeypatch):
    """To 4 x 1,000 pixels it would be: of those, 4 x 4 are asked for, and one more on both sides."""
    image = photo(4, 1000)
    cover = CoveringResize((4, 4), vision.Inter.BILINEAR)
    monkeypatch.setattr(operations, "_MOST_RESIZED", 4000)
    assert cover(image) is image
    monkeypatch.setattr(operations, "_MOST_RESIZED", 3999)
    np.testing.assert_array_equal(cover(image), image[:, 497:503])
    upright = np.ascontiguousarray(image.transpose(1, 0, 2))
    np.testing.assert_array_equal(cover(upright), upright[497:503])


@pytest.mark.parametrize("shape", [(8, 2000), (2000, 8), (9, 2001)])
@pytest.mark.parametrize("size", [(4, 4), (4, 6)])
def test_the_centre_of_a_long_image_is_that_of_all_of_it(monkeypatch, shape, size):
    image = photo(*shape)
    crop, cover = vision.CenterCrop(size), CoveringResize(size, vision.Inter.BILINEAR)
    whole = crop(cover(image))
    monkeypatch.setattr(operations, "_MOST_RESIZED", 100)
    assert np.abs(crop(cover(image)).astype(int) - whole).max() <= 12  # the edges of the middle are half a pixel off


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
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(7))


def test_flips_mirror_with_their_probability():
    image = photo()
    np.testing.assert_array_equal(RandomFlip(1, 1.0)(image, rng()), image[:, ::-1])
    np.testing.assert_array_equal(RandomFlip(0, 1.0)(image, rng()), image[::-1])
    flipped = sum((RandomFlip(1, 0.3)(image, rng(seed)) != image).any() for seed in range(300))
    assert 60 < flipped < 120


def test_what_has_no_probability_never_happens():
    """Not even at the smallest number that is drawn; and what is certain happens at the largest."""
    image, largest = photo(8, 8), float(np.nextafter(1, 0))
    assert RandomFlip(1, 0.0)(image, Scripted(0.0)) is image
    assert (RandomFlip(1, 1.0)(image, Scripted(largest)) != image).any()
    blank = np.zeros((1, 10, 10), np.float32)
    assert not RandomErasing(0.0, (0.1, 0.2), (1.0, 1.0), 1, 1)(blank, Scripted(0.0)).any()
    assert RandomErasing(1.0, (0.1, 0.2), (1.0, 1.0), 1, 1)(blank, Scripted(largest, 0.16, 1.0, 0, 0)).any()
    images, labels = batch(4)
    keys = {"num_classes": 4, "mixup": 0.2, "cutmix": 0.0}
    assert mix.mix_batch(images, labels, Scripted(0.0), **keys, probability=0.0)[0] is images
    assert mix.mix_batch(images, labels, Scripted(largest, 0.5), **keys, probability=1.0)[0] is not images


def test_colour_jitter_factors_stay_within_their_range():
    image = np.full((4, 4, 3), 100, np.uint8)
    values = [int(ColorJitter(0.4, 0.0, 0.0)(image, rng(seed))[0, 0, 0]) for seed in range(200)]
    assert 60 <= min(values) < 70
    assert 130 < max(values) <= 140


def test_colour_jitter_draws_a_factor_of_each_kind_from_both_sides_of_what_changes_nothing():
    scripted = Scripted(np.array([3, 2, 1, 0]), 0.0, 1.0, 1.0, 1.0)
    ColorJitter(0.4, 0.5, 2.0, 0.1)(photo(), scripted)
    hue, saturation, contrast, brightness = (-0.1, 0.1), (0.0, 3.0), (0.5, 1.5), (0.6, 1.4)
    ranges = [hue, saturation, contrast, brightness]
    assert scripted.asked == [("permutation", 4), *(("uniform", *(pytest.approx(end) for end in r)) for r in ranges)]


def test_hue_is_shifted_to_both_sides():
    """Red turns to orange, which has green in it, and to pink, which has blue."""
    red = np.tile(np.uint8([200, 0, 0]), (4, 4, 1))
    found = [ColorJitter(0.0, 0.0, 0.0, 0.1)(red, rng(seed))[0, 0] for seed in range(60)]
    orange, pink = (sum(int(pixel[channel]) > 40 for pixel in found) for channel in (1, 2))
    assert orange > 10
    assert pink > 10


@pytest.mark.parametrize("strengths", [(0.9, 0.0, 0.0), (0.0, 0.9, 0.0), (0.0, 0.0, 0.9)])
def test_each_strength_moves_one_quantity(strengths):
    """Of half bright red beside dark red: the mean brightness, the contrast, or how red it is."""
    image = np.concatenate([np.tile(np.uint8([value, value // 2, value // 2]), (4, 4, 1)) for value in (60, 120)])

    def quantities(pixels):
        light, dark = pixels[-1, 0].astype(int), pixels[0, 0].astype(int)
        return light.sum() / 240, (light - dark).sum() / 120, (light[0] - light[1]) / light[0] / 0.5

    changes = np.array([quantities(ColorJitter(*strengths)(image, rng(seed))) for seed in range(40)])
    spread = np.ptp(changes, axis=0)
    if strengths[0]:
        assert spread[0] > 1
        assert spread[2] < 0.2
    elif strengths[1]:
        assert spread[1] > 1
        assert spread[0] < 0.8
    else:
        assert spread[2] > 1
        assert spread[0] < 0.3


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


def erased(image_shape: tuple[int, int], scripted: Scripted, attempts: int = 2) -> np.ndarray:
    """Where a black image of this height and width is white afterwards."""
    image = np.zeros((2, *image_shape), np.float32)
    found = RandomErasing(0.5, (0.02, 0.33), (0.3, 3.3), 1.0, attempts)(image, scripted)
    assert found is image
    assert (found[0] == found[1]).all()
    return found[0] == 1


def test_erased_box_by_hand():
    """0.16 of 20 x 30 pixels at an aspect ratio of 6: 24 x 4, which has 17 x 7 places; the last of them."""
    scripted = Scripted(0.4, 0.16, 6.0, 16, 6)
    wanted = np.zeros((20, 30), bool)
    wanted[16:, 6:] = True
    np.testing.assert_array_equal(erased((20, 30), scripted), wanted)
    uniform = [("uniform", 0.02, 0.33), ("uniform", 0.3, 3.3)]
    assert scripted.asked == [("random",), *uniform, ("integers", 17), ("integers", 7)]


def test_erasing_tries_again_as_often_as_it_is_told():
    """All of 10 x 10 pixels is not taken; then 4 x 4 of them are."""
    draws = (0.0, 1.0, 1.0, 0.16, 1.0, 6, 6)
    assert erased((10, 10), Scripted(*draws), attempts=2)[6:, 6:].all()
    assert not erased((10, 10), Scripted(*draws), attempts=1).any()


@pytest.mark.parametrize("shape", [(8, 16), (16, 8)])
def test_no_box_as_high_or_as_wide_as_the_image_is_erased(shape):
    assert not erased(shape, Scripted(0.0, *(0.5, 1.0) * 2)).any()


def test_erasing_has_its_probability_and_reaches_every_row_and_column():
    found = np.stack(
        [RandomErasing(0.3, (0.1, 0.2), (0.5, 2.0), 1, 10)(np.zeros((1, 12, 9)), rng(seed))[0] for seed in range(600)]
    )
    assert 140 < found.any(axis=(1, 2)).sum() < 220
    assert found.any(axis=(0, 2)).all()
    assert found.any(axis=(0, 1)).all()
    assert (RandomErasing(0.0, (0.1, 0.2), (0.5, 2.0), 1, 10)(np.zeros((1, 12, 9)), rng()) == 0).all()


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


def test_cut_box_by_hand():
    """A quarter of the area: half of each side, 5 and 6; whole steps of 2 and 3 to both sides of the centre."""
    scripted = Scripted(4, 11)
    assert mix.cut_box(10, 12, 0.75, scripted) == (slice(2, 6), slice(8, 12))
    assert scripted.asked == [("integers", 10), ("integers", 12)]
    assert mix.cut_box(10, 12, 0.75, Scripted(0, 1)) == (slice(0, 2), slice(0, 4))
    assert mix.cut_box(10, 12, 0.75, Scripted(9, 6)) == (slice(7, 10), slice(3, 9))


@pytest.mark.parametrize(
    ("mixup", "cutmix", "draws", "asked"),
    [
        (0.2, 0.0, [0.1, 0.5], ["random", "beta 0.2"]),
        (0.0, 1.0, [0.1, 0.5, 3, 3], ["random", "beta 1.0", "integers", "integers"]),
        (0.2, 1.0, [0.1, 0.49, 0.5, 3, 3], ["random", "random", "beta 1.0", "integers", "integers"]),
        (0.2, 1.0, [0.1, 0.5, 0.5], ["random", "random", "beta 0.2"]),
        (0.2, 1.0, [0.6], ["random"]),
    ],
)
def test_mixing_draws_from_the_distribution_that_is_on(mixup, cutmix, draws, asked):
    scripted = Scripted(*draws)
    mix.mix_batch(*batch(4), scripted, num_classes=4, mixup=mixup, cutmix=cutmix, probability=0.6)
    assert not scripted.draws
    found = [f"{name} {given[0]}" if name == "beta" else name for name, *given in scripted.asked]
    assert found == asked
    assert all(given[0] == given[1] for name, *given in scripted.asked if name == "beta")


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
