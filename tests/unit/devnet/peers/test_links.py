"""Links between nodes, over real WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack, closing

import aiohttp
import pytest
from aiohttp import web

from dan_async.devnet.context import NodeIdentity, NodeLimits
from dan_async.devnet.listening import PortReservation, listening_socket
from dan_async.devnet.peers.links import CLOSE_REFUSED, Dialler, PeerLinks
from tests.helpers import CuttableProxy, no_leaks

LIMITS = NodeLimits(handshake_s=0.5)


class Peer:
    """One node's links, with a server to be called at."""

    def __init__(self, identity, reserved):
        self.identity = identity
        self.operator = identity.operator
        self.reserved = reserved
        self.url = f"ws://{reserved.authority}/v1/peer"
        self.received = asyncio.Queue()
        self.linked = asyncio.Queue()

    async def start(self, roster, limits=LIMITS):
        self.links = PeerLinks(
            self.identity,
            {operator: url for operator, url in roster.items() if operator != self.operator},
            on_frame=lambda peer, frame: self.received.put_nowait((peer, frame)),
            on_linked=self.linked.put_nowait,
            limits=limits,
        )
        self.links.start()
        app = web.Application()
        app.router.add_get("/v1/peer", self._serve)
        self.runner = web.AppRunner(app, shutdown_timeout=0.5)
        await self.runner.setup()
        await web.SockSite(self.runner, listening_socket("127.0.0.1", self.reserved.port)).start()

    async def _serve(self, request):
        websocket = web.WebSocketResponse(timeout=0.2)
        await websocket.prepare(request)
        await self.links.accept(websocket)
        return websocket

    async def stop(self):
        await self.links.aclose()
        await self.runner.cleanup()


@contextlib.asynccontextmanager
async def three_peers():
    """Three peers, in ascending order of their operators: each dials those after it."""
    async with contextlib.AsyncExitStack() as stack:
        made = [
            Peer(NodeIdentity.generate(), stack.enter_context(closing(PortReservation("127.0.0.1"))))
            for _ in range(3)
        ]
        made.sort(key=lambda peer: peer.operator.lower())
        roster = {peer.operator: peer.url for peer in made}
        for peer in made:
            await peer.start(roster)
            stack.push_async_callback(peer.stop)
        yield made


@pytest.fixture
async def peers():
    async with three_peers() as made:
        yield made


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def linked(dialler, listener):
    """A link between two peers, up on both sides."""
    with dialler.links.wanted([listener.operator]):
        async with asyncio.timeout(5):
            assert await dialler.linked.get() == listener.operator
            assert await listener.linked.get() == dialler.operator
        yield


async def receive(peer):
    async with asyncio.timeout(5):
        return await peer.received.get()


async def test_frames_go_both_ways(peers):
    """Each arrives once, in order, with its sender's name."""
    a, b, _ = peers
    async with linked(a, b):
        for number in range(100):
            assert a.links.send(b.operator, b"%d" % number)
        b.links.send(a.operator, b"back")
        assert [await receive(b) for _ in range(100)] == [(a.operator, b"%d" % n) for n in range(100)]
        assert await receive(a) == (b.operator, b"back")


async def test_only_the_lower_operator_dials(peers):
    """So there is one link to a pair, whoever wants it first."""
    a, b, _ = peers
    with b.links.wanted([a.operator]):
        await asyncio.sleep(0.05)
        assert not b.links._diallers
        async with linked(a, b):
            assert b.links.send(a.operator, b"hi")
            assert await receive(a) == (b.operator, b"hi")


async def test_nobody_dials_without_need(peers):
    """No link is made before one is wanted."""
    a, b, _ = peers
    assert a.links.send(b.operator, b"x") is False
    assert not a.links._diallers


async def test_a_link_outlives_the_need_for_it(peers):
    """The next session finds it there."""
    a, b, _ = peers
    async with linked(a, b):
        pass
    assert a.links.send(b.operator, b"still here")
    assert await receive(b) == (a.operator, b"still here")


async def test_a_broken_link_is_made_again_while_it_is_wanted(peers):
    """And both sides are told, so that they repeat what may be lost."""
    a, b, _ = peers
    async with linked(a, b):
        await b.links._links[a.operator].aclose()
        async with asyncio.timeout(5):
            assert await a.linked.get() == b.operator
            assert await b.linked.get() == a.operator
        a.links.send(b.operator, b"again")
        assert await receive(b) == (a.operator, b"again")


async def test_a_peer_that_comes_up_late_is_reached(peers):
    """Dialling goes on for as long as the link is wanted."""
    a, b, c = peers
    await b.stop()
    with a.links.wanted([b.operator]):
        await asyncio.sleep(0.1)
        await b.start({peer.operator: peer.url for peer in (a, b, c)})
        async with asyncio.timeout(5):
            assert await a.linked.get() == b.operator


async def test_dialling_ends_when_nobody_wants_the_link(peers):
    """No task is left to dial a dead peer for ever."""
    a, b, c = peers
    await b.stop()
    with a.links.wanted([b.operator]):
        await asyncio.sleep(0.05)
        assert a.links._diallers
    await until(lambda: not a.links._diallers)
    await b.start({peer.operator: peer.url for peer in (a, b, c)})


async def test_an_operator_off_the_roster_is_not_dialled(peers):
    """A node talks to nobody that it was not given."""
    a, *_ = peers
    with a.links.wanted([NodeIdentity.generate().operator]):
        assert not a.links._diallers


async def dial_by_hand(peer, *messages):
    """Talk to a peer's endpoint with messages of one's own; gives what it answered and its close code."""
    answers = []
    async with aiohttp.ClientSession() as session, session.ws_connect(peer.url) as websocket:
        for message in messages:
            await (websocket.send_str if isinstance(message, str) else websocket.send_bytes)(message)
        async with asyncio.timeout(5):
            async for answer in websocket:
                answers.append(answer.data)
        return answers, websocket.close_code


async def test_a_stranger_is_refused(peers, caplog):
    """It gets no answer but a close code, and the log says so."""
    stranger = NodeIdentity.generate()
    with caplog.at_level(logging.WARNING):
        assert await dial_by_hand(peers[0], Dialler(stranger, peers[0].operator).hello()) == ([], 4403)
        await until(lambda: "not on the roster" in caplog.text)


@pytest.mark.parametrize(
    "message", [b"", b"\0" * 90, b"x" * 1000, "text"], ids=["empty", "zeros", "long", "text"]
)
async def test_nonsense_closes_the_connection(peers, message):
    """Whatever it is."""
    assert await dial_by_hand(peers[0], message) == ([], 4403)


async def test_a_half_done_handshake_runs_out_of_time(peers):
    """A silent caller does not hold a place for ever."""
    assert await dial_by_hand(peers[0]) == ([], 4403)


async def test_a_caller_that_cannot_sign_is_refused(peers):
    """Somebody who takes a roster operator's name gets the answer, and no further."""
    a, b, _ = peers
    hello = Dialler(NodeIdentity.generate(), b.operator).hello()
    impersonating = hello[:17] + bytes.fromhex(a.operator[2:]) + hello[37:]
    answers, code = await dial_by_hand(b, impersonating, b"\0" * 81)
    assert (len(answers), code) == (1, 4403)
    assert b.linked.empty()


async def test_an_impostor_at_the_peers_address_gets_nothing(peers):
    """The dialler notices that somebody else answers, and sends no frame."""
    a, b, c = peers
    await a.stop()
    await a.start({b.operator: c.url, a.operator: a.url})  # c sits where b should be
    with a.links.wanted([b.operator]):
        await asyncio.sleep(0.1)
        assert a.links.send(b.operator, b"secret") is False
    assert a.linked.empty()


async def test_a_frame_changed_on_the_way_closes_the_link(peers, caplog):
    """It is not passed on."""
    a, b, _ = peers
    async with linked(a, b):
        link = a.links._links[b.operator]
        link._keys.sending._counter += 1  # as if a frame had been taken out
        with caplog.at_level(logging.WARNING):
            a.links.send(b.operator, b"after a gap")
            async with asyncio.timeout(5):
                await a.linked.get()  # the link was closed and made again
        assert b.received.empty()
    assert "does not decrypt" in caplog.text


async def test_frames_are_bounded():
    """A frame longer than the limit is a mistake of this program."""
    async with contextlib.AsyncExitStack() as stack:
        pair = sorted(
            (
                Peer(NodeIdentity.generate(), stack.enter_context(closing(PortReservation("127.0.0.1"))))
                for _ in range(2)
            ),
            key=lambda peer: peer.operator.lower(),
        )
        roster = {peer.operator: peer.url for peer in pair}
        for peer in pair:
            await peer.start(roster, NodeLimits(max_peer_frame_bytes=100, max_peer_queue_bytes=250))
            stack.push_async_callback(peer.stop)
        a, b = pair
        async with linked(a, b):
            with pytest.raises(ValueError, match="longer"):
                a.links.send(b.operator, bytes(101))
            # Sent without giving the writer a turn: what waits is bounded, and past it the link is given up.
            assert [a.links.send(b.operator, bytes(100)) for _ in range(4)] == [True, True, False, False]


async def test_a_cut_connection_is_noticed(peers):
    """Without a goodbye, too."""
    a, b, c = peers
    async with CuttableProxy(b.reserved.port) as proxy:
        await a.stop()
        await a.start(
            {a.operator: a.url, b.operator: f"ws://127.0.0.1:{proxy.port}/v1/peer", c.operator: c.url}
        )
        async with linked(a, b):
            proxy.cut()
            async with asyncio.timeout(5):
                assert await a.linked.get() == b.operator
            a.links.send(b.operator, b"after the cut")
            assert await receive(b) == (a.operator, b"after the cut")


async def test_closing_sends_what_was_waiting(peers):
    """An abort notice on the last breath arrives."""
    a, b, _ = peers
    async with linked(a, b):
        a.links.send(b.operator, b"goodbye")
        await a.links.aclose()
        assert await receive(b) == (a.operator, b"goodbye")


async def test_nothing_on_the_wire_is_readable(peers):
    """What goes over the connection does not hold the frame."""
    a, b, c = peers
    seen = bytearray()

    class Eavesdropper(CuttableProxy):
        pass

    async with Eavesdropper(b.reserved.port) as proxy:
        send = asyncio.StreamWriter.write

        def write(self, data):
            seen.extend(data)
            send(self, data)

        asyncio.StreamWriter.write = write
        try:
            await a.stop()
            url = f"ws://127.0.0.1:{proxy.port}/v1/peer"
            await a.start({a.operator: a.url, b.operator: url, c.operator: c.url})
            async with linked(a, b):
                # The server's side is not masked, so that its bytes would be seen as they are.
                b.links.send(a.operator, b"a share of the key")
                assert await receive(a) == (b.operator, b"a share of the key")
        finally:
            asyncio.StreamWriter.write = send
    assert len(seen) > 200
    assert b"a share of the key" not in seen


async def test_nothing_is_left_when_links_are_closed():
    """No task and no socket: of links that hold, that are being dialled, and that were half made."""
    async with no_leaks(), three_peers() as (a, b, c):
        await c.stop()
        async with linked(a, b), aiohttp.ClientSession() as session:
            with a.links.wanted([c.operator]):
                await asyncio.sleep(0.05)
                await session.ws_connect(b.url)
                for peer in (a, b, c):
                    await peer.stop()


async def test_closing_twice_is_allowed():
    """The second time nothing happens."""
    async with no_leaks(), three_peers() as (a, *_):
        await a.links.aclose()
        await a.links.aclose()


async def handshake_by_hand(websocket, identity, peer):
    """Open a link as a node would; gives its keys."""
    calling = Dialler(identity, peer.operator)
    await websocket.send_bytes(calling.hello())
    finish, keys = calling.finish((await websocket.receive(timeout=5)).data)
    await websocket.send_bytes(finish)
    return keys


async def test_a_peer_that_comes_back_replaces_its_old_link(peers):
    """The old connection may be dead without this node having noticed."""
    a, b, _ = peers
    async with aiohttp.ClientSession() as session:
        old = await session.ws_connect(b.url)
        await handshake_by_hand(old, a.identity, b)
        assert await b.linked.get() == a.operator
        new = await session.ws_connect(b.url)
        keys = await handshake_by_hand(new, a.identity, b)
        assert (await old.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        assert await b.linked.get() == a.operator
        assert b.links.send(a.operator, b"to the new one")
        sealed = await new.receive(timeout=5)
        assert keys.receiving.open(sealed.data) == b"to the new one"


async def test_text_on_a_link_closes_it(peers):
    """Links are binary."""
    a, b, _ = peers
    async with aiohttp.ClientSession() as session:
        websocket = await session.ws_connect(b.url)
        await handshake_by_hand(websocket, a.identity, b)
        await websocket.send_str("hello")
        assert (await websocket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE


async def test_strangers_who_say_nothing_keep_no_peer_out(peers):
    """Of too many unfinished handshakes the oldest is given up; links that hold are not counted."""
    a, b, _ = peers
    b.links._limits = NodeLimits(max_connections=2, handshake_s=30)
    async with aiohttp.ClientSession() as session, AsyncExitStack() as opened:

        async def connect():
            return await opened.enter_async_context(session.ws_connect(b.url))

        silent = []
        for _ in range(5):
            silent.append(await connect())
            await until(lambda: len(b.links._listeners) == min(len(silent), 2))
        for websocket in silent[:3]:
            message = await websocket.receive(timeout=5)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, CLOSE_REFUSED)
        for _ in range(3):
            peer = await connect()
            keys = await handshake_by_hand(peer, a.identity, b)
            assert await b.linked.get() == a.operator
        assert len(b.links._shaking_hands) == 1
        assert b.links.send(a.operator, b"to the last one")
        assert keys.receiving.open((await peer.receive(timeout=5)).data) == b"to the last one"
