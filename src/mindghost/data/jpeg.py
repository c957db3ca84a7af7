"""JPEG files by libjpeg-turbo (`jpeg.cpp`): faster than through Pillow, and no more of an image than is asked for.

Whatever it is not sure of it leaves to Pillow, whose pixels it has, bit for bit.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..csrc.cpp_library import CppLibrary, NativeError, one_line

_SOURCE = Path(__file__).parent.parent / "csrc" / "jpeg" / "jpeg.cpp"
START, _END = b"\xff\xd8\xff", b"\xff\xd9"  # of every JPEG file

_logger = logging.getLogger("mindghost")


class Decoder:
    """The library's functions, which hold no lock of Python's. Raises NativeError where it can't be loaded."""

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path))
            self._size, self._box = library.ghostnet_jpeg_size, library.ghostnet_jpeg_box
        except (OSError, AttributeError) as error:
            raise NativeError(f"{path} cannot be loaded ({one_line(str(error))}); delete it") from error
        content = (ctypes.c_char_p, ctypes.c_size_t)
        self._size.argtypes = (*content, ctypes.c_void_p)
        self._box.argtypes = (*content, *[ctypes.c_int] * 4, ctypes.c_void_p)

    def size(self, content: bytes) -> tuple[int, int] | None:
        """Height and width of a JPEG file that is complete by its end; None for others."""
        # A file that was cut off may have whole rows at its beginning.
        if not (content.startswith(START) and content.endswith(_END)):
            return None
        size = np.empty(2, np.intc)
        return None if self._size(content, len(content), size.ctypes.data) else (int(size[0]), int(size[1]))

    def box(self, content: bytes, top: int, left: int, height: int, width: int) -> NDArray[Any] | None:
        """The pixels of a box of a JPEG file: uint8 (height, width, 3); None where libjpeg has so much as a warning."""
        pixels = np.empty((height, width, 3), np.uint8)
        return None if self._box(content, len(content), top, left, height, width, pixels.ctypes.data) else pixels


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
