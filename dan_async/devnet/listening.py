"""Ports that belong to a devnet for as long as it runs, also while a node is stopped."""

from __future__ import annotations

import ipaddress
import socket
from typing import Self

from dan_async.errors import InvalidFieldError

__all__ = ["PortReservation", "check_loopback", "listening_socket"]


def check_loopback(host: str) -> str:
    """
    Check that a host is a loopback address, which is where a devnet belongs.

    Raises:
        InvalidFieldError: It is not.
    """
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise InvalidFieldError(
            "host",
            "must be a loopback address",
            hint="A devnet is no custody software: it serves this machine only",
        )
    return host


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def listening_socket(host: str, port: int) -> socket.socket:
    """Bind a socket for a node to listen on, at a port that a ``PortReservation`` holds."""
    return _bound(host, port)


class PortReservation:
    """
    A port from the operating system, held by a socket that is bound and never listens.

    Connections are refused while no node listens at it, and no other program is given the port meanwhile. (Where
    SO_REUSEPORT is missing, the port is found and let go again; somebody else may then take it.)

    Args:
        host: The loopback address.
    """

    def __init__(self, host: str) -> None:
        self._socket = _bound(host, 0)
        self.host = host
        self.port = int(self._socket.getsockname()[1])
        if not hasattr(socket, "SO_REUSEPORT"):
            self._socket.close()

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
