"""Files from the network: verified before use, complete or absent, safe with several processes at once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from ghostnet import __version__
from ghostnet.errors import UserError

MAX_UNPACKED_BYTES = 8 << 30
MAX_UNPACKED_FILES = 100_000

_ATTEMPTS = 3
_RETRY_DELAY = 1.0  # seconds, doubled with each attempt
_CHUNK = 1 << 20
_MIN_DIGEST = 8  # hexadecimal digits
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Dataset(NamedTuple):
    host: str
    files: dict[str, str]  # name: md5
    folder: str  # what the archive unpacks to; empty: no archive


_DATASETS = {
    "cifar10": _Dataset(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        "cifar-10-batches-bin",
    ),
    "cifar100": _Dataset(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        "cifar-100-binary",
    ),
    "mnist": _Dataset(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        "",
    ),
}


def cache_dir() -> Path:
    """Where downloaded weights are kept: ``$GHOSTNET_CACHE``, or ``~/.cache/ghostnet``."""
    return Path(os.environ.get("GHOSTNET_CACHE") or Path.home() / ".cache" / "ghostnet")


def fetch(url: str, target_dir: Path, *, digest: str, algorithm: str = "sha256", timeout: float = 60) -> Path:
    """Downloads ``url`` into ``target_dir``, unless an intact copy is there, and returns the file's path.

    The file appears under its name only when complete and verified. Processes that want the same file take
    turns.

    Args:
        url: https only (http for the loopback address); the file is named after its last part.
        digest: hexadecimal digest of the content, or its first eight digits or more.
        algorithm: "sha256" or "md5".
        timeout: seconds without data after which an attempt has failed.

    Raises:
        UserError: the download failed or the content is not the expected one; names url and target.
    """
    if algorithm not in ("sha256", "md5") or len(digest) < _MIN_DIGEST:
        raise ValueError(f"{algorithm} digest {digest!r}: expected sha256 or md5 and {_MIN_DIGEST} digits or more")
    _check_scheme(url)
    target = target_dir / unquote(urlsplit(url).path.rsplit("/", 1)[-1])
    try:
        target_dir.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not (target.is_file() and _digest(target, algorithm).startswith(digest.lower())):
                _download(url, target, digest.lower(), algorithm, timeout)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


def fetch_dataset(name: str, data_dir: Path) -> None:
    """Puts the binary form of ``cifar10``, ``cifar100`` or ``mnist`` into data_dir; what is there is kept.

    Raises:
        UserError: a download failed; names the url.
    """
    dataset = _DATASETS[name]
    folder = data_dir / dataset.folder
    if dataset.folder and folder.is_dir():
        return
    for file, md5 in dataset.files.items():
        path = fetch(dataset.host + file, data_dir, digest=md5, algorithm="md5")
        if dataset.folder:
            with _locked(path):
                _unpack_folder(path, folder)


def _unpack_folder(archive: Path, folder: Path) -> None:
    """Unpacks an archive of one folder beside itself: all of it or nothing, once for all processes."""
    if folder.is_dir():
        return
    with tempfile.TemporaryDirectory(prefix=".unpack.", dir=folder.parent) as temporary:
        unpack_tar(archive, Path(temporary))
        os.replace(Path(temporary, folder.name), folder)


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpacks a tar file (compressed or not) into ``folder``; nothing in it can land anywhere else.

    Raises:
        UserError: a damaged archive, a member that points out of the folder or is no plain file, folder or
            link, or
            more than MAX_UNPACKED_FILES members or MAX_UNPACKED_BYTES in all. What came before it stays
            unpacked.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UserError(f"{archive}: this Python can't unpack archives safely; use 3.10.12, 3.11.4 or later")
    count = size = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                count, size = count + 1, size + member.size
                if count > MAX_UNPACKED_FILES or size > MAX_UNPACKED_BYTES:
                    raise UserError(
                        f"{archive}: over {MAX_UNPACKED_FILES:,} files or {MAX_UNPACKED_BYTES:,} bytes in it"
                    )
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{archive}: cannot be unpacked ({reason}); remove it and try again") from error


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keeps other processes out while one makes ``target``; the lock ends with the process that holds it."""
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, target: Path, digest: str, algorithm: str, timeout: float) -> None:
    """Fetches into a temporary file beside ``target`` and renames it once verified."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:
            _transfer_with_retries(url, file, target, timeout)
            file.flush()
            os.fsync(file.fileno())
        found = _digest(temporary, algorithm)
        if not found.startswith(digest):
            raise UserError(f"{url}: its {algorithm} is {found}, expected {digest}; {_by_hand(url, target)}")
        # mkstemp makes the file private; a cache is shared like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _transfer_with_retries(url: str, file: BinaryIO, target: Path, timeout: float) -> None:
    delay = _RETRY_DELAY
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            file.seek(0)
            file.truncate()
            _transfer(url, file, timeout)
            return
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            missing = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if missing or attempt == _ATTEMPTS:
                raise UserError(f"{url}: download failed ({error}); {_by_hand(url, target)}") from error
            time.sleep(delay)
            delay *= 2


def _transfer(url: str, file: BinaryIO, timeout: float) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"ghostnet/{__version__}"})
    with _opener.open(request, timeout=timeout) as response:
        total = int(response.headers.get("Content-Length") or 0)
        received = 0
        with tqdm(
            total=total or None,
            desc=urlsplit(url).path.rsplit("/", 1)[-1],
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
        ) as bar:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    if received < total:
        raise http.client.IncompleteRead(b"", total - received)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_SafeRedirects)


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(f"{url}: only https addresses are downloaded")


def _by_hand(url: str, target: Path) -> str:
    return f"check the network, or download it by other means and save it as {target}"


def _digest(path: Path, algorithm: str) -> str:
    state = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
