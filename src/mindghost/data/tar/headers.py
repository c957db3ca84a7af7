"""The members of a tar file, by its headers: ustar, GNU's and pax; no content is read, nothing is unpacked.

What Python's own `tarfile` takes for the end of an archive, a damaged header in its middle, is an error here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...errors import UserError
from ...process.display import shell

BLOCK = 512
_EMPTY = bytes(BLOCK)
_AT_ONCE = 1 << 20
_MOST_EXTRA = 1 << 20  # bytes of a header beyond the first block: a path, and whatever pax notes
_REMEDY = "copy or download it again"
FILE, FOLDER, SPARSE = "a file", "a folder", "a sparse file"
_WITHOUT_CONTENT = {
    b"1": "a hard link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"5": FOLDER,
    b"6": "a FIFO",
}
_FILES = (b"0", b"\0", b"7")
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
}

Read = Callable[[int, int], bytes]  # offset, length -> bytes, fewer where the file ends


class Member(NamedTuple):
    """An entry of a tar file.

    Attributes:
        path: as the archive has it; bytes that are no UTF-8 as `os.fsdecode` gives them.
        kind: FILE, FOLDER, SPARSE, or another one in words.
        offset, size: where its content lies in the file, in bytes.
    """

    path: str
    kind: str
    offset: int
    size: int


def members(read: Read, start: int, end: int, name: str) -> Iterator[Member]:
    """The members of the archive between two offsets of a file, in order.

    Raises UserError, which begins with `name`, for what is no tar file, a damaged or truncated one, and one behind
    whose end there is more.
    """
    at, last, noted = start, "", dict[str, bytes]()
    while True:
        block = read(at, BLOCK) if at + BLOCK <= end else b""
        if block == _EMPTY:
            _check_rest(read, at, end, name)
            return
        if at == start:
            _check_kind(block or read(start, end - start), name)
        if len(block) < BLOCK:
            raise UserError(
                f"{name}: truncated at byte {end:,}{_after(last)}: the empty block that ends a tar file is missing; "
                f"{_REMEDY}"
            )
        kind, here = block[156:157], f"{name}: damaged at byte {at:,}{_after(last)}"
        try:
            if not _adds_up(block):
                raise ValueError("no header of a tar file")
            size = _number(block[124:136])
            if kind in (b"L", b"K", b"x", b"X", b"g"):
                _check_within(at + BLOCK, size, end, name, "a long header")
                if size > _MOST_EXTRA:
                    raise ValueError(f"a header of {size:,} bytes")
                if kind in (b"L", b"x", b"X"):
                    noted |= _noted(kind, read(at + BLOCK, size))
                at += BLOCK + _whole_blocks(size)
                continue
            size = int(noted.get("size", size))
        except ValueError as error:
            raise UserError(f"{here}: {error}; {_REMEDY}") from error
        path = os.fsdecode(noted.get("GNU.sparse.name") or noted.get("path") or _path(block))
        content = at + BLOCK
        if kind == b"S":  # blocks of a map, each of which says whether there is another one
            more = block[482]
            while more and content + BLOCK <= end:
                more, content = read(content, BLOCK)[504], content + BLOCK
        if kind in _WITHOUT_CONTENT:
            size = 0
        _check_within(content, size, end, name, path)
        yield Member(path, _words(kind, path, noted), content, size)
        at, last, noted = content + _whole_blocks(size), path, {}


def _words(kind: bytes, path: str, noted: dict[str, bytes]) -> str:
    if kind == b"S" or any(key.startswith("GNU.sparse") for key in noted):
        return SPARSE
    if kind in _FILES:
        return FOLDER if path.endswith("/") else FILE
    return _WITHOUT_CONTENT.get(kind, "an entry of an unknown kind")


def _path(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    # Only ustar has the beginning of long paths in a field of its own; GNU's header has other things there.
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _noted(kind: bytes, content: bytes) -> dict[str, bytes]:
    """What a header says of the member after it. Raises ValueError where it is damaged."""
    if kind == b"L":
        return {"path": content.partition(b"\0")[0]}
    found = {}
    while content.strip(b"\0"):
        digits, space, _ = content[:20].partition(b" ")
        length = int(digits)
        if not space or not len(digits) + 2 < length <= len(content) or content[length - 1 : length] != b"\n":
            raise ValueError("a pax header that contradicts itself")
        key, equals, value = content[len(digits) + 1 : length - 1].partition(b"=")
        if not equals:
            raise ValueError("a pax header without a value")
        found[key.decode("utf-8", "replace")] = value
        content = content[length:]
    if not found.get("size", b"0").isdigit():
        raise ValueError("a pax header with a size that is no number")
    return found


def _number(field: bytes) -> int:
    """The number in a field: octal digits, or, as GNU tar writes what they cannot hold, bytes behind a mark."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits else 0


def _adds_up(block: bytes) -> bool:
    """Whether a header's checksum is right: the sum of its bytes, with blanks in the place of the checksum."""
    try:
        return _number(block[148:156]) == sum(block) - sum(block[148:156]) + 8 * 0x20
    except ValueError:
        return False


def _whole_blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check_kind(block: bytes, name: str) -> None:
    """Raise UserError where a file does not begin like a tar file."""
    for magic, (form, command) in _COMPRESSED.items():
        if block.startswith(magic):
            raise UserError(
                f"{name}: a tar file compressed by {form}, out of which no single image can be read; make a plain tar "
                f"file of it: {command} {shell(name)}"
            )
    if not block:
        raise UserError(f"{name}: empty; {_REMEDY}")
    if len(block) < BLOCK or not _adds_up(block):
        raise UserError(f"{name}: not a tar file; {_REMEDY}")


def _check_within(offset: int, size: int, end: int, name: str, what: str) -> None:
    if offset + size > end:
        raise UserError(
            f"{name}: truncated in {what}, which has {size:,} bytes, of which {max(0, end - offset):,} are there; "
            f"{_REMEDY}"
        )


def _check_rest(read: Read, at: int, end: int, name: str) -> None:
    """Raise UserError where there is anything but zeros behind the end of an archive."""
    for start in range(at, end, _AT_ONCE):
        if any(read(start, min(_AT_ONCE, end - start))):
            raise UserError(
                f"{name}: there is more behind the end of the archive at byte {at:,}, as where archives were joined "
                "by `cat`; give each its own file"
            )


def _after(path: str) -> str:
    return f", after {path}" if path else ""
