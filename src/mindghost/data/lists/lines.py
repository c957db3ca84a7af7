"""The lines of a list file, a few in memory at a time, and how it is said that one of them is bad."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from ...errors import UserError
from ...files import paths
from ...process.display import shown

WANTED = 'give lines `path label`, CSV whose first line is `path,label`, or JSON lines {"path": ..., "label": ...}'

_BLOCK = 1 << 20  # bytes that are read at a time
_MOST_LINE = 1 << 18  # bytes; a path has up to 4,096
_LETTERS_SHOWN = 100
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def lines(file: Path, key: str) -> Iterator[str]:
    """The lines of a text file, without their ends. `key` is what the file was given by.

    Ends are those of Linux and Windows; those of old Macs, where a file has no others. Bytes that are no UTF-8 are kept
    as Python keeps them in names of files.

    Raises UserError (`FILE:LINE: why; remedy`) for what is no text.
    """
    number, rest, end = 1, b"", b"\n"
    with _opened(file, key) as content:
        while block := content.read(_BLOCK):
            if number == 1 and not rest:
                if block.startswith(_UTF_16):
                    raise UserError(f"{file}:1: UTF-16 text; save the list as UTF-8")
                block = block.removeprefix(_BOM)
                end = b"\r" if b"\r" in block and b"\n" not in block else end
            if b"\0" in block:
                line = number + block.count(end, 0, block.index(b"\0"))
                fail(file, line, f"no text (a binary file, or UTF-16 that does not say so); {WANTED}")
            whole, found, rest = (rest + block).rpartition(end)
            if len(rest) > _MOST_LINE:
                line = number + whole.count(end) + (1 if found else 0)
                fail(file, line, f"a line of over {_MOST_LINE:,} bytes; {WANTED}")
            if found:
                texts = whole.decode(errors="surrogateescape").split(end.decode())
                yield from (text.removesuffix("\r") for text in texts)
                number += len(texts)
    if rest:
        yield rest.decode(errors="surrogateescape").removesuffix("\r")


def fail(file: Path, line: int, problem: str) -> NoReturn:
    """Raise UserError for a line of a list."""
    raise UserError(f"{file}:{line}: {problem}")


def refuse_encoding(file: Path, line: int) -> NoReturn:
    """Raise UserError for a line that is not in UTF-8."""
    fail(file, line, "not UTF-8 text (Latin-1 or Windows-1252, perhaps); save the list as UTF-8")


def is_bad_text(text: str) -> bool:
    """Whether a text holds bytes that are no UTF-8."""
    return not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text)


def cut(text: str) -> str:
    """The beginning of a text of a list, for messages."""
    text = shown(text)
    return text if len(text) <= _LETTERS_SHOWN else f"{text[:_LETTERS_SHOWN]}..."


def _opened(file: Path, key: str) -> BinaryIO:
    try:
        return paths.open_file(file, "give a list of images")
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
