"""One image, a file or its bytes -> 8-bit RGB pixels. A hostile one must not kill the process.

Pillow decodes it, or, with its pixels, bit for bit, a JPEG file's `jpeg.Decoder`.

What comes out (height, width, 3), uint8, EXIF rotation ignored, first frame of an animation:

| pixels in the file                  | become                                                        |
| ----------------------------------- | ------------------------------------------------------------- |
| RGB, YCbCr                          | RGB (JPEG: the same values as MindSpore's own decoder)        |
| grayscale, 1-bit                    | the value in all three channels (1-bit: 0 or 255)             |
| palette, with or without transparency | the palette's colour; transparency is dropped               |
| grayscale or RGB with alpha         | alpha is dropped, as MindSpore's decoder does                 |
| CMYK                                | Pillow's conversion (Adobe's inverted JPEGs are handled)      |
| 16-bit grayscale                    | scaled: value / 257, rounded                                  |
| 16-bit RGB                          | the high byte of each value                                   |
| 32-bit integers beyond 16 bits, floating point | refused                                            |
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ghostnet.data import jpeg
from ghostnet.errors import UserError

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"))
MAX_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb: 256 MB of RGB

# Pillow's other formats (some start external programs) are never tried, whatever a file's first bytes say.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_WITH_TRANSPARENCY = ("P", "PA")

# The beginning of a file that holds pixels as they are.
_PLAIN = re.compile(rb"P6\n([1-9]\d{0,8}) ([1-9]\d{0,8})\n255\n")

_ORIENTATION = 0x0112  # the EXIF entry, and what undoes each of its values
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# read_image and check_image refuse such images themselves, with the path; Pillow's warning would only repeat
# it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def files_below(folder: Path) -> list[str]:
    """Image files in a folder and below it, by their names, sorted; hidden files and folders are passed over."""
    return [
        str(file)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in EXTENSIONS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def read_image(path: str, upright: bool = False) -> np.ndarray:
    """Returns the pixels of ``path``: uint8, (height, width, 3), RGB (the table above).

    With ``upright`` they are turned as the camera noted (EXIF), which training and validation leave out.

    Raises:
        UserError: the file can't be read or decoded, is truncated, has over MAX_PIXELS pixels or pixels of a
            kind
            that has no 8-bit meaning.
    """
    return _opened(path, path, _upright if upright else _to_rgb)


class JpegImage:
    """A JPEG file that is decoded as far as it is asked for; like an array, uint8 (height, width, 3).

    ``image[top:bottom, left:right]`` is what slicing the decoded image gives, ``numpy.asarray(image)`` all of it.
    """

    def __init__(self, content: bytes, name: str, decoder: jpeg.Decoder, size: tuple[int, int]) -> None:
        self.shape = (*size, 3)
        self._content, self._name, self._decoder = content, name, decoder

    def __getitem__(self, box: tuple[slice, slice]) -> np.ndarray:
        """Raises UserError as :func:`read_image` does."""
        (top, bottom, _), (left, right, _) = (part.indices(size) for part, size in zip(box, self.shape, strict=False))
        pixels = self._decoder.box(self._content, top, left, bottom - top, right - left)
        return decode_image(self._content, self._name)[box] if pixels is None else pixels

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        pixels = self[:, :]
        return pixels if dtype is None else pixels.astype(dtype)


def open_image(path: str, decoder: jpeg.Decoder | None) -> np.ndarray | JpegImage:
    """The pixels of ``path``, to be cut from: those of :func:`read_image`, which also has the word on errors."""
    if decoder is not None:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            start = file.read(len(jpeg.START))
            if start == jpeg.START:
                return open_content(start + file.read(), path, decoder)
    return read_image(path)


def open_content(content: bytes, name: str, decoder: jpeg.Decoder | None) -> np.ndarray | JpegImage:
    """The pixels of an image file's bytes, as :func:`open_image`; ``name`` is for messages."""
    size = None if decoder is None else decoder.size(content)
    if size is None or size[0] * size[1] > MAX_PIXELS:
        return decode_image(content, name)
    return JpegImage(content, name, decoder, size)


def decode_image(content: bytes, name: str) -> np.ndarray:
    """The pixels of an image file's bytes, as :func:`read_image`; ``name`` is for messages."""
    if header := _PLAIN.match(content):
        width, height = map(int, header.groups())
        # Pillow would copy the pixels twice; it has the word on any other file.
        if width * height <= MAX_PIXELS and len(content) - header.end() == 3 * width * height:
            return np.frombuffer(content, np.uint8, offset=header.end()).reshape(height, width, 3)
    return _opened(io.BytesIO(content), name, _to_rgb)


def plain_file(pixels: np.ndarray) -> bytes:
    """A file (PPM) of pixels as they are, uint8 (height, width, 3): large, and nothing to decode."""
    return b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def size(path: str) -> tuple[int, int]:
    """Width and height of an image file, from its header. Raises UserError as :func:`read_image` does."""
    return _opened(path, path, lambda image, _: image.size)


def check_image(path: str, decode: bool) -> None:
    """Raises UserError if ``path`` is no usable image: reads its header, with ``decode`` its pixels too."""

    def check(image: Image.Image, name: str) -> None:
        if image.mode == "F" or (decode and image.mode.startswith("I")):
            _to_rgb(image, name)  # says which pixels have no 8-bit meaning
        elif decode:
            image.load()

    _opened(path, path, check)


def _opened(source: str | io.BytesIO, name: str, use: Callable[[Image.Image, str], Any]) -> Any:
    """``use(image, name)`` on the opened image, with every failure turned into a UserError that has the name."""
    try:
        with Image.open(source, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(
                    f"{name}: {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} "
                    "that are accepted; scale the image down or remove it"
                )
            return use(image, name)
    except UserError:
        raise
    # Pillow's decoders raise anything on a damaged file: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: not a readable image ({reason}); replace or remove the file") from error


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I"):
        return _from_integers(np.asarray(image), name)
    if image.mode == "F":
        raise UserError(f"{name}: floating-point pixels; expected 8 or 16 bits a channel")
    if image.mode in _WITH_TRANSPARENCY:
        image = image.convert("RGBA")  # a palette's transparency survives no direct conversion without a warning
    # Converted to what it is, an image would be copied.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(image: Image.Image, name: str) -> np.ndarray:
    turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    pixels = _to_rgb(image, name)
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def _from_integers(values: np.ndarray, path: str) -> np.ndarray:
    """16-bit grayscale (Pillow modes I;16, I) -> 8-bit RGB."""
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: 32-bit pixels; expected 8 or 16 bits a channel")
    return np.repeat(((values + 128) // 257).astype(np.uint8)[..., np.newaxis], 3, axis=2)
