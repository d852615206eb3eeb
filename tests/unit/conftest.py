"""No unit test reaches another machine, and nothing that it runs does: no telemetry, no look-ups."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from typing import Any

import pytest

_OUTSIDE = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")

#: One list while a test runs, in which its attempts are noted.
_watching: list[list[str]] = []


def _is_here(host: object) -> bool:
    """Whether a host is this machine: a loopback address, its usual name, a path, or nothing."""
    if not isinstance(host, str) or not host:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.startswith(("/", "\0"))


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in _OUTSIDE:
        return
    target = arguments[0] if "get" in event else arguments[1]
    host = target[0] if isinstance(target, tuple) else target
    if not _is_here(host):
        _watching[-1].append(f"{event}: {host}")
        raise OSError(f"a unit test reaches out: {event} {host}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def reaches_nobody() -> Iterator[None]:
    """Fail the test that tries, even where the code takes the error for a network's."""
    _watching.append([])
    yield
    assert not _watching.pop()
