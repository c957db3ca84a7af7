"""One image, a file or its bytes -> 8-bit RGB pixels. A hostile one must not kill the process.

Pillow decodes it, or, with its pixels, bit for bit, a JPEG file's `jpeg.Decoder`.

What comes out (height, width, 3), uint8, as the file has it or turned upright (EXIF), first frame of an animation:

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

What the machine lacks (open files, memory) is a RunError, whatever the image: a good one is never skipped for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import RunError, UserError
from ..files import paths
from ..process import resources
from . import jpeg

# What Pillow's enabled formats are called; those with floating-point pixels (.pfm) have no 8-bit meaning.
_ENDINGS = ".jpg .jpeg .jpe .jfif .mpo .png .apng .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm"
EXTENSIONS = frozenset(_ENDINGS.split(" "))
MAX_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb: 256 MB of RGB
MAX_SIDE = 65_535  # of a JPEG file
MAX_RATIO = 1_000  # of the longer side to the shorter one, which is what an image is scaled by

# Pillow's other formats (some start external programs) are never tried, whatever a file's first bytes say.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_WITH_TRANSPARENCY = ("P", "PA")

# The beginning of a file that holds pixels as they are.
_PLAIN = re.compile(rb"P6\n([1-9]\d{0,8}) ([1-9]\d{0,8})\n255\n")
_WEBP, _WEBP_START = re.compile(rb"RIFF....WEBP", re.DOTALL), 12
_SCAN, _MOST_SCANS = b"\xff\xda", 500  # what begins a scan of a JPEG file; each takes time, and may take few bytes
_LARGEST_JPEG = 1 << 28  # bytes of a file that is read whole before it is decoded
_BYTES_OF_PIXEL, _SOME_BYTES = 8, 1 << 22  # that decoding takes, of a pixel, and besides
_REMEDY = "put an image there, or leave it out"

_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_EXIF = b"Exif\0\0"  # what begins such data in a JPEG file
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
_TURNS_BACK = {**_TURNS, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}

# What is wrong with an image is said once, in one line that has its path; Pillow would speak of damaged metadata, too.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
with contextlib.suppress(OSError, AttributeError):  # libtiff, which writes to standard error: among Pillow's libraries
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]


def read_image(path: str, upright: bool = False) -> NDArray[Any]:
    """Returns the pixels of `path`: uint8, (height, width, 3), RGB (the table above).

    With `upright` they are turned as the camera noted (EXIF), which training and validation leave out.

    Raises:
        UserError: the file can't be read or decoded, is truncated, has over MAX_PIXELS pixels, sides beyond MAX_SIDE or
            MAX_RATIO, or pixels of a kind that has no 8-bit meaning.
        RunError: the machine has no more memory or open files.
    """
    with paths.open_file(path, _REMEDY) as file:
        return opened(file, path, _upright if upright else _as_stored)


class JpegImage:
    """A JPEG file that is decoded as far as it is asked for; like an array, uint8 (height, width, 3).

    `image[top:bottom, left:right]` is what slicing the decoded image gives, `numpy.asarray(image)` all of it.
    """

    def __init__(self, content: bytes, name: str, decoder: jpeg.Decoder, size: tuple[int, int]) -> None:
        self.shape = (*size, 3)
        self.decoder = decoder
        self._content, self._name = content, name

    def __getitem__(self, box: tuple[slice, slice]) -> NDArray[Any]:
        """The pixels of a box, uint8 (h, w, 3). Raises UserError and RunError as `read_image` does."""
        (top, bottom, _), (left, right, _) = (part.indices(size) for part, size in zip(box, self.shape, strict=False))
        with resources.spent_on(self._name):
            pixels = self.decoder.box(self._content, top, left, bottom - top, right - left)
        return decode_image(self._content, self._name)[box] if pixels is None else pixels

    def resized(self, plan: jpeg.Plan, table: NDArray[Any] | None, out: NDArray[Any] | None) -> NDArray[Any] | None:
        """What `plan` makes of the image, see `jpeg.Decoder.resized`; None where that leaves it to others."""
        with resources.spent_on(self._name):
            return self.decoder.resized(self._content, plan, table, out)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        pixels = self[:, :]
        return pixels if dtype is None else pixels.astype(dtype)


def open_image(path: str, decoder: jpeg.Decoder | None) -> NDArray[Any] | JpegImage:
    """The pixels of `path`, to be cut from: those of `read_image`, which also has the word on errors."""
    with paths.open_file(path, _REMEDY) as file:
        if decoder is not None:
            start = _read(file, path, len(jpeg.START))
            if start == jpeg.START and os.fstat(file.fileno()).st_size <= _LARGEST_JPEG:
                return open_content(start + _read(file, path), path, decoder)
            file.seek(0)
        return opened(file, path, _as_stored)


def _read(file: BinaryIO, name: str, size: int = -1) -> bytes:
    try:
        return file.read(size)
    except (OSError, MemoryError) as error:
        resources.check(error, name)
        raise UserError(f"{name}: cannot be read ({paths.reason(error)}); {_REMEDY}") from error


def content(path: str) -> bytes:
    """The bytes of an image file. Raises as `read_image` does where they can't be read."""
    return paths.read(path, _REMEDY)


def start(path: str, count: int) -> bytes:
    """The first bytes of an image file. Raises as `read_image` does where they can't be read."""
    with paths.open_file(path, _REMEDY) as file:
        return _read(file, path, count)


def open_content(content: bytes, name: str, decoder: jpeg.Decoder | None) -> NDArray[Any] | JpegImage:
    """The pixels of an image file's bytes, as `open_image`; `name` is for messages."""
    header = None if decoder is None else decoder.header(content)
    if decoder is None or header is None:
        return decode_image(content, name)
    height, width, several_scans = header
    # Of a file with one scan, libjpeg reads no other.
    if _beyond_bounds(width, height) or (several_scans and content.count(_SCAN) > _MOST_SCANS):
        return decode_image(content, name)
    return JpegImage(content, name, decoder, (height, width))


def open_upright(content: bytes, name: str, decoder: jpeg.Decoder | None) -> NDArray[Any] | JpegImage:
    """The pixels of an image file's bytes, turned as the camera noted (EXIF); `name` is for messages."""
    # A JPEG file without that word says nothing of how it was held.
    if decoder is not None and content.startswith(jpeg.START) and _EXIF not in content:
        return open_content(content, name, decoder)
    return opened(io.BytesIO(content), name, _upright)


def decode_image(content: bytes, name: str) -> NDArray[Any]:
    """The pixels of an image file's bytes, as `read_image`; `name` is for messages."""
    if header := _PLAIN.match(content):
        width, height = map(int, header.groups())
        # Pillow would copy the pixels twice; it has the word on any other file.
        if not _beyond_bounds(width, height) and len(content) - header.end() == 3 * width * height:
            return np.frombuffer(content, np.uint8, offset=header.end()).reshape(height, width, 3)
    return opened(io.BytesIO(content), name, _as_stored)


def plain_file(pixels: NDArray[Any]) -> bytes:
    """A file (PPM) of pixels as they are, uint8 (height, width, 3): large, and nothing to decode."""
    return b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def size(path: str) -> tuple[int, int]:
    """Width and height of an image file as stored, from its header. Raises as `read_image` does."""
    with paths.open_file(path, _REMEDY) as file:
        return size_of(file, path)


def size_of(source: BinaryIO, name: str) -> tuple[int, int]:
    """As `size`, of an image file's bytes, which are read as far as need be; `name` is for messages."""
    found: tuple[int, int] = opened(source, name, lambda image, _: _stored_size(image))
    return found


def check_image(path: str, decode: bool) -> bool:
    """Read the header of an image, with `decode` its pixels too; whether the file holds more images than the one read.

    Raises as `read_image` for one that is not usable.
    """
    with paths.open_file(path, _REMEDY) as file:
        return check_stream(file, path, decode)


def check_stream(source: BinaryIO, name: str, decode: bool) -> bool:
    """As `check_image`, of an image file's bytes, which are read as far as need be; `name` is for messages."""

    def check(image: Image.Image, name: str) -> bool:
        if image.mode == "F" or (decode and image.mode.startswith("I")):
            _to_rgb(image, name)  # says which pixels have no 8-bit meaning
        elif decode:
            _load(image, name)
        return _has_more(image)

    found: bool = opened(source, name, check)
    return found


def _has_more(image: Image.Image) -> bool:
    """Whether a file goes on behind its first frame or page. The previews in photos (MPO) do not count."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # anything, as below: of what lies behind the image that is used
        return False


def _beyond_bounds(width: int, height: int) -> str:
    """Why an image of this size is not accepted; empty where it is."""
    if width * height > MAX_PIXELS:
        return f"more than the {MAX_PIXELS:,} that are accepted; scale the image down or remove it"
    if max(width, height) > min(MAX_SIDE, MAX_RATIO * min(width, height)):
        return (
            f"but no side may be over {MAX_SIDE:,} pixels, or over {MAX_RATIO:,} times the other one; crop the image "
            "or remove it"
        )
    return ""


def opened(source: BinaryIO, name: str, use: Callable[[Image.Image, str], Any]) -> Any:
    """`use(image, name)` on the image of a file, as Pillow opens it, within the bounds that are accepted.

    Every failure becomes an error of one line that has the name. Raises as `read_image` does.
    """
    with contextlib.suppress(MemoryError):
        return _attempt(source, name, use)
    try:
        # Other threads may have had the memory for a moment.
        return _attempt(source, name, use)
    except MemoryError as error:
        reason = "it takes more memory than its size explains"
        raise UserError(f"{name}: not a readable image ({reason}); replace or remove the file") from error


def _attempt(source: BinaryIO, name: str, use: Callable[[Image.Image, str], Any]) -> Any:
    """As `_opened`, but raises MemoryError where more memory was asked for than an image of its size takes."""
    needed = _SOME_BYTES
    try:
        source.seek(0)
        if _WEBP.match(source.read(_WEBP_START)):
            needed = _BYTES_OF_PIXEL * MAX_PIXELS  # it is decoded before its size is known
        source.seek(0)
        with _pillow(source) as image:
            if problem := _beyond_bounds(*image.size):
                raise UserError(f"{name}: {image.width} x {image.height} pixels, {problem}")
            needed = _SOME_BYTES + _BYTES_OF_PIXEL * image.width * image.height
            return use(image, name)
    except (UserError, RunError):
        raise
    # Pillow's decoders raise anything on a damaged file: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        if not resources.has_room(needed):
            raise RunError(f"{name}: {resources.OUT_OF_MEMORY}") from error
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            raise MemoryError from error
        resources.check(error, name)
        # Pillow's own words name an object of Python's.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no format that is known" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: not a readable image ({reason}); replace or remove the file") from error


@contextlib.contextmanager
def _pillow(source: BinaryIO) -> Iterator[Image.Image]:
    # Any library may have set it: half an image would be taken for a whole one.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with Image.open(source, formats=_FORMATS) as image:
        yield image


def _load(image: Image.Image, name: str) -> None:
    """Decode an image, unless it is a progressive JPEG file of so many scans that it would take minutes."""
    file = getattr(image, "fp", None)  # None once the image is loaded
    if image.info.get("progressive") and file is not None:
        at = file.tell()
        file.seek(0)
        scans = file.read().count(_SCAN)
        file.seek(at)
        if scans > _MOST_SCANS:
            raise UserError(
                f"{name}: {scans:,} scans; a progressive JPEG file has some ten; replace or remove the file"
            )
    image.load()


def _to_rgb(image: Image.Image, name: str) -> NDArray[Any]:
    _load(image, name)
    if image.mode.startswith("I"):
        return _from_integers(np.asarray(image), name)
    if image.mode == "F":
        raise UserError(f"{name}: floating-point pixels; expected 8 or 16 bits a channel")
    if image.mode in _WITH_TRANSPARENCY:
        image = image.convert("RGBA")  # a palette's transparency survives no direct conversion without a warning
    # Converted to what it is, an image would be copied.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _as_stored(image: Image.Image, name: str) -> NDArray[Any]:
    """The pixels as the file has them, which is not as Pillow has them: it turns TIFF files upright by itself."""
    if image.format != "TIFF":
        return _to_rgb(image, name)
    _, done = _orientations(image, name)
    return _turned(_to_rgb(image, name), _TURNS_BACK.get(done))


def _upright(image: Image.Image, name: str) -> NDArray[Any]:
    wanted, done = _orientations(image, name)
    pixels = _to_rgb(image, name)
    return pixels if done else _turned(pixels, _TURNS.get(wanted))


def _turned(pixels: NDArray[Any], turn: Image.Transpose | None) -> NDArray[Any]:
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def _orientations(image: Image.Image, name: str) -> tuple[int, int]:
    """The EXIF orientation of an image, which is loaded for it, and the one that Pillow has undone itself (0: none)."""
    if image.format != "TIFF":
        _load(image, name)  # a PNG file may have its EXIF data behind the pixels
        return _noted(image), 0
    wanted, tagged = _noted(image), _tags(image).get(_ORIENTATION)
    image.load()
    if wanted not in _TURNS:
        return wanted, 0
    # What Pillow has undone it takes out of the EXIF data; older versions took nothing out, and looked at the tag.
    return wanted, wanted if tagged == wanted or _noted(image) != wanted else 0


def _noted(image: Image.Image) -> int:
    """The orientation in the EXIF data; 1, as it is, where there is none or it can't be read."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # anything, as above: of damaged EXIF data, beside pixels that may be whole
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    if image.format != "TIFF":
        return image.size
    # Pillow says the size that it will have when it is upright.
    return _tags(image)[_TIFF_WIDTH], _tags(image)[_TIFF_HEIGHT]


def _tags(image: Any) -> Mapping[int, Any]:
    """The tags of a TIFF image, by number."""
    return image.tag_v2


def _from_integers(values: NDArray[Any], path: str) -> NDArray[Any]:
    """16-bit grayscale (Pillow modes I;16, I) -> 8-bit RGB."""
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: pixels of {values.min()} to {values.max()}; expected 8 or 16 bits a channel")
    return np.repeat(((values + 128) // 257).astype(np.uint8)[..., np.newaxis], 3, axis=2)
