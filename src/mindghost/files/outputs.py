"""Files that commands write where users say: one that is there is replaced where the same command made it, or by order.

What a command made it knows by a mark in it: a PNG picture has a chunk of text with the command's name and the sha256
of all else, a JSON object the command's name. What was changed since, and whatever else has the name, is the user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError, UserError
from . import intact, paths, scratch

IsOwn = Callable[[bytes], bool]
# Largest file that is looked into for a mark.
_LARGEST = 1 << 30
_PNG, _HEADER_BYTES = b"\x89PNG\r\n\x1a\n", 33  # its beginning; where its first chunk ends, of fixed size
_KEY = b"ghostnet"
_MADE_BY = "made_by"


@dataclass(frozen=True)
class Output:
    """A file to write.

    Attributes:
        path: its name.
        option: that gave it, for messages; empty where it has none.
        is_own: whether content is what the command itself has written before.
        overwrite: replace whatever has the name, but what is read.
        inputs: `identities` of files that are read, which are never replaced, whatever name or link leads to them.
    """

    path: Path
    option: str
    is_own: IsOwn
    overwrite: bool = False
    inputs: frozenset[tuple[int, int]] = frozenset()

    def check(self) -> None:
        """Raise UserError unless the file can be made, or may be replaced: to be asked before the work for it."""
        paths.check_output(self.path, self.option)
        if not paths.exists(self.path):
            return
        start = f"{self.option}: {self.path}" if self.option else f"{self.path}"
        if not self.inputs.isdisjoint(identities([self.path])):
            raise UserError(f"{start}: is what is read; name another file")
        if self.overwrite:
            return
        if self.path.is_symlink():
            raise UserError(f"{start}: is a link; name another file, or give --overwrite to have a file in its place")
        if self.is_own is nothing:
            raise UserError(f"{start} exists; name another file, or give --overwrite to replace it")
        if not self.is_own(paths.read(self.path, "name another file", _LARGEST)):
            raise UserError(
                f"{start}: exists, and is not what this command has written; name another file, or give --overwrite "
                "to replace it"
            )

    def write(self, content: bytes | Iterable[bytes]) -> None:
        """Write the file, or its pieces, atomically. Raises UserError as `check`, RunError for a full disk."""
        self.check()
        try:
            intact.write_atomically(self.path, content)
        except RunError as error:
            cause = error.__cause__ or error
            message = f"{self.path}: cannot be written ({paths.reason(cause)}); name another file with {self.option}"
            raise paths.refused(message, cause) from error


def check_in(folder: Path, *files: Output) -> None:
    """Raise UserError where one of the files of a folder may not be written; a folder that is not there yet is free."""
    if paths.exists(folder):
        for file in files:
            file.check()


def check_new_folder(folder: Path, option: str) -> None:
    """Raise UserError unless a folder can be made, or is there and empty: to be asked before the work for it."""
    paths.check_output_folder(folder, option)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{option}: {folder} is not empty; give a folder that is not there yet")


@contextlib.contextmanager
def new_folder(folder: Path, option: str) -> Iterator[Path]:
    """A folder to fill, which will be `folder` when the `with` block ends well: there whole, or not at all.

    Raises UserError as `check_new_folder`, and where it cannot be made.
    """
    check_new_folder(folder, option)
    target = paths.real(folder)
    paths.make_folder(target.parent, option)
    with scratch.folder("new", near=target.parent) as temporary:
        made = temporary / "made"
        made.mkdir()
        yield made
        os.replace(made, target)


def identities(files: Iterable[str | Path]) -> frozenset[tuple[int, int]]:
    """What tells files apart whatever they are called, of those that are there."""
    found = set()
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(file)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def mark_png(content: bytes, command: str) -> bytes:
    """A PNG picture with the mark of the command that made it."""
    text = _KEY + b"\0" + f"{command} {hashlib.sha256(content).hexdigest()}".encode()
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    return content[:_HEADER_BYTES] + chunk + content[_HEADER_BYTES:]


def png_of(*commands: str) -> IsOwn:
    """Whether a PNG picture has the mark of a command, by one of its names, and is as the command wrote it."""

    def is_of(command: str, content: bytes) -> bool:
        length = len(mark_png(b"", command))
        rest = content[:_HEADER_BYTES] + content[_HEADER_BYTES + length :]
        return content.startswith(_PNG) and content == mark_png(rest, command)

    return lambda content: any(is_of(command, content) for command in commands)


def mark_json(record: dict[str, Any], command: str) -> dict[str, Any]:
    """A JSON object with the name of the command that made it."""
    return {_MADE_BY: command, **record}


def json_with(*keys: str) -> IsOwn:
    """Whether content is a JSON object that has all of these keys."""
    return lambda content: set(keys) <= set(_object(content))


def starts_with(beginning: bytes) -> IsOwn:
    """Whether content begins with a heading that nothing else has."""
    return lambda content: content.startswith(beginning)


def nothing(content: bytes) -> bool:
    """For files that no command can tell from the user's: none is replaced unasked."""
    return False


def json_of(*commands: str) -> IsOwn:
    """Whether content is a JSON object with the name of a command, or one of its names."""
    return lambda content: _object(content).get(_MADE_BY) in commands


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
