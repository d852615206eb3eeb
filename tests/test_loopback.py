"""The tests' own guard: nothing that they run reaches another machine."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

#: Addresses of documentation, which lead nowhere: RFC 5737 and RFC 3849.
ELSEWHERE = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]


@pytest.mark.parametrize(("family", "host"), ELSEWHERE)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_other_machines_are_refused(family: int, host: str, kind: int, attempts_to_leave: list[str]) -> None:
    """A connection or a datagram to another machine does not leave, and is noted."""
    with socket.socket(family, kind) as leaving, pytest.raises(OSError, match="reaches out"):
        if kind == socket.SOCK_DGRAM:
            leaving.sendto(b"?", (host, 9))
        else:
            leaving.connect((host, 9))
    assert [attempt.partition(": ")[2] for attempt in attempts_to_leave] == [host]
    attempts_to_leave.clear()


async def test_names_of_other_machines_are_not_looked_up(attempts_to_leave: list[str]) -> None:
    """Neither by the standard library nor by the event loop."""
    for look_up in (socket.gethostbyname, lambda name: socket.getaddrinfo(name, 443)):
        with pytest.raises(OSError, match="reaches out"):
            look_up("node.example")
    with pytest.raises(OSError, match="reaches out"):
        await asyncio.open_connection("node.example", 443)
    assert len(attempts_to_leave) == 3
    attempts_to_leave.clear()


async def test_loopback_and_unix_sockets_are_there(tmp_path: Path, attempts_to_leave: list[str]) -> None:
    """This machine can be reached, by address, by name and by path."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "localhost", 0)
    path = tmp_path / "socket"
    async with server, await asyncio.start_unix_server(lambda _, writer: writer.close(), path):
        for host, port, *_ in (listening.getsockname() for listening in server.sockets):
            reader, writer = await asyncio.open_connection(host, port)
            assert await reader.read() == b""
            writer.close()
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()
    assert attempts_to_leave == []
