"""Where the page is."""

import socket

import pytest

from mindghost.demo import addresses
from mindghost.errors import UserError


def test_a_port_that_is_taken_is_passed_over_where_nobody_asked_for_it(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port: {port} is taken; give another one"):
            addresses.listen("127.0.0.1", port)
        monkeypatch.setattr(addresses, "FIRST_PORT", port)
        with addresses.listen("127.0.0.1", None) as found:
            assert found.getsockname()[1] > port
        monkeypatch.setattr(addresses, "PORTS", 1)
        with pytest.raises(UserError, match=f"--port: all from {port} to {port} are taken"):
            addresses.listen("127.0.0.1", None)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a b", "x" * 300, ""])
def test_a_host_that_is_none_is_one_line(host):
    with pytest.raises(UserError, match="--host: .* is no address of this machine"):
        addresses.listen(host, 0)


@pytest.mark.parametrize(
    ("host", "alone", "start"),
    [("127.0.0.1", True, "http://127.0.0.1:"), ("localhost", True, "http://"), ("0.0.0.0", False, "http://127.0.0.1:")],
)
def test_who_can_reach_it(host, alone, start):
    with addresses.listen(host, 0) as listening:
        assert addresses.is_loopback(listening) is alone
        assert addresses.address(listening).startswith(start)
        assert addresses.address(listening).endswith(f":{listening.getsockname()[1]}/")
