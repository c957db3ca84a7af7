"""matplotlib's figures as PNG files, with the names of strangers in them drawn as they are.

matplotlib takes `$` for a formula, leaves `_name` out of a legend, fails on what is no UTF-8, and warns of each sign
that its fonts lack. All of this is dealt with here, for every picture that is drawn.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..process.display import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Or it would say on every picture that a font has one weight only, and, when it is imported on a slow machine, that it
# lists the fonts.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

# Those of them that are installed are asked for the signs that the first one lacks.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
)


def check() -> None:
    """Raise UserError where matplotlib is missing: before what takes its time."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"matplotlib draws the picture ({error}); pip install matplotlib") from error


def check_ending(path: Path, option: str) -> None:
    """Raise UserError where the name of a picture to write, which an option gave, is none of a PNG file."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{option}: {path} does not end with .png, and that is what is written")


def png(draw: Callable[[], Figure], **options: Any) -> bytes:
    """The PNG file of a figure.

    Args:
        draw: makes the figure; names in it have gone through `label`.
        options: of `Figure.savefig`.

    Raises ImportError where matplotlib is missing.
    """
    import matplotlib
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    settings: dict[Any, Any] = {
        "text.parse_math": False,
        "text.usetex": False,
        "font.family": [font for font in FONTS if font in installed],
    }
    file = io.BytesIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A sign that no font has becomes a box.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        draw().savefig(file, format="png", **options)
    return file.getvalue()


def label(name: str) -> str:
    """A name as a text of a figure, in its legend too."""
    name = shown(name)
    return f" {name}" if name.startswith("_") else name
