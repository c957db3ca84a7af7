"""What happens to one image in training: hand-computed boxes, factors and pixels, draws that their seed decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mindspore.dataset import vision

from mindghost.config import Config
from mindghost.data import mix, operations
from mindghost.data.operations import (
    ColorJitter,
    CoveringResize,
    PaddedCrop,
    RandomErasing,
    RandomFlip,
    RandomResizedCrop,
)
from mindghost.data.transforms import eval_transform, train_transform
from tests.helpers.draws import Scripted, batch, photo, rng


def test_crop_box_has_the_drawn_area_and_aspect_ratio():
    crop = RandomResizedCrop((8, 8), (0.2, 0.3), (0.75, 1.333), "bilinear")
    for seed in range(200):
        top, left, height, width = crop.box(300, 400, rng(seed))
        assert 0.19 < height * width / 120_000 < 0.31
        assert 0.74 < width / height < 1.35
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width


@pytest.mark.parametrize(("height", "width", "box"), [(10, 1000, (0, 490, 10, 20)), (1000, 10, (490, 0, 20, 10))])
def test_crop_box_falls_back_to_the_centre(height, width, box):
    # All of an extreme image never fits an aspect ratio of 1/2 to 2.
    crop = RandomResizedCrop((8, 8), (1.0, 1.0), (0.5, 2.0), "bilinear")
    assert crop.box(height, width, rng()) == box


def crop_box(height: int, width: int, scripted: Scripted) -> tuple[int, int, int, int]:
    return RandomResizedCrop((8, 8), (0.1, 0.9), (0.25, 4.0), "bilinear").box(height, width, scripted)


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
    crop = RandomResizedCrop((8, 8), (1.0, 1.0), ratio, "bilinear")
    assert crop.box(height, width, rng()) == wanted


def test_crops_reach_every_row_and_column():
    """A quarter of 8 x 8 pixels: 4 x 4, at five places each way, the last ones too."""
    crop = RandomResizedCrop((4, 4), (0.25, 0.25), (1.0, 1.0), "nearest")
    places = [crop.box(8, 8, rng(seed)) for seed in range(200)]
    assert {top for top, *_ in places} == {left for _, left, *_ in places} == {0, 1, 2, 3, 4}
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    for seed, (top, left, *_) in enumerate(places[:20]):
        np.testing.assert_array_equal(crop(image, rng(seed)), image[top : top + 4, left : left + 4])


def test_covering_resize_leaves_an_image_of_its_size_alone():
    image = photo(24, 40)
    assert CoveringResize((24, 24), "bilinear")(image) is image


def test_only_the_middle_of_a_very_long_image_is_resized(monkeypatch):
    """To 4 x 1,000 pixels it would be: of those, 4 x 4 are asked for, and one more on both sides."""
    image = photo(4, 1000)
    cover = CoveringResize((4, 4), "bilinear")
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
    crop, cover = vision.CenterCrop(size), CoveringResize(size, "bilinear")
    whole = crop(cover(image))
    monkeypatch.setattr(operations, "_MOST_RESIZED", 100)
    assert np.abs(crop(cover(image)).astype(int) - whole).max() <= 12  # the edges of the middle are half a pixel off


def test_whole_image_crop_is_a_plain_resize():
    image = photo(40, 40)
    crop = RandomResizedCrop((24, 24), (1.0, 1.0), (1.0, 1.0), "bilinear")
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
