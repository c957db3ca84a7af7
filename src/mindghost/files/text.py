"""Texts that people have: in UTF-8, or in UTF-16 or UTF-32 that says so, with any ends of lines."""

from __future__ import annotations

import codecs
from pathlib import Path

from ..errors import UserError

# UTF-32 first: its mark begins as that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded(path: Path, content: bytes) -> str:
    """The text that a file holds; lines end with a line feed. Raises UserError, which names `path`, for other bytes."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: no {encoding.upper()} text; save it as UTF-8") from error
    if "\0" in text:
        raise UserError(f"{path}: not a text file, or one in UTF-16 that does not say so; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
