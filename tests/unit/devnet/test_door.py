"""Where a node listens: open, shut, open again, and nothing lost in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import closing

import pytest
from aiohttp import web

from dan_async.devnet.listening import Arrivals, Door, PortReservation, listening_socket
from tests.helpers import no_leaks, wait_until


@contextlib.asynccontextmanager
async def door_at(reserved, **options):
    """A door of a server without routes; closed as a node closes it."""
    arrivals = Arrivals(100, 10.0)
    runner = await arrivals.serve(web.Application())
    door = Door(runner, listening_socket(reserved.host, reserved.port), arrivals, **options)
    try:
        yield door
    finally:
        await door.aclose()
        await runner.cleanup()


def accepts(reserved):
    """Whether somebody listens."""
    with socket.socket() as client:
        return client.connect_ex((reserved.host, reserved.port)) == 0


async def test_open_shut_and_open_again():
    """At the same port; whoever is interested is told when it has been shut."""
    shut = []
    async with no_leaks():
        with closing(PortReservation("127.0.0.1")) as reserved:
            async with door_at(reserved, on_shut=lambda: shut.append(accepts(reserved))) as door:
                await door.start(is_open=True)
                assert accepts(reserved)
                door.set_open(False)
                await wait_until(lambda: not accepts(reserved))
                await wait_until(lambda: shut)
                assert shut == [False]
                door.set_open(True)
                await wait_until(lambda: accepts(reserved))
            assert not accepts(reserved)


async def test_the_last_word_counts():
    """However often it is told something else meanwhile."""
    async with no_leaks():
        with closing(PortReservation("127.0.0.1")) as reserved:
            async with door_at(reserved) as door:
                await door.start(is_open=False)
                assert not accepts(reserved)
                for is_open in (True, False, True, False, True):
                    door.set_open(is_open)
                await wait_until(lambda: accepts(reserved))


@pytest.mark.parametrize("turns", range(6))
async def test_who_comes_in_as_it_is_shut_is_not_lost(turns):
    """Connections that asyncio has accepted and not yet handed over are closed with the rest."""
    async with no_leaks():
        clients = [socket.socket() for _ in range(20)]
        with closing(PortReservation("127.0.0.1")) as reserved:
            async with door_at(reserved) as door:
                await door.start(is_open=True)
                for client in clients:
                    client.setblocking(False)
                    client.connect_ex((reserved.host, reserved.port))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await door.aclose()
        for client in clients:
            client.close()


async def test_closing_it_at_once_after_opening_leaves_nothing():
    """Though it is about to open."""
    async with no_leaks():
        with closing(PortReservation("127.0.0.1")) as reserved:
            async with door_at(reserved) as door:
                await door.start(is_open=False)
                door.set_open(True)
            assert not accepts(reserved)
