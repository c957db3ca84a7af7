"""Hosts: their names, their addresses, and which of them can be reached."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_SIOCGIFADDR = 0x8915  # the IPv4 address of an interface, on Linux
_CONNECT_TIMEOUT = 3  # seconds


def has_program(name: str) -> bool:
    """Whether a program of this name is on the PATH."""
    return shutil.which(name) is not None


def identity() -> str:
    """Equal for processes that reach each other at 127.0.0.1, and for no others: name and network namespace."""
    namespace = Path("/proc/self/ns/net")
    return f"{socket.gethostname()} {os.readlink(namespace) if namespace.is_symlink() else ''}"


def addresses() -> list[str]:
    """IPv4 addresses of this machine's interfaces but the loopback's, in the system's order."""
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    return [address for address in found if not address.startswith("127.")]


def reachable(candidates: Iterable[str], port: int) -> dict[str, str]:
    """The addresses that a connection to `port` succeeds at -> this machine's own address on that way."""
    found = {}
    for address in candidates:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), timeout=_CONNECT_TIMEOUT) as connection,
        ):
            found[address] = connection.getsockname()[0]
    return found
