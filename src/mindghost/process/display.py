"""Names and texts of strangers, made fit to be shown: in messages, logs, CSV, Markdown, HTML and shell commands.

A file name may hold anything but a slash and NUL: line breaks that would forge a log line, sequences that a terminal
obeys, bytes that are no UTF-8. What is printed or written for people or programs goes through here.
"""

from __future__ import annotations

import html as _html
import logging
import os
import re
import shlex
import sys
import unicodedata
from collections.abc import Collection
from typing import TextIO
from urllib.parse import quote

# Zero-width joiners: emoji and several scripts are written with them.
_HARMLESS = "\u200c\u200d"
# Control and format characters (those that change the direction of text among them), halves of pairs, line separators,
# and what no version of Unicode that Python knows has: it may be any of these to the terminal.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn")
# Of no width, though letters by their category.
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
# What makes a spreadsheet take a cell for a formula; Japanese ones take the wide signs, too.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# What Markdown takes for more than itself: anywhere (the colon and what follows www make links), and at the beginning.
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>|~&$:@]|(?<=www)\.|^[#+\-=]", re.IGNORECASE)
_NUMBERED = re.compile(r"^(\d+)([.)])")


def shown(text: str | os.PathLike[str]) -> str:
    r"""A text on one line, in which nothing is hidden: `a\nb` for a line break, `\xff` for a byte that is no UTF-8.

    What is printable stays as it is. For messages, logs and tables; JSON and CSV have rules of their own.
    """
    text = os.fspath(text)
    # The usual case, at the speed of C.
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if _is_hidden(c) else c for c in text)


def say(line: str, file: TextIO | None = None) -> None:
    """Print a line with names in it, on standard output where no other file is given."""
    print(shown(line), file=file or sys.stdout)


def csv_cell(text: str) -> str:
    """A name as a cell of a table that a spreadsheet may open: never a formula, on one line."""
    return f"'{shown(text)}" if _FORMULA.match(text) else shown(text)


def markdown(text: str) -> str:
    """A text that Markdown shows as it is: no link, heading, emphasis, table cell or tag begins or ends in it."""
    return _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", shown(text)))


def fenced(language: str, text: str) -> str:
    """Lines as a code block of Markdown, which nothing in them ends."""
    lines = list(map(shown, text.split("\n")))
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(4, longest + 1)
    return "\n".join([f"{fence}{language}", *lines, fence])


def address(name: str) -> str:
    """A file name as part of a link's address, in Markdown and HTML."""
    return quote(os.fsencode(name))


def html(text: str) -> str:
    """A text that HTML shows as it is, in an element or an attribute."""
    return _html.escape(shown(text))


def shell(word: str) -> str:
    r"""A word for a shell command on one line: quoted where need be, by `$'a\nb'` where something in it is hidden."""
    if shown(word) == word:
        return shlex.quote(word)
    return "".join(["$'", *(_escaped(c) if _is_hidden(c) else f"\\{c}" if c in "\\'" else c for c in word), "'"])


class OneLine(logging.Formatter):
    """A record of a log is one line, whatever the names in it hold."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's text with hidden characters, line breaks among them, as escapes."""
        record.message = shown(record.message)
        return super().formatMessage(record)


def _is_hidden(character: str) -> bool:
    if character in _HARMLESS:
        return False
    return character in _INVISIBLE or unicodedata.category(character) in _HIDDEN


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries a byte of a file name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return _SHORT.get(character, f"\\x{code:02x}")
    # Not \x9b: that is the byte.
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def some(names: Collection[object], most: int = 4) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, list(names)[:most])) + more
