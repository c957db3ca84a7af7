"""Shares of classes, pictures and files of masks."""

import numpy as np
import pytest
from PIL import Image

from mindghost.tasks.segmentation import classes, show
from mindghost.tasks.segmentation.masks import read
from mindghost.tasks.segmentation.task import TASK
from tests.helpers.masks import scene

COLORS = [(0, 0, 0), (200, 100, 0), (10, 20, 30)]


def test_shares_are_those_of_pixels_the_largest_first():
    mask = np.array([[2, 2, 1], [2, 1, 2]], np.uint8)
    found = show.shares(mask, ["sky", "road", "car"], None)
    assert [(guess.name, guess.label, guess.probability) for guess in found] == [("car", 2, 4 / 6), ("road", 1, 2 / 6)]
    assert show.shares(mask, ["sky", "road", "car"], 1) == found[:1]
    equal = show.shares(mask[:, :2] - 1, ["a", "b"], None)
    assert [guess.name for guess in equal] == ["b", "a"]
    assert [guess.name for guess in show.shares(np.array([[1, 0]]), "ab", None)] == ["a", "b"]


@pytest.mark.parametrize("count", [2, 3, 256, 300])
def test_a_saved_mask_is_read_as_it_was(tmp_path, count):
    mask = np.arange(600).reshape(20, 30) % count
    mask = mask.astype(np.uint8 if count <= 256 else np.uint16)
    colors = classes.palette(count)
    show.picture_of(mask, colors).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read(str(tmp_path / "mask.png")), mask)
    if count <= 256:
        with Image.open(tmp_path / "mask.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.array(colors)[mask])
        # Of one byte a pixel.
        assert (tmp_path / "mask.png").read_bytes()[24:26] == b"\x08\x03"


def test_classes_lie_over_an_image_of_another_size():
    pixels, mask = scene(3, (40, 200))
    found = TASK.overlay(pixels[::4, ::4], mask, COLORS)
    # Each pixel has the class that lies below its middle.
    expected = (pixels[::4, ::4].astype(float) + np.array(COLORS)[mask[2::4, 2::4]]) / 2
    np.testing.assert_allclose(found, expected, atol=0.5)


def test_a_picture_has_image_and_mask_side_by_side():
    pixels, mask = scene(3, (40, 200))
    picture = np.asarray(show.draw(pixels, show.shares(mask, "abc", None), mask, COLORS))
    assert picture.shape == (40 + 3 * 20 + 12, 400, 3)
    np.testing.assert_array_equal(picture[:40, 200:], np.array(COLORS)[mask])
    mixed = (pixels.astype(float) + np.array(COLORS)[mask]) / 2
    np.testing.assert_allclose(picture[:40, :200], mixed, atol=0.5)
    # A line for each class begins with its colour.
    for row, guess in enumerate(show.shares(mask, "abc", None)):
        assert tuple(picture[40 + 6 + 20 * row + 8, 15]) == COLORS[guess.label]
