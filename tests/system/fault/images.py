"""Image files: formats and kinds of pixels, and random damage."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mindspore.dataset import vision
from PIL import Image

from mindghost.data import images, jpeg
from tests.system.fault.harness import Case, group

# Ending -> how Pillow writes it.
KINDS = {
    "jpg": {"format": "JPEG", "quality": 80},
    "jpeg": {"format": "JPEG", "quality": 90, "progressive": True},
    "png": {"format": "PNG"},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
    "tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "tiff": {"format": "TIFF"},
    "webp": {"format": "WEBP"},
    "ppm": {"format": "PPM"},
}
HEADER = 300  # bytes in which half of the changes are


def picture(rng: random.Random) -> Image.Image:
    width, height = rng.randrange(20, 200), rng.randrange(20, 200)
    coarse = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def change_bytes(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 12)):
        content[_place(content, rng)] = rng.randrange(256)


def largest_number(content: bytearray, rng: random.Random) -> None:
    """Sizes and lengths of all formats are in their headers."""
    at, length = rng.randrange(min(HEADER, len(content))), rng.choice((1, 2, 4))
    content[at : at + length] = rng.choice((b"\xff", b"\x7f", b"\0")) * length


def insert(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    content[at:at] = rng.randbytes(rng.randrange(1, 40))


def remove(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    del content[at : at + rng.randrange(1, 40)]


def repeat(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at:at] = content[at : at + rng.randrange(1, 400)]


def blank(content: bytearray, rng: random.Random) -> None:
    at, length = _place(content, rng), rng.randrange(1, 500)
    content[at : at + length] = bytes(len(content[at : at + length]))


def _place(content: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(HEADER, len(content)) if rng.random() < 0.5 else len(content))


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    cut, change_bytes, largest_number, insert, remove, repeat, blank,
)  # fmt: skip


# --- Formats

SCALE = np.arange(240, dtype=np.uint8).reshape(12, 20)
COLOURS = np.stack([SCALE, 255 - SCALE, SCALE // 2], axis=2)
GREY = SCALE[..., np.newaxis].repeat(3, 2)
PALETTE = [value for index in range(256) for value in (index, 255 - index, index // 2)]


def of_mode(mode: str) -> Image.Image:
    """A picture of these pixels."""
    if mode.startswith("I;16"):
        return Image.fromarray(SCALE.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(SCALE.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(SCALE.astype(np.float32) / 255)
    if mode == "P":
        image = Image.fromarray(SCALE, "L").convert("P")
        image.putpalette(PALETTE)
        return image
    if mode in ("L", "LA", "1"):
        image = Image.fromarray(SCALE)
        return image.convert("1", dither=Image.Dither.NONE) if mode == "1" else image.convert(mode)
    return Image.fromarray(COLOURS).convert(mode)


MEANS = {
    "1": np.where(GREY > 127, 255, 0),
    "L": GREY,
    "LA": GREY,
    "I;16": GREY,
    "I": GREY,
    "P": COLOURS,
    "RGB": COLOURS,
    "RGBA": COLOURS,
    "CMYK": COLOURS,
    "YCbCr": COLOURS,
}
LOSSY = {"JPEG": 60, "WEBP": 60}  # the most that a value may differ by, in these small pictures
MODES = {
    "PNG": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "I;16", "I", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"),
    "WEBP": ("RGB", "RGBA", "L"),
    "PPM": ("1", "L", "I;16", "RGB"),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
}


@group("image formats", 36)
def formats(rng: random.Random, folder: Path) -> Iterator[Case]:
    for kind, modes in MODES.items():
        for mode in modes:
            path = folder / f"{mode.replace(';', '')}.{kind.lower()}"

            def ours(path: Path = path, kind: str = kind, mode: str = mode) -> None:
                of_mode(mode).save(path, kind)
                assert_means(images.read_image(str(path)), kind, mode)

            def stock(path: Path = path, kind: str = kind, mode: str = mode) -> None:
                of_mode(mode).save(path, kind)
                assert_means(vision.Decode()(np.fromfile(path, np.uint8)), kind, mode)

            yield Case(f"{kind} {mode}", ours, str(path), stock)


def assert_means(found: np.ndarray, kind: str, mode: str) -> None:
    """The pixels are those that were put into the file (data/images.py has the table); floats have no meaning."""
    wanted = MEANS[mode].astype(int)
    assert found.shape == wanted.shape, found.shape
    # Converting to YCbCr and CMYK rounds, and so does a GIF's choice of 256 colours.
    most = LOSSY.get(kind, 3 if mode in ("YCbCr", "CMYK") else 12 if (kind, mode) == ("GIF", "RGB") else 0)
    difference = np.abs(found.astype(int) - wanted).max()
    assert difference <= most, f"values differ by {difference}"


# --- Damage


@group("image fuzz", 800)
def fuzz(rng: random.Random, folder: Path) -> Iterator[Case]:
    for number in range(800):
        kind = rng.choice(list(KINDS))
        file = io.BytesIO()
        picture(rng).save(file, **KINDS[kind])
        content = bytearray(file.getvalue())
        damage = rng.choice(DAMAGE)
        damage(content, rng)
        path = folder / f"{number}.{kind}"
        yield Case(f"{kind}, {damage.__name__}, {number}", *read_case(path, bytes(content)))


def read_case(path: Path, content: bytes) -> tuple[Callable[[], None], str, Callable[[], None]]:
    """Ours, what an error names, and MindSpore's way to read an image."""

    def ours() -> None:
        path.write_bytes(content)
        try:
            # What passes before the first epoch can be read in all of them, to the same pixels.
            images.check_image(str(path), decode=True)
            first, second = images.read_image(str(path)), images.read_image(str(path))
            assert first.dtype == np.uint8
            assert first.ndim == 3
            assert first.shape[2] == 3
            assert np.array_equal(first, second), "two pictures of one file"
            assert np.array_equal(first, expected(content)), "other pixels than Pillow's"
        finally:
            path.unlink()

    def stock() -> None:
        path.write_bytes(content)
        found = vision.Decode()(np.fromfile(path, np.uint8))
        path.unlink()
        wanted = expected(content)
        assert wanted is not None, "a picture of a file that Pillow refuses"
        assert np.array_equal(found, wanted), "other pixels than Pillow's"

    return ours, str(path), stock


# --- Our JPEG decoder beside Pillow's

SAMPLINGS = (0x11, 0x21, 0x22, 0x12, 0x41, 0x14, 0x44)  # of luminance, beside 1x1 of the colours


def jpeg_file(rng: random.Random) -> bytearray:
    """A baseline or progressive file, also with samplings that Pillow does not write."""
    sampling = rng.choice(SAMPLINGS)
    across, down = sampling >> 4, sampling & 15
    size = [rng.randrange(20, 120) for _ in range(2)]
    grey = rng.random() < 0.15
    options = {} if grey else {"subsampling": {0x21: 1, 0x22: 2}.get(sampling, 0)}
    if rng.random() < 0.3:
        options["restart_marker_blocks"] = rng.choice((1, 3, 7))
    if sampling == 0x12:  # 4:2:2 on its side: as many blocks, in another order
        options["subsampling"], size = 1, [16 * rng.randrange(2, 7)] * 2
    image = picture(rng).resize(size)
    file = io.BytesIO()
    progressive = rng.random() < 0.6
    (image.convert("L") if grey else image).save(
        file, "JPEG", quality=rng.choice((30, 75, 95)), progressive=progressive, **({} if grey else options)
    )
    content = bytearray(file.getvalue())
    if not grey and (across, down) not in ((1, 1), (2, 1), (2, 2)):
        content[content.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 11] = sampling
    return content


def scans(content: bytes) -> list[tuple[int, int]]:
    """Where each scan begins and ends."""
    starts = [at for at in range(len(content) - 1) if content[at : at + 2] == b"\xff\xda"]
    found = []
    for start in starts:
        end = start + 2
        while end < len(content) - 1 and not (content[end] == 0xFF and content[end + 1] not in (0, *range(0xD0, 0xD8))):
            end += 1
        found.append((start, end))
    return found


def cut_and_closed(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content) // 4, len(content)) :] = b"\xff\xd9"


def lost_scan(content: bytearray, rng: random.Random) -> None:
    start, end = rng.choice(scans(content))
    del content[start:end]


def closed_early(content: bytearray, rng: random.Random) -> None:
    at = rng.choice(scans(content))[0]
    content[at:at] = b"\xff\xd9"


def flipped(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 3))):
        content[rng.randrange(2, len(content) - 2)] = rng.randrange(256)


def two_in_one(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content) // 2, len(content)) :] = content[:]


def whole(content: bytearray, rng: random.Random) -> None:
    pass


JPEG_DAMAGE = (cut_and_closed, lost_scan, closed_early, flipped, two_in_one, whole, remove, blank)


@group("JPEG fuzz", 400)
def jpeg_fuzz(rng: random.Random, folder: Path) -> Iterator[Case]:
    decoder = jpeg.decoder("auto")
    for number in range(400):
        content = jpeg_file(rng)
        damage = rng.choice(JPEG_DAMAGE)
        damage(content, rng)
        path = folder / f"{number}.jpg"
        yield Case(
            f"{damage.__name__}, {number}", jpeg_case(path, bytes(content), decoder, rng.randrange(1 << 30)), str(path)
        )


def jpeg_case(path: Path, content: bytes, decoder: jpeg.Decoder | None, seed: int) -> Callable[[], None]:
    """With our decoder, the pixels of the whole and of boxes are Pillow's, and what Pillow refuses is refused."""

    def ours() -> None:
        path.write_bytes(content)
        wanted = images.read_image(str(path))
        image = images.open_image(str(path), decoder)
        assert np.array_equal(np.asarray(image), wanted), "other pixels than Pillow's"
        boxes = np.random.default_rng(seed)
        for _ in range(4):
            (top, bottom), (left, right) = (
                sorted(boxes.choice(side + 1, 2, replace=False)) for side in wanted.shape[:2]
            )
            found = image[top:bottom, left:right]
            assert np.array_equal(found, wanted[top:bottom, left:right]), (
                f"other pixels in {top}:{bottom}, {left}:{right}"
            )

    return ours


def expected(content: bytes) -> np.ndarray | None:
    """The pixels by Pillow; None where it refuses."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray((image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB"))
    except Exception:
        return None
