"""JPEG files by libjpeg-turbo (`jpeg.cpp`): faster than through Pillow, and no more of an image than is asked for.

Whatever it is not sure of it leaves to Pillow, whose pixels it has, bit for bit. It resizes as it reads, with the
pixels of MindSpore's bilinear operator, and likewise leaves to that what it does not know.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..csrc.cpp_library import CppLibrary, NativeError, one_line

_SOURCE = Path(__file__).parent.parent / "csrc" / "jpeg" / "jpeg.cpp"
START, _END = b"\xff\xd8\xff", b"\xff\xd9"  # of every JPEG file

_Numbers = ctypes.c_int * 12  # of a plan

_logger = logging.getLogger("mindghost")


@dataclass(frozen=True)
class Plan:
    """What becomes of an image: a box of it is resized, and a window of that may be mirrored.

    Attributes:
        box, window: top, left, height and width.
        size: height and width that the box is resized to.
        mirrored, upended: left and right, top and bottom are exchanged.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]
    window: tuple[int, int, int, int]
    mirrored: bool = False
    upended: bool = False


class Decoder:
    """The library's functions, which hold no lock of Python's. Raises NativeError where it can't be loaded.

    Attributes:
        path: of the library, whose name says what it was made of.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            library = ctypes.CDLL(str(path))
            self._header, self._box = library.ghostnet_jpeg_header, library.ghostnet_jpeg_box
            self._resized_jpeg, self._resized = library.ghostnet_jpeg_resized, library.ghostnet_resized
            self._looked_up = library.ghostnet_looked_up
        except (OSError, AttributeError) as error:
            raise NativeError(f"{path} cannot be loaded ({one_line(str(error))}); delete it") from error
        content = (ctypes.c_char_p, ctypes.c_size_t)
        numbers, pointer, target = ctypes.c_int, ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._header.argtypes = (*content, pointer)
        self._box.argtypes = (*content, *[numbers] * 4, pointer)
        self._resized_jpeg.argtypes = (*content, _Numbers, *target)
        self._resized.argtypes = (pointer, numbers, numbers, _Numbers, *target)
        self._looked_up.argtypes, self._looked_up.restype = (pointer, numbers, *target), None

    def header(self, content: bytes) -> tuple[int, int, bool] | None:
        """Height, width, and whether there are several scans, of a JPEG file that is complete by its end; else None."""
        # A file that was cut off may have whole rows at its beginning.
        if not (content.startswith(START) and content.endswith(_END)):
            return None
        found = np.empty(3, np.intc)
        if self._header(content, len(content), found.ctypes.data):
            return None
        return int(found[0]), int(found[1]), bool(found[2])

    def box(self, content: bytes, top: int, left: int, height: int, width: int) -> NDArray[Any] | None:
        """The pixels of a box of a JPEG file: uint8 (height, width, 3); None where libjpeg has so much as a warning."""
        pixels = np.empty((height, width, 3), np.uint8)
        return None if self._box(content, len(content), top, left, height, width, pixels.ctypes.data) else pixels

    def resized(
        self,
        image: bytes | NDArray[Any],
        plan: Plan,
        table: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any] | None:
        """Bilinear resizing of a JPEG file or of pixels, uint8 (height, width, 3), as MindSpore does it.

        Args:
            image: the file's bytes, or contiguous pixels.
            plan: what is resized.
            table: what pixels become, float32 (channels, 256): see `looked_up`; None for the pixels.
            out: for the result, contiguous; None for a fresh array.

        Returns uint8 (*window, 3), or with a table float32 (channels, *window); None as `box`, and where MindSpore
        takes another rule.
        """
        height, width = plan.window[2:]
        if out is None:
            if table is None:
                out = np.empty((height, width, 3), np.uint8)
            else:
                out = np.empty((len(table), height, width), np.float32)
        numbers = _Numbers(*plan.box, *plan.size, *plan.window, plan.mirrored, plan.upended)
        target = (None, 0, out.ctypes.data) if table is None else (table.ctypes.data, len(table), out.ctypes.data)
        if isinstance(image, bytes):
            refused = self._resized_jpeg(image, len(image), numbers, *target)
        else:
            refused = self._resized(image.ctypes.data, *image.shape[:2], numbers, *target)
        return None if refused else out

    def looked_up(self, image: NDArray[Any], table: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """uint8 (h, w, 3) -> float32 (channels, h, w), in `out` if that is given: `p` becomes `table[channel, p]`."""
        image = np.ascontiguousarray(image)
        result = np.empty((len(table), *image.shape[:2]), np.float32) if out is None else out
        count = image.shape[0] * image.shape[1]
        self._looked_up(image.ctypes.data, count, table.ctypes.data, len(table), result.ctypes.data)
        return result


@functools.lru_cache
def decoder(native_ops: str) -> Decoder | None:
    """The decoder, built if need be; None with `native_ops` "off", and where it can't be had, which the log says."""
    if native_ops == "off":
        return None
    try:
        return Decoder(library().build())
    except NativeError as error:
        _logger.info(f"JPEG files are decoded by Pillow, whole: {error}")
        return None


def library() -> CppLibrary:
    """What the decoder is made of: besides a compiler it needs libjpeg-turbo's header (Debian: libjpeg-dev)."""
    return CppLibrary("libghostnet-jpeg", _SOURCE.parent, {"jpeg": (_SOURCE, ())}, Decoder, ("-ljpeg",))
