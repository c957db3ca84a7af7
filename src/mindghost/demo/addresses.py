"""Where the page is: a host and a port to listen at, and what a browser calls them."""

from __future__ import annotations

import errno
import ipaddress
import socket

from ..errors import UserError
from ..files import paths

FIRST_PORT, PORTS = 7860, 100  # gradio's own
LOOPBACK = "127.0.0.1"


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens at a port; None: at the first from 7860 on that is free; 0: at any.

    Raises UserError where that cannot be.
    """
    family = _family(host)
    for number in range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,):
        try:
            return socket.create_server((host, number), family=family)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                why = f"{number} is taken" if error.errno == errno.EADDRINUSE else f"{number} is for root alone"
                raise UserError(f"--port: {why}; give another one, or leave the option out") from error
            raise _no_host(host, error) from error
    last = FIRST_PORT + PORTS - 1
    raise UserError(f"--port: all from {FIRST_PORT} to {last} are taken; give another one")


def _family(host: str) -> socket.AddressFamily:
    if not host:  # which stands for all addresses in one place, and for the own ones in another
        raise _no_host(host, ValueError("it is empty"))
    try:
        return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:
        raise _no_host(host, error) from error


def _no_host(host: str, error: Exception) -> UserError:
    return UserError(
        f"--host: {host!r} is no address of this machine ({paths.reason(error)}); give one, such as {LOOPBACK}, or "
        "0.0.0.0 for all"
    )


def is_loopback(listening: socket.socket) -> bool:
    """Whether a socket can be reached from this machine alone."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def address(listening: socket.socket) -> str:
    """The address of the page for a browser on this machine."""
    own, port = listening.getsockname()[:2]
    found = ipaddress.ip_address(own)
    if found.is_unspecified:
        own = LOOPBACK if found.version == 4 else "::1"
    return f"http://{f'[{own}]' if ':' in own else own}:{port}/"
