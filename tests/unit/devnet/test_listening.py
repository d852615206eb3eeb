"""Ports of a devnet: from the operating system, kept, on loopback only."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from dan_async.devnet.listening import PortReservation, check_loopback, listening_socket
from dan_async.errors import InvalidFieldError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_taken(host):
    """In every spelling."""
    assert check_loopback(host) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])
def test_other_hosts_are_refused(host):
    """A devnet serves this machine only."""
    with pytest.raises(InvalidFieldError, match="loopback"):
        check_loopback(host)


def test_a_reserved_port_refuses_connections():
    """Nobody listens yet, so a client sees a node that is down and not one that hangs."""
    with closing(PortReservation("127.0.0.1")) as reserved, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", reserved.port), timeout=1)


def test_a_node_can_listen_at_a_reserved_port_again_and_again():
    """Stopping and starting keeps the port."""
    with closing(PortReservation("127.0.0.1")) as reserved:
        for _ in range(2):
            with listening_socket("127.0.0.1", reserved.port) as listener:
                listener.listen()
                socket.create_connection(("127.0.0.1", reserved.port), timeout=1).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", reserved.port), timeout=1)


def test_a_reserved_port_is_nobody_elses():
    """A program that asks for the port in the usual way does not get it."""
    with (
        closing(PortReservation("127.0.0.1")) as reserved,
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(("127.0.0.1", reserved.port))


def test_ipv6_is_bracketed_in_urls():
    """As URLs want it."""
    with closing(PortReservation("::1")) as reserved:
        assert reserved.authority == f"[::1]:{reserved.port}"
