"""Our JPEG decoder: boxes of files are what Pillow has there, and what it does not know it leaves alone."""

from __future__ import annotations

import io
import logging
import subprocess

import numpy as np
import pytest
from PIL import Image

from mindghost.csrc import cpp_library
from mindghost.csrc.cpp_library import NativeError
from mindghost.data import images, jpeg
from mindghost.data.dataset import open_split
from mindghost.errors import UserError
from tests.helpers.data_folders import config_for, message_of
from tests.helpers.places import ROOT
from tests.helpers.sanitizers import sanitizer_flags

try:
    DECODER = jpeg.Decoder(jpeg.library().build())
except NativeError as error:
    pytestmark = pytest.mark.skip(reason=f"no library: {error}")

SIZE = (75, 101)  # no multiple of a block of any kind


def pixels(height: int, width: int) -> np.ndarray:
    """Waves under noise: smooth parts, sharp edges and colours, as in a photo."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + y / 5), np.cos(x * y / 400), np.sin(y / 3)], axis=2) * 90 + 128
    noise = np.random.default_rng(0).normal(0, 20, waves.shape)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


COLOUR = Image.fromarray(pixels(*SIZE))
KINDS = {
    "4:2:0": encoded(COLOUR, quality=85, subsampling=2),
    "4:2:2": encoded(COLOUR, quality=85, subsampling=1),
    "4:4:4": encoded(COLOUR, quality=95, subsampling=0),
    "best": encoded(COLOUR, quality=100, subsampling=0),
    "own codes": encoded(COLOUR, quality=97, subsampling=2, optimize=True),
    "coarse": encoded(COLOUR, quality=5, subsampling=2),
    "progressive": encoded(COLOUR, quality=85, progressive=True),
    "restart markers": encoded(COLOUR, quality=85, restart_marker_blocks=3),
    "RGB": encoded(COLOUR, quality=90, keep_rgb=True),
    "grayscale": encoded(COLOUR.convert("L"), quality=85),
}


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_pillows_pixels(kind):
    content = KINDS[kind]
    whole = images.decode_image(content, kind)
    assert DECODER.header(content) == (*SIZE, kind == "progressive")
    np.testing.assert_array_equal(DECODER.box(content, 0, 0, *SIZE), whole)
    rng = np.random.default_rng(1)
    for _ in range(200):
        (top, bottom), (left, right) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in SIZE)
        found = DECODER.box(content, int(top), int(left), int(bottom - top), int(right - left))
        np.testing.assert_array_equal(found, whole[top:bottom, left:right], f"{top}:{bottom}, {left}:{right}")


def test_an_image_is_an_array_to_be_cut():
    content = KINDS["4:2:0"]
    image, whole = images.open_content(content, "a.jpg", DECODER), images.decode_image(content, "a.jpg")
    assert isinstance(image, images.JpegImage)
    assert image.shape == whole.shape
    np.testing.assert_array_equal(image[10:20, 90:200], whole[10:20, 90:200])
    np.testing.assert_array_equal(np.asarray(image), whole)
    np.testing.assert_array_equal(np.asarray(image, np.float32), whole)


@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(-1, 0, 5, 5), (0, 97, 5, 5), (71, 0, 5, 5), (0, 0, 0, 5)]
)
def test_boxes_beyond_the_image_are_refused(top, left, height, width):
    assert DECODER.box(KINDS["4:2:0"], top, left, height, width) is None


def test_what_is_no_whole_jpeg_is_pillows():
    """A cut file, other colours, other formats: the same pixels, or the same message, with the decoder as without."""
    content = KINDS["4:2:0"]
    assert DECODER.header(content[: len(content) * 6 // 10]) is None
    with pytest.raises(UserError) as caught:
        images.open_content(content[: len(content) * 6 // 10], "cut.jpg", DECODER)
    message_of(caught, "cut.jpg", "truncated")
    for other in (encoded(COLOUR.convert("CMYK")), content + b"appended by a camera"):
        found = np.asarray(images.open_content(other, "other.jpg", DECODER))
        np.testing.assert_array_equal(found, images.decode_image(other, "other.jpg"))
    assert DECODER.box(encoded(COLOUR.convert("CMYK")), 0, 0, *SIZE) is None
    with pytest.raises(UserError) as caught:
        images.open_content(b"\xff\xd8\xffno JPEG at all\xff\xd9", "text.jpg", DECODER)
    message_of(caught, "text.jpg", "not a readable image")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_never_differ_from_pillow(seed):
    """Bytes of the coded pixels overwritten: what our decoder gives is Pillow's, or it gives nothing."""
    rng = np.random.default_rng(seed)
    content = bytearray(KINDS[list(KINDS)[seed % len(KINDS)]])
    for place in rng.integers(len(content) // 2 if seed % 2 else 2, len(content) - 2, 4):
        content[place] = rng.integers(256)
    found = expected = None
    image = header = DECODER.header(bytes(content))
    if header is not None and header[0] * header[1] < 1 << 20:
        image = DECODER.box(bytes(content), 0, 0, *header[:2])
    try:
        expected = images.decode_image(bytes(content), "damaged.jpg")
        found = np.asarray(images.open_content(bytes(content), "damaged.jpg", DECODER))
    except UserError:
        assert expected is None
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)
    if isinstance(image, np.ndarray) and expected is not None:
        np.testing.assert_array_equal(image, expected)


@pytest.mark.fault("pictures", "ok")
@pytest.mark.parametrize("kind", [{"subsampling": sampling} for sampling in (0, 1, 2)] + [{"grey": True}])
def test_progressive_files_that_lack_a_scan_are_pillows(kind):
    """libjpeg smooths what is missing, without a warning, and each version of it in its own way."""
    picture = COLOUR.convert("L") if kind.pop("grey", False) else COLOUR
    content = encoded(picture, quality=85, progressive=True, **kind)
    assert DECODER.box(content, 0, 0, *SIZE) is not None
    marker = b"\xff\xda"
    starts = [at for at in range(len(content)) if content[at : at + 2] == marker]
    for start, end in zip(starts[1:], [*starts[2:], len(content) - 2], strict=True):
        # The tables of the next scan lie between the scans; some of these files are broken to Pillow, too.
        lacking = content[:start] + content[end:]
        for damaged in (lacking, content[:start] + b"\xff\xd9"):
            assert DECODER.box(damaged, 0, 0, *SIZE) is None
            try:
                expected = images.decode_image(damaged, "lacking.jpg")
            except UserError:
                continue
            image = images.open_content(damaged, "lacking.jpg", DECODER)
            np.testing.assert_array_equal(image[5:70, 9:99], expected[5:70, 9:99])
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_damage_within_a_box_is_pillows_to_judge():
    """Where libjpeg has a warning, and Pillow none, the pixels are Pillow's."""
    content = bytearray(KINDS["restart markers"])
    marker = content.index(b"\xff\xd3")
    content[marker + 1] = 0xD6  # out of order
    assert DECODER.box(bytes(content), 0, 0, *SIZE) is None
    image = images.open_content(bytes(content), "a.jpg", DECODER)
    np.testing.assert_array_equal(image[0:75, 5:99], images.decode_image(bytes(content), "a.jpg")[0:75, 5:99])


def test_under_a_sanitizer(tmp_path):
    """Whole and damaged files: no access beyond a buffer, no leak."""
    compiler = cpp_library.system_compiler()
    flags = sanitizer_flags(compiler, "address,undefined", tmp_path)
    description = jpeg.library()
    [command] = description.commands(compiler, tmp_path, flags)
    subprocess.run(command, check=True)
    test = [str(ROOT / "tests" / "csrc" / "jpeg_test.cpp"), str(tmp_path / "jpeg.o")]
    subprocess.run([*compiler, *flags, *test, *description.linked, "-o", str(tmp_path / "test")], check=True)
    for name, content in KINDS.items():
        (tmp_path / f"{name.replace(' ', '_').replace(':', '')}.jpg").write_bytes(content)
    done = subprocess.run([tmp_path / "test", *tmp_path.glob("*.jpg")], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, f"{len(KINDS)} files, 0 failures\n"), done.stderr


def test_huge_images_are_refused_by_their_header(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(UserError) as caught:
        images.open_content(KINDS["4:2:0"], "a.jpg", DECODER)
    message_of(caught, "a.jpg", "101 x 75")


def test_a_split_is_read_with_it_unless_native_ops_are_off(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "ant").mkdir(parents=True)
        (tmp_path / split / "ant" / "a.jpg").write_bytes(KINDS["4:2:0"])
    with_it, without = (open_split(config_for(tmp_path, native_ops=key), "train") for key in ("auto", "off"))
    assert isinstance(with_it.open(0), images.JpegImage)
    assert isinstance(without.open(0), np.ndarray)
    np.testing.assert_array_equal(with_it.read(0), without.read(0))


def test_without_a_compiler_one_line_says_so(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "mindghost")
    jpeg.decoder.cache_clear()
    monkeypatch.setenv("MINDGHOST_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert jpeg.decoder("auto") is None
    jpeg.decoder.cache_clear()
    [message] = [record.getMessage() for record in caplog.records]
    assert message == "JPEG files are decoded by Pillow, whole: CXX: there is no program /no/such/compiler"
