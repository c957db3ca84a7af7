"""Files from the network: verified before use, complete or absent, safe with several processes at once.

What has arrived of a file whose download broke stays in a hidden file beside it, and the next attempt goes on from
there, be it in another run.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from .. import __version__
from ..errors import RunError, UserError
from . import intact, paths
from .cache import locked

_ATTEMPTS = 3
_RETRY_DELAY = 1.0  # seconds, doubled with each attempt
_CHUNK = 1 << 20
_MIN_DIGEST = 8  # hexadecimal digits
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# MindCV keeps its files on either, with the same paths (or moves them): what one does not give is asked of the other.
_MIRRORS = {
    "download.mindspore.cn": "download-mindspore.osinfra.cn",
    "download-mindspore.osinfra.cn": "download.mindspore.cn",
}


class Unavailable(UserError):
    """No address gave the file.

    Attributes:
        reason: why the first one did not, in a few words.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class _DownloadError(Exception):
    """Why an address did not give the file: `reason`, in a few words, and a clause about it."""

    def __init__(self, clause: str, reason: str) -> None:
        super().__init__(clause)
        self.reason = reason


def fetch(
    url: str,
    target_dir: Path,
    *,
    digest: str,
    algorithm: str = "sha256",
    timeout: float = 60,
    attempts: int = _ATTEMPTS,
) -> Path:
    """Downloads `url` into `target_dir`, unless an intact copy is there, and returns the file's path.

    The file appears under its name only when complete and verified. Processes that want the same file take
    turns. What MindCV's host does not give is asked of its other one.

    Args:
        url: https only (http for the loopback address); the file is named after its last part.
        digest: hexadecimal digest of the content, or its first eight digits or more.
        algorithm: "sha256" or "md5".
        timeout: seconds without data after which an attempt has failed.
        attempts: of each host.

    Raises:
        UserError: the download failed or the content is not the expected one; names url and target.
    """
    if algorithm not in ("sha256", "md5") or len(digest) < _MIN_DIGEST:
        raise ValueError(f"{algorithm} digest {digest!r}: expected sha256 or md5 and {_MIN_DIGEST} digits or more")
    _check_scheme(url)
    target = place(url, target_dir)
    with writing(target):
        # Before the lock: a folder that takes no files may hold this one.
        if _is_intact(target, algorithm, digest):
            return target
        target_dir.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if not _is_intact(target, algorithm, digest):
                _download(url, target, digest.lower(), algorithm, timeout, attempts)
    return target


def place(url: str, target_dir: Path) -> Path:
    """The file that `fetch` makes: named after the last part of the address."""
    return target_dir / unquote(urlsplit(url).path.rsplit("/", 1)[-1])


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into a UserError that names `path`, a full disk into a RunError."""
    try:
        yield
    except OSError as error:
        raise paths.refused(f"{path}: cannot be written ({paths.reason(error)})", error) from error


def _download(url: str, target: Path, digest: str, algorithm: str, timeout: float, attempts: int) -> None:
    """Fetches into a hidden file beside `target` and renames it once verified."""
    partial = target.with_name(f".{target.name}.{digest[:_MIN_DIGEST]}.part")
    clauses, reasons = [], []
    for address in _addresses(url):
        try:
            _complete(address, partial, digest, algorithm, timeout, attempts)
        except _DownloadError as error:
            clauses.append(f"{address}: {error}")
            reasons.append(error.reason)
        except (UserError, RunError):
            # A disk that is full stays so as long as the part is there.
            partial.unlink(missing_ok=True)
            raise
        else:
            os.replace(partial, target)
            return
    advice = f"check the network, or download it by other means and save it as {target}"
    raise Unavailable("; ".join([*clauses, advice]), reasons[0])


def _addresses(url: str) -> list[str]:
    """Where the file may be: `url`, and its like on the mirror of its host."""
    parts = urlsplit(url)
    mirror = _MIRRORS.get(parts.netloc)
    return [url] if mirror is None else [url, parts._replace(netloc=mirror).geturl()]


def _complete(url: str, partial: Path, digest: str, algorithm: str, timeout: float, attempts: int) -> None:
    """Makes `partial` the whole file. Where the content is wrong it is removed, and fetched again if it was spliced.

    Raises:
        _DownloadError: the transfer failed (the part stays), or the content is not the expected one.
    """
    spliced = True
    while spliced:
        # A process that ended before it could rename the file has left all of it.
        if not (paths.is_file(partial) and _digest(partial, algorithm).startswith(digest)):
            spliced = _transfer_with_retries(url, partial, timeout, attempts)
        found = _digest(partial, algorithm)
        if found.startswith(digest):
            return
        partial.unlink()
    wrong = f"its {algorithm} is {found}, expected {digest}"
    raise _DownloadError(wrong, wrong)


def _transfer_with_retries(url: str, partial: Path, timeout: float, attempts: int) -> bool:
    """Completes `partial` in a few attempts; whether it is made of more than one answer."""
    delay, validator = _RETRY_DELAY, None
    for attempt in range(1, attempts + 1):
        have = partial.stat().st_size if paths.is_file(partial) else 0
        try:
            with _opener.open(_request(url, have, validator), timeout=timeout) as response:
                validator = _validator(response.headers)
                return _receive(response, partial, have)
        except (OSError, http.client.HTTPException) as error:
            code = error.code if isinstance(error, urllib.error.HTTPError) else None
            if code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                partial.unlink()
            elif (code is not None and code < 500) or attempt == attempts:
                # urllib puts brackets around what the system says.
                said = error.reason if type(error) is urllib.error.URLError else error
                raise _failed(str(said)) from error
            time.sleep(delay)
            delay *= 2
    raise _failed("the server gives neither the file nor the rest of it")


def _failed(reason: str) -> _DownloadError:
    return _DownloadError(f"download failed ({reason})", reason)


def _request(url: str, have: int, validator: str | None) -> urllib.request.Request:
    """Asks for what comes after the first `have` bytes; for everything if the file has changed since."""
    headers = {"User-Agent": f"mindghost/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator is not None:
            headers["If-Range"] = validator
    return urllib.request.Request(url, headers=headers)


def _validator(headers: Message) -> str | None:
    """What tells this version of the file from another: a strong ETag, else its date."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _receive(response: http.client.HTTPResponse, partial: Path, have: int) -> bool:
    """Writes an answer to `partial`: behind what is there if it goes on from it, else in its place.

    Returns whether it was put behind something.

    Raises:
        http.client.IncompleteRead: fewer bytes than the server stated.
        UserError: the file cannot be written.
    """
    goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
    if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        partial.unlink(missing_ok=True)
        raise http.client.HTTPException("the server sent another part of the file than was asked for")
    start = have if goes_on else 0
    stated = response.length or 0
    received = 0
    with contextlib.ExitStack() as stack:
        with writing(partial):
            file = stack.enter_context(open(partial, "ab" if goes_on else "wb"))
        bar = tqdm(
            total=start + stated or None,
            initial=start,
            desc=urlsplit(response.url).path.rsplit("/", 1)[-1],
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
        )
        stack.enter_context(bar)
        # What there is, not a whole chunk: a connection that breaks or stalls shall cost nothing of it.
        while chunk := response.read1(_CHUNK):
            with writing(partial):
                file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
        with writing(partial):
            file.flush()
            os.fsync(file.fileno())
    if received < stated:
        raise http.client.IncompleteRead(b"", stated - received)
    return start > 0


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_SafeRedirects)


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(f"{url}: only https addresses are downloaded")


def _is_intact(path: Path, algorithm: str, digest: str) -> bool:
    return paths.is_file(path) and _digest(path, algorithm).startswith(digest.lower())


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return intact.digest(file, algorithm)
