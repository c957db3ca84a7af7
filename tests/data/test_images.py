"""Image files: what is read of them, and what is refused before the first epoch."""

from __future__ import annotations

import io

import numpy as np
import pytest
from mindspore.dataset import vision
from PIL import Image

from mindghost.data import dataset, images
from mindghost.data.dataset import open_split
from mindghost.data.images import read_image
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.pictures import save_image

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


@pytest.mark.fault("image formats", "ok")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FORMATS)
def test_formats_become_rgb(tmp_path, name):
    image, wanted = FORMATS[name]
    image.save(tmp_path / name)
    found = read_image(str(tmp_path / name))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.fault("image formats", "ok")
@pytest.mark.parametrize(("mode", "tolerance"), [("RGB", 0), ("L", 0), ("CMYK", 2)])
def test_jpeg_pixels_are_those_of_mindspore(tmp_path, mode, tolerance):
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).resize((120, 100)).convert(mode).save(path, quality=85)
    theirs = vision.Decode()(np.fromfile(path, np.uint8))
    np.testing.assert_allclose(read_image(str(path)).astype(int), theirs, atol=tolerance)


@pytest.mark.fault("image formats", "ok")
def test_lossy_webp_is_read(tmp_path):
    path = tmp_path / "a.webp"
    Image.fromarray(COLOUR).save(path, lossless=True)
    np.testing.assert_array_equal(read_image(str(path)), COLOUR)


@pytest.mark.fault("image formats", "ok")
def test_16_bits_are_scaled_by_rounding(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 128, 129, 257, 65535]], np.uint16)).save(path)
    assert read_image(str(path))[0, :, 0].tolist() == [0, 0, 1, 1, 255]


def _broken(kind: str) -> bytes:
    if not kind.startswith("cut"):
        return {"empty": b"", "text": b"<html>not an image</html>", "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n"}[kind]
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind.removeprefix("cut "))
    return buffer.getvalue()[: buffer.tell() * 6 // 10]


@pytest.mark.fault("image formats", "clean error")
@pytest.mark.parametrize("kind", ["empty", "text", "eps", "cut JPEG", "cut PNG"])
def test_damaged_images_are_found_before_the_first_epoch(tmp_path, kind):
    for split in ("train", "val"):
        save_image(tmp_path / split / "ant" / "good.png", 1)
    bad = tmp_path / "train" / "ant" / "bad.jpg"
    bad.write_bytes(_broken(kind))
    with pytest.raises(UserError) as caught:
        open_split(config_for(tmp_path), "train")
    message_of(caught, bad)


@pytest.mark.fault("image formats", "clean error")
@pytest.mark.parametrize("values", [np.array([[0, 70_000]], np.int32), np.array([[0.5, 1.5]], np.float32)])
def test_pixels_without_an_8_bit_meaning_are_refused(tmp_path, values):
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(UserError) as caught:
        read_image(str(path))
    message_of(caught, path, "8 or 16 bits")


@pytest.mark.fault("image formats", "clean error")
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
