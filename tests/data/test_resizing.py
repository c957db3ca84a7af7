"""Decoding, resizing, flipping and normalising in one pass: MindSpore's operators one after the other, bit for bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from mindspore.dataset import vision
from PIL import Image

from mindghost.config import Config
from mindghost.csrc.cpp_library import NativeError
from mindghost.data import images, jpeg
from mindghost.data import vision as our_vision
from mindghost.data.operations import CoveringResize, Normalize
from mindghost.data.resizing import OnePass, centre
from mindghost.data.transforms import eval_transform, train_transform

try:
    DECODER = jpeg.Decoder(jpeg.library().build())
except NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")

SIZE = (91, 120)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def photo(height: int = SIZE[0], width: int = SIZE[1], **options) -> bytes:
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9 + y / 5), np.cos(x * y / 700), np.sin(y / 4)], axis=2) * 100 + 128
    buffer = io.BytesIO()
    Image.fromarray(waves.astype(np.uint8)).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def whole(height: int, width: int, new: tuple[int, int]) -> jpeg.Plan:
    return jpeg.Plan((0, 0, height, width), new, (0, 0, *new))


@pytest.mark.parametrize("seed", range(60))
def test_pixels_are_those_of_mindspores_operator(seed):
    rng = np.random.default_rng(seed)
    height, width, new_height, new_width = (int(side) for side in rng.integers(1, 90 if seed % 2 else 400, 4))
    image = noise(height, width, seed)
    found = DECODER.resized(image, whole(height, width, (new_height, new_width)))
    wanted = vision.Resize((new_height, new_width), vision.Inter.BILINEAR)(image)
    np.testing.assert_array_equal(found, wanted)


def test_a_halved_image_is_left_to_mindspore_which_takes_means():
    image = noise(40, 60)
    assert DECODER.resized(image, whole(40, 60, (20, 30))) is None
    assert DECODER.resized(image, whole(40, 60, (20, 31))) is not None
    means = image.reshape(20, 2, 30, 2, 3).astype(int).sum((1, 3))
    np.testing.assert_array_equal(vision.Resize((20, 30), vision.Inter.BILINEAR)(image), (means + 2) // 4)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30, "optimize": True}])
def test_a_window_of_a_files_box_is_cut_and_mirrored(options):
    content = photo(**options)
    pixels, rng = images.decode_image(content, "a.jpg"), np.random.default_rng(1)
    for _ in range(60):
        (top, bottom), (left, right) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in SIZE)
        size = tuple(int(side) for side in rng.integers(2, 60, 2))
        (above, below), (before, behind) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in size)
        mirrored, upended = bool(rng.integers(2)), bool(rng.integers(2))
        box = (int(top), int(left), int(bottom - top), int(right - left))
        window = (int(above), int(before), int(below - above), int(behind - before))
        found = DECODER.resized(content, jpeg.Plan(box, size, window, mirrored, upended))
        if box[2:] == (2 * size[0], 2 * size[1]):
            continue
        cut = np.ascontiguousarray(pixels[top:bottom, left:right])
        wanted = vision.Resize(size, vision.Inter.BILINEAR)(cut)[above:below, before:behind]
        wanted = wanted[:: -1 if upended else 1, :: -1 if mirrored else 1]
        np.testing.assert_array_equal(found, wanted)


def test_normalised_pixels_are_the_operators_bit_by_bit():
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    image, plain, out = noise(31, 17), Normalize(mean, std), np.full((3, 31, 17), -1, np.float32)
    wanted = plain(image)
    np.testing.assert_array_equal(wanted, vision.HWC2CHW()(vision.Normalize(mean, std, is_hwc=True)(image)))
    np.testing.assert_array_equal(Normalize(mean, std, DECODER)(image), wanted)
    found = DECODER.resized(image, whole(31, 17, (31, 17)), plain.table, out)
    assert found is out
    np.testing.assert_array_equal(out, wanted)
    # What the library cannot write to, or is no 8-bit image, goes the way of old.
    strided = np.zeros((3, 31, 34), np.float32)[:, :, ::2]
    np.testing.assert_array_equal(Normalize(mean, std, DECODER)(image, strided), wanted)
    np.testing.assert_array_equal(Normalize(mean, std, DECODER)(image.astype(np.float32)), wanted)


@pytest.mark.parametrize(
    "plan",
    [
        jpeg.Plan((0, 0, *SIZE), (20, 20), (1, 0, 20, 20)),
        jpeg.Plan((1, 0, *SIZE), (20, 20), (0, 0, 20, 20)),
        jpeg.Plan((0, -1, *SIZE), (20, 20), (0, 0, 20, 20)),
        jpeg.Plan((0, 0, *SIZE), (20, 20), (0, -1, 20, 20)),
        jpeg.Plan((0, 0, *SIZE), (20, 20), (0, 0, 0, 20)),
    ],
)
def test_plans_beyond_the_image_are_refused(plan):
    assert DECODER.resized(photo(), plan) is None
    assert DECODER.resized(noise(*SIZE), plan) is None


def test_only_bilinear_resizing_of_rgb_bytes_is_done_here():
    plan, image = whole(8, 9, (5, 4)), noise(8, 9)
    assert OnePass("bilinear", DECODER)(image, plan) is not None
    assert OnePass("bicubic", DECODER)(image, plan) is None
    assert OnePass("bilinear", None)(image, plan) is None
    assert OnePass("bilinear", DECODER)(image[..., :1], plan) is None
    assert OnePass("bilinear", DECODER)(image.astype(np.float32), plan) is None
    strided = np.zeros((10, 4, 3), np.uint8)[::2]
    assert OnePass("bilinear", DECODER)(image, plan, None, strided) is None


def test_a_mindspore_with_other_pixels_keeps_them(monkeypatch):
    resize = our_vision._resize

    class Other:
        def __init__(self, size, interpolation):
            self._operator = resize(size, interpolation)

        def __call__(self, image):
            return self._operator(image) ^ 1

    decoder = jpeg.Decoder(jpeg.library().build())
    monkeypatch.setattr(our_vision, "_resize", Other)
    assert OnePass("bilinear", decoder)(noise(8, 9), whole(8, 9, (5, 4))) is None
    image = images.open_content(photo(), "a.jpg", decoder)
    assert OnePass("bilinear", None)(image, whole(*SIZE, (5, 4))) is None


# The last: where exact arithmetic gives another width than MindSpore's.
@pytest.mark.parametrize(
    "shape", [(300, 219), (219, 300), (500, 375), (31, 97), (146, 146), (20, 40), (37, 50), (73, 100)]
)
@pytest.mark.parametrize("size", [(219, 219), (146, 146), (30, 44), (44, 30)])
def test_a_covering_size_is_known_beforehand(shape, size):
    cover = CoveringResize(size, "bilinear")
    assert cover.size_of(*shape) == cover(noise(*shape)).shape[:2]


def test_of_an_endless_image_the_middle_is_not_done_here():
    cover = CoveringResize((224, 224), "bilinear")
    assert cover.size_of(2, 60_000) is None
    assert centre(cover, (224, 224), np.zeros((2, 60_000, 3), np.uint8)) is None


KEYS = [
    {},
    {"auto_augment": "randaug-m9-mstd0.5", "re_prob": 1.0},
    {"color_jitter": None, "hflip": 1.0, "vflip": 0.5},
    {"image_resize": (24, 40)},
    {"interpolation": "bicubic"},
    {"in_channels": 1, "mean": (100.0,), "std": (50.0,)},
    {"crop_padding": 4},
]


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("size", [SIZE, (64, 96), (130, 70)])
def test_transforms_give_the_same_bits_with_it_and_without(keys, size):
    """Evaluation halves the second size; a damaged file's pixels are Pillow's."""
    config = Config(**{"image_resize": 32, "crop_pct": 1.0, **keys})
    content = photo(*size)
    pixels = images.decode_image(content, "a.jpg")
    image = images.open_content(content, "a.jpg", DECODER)
    assert isinstance(image, images.JpegImage)
    image = image if config.in_channels == 3 else pixels
    wanted = eval_transform(config)(pixels)
    for found in (eval_transform(config, DECODER)(image), eval_transform(config, DECODER)(pixels)):
        np.testing.assert_array_equal(found, wanted)
    for seed in range(4):
        wanted = train_transform(config)(pixels, np.random.default_rng(seed))
        out = np.zeros_like(wanted)
        found = train_transform(config, DECODER)(image, np.random.default_rng(seed), out)
        assert found is out
        np.testing.assert_array_equal(out, wanted)
        np.testing.assert_array_equal(train_transform(config, DECODER)(pixels, np.random.default_rng(seed)), wanted)
