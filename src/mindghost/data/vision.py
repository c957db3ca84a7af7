"""MindSpore's image operators, imported when one is first used: that takes seconds, and much does without them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from numpy.typing import NDArray

from ..process.signals import importing

# The name of an interpolation, as the key `interpolation` has it, for which `jpeg.Decoder` has MindSpore's pixels.
BILINEAR = "bilinear"

Operation = Callable[[NDArray[Any]], NDArray[Any]]


@cache
def module() -> Any:
    """`mindspore.dataset.vision`."""
    with importing():
        from mindspore.dataset import vision
    return vision


def inter(interpolation: str) -> Any:
    """MindSpore's own word for an interpolation."""
    return getattr(module().Inter, interpolation.upper())


@lru_cache(64)
def _resize(size: int | tuple[int, int], interpolation: str) -> Operation:
    return module().Resize(size, inter(interpolation))


def resized(image: NDArray[Any], size: int | tuple[int, int], interpolation: str) -> NDArray[Any]:
    """An image, uint8 (h, w, C), at another (height, width); a number is that of its shorter side."""
    return _resize(size, interpolation)(image)


@lru_cache(64)
def _made(name: str, *arguments: Any) -> Operation:
    return getattr(module(), name)(*arguments)


def operation(name: str, *arguments: Any) -> Operation:
    """An operator by its name, made with these arguments when it is first called."""
    return lambda image: _made(name, *arguments)(image)
