"""Shelves of the user's cache: what was made once, under a digest of all that it is made of, for later starts.

An entry ends with its own digest: a damaged one is made again. Those that were not used for longest go, and all of it
may be deleted at any time.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from . import intact, paths
from .cache import cache_dir

_ENTRY = re.compile(r"[0-9a-f]{32}")
# What killed processes have left of writing an entry.
_LEFT = r"\.[0-9a-f]{32}\.\d+\.\d+\.tmp"
_STALE = 24 * 3600  # seconds after which such a thing has no maker any more


@dataclass(frozen=True)
class Shelf:
    """A folder of entries in the cache.

    Attributes:
        name: of the folder.
        most: entries that stay.
        most_bytes: that they may take together; the last one that was used always stays.
        left: what else killed processes leave in it, as a regular expression.
    """

    name: str
    most: int
    most_bytes: int = 1 << 62
    left: str = _LEFT

    @property
    def folder(self) -> Path:
        """Where the entries are."""
        return cache_dir() / self.name

    def read(self, name: str) -> tuple[bytes | None, bool]:
        """The content of an entry; None where there is none, or it is damaged, and whether that is so."""
        entry = self.folder / name
        if not paths.exists(entry):
            return None, False
        try:
            content = intact.unseal(paths.read(entry, "delete it"))
        except UserError:
            return None, True
        # A cache that cannot be written does not know what was used last.
        with suppress(OSError):
            os.utime(entry)
        return content, content is None

    def keep(self, name: str, content: bytes) -> None:
        """Put content into an entry; of two processes that do, the last one wins.

        Raises OSError or RunError where the cache cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        intact.write_atomically(self.folder / name, intact.seal(content))
        self.tidy()

    def tidy(self) -> None:
        """Delete the entries that were not used for longest, and what killed processes have left; nothing of others."""
        entries, left = [], []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                if path.is_symlink():
                    continue
                if _ENTRY.fullmatch(path.name) and path.is_file():
                    entries.append(path)
                elif re.fullmatch(f"{self.left}|{_LEFT}", path.name) and _is_stale(path):
                    left.append(path)
        for path in left:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        delete_oldest(entries, self.most, self.most_bytes)


def _is_stale(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > _STALE


def delete_oldest(files: Iterable[Path], most: int, most_bytes: int = 1 << 62) -> None:
    """Delete those of some files that were not used for longest: beyond a number, or a size of all but the newest."""
    known = []
    for file in files:
        with suppress(OSError):
            found = file.stat()
            known.append((found.st_mtime, found.st_size, file))
    total = 0
    for place, (_, size, file) in enumerate(sorted(known, reverse=True)):
        total += size
        if place >= most or (place and total > most_bytes):
            with suppress(OSError):
                file.unlink()


def is_wanted(compile_cache: bool) -> bool:
    """Whether what was computed is to be kept: not with `compile_cache: False`, nor with MindSpore's own switch."""
    return compile_cache and "MS_COMPILER_CACHE_ENABLE" not in os.environ


@functools.cache
def sources() -> str:
    """The digest of the sources of this package: with others, anything may be computed in another way."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for source in sorted(root.rglob("*.py")):
        digest.update(f"{source.relative_to(root)}\0".encode() + source.read_bytes())
    return digest.hexdigest()
