"""Names and texts of strangers, made fit to be shown: in messages, logs, CSV, Markdown and HTML.

A file name may hold anything but a slash and NUL: line breaks that would forge a log line, sequences that a terminal
obeys, bytes that are no UTF-8. What is printed or written for people or programs goes through here.
"""

from __future__ import annotations

import html as _html
import os
import re
import unicodedata

# Zero-width joiners: emoji and several scripts are written with them.
_HARMLESS = "\u200c\u200d"
# Control and format characters (those that change the direction of text among them), halves of pairs, line separators.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# What makes a spreadsheet take a cell for a formula.
_FORMULA = re.compile(r"[=+\-@\t\r\n]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&$:@])")


def shown(text: str | os.PathLike[str]) -> str:
    r"""A text on one line, in which nothing is hidden: `a\nb` for a line break, `\xff` for a byte that is no UTF-8.

    What is printable stays as it is. For messages, logs and tables; JSON and CSV have rules of their own.
    """
    text = os.fspath(text)
    # The usual case, at the speed of C.
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _HARMLESS or unicodedata.category(c) not in _HIDDEN else _escaped(c) for c in text)


def csv_cell(text: str) -> str:
    """A name as a cell of a table that a spreadsheet may open: never a formula, on one line."""
    return f"'{shown(text)}" if _FORMULA.match(text) else shown(text)


def markdown(text: str) -> str:
    """A text that Markdown shows as it is: no link, heading, emphasis, table cell or tag begins or ends in it."""
    return _MARKDOWN.sub(r"\\\1", shown(text))


def html(text: str) -> str:
    """A text that HTML shows as it is, in an element or an attribute."""
    return _html.escape(shown(text))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode() if code < 0xD800 or code > 0xDFFF else f"\\u{code:04x}"
