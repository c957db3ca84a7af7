"""Images that visitors have sent, as long as they lie in a folder: until they were looked at, and shortly after."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

# Two visitors may send one image, which gradio keeps once: it is not deleted as soon as the first has the answer.
SECONDS = 120
# More than can wait for their turn (`site`).
MOST = 32


class Uploads:
    """The files in a folder, and in its folders, that others have put there.

    Args:
        folder: that nobody else uses.
        seconds: how long a file stays.
        most: how many files there may be; the oldest ones go.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS, most: int = MOST) -> None:
        self.folder, self._seconds, self._most = folder, seconds, most

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None where it is not there, or not below the folder."""
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.folder)):
            return None
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    def tidy(self) -> None:
        """Delete what is old, and the oldest where there are too many."""
        now = time.time()
        for rank, (changed, path) in enumerate(sorted(self._files(), reverse=True)):
            if rank >= self._most or now - changed > self._seconds:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def _files(self) -> list[tuple[float, str]]:
        """When each file was changed, and its path; hidden files, such as the folder's own, are not meant."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for path in (os.path.join(folder, name) for name in names if not name.startswith(".")):
                with contextlib.suppress(OSError):
                    found.append((os.stat(path).st_mtime, path))
        return found
