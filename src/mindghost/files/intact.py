"""Files that are whole: written atomically, with their sha256 beside them, and compared with it when they are read.

Beside such a file lies its sidecar, `<file>.sha256`, in the format of `sha256sum`. While the file is replaced it lists
two digests, the old one and the new one: a file is intact if its digest is any of those listed, so that a process that
is killed between the two leaves nothing that looks damaged. A file that nobody else reads ends with its digest instead
(`seal`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import RunError, UserError
from . import paths

_SIDECAR_LINE = re.compile(rb"\\?([0-9a-f]{64}) [ *].+")
_TEMPORARY = re.compile(r"\.(.+)\.\d+\.\d+\.tmp")
_LONGEST_NAME = 255  # bytes, of nearly every file system
_SEAL = b"\nsha256:"
_SEAL_BYTES = len(_SEAL) + 64


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace `path` by `content`, or its pieces, so that a crash at any moment leaves the old file or the new one.

    Raises RunError where the file system refuses (disk full, no permission); the old file is then untouched.
    """
    _put(path, [(path, content)])


def write_all_atomically(files: Mapping[Path, bytes], with_sidecar: Collection[Path] = ()) -> None:
    """Replace several files of one folder: all of them, or, where the file system refuses (RunError), none.

    Those in `with_sidecar` get one, each in an order that leaves it intact at any moment.
    """
    path = next(iter(files))
    try:
        steps = [step for item in files.items() for step in (_new(*item) if item[0] in with_sidecar else [item])]
    except OSError as error:
        raise not_written(path, error) from error
    _put(path, steps)


def write_with_sidecar(path: Path, content: bytes, keep_as: Path | None = None) -> None:
    """Replace `path` by `content`, and its sidecar, atomically.

    `keep_as`, in the same folder, takes the file that is replaced, if its sidecar is in order; what was kept there
    stays until the new file is in place. Raises RunError where the file system refuses; nothing is changed then.
    """
    try:
        steps = _new(path, content)
        if keep_as and (old := _digests_to_keep(path)):
            steps += _steps(keep_as, path, old, _digests_to_keep(keep_as))
    except OSError as error:
        raise not_written(path, error) from error
    _put(path, steps)


def copy(source: Path, target: Path) -> None:
    """Copy a file that was written here, atomically, with a sidecar. Raises RunError where the file system refuses."""
    write_with_sidecar(target, source.read_bytes())


def delete(path: Path) -> None:
    """Delete a file and its sidecar, if they are there."""
    # In this order a crash leaves no sidecar alone, which nothing would delete.
    sidecar(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def sidecar(path: Path) -> Path:
    """Where the sha256 of a file is."""
    return path.with_name(f"{path.name}.sha256")


def read_intact(path: Path) -> bytes:
    """The content of a file, compared with its sidecar if there is one. Raises UserError where it is another one."""
    while True:
        listed = _digests(path)
        content = paths.read(path, "give another file")
        if listed is None or hashlib.sha256(content).hexdigest() in listed:
            return content
        # Another process may have replaced both in between; then the sidecar is another one now.
        if _digests(path) == listed:
            name = sidecar(path).name
            raise UserError(
                f"{path}: damaged: its sha256 is not that in {name}; restore another copy of it, or delete {name} "
                "if the file was replaced on purpose"
            )


def has_digest_of(path: Path, content: bytes) -> bool:
    """Whether there is a sidecar of `path`, and it lists the digest of this content."""
    try:
        return hashlib.sha256(content).hexdigest() in (_digests(path) or ())
    except UserError:
        return False


def _put(path: Path, files: Sequence[tuple[Path, bytes | Path | Iterable[bytes]]]) -> None:
    """Put files into place, one after the other: bytes, pieces of them, or what another file holds at the call.

    All of them are on the disk before the first takes its place: a full disk changes nothing. Raises RunError, which
    names `path`; all files are in its folder.
    """
    temporaries: list[Path] = []
    try:
        for target, content in files:
            temporaries.append(_temporary_for(target, len(temporaries)))
            _fill(temporaries[-1], content)
        for temporary, (target, _) in zip(temporaries, files, strict=True):
            os.replace(temporary, target)
        # Once for all: file systems keep the order of what happened in a folder.
        _flush(path.parent)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _temporary_for(target: Path, number: int) -> Path:
    """A name beside `target` that nothing has: a killed process with our number may have left something there."""
    while True:
        end = f".{os.getpid()}.{number}.tmp"
        name = f".{target.name}"
        if len(os.fsencode(name + end)) > _LONGEST_NAME:
            name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}"
        temporary = target.with_name(name + end)
        if not os.path.lexists(temporary):
            return temporary
        number += 1000


def _fill(temporary: Path, content: bytes | Path | Iterable[bytes]) -> None:
    """Make a temporary file of bytes, of pieces of them, or a second name (or else a copy) of a file."""
    if isinstance(content, Path):
        try:
            os.link(content, temporary)
        except OSError:
            shutil.copyfile(content, temporary)
            _flush(temporary)
        return
    with open(temporary, "xb") as file:
        for piece in [content] if isinstance(content, bytes) else content:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete_leftovers(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Delete the temporary files that killed processes have left of files with names that are ours.

    Only for a folder that no other process writes to.
    """
    for file in folder.iterdir():
        found = _TEMPORARY.fullmatch(file.name)
        if found and is_ours(found[1]) and file.is_file() and not file.is_symlink():
            file.unlink(missing_ok=True)


def check_room(folder: Path, size: int = 1) -> None:
    """Write so many bytes into a folder, and take them away again. Raises OSError where it does not take them."""
    probe = _temporary_for(folder / "probe", 0)
    try:
        _fill(probe, bytes(size))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def digest(file: BinaryIO, algorithm: str = "sha256") -> str:
    """The digest of what is left of an open file, hexadecimal."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    while chunk := file.read(1 << 20):
        state.update(chunk)
    return state.hexdigest()


def seal(content: bytes) -> bytes:
    """Content that ends with its own digest, for `unseal`."""
    return content + _SEAL + hashlib.sha256(content).hexdigest().encode()


def unseal(content: bytes) -> bytes | None:
    """What `seal` was given; None where a single bit of it, or of its digest, is another one now."""
    body = content[:-_SEAL_BYTES]
    return body if content == seal(body) else None


def not_written(path: Path, error: OSError) -> RunError:
    """What to raise where the file system refuses to write `path`."""
    return RunError(f"{path}: cannot be written ({error.strerror}); files saved earlier are kept")


def _new(path: Path, content: bytes) -> list[tuple[Path, bytes | Path]]:
    """What to put into place to replace a file by bytes, and its sidecar."""
    return _steps(path, content, [hashlib.sha256(content).hexdigest()], _digests_to_keep(path))


def _steps(path: Path, content: bytes | Path, digests: list[str], old: list[str]) -> list[tuple[Path, bytes | Path]]:
    """What to put into place to replace a file and its sidecar: after each of them the file that is there is intact."""
    steps = [(path, content), (sidecar(path), _lines(path, digests))]
    if old or paths.exists(sidecar(path)):
        return [(sidecar(path), _lines(path, [*digests, *old])), *steps]
    return steps


def _lines(path: Path, digests: Sequence[str]) -> bytes:
    """Content of a sidecar."""
    name = os.fsencode(path.name)
    # As sha256sum does it.
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    start = b"" if escaped == name else b"\\"
    return b"".join(start + digest.encode() + b"  " + escaped + b"\n" for digest in digests)


def _digests_to_keep(path: Path) -> list[str]:
    """The digest of the file at `path`, for it to stay intact while it is replaced; none if it is not intact."""
    if not paths.is_file(path):
        return []
    try:
        listed = _digests(path)
    except UserError:
        return []
    if listed is not None and len(listed) == 1:
        # Not hashed again: if the file was damaged since, its digest must not be listed.
        return listed
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return [found] if listed is None or found in listed else []


def _digests(path: Path) -> list[str] | None:
    """The digests that the sidecar of `path` lists; None if it has none. Raises UserError for one without any."""
    file = sidecar(path)
    if not paths.exists(file):
        return None
    lines = paths.read(file, "restore it, or delete it").splitlines()
    found = [_SIDECAR_LINE.fullmatch(line) for line in lines]
    if not found or None in found:
        raise UserError(
            f"{file}: not what sha256sum writes; restore it, or delete it if {path.name} is known to be good"
        )
    return [match[1].decode() for match in found if match]
