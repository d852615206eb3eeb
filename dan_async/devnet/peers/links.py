"""
A node's links to all others: encrypted frames over one WebSocket for each pair, in order, both ways.

Two nodes come to share a link's keys by signed ephemeral Diffie-Hellman; docs/reference/devnet.md has the bytes.
This is the SIGMA pattern (Krawczyk, "SIGMA: the SIGn-and-MAc approach to authenticated Diffie-Hellman", CRYPTO 2003,
section 5) without its identity protection, which nodes that publish their operators do not need: each side signs the
whole transcript, its role and both identities with its identity key, and shows that it holds the derived keys by sealing
that signature with AES-GCM under them. The keys come from fresh key pairs, so that a stolen identity key opens no
recorded link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dan_async.crypto.curve import ORDER, Point, base_multiply, decode, encode, multiply
from dan_async.crypto.hashes import tagged_hash
from dan_async.crypto.signature import signer_of
from dan_async.deadline import cancel_and_wait
from dan_async.devnet.context import NodeIdentity, NodeLimits
from dan_async.devnet.listening import receive
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.types import OperatorAddress

_log = logging.getLogger(__name__)

# --- the handshake ----------------------------------------------------------------------------------------------------

VERSION = b"dan-devnet-link/1"
#: version, dialler's operator, listener's operator, dialler's ephemeral public key
HELLO_LENGTH = len(VERSION) + 20 + 20 + 33
_SIGNATURE_LENGTH = 65
_TAG_LENGTH = 16
_LAST_COUNTER = 2**64 - 1


class SealingKey:
    """AES-256-GCM for one direction of one link; the nonce is the number of the frame, so none is used twice."""

    __slots__ = ("_cipher", "_counter")

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0

    def seal(self, frame: bytes) -> bytes:
        return self._cipher.encrypt(self._next(), frame, None)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt the next frame; raise ProtocolError if it was changed, left out, repeated or reordered."""
        try:
            return self._cipher.decrypt(self._next(), sealed, None)
        except InvalidTag:
            raise ProtocolError("a frame from the peer does not decrypt") from None

    def _next(self) -> bytes:
        if self._counter > _LAST_COUNTER:
            raise ProtocolError("the link has carried as many frames as its keys allow")
        nonce = self._counter.to_bytes(12, "big")
        self._counter += 1
        return nonce


@frozen
class LinkKeys:
    """The two keys of a link, one for each direction."""

    sending: SealingKey = field(repr=False)
    receiving: SealingKey = field(repr=False)


@frozen
class _Transcript:
    dialler: OperatorAddress
    listener: OperatorAddress
    dialler_key: bytes
    listener_key: bytes

    def digest(self, role: str) -> bytes:
        """Return H("dan-devnet link", version, role, both operators, both ephemeral keys), which that role signs."""
        return tagged_hash(
            "dan-devnet link",
            VERSION,
            role.encode(),
            bytes.fromhex(self.dialler[2:]),
            bytes.fromhex(self.listener[2:]),
            self.dialler_key,
            self.listener_key,
        )

    def keys(self, own_secret: int, peer_key: bytes, *, is_dialler: bool) -> LinkKeys:
        shared = encode(multiply(_ephemeral(peer_key), own_secret))
        derived = HKDF(SHA256(), 64, salt=self.digest("keys"), info=VERSION).derive(shared)
        from_dialler, from_listener = SealingKey(derived[:32]), SealingKey(derived[32:])
        return LinkKeys(from_dialler, from_listener) if is_dialler else LinkKeys(from_listener, from_dialler)


def _ephemeral(key: bytes) -> Point:
    try:
        return decode(key)
    except InvalidFieldError:
        raise ProtocolError("the peer's ephemeral key is not a point of the curve") from None


def _fresh_key() -> tuple[int, bytes]:
    secret = 1 + secrets.randbelow(ORDER - 1)
    return secret, encode(base_multiply(secret))


def _check_signature(digest: bytes, signature: bytes, operator: OperatorAddress) -> None:
    if signer_of(digest, signature) != operator:
        raise ProtocolError(f"the peer could not prove that it is operator {operator}")


class Dialler:
    """The side that opens a link: to one operator, and no other."""

    def __init__(self, identity: NodeIdentity, listener: OperatorAddress) -> None:
        self._identity = identity
        self._listener = listener
        self._secret, self._key = _fresh_key()

    def hello(self) -> bytes:
        """Return the first message: version, both operators, own ephemeral key."""
        operators = bytes.fromhex(self._identity.operator[2:] + self._listener[2:])
        return VERSION + operators + self._key

    def finish(self, answer: bytes) -> tuple[bytes, LinkKeys]:
        """Check the listener's answer, its ephemeral key and its sealed signature; return the own one, and the keys."""
        if len(answer) != 33 + _SIGNATURE_LENGTH + _TAG_LENGTH:
            raise ProtocolError("the peer's answer to the handshake has the wrong length")
        transcript = _Transcript(self._identity.operator, self._listener, self._key, answer[:33])
        keys = transcript.keys(self._secret, answer[:33], is_dialler=True)
        _check_signature(transcript.digest("listener"), keys.receiving.open(answer[33:]), self._listener)
        return keys.sending.seal(self._identity.sign(transcript.digest("dialler"))), keys


@frozen
class Accepted:
    """The listener's half-finished handshake: the alleged dialler, and the digest that its last message must sign."""

    dialler: OperatorAddress
    keys: LinkKeys
    expected_digest: bytes


def accept_hello(
    identity: NodeIdentity, hello: bytes, roster: frozenset[OperatorAddress]
) -> tuple[bytes, Accepted]:
    """Answer the first message of a dialler on the roster; return the answer, and the state for ``check_finish``."""
    if len(hello) != HELLO_LENGTH or not hello.startswith(VERSION):
        raise ProtocolError("the peer's first message is not a handshake of this version")
    at = len(VERSION)
    raw_dialler, raw_listener, key = hello[at : at + 20], hello[at + 20 : at + 40], hello[at + 40 :]
    if raw_listener != bytes.fromhex(identity.operator[2:]):
        raise ProtocolError("the peer wants to reach another operator")
    dialler = next((peer for peer in roster if bytes.fromhex(peer[2:]) == raw_dialler), None)
    if dialler is None or dialler == identity.operator:
        raise ProtocolError("the peer is not on the roster")
    secret, own_key = _fresh_key()
    transcript = _Transcript(dialler, identity.operator, key, own_key)
    keys = transcript.keys(secret, key, is_dialler=False)
    answer = own_key + keys.sending.seal(identity.sign(transcript.digest("listener")))
    return answer, Accepted(dialler, keys, transcript.digest("dialler"))


def check_finish(accepted: Accepted, finish: bytes) -> None:
    _check_signature(accepted.expected_digest, accepted.keys.receiving.open(finish), accepted.dialler)


WebSocket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse

#: Close code of a link that was refused: RFC 6455 leaves 4000 to 4999 to applications.
CLOSE_REFUSED = 4403

_FLUSH_S = 0.5

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


# --- one link ---------------------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class PeerLink:
    """A link whose handshake is done."""

    peer: OperatorAddress
    _websocket: WebSocket
    _keys: LinkKeys
    _limits: NodeLimits
    _queue: deque[bytes] = field(factory=deque, init=False)
    _queued_bytes: int = field(default=0, init=False)
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _flushed: asyncio.Event = field(factory=asyncio.Event, init=False)
    _is_closing: bool = field(default=False, init=False)

    def send(self, frame: bytes) -> bool:
        """Send a frame when its turn comes, without waiting; if the peer reads too slowly, close the link instead."""
        if len(frame) > self._limits.max_peer_frame_bytes:
            raise ValueError("the frame is longer than a link carries")
        if self._is_closing:
            return False
        if self._queued_bytes + len(frame) > self._limits.max_peer_queue_bytes:
            _log.warning("peer %s: reads too slowly, the link is closed", self.peer)
            self._is_closing = True
            self._queue.clear()
            self._wake.set()
            return False
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._wake.set()
        return True

    async def run(self, on_frame: Callable[[bytes], None]) -> None:
        """Pass on the peer's frames until the link ends; a link that breaks or misbehaves just ends."""
        writer = asyncio.create_task(self._write(), name=f"peer link to {self.peer}")
        try:
            await self._read(on_frame)
        except ProtocolError as error:
            _log.warning("peer %s: %s; the link is closed", self.peer, error.message)
        finally:
            self._is_closing = True
            await cancel_and_wait([writer])
            await self._websocket.close()

    async def aclose(self) -> None:
        """Flush for a short while, and close; ``run`` then returns."""
        self._is_closing = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._flushed.wait()
        await self._websocket.close()

    async def _read(self, on_frame: Callable[[bytes], None]) -> None:
        while True:
            message = await receive(self._websocket)
            if message.type is aiohttp.WSMsgType.BINARY:
                on_frame(self._keys.receiving.open(message.data))
            elif message.type is aiohttp.WSMsgType.TEXT:
                raise ProtocolError("the peer sent text on a link")
            else:
                return

    async def _write(self) -> None:
        try:
            while True:
                while self._queue:
                    frame = self._queue.popleft()
                    self._queued_bytes -= len(frame)
                    await self._websocket.send_bytes(self._keys.sending.seal(frame))
                if self._is_closing:
                    break
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionError, aiohttp.ClientError):
            _log.debug("peer %s: the link broke while sending", self.peer)
        finally:
            self._flushed.set()
        # Nothing more can be sent, so the reader must end as well.
        await self._websocket.close()


async def _receive(websocket: WebSocket) -> bytes:
    message = await receive(websocket)
    if message.type is aiohttp.WSMsgType.BINARY:
        return bytes(message.data)
    if message.type is aiohttp.WSMsgType.TEXT:
        raise ProtocolError("the peer sent text on a link")
    raise ConnectionError("the peer closed the link during the handshake")


# --- all links --------------------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class PeerLinks:
    """
    The links of one node, at most one to each peer, opened when a session needs them, and kept while they hold.

    Of two nodes the one with the lower operator address dials, so that two links of a pair do not race. ``on_linked`` is
    called when a link comes up: messages not yet known to have arrived should then be sent again.
    """

    _identity: NodeIdentity
    _roster: Mapping[OperatorAddress, str]
    _on_frame: Callable[[OperatorAddress, bytes], None]
    _on_linked: Callable[[OperatorAddress], None]
    _limits: NodeLimits
    _links: dict[OperatorAddress, PeerLink] = field(factory=dict, init=False)
    _wanted: Counter[OperatorAddress] = field(factory=Counter, init=False)
    _diallers: dict[OperatorAddress, asyncio.Task[None]] = field(factory=dict, init=False)
    _listeners: set[asyncio.Task[None]] = field(factory=set, init=False)
    _shaking_hands: dict[asyncio.Task[Any], None] = field(factory=dict, init=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    @property
    def peers(self) -> frozenset[OperatorAddress]:
        return frozenset(self._roster)

    def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), trust_env=False, auto_decompress=False
        )

    @contextmanager
    def wanted(self, peers: Iterable[OperatorAddress]) -> Iterator[None]:
        """Keep the links to these peers up, as far as this node is the one to dial."""
        needed = list(peers)
        self._wanted.update(needed)
        for peer in needed:
            self._dial_if_needed(peer)
        try:
            yield
        finally:
            self._wanted.subtract(needed)

    def send(self, peer: OperatorAddress, frame: bytes) -> bool:
        """Send a frame if there is a link; if there is none, ``on_linked`` will say when there is."""
        link = self._links.get(peer)
        return link is not None and link.send(frame)

    def is_up(self, peer: OperatorAddress) -> bool:
        return peer in self._links

    async def accept(self, websocket: web.WebSocketResponse) -> None:
        """Serve a connection that a peer opened, until it ends."""
        # A task of our own, so that closing the node ends it and waits for it.
        task = asyncio.create_task(self._listen(websocket), name="peer link, listening")
        self._listeners.add(task)
        task.add_done_callback(self._listeners.discard)
        self._shaking_hands[task] = None
        if len(self._shaking_hands) > self._limits.max_connections:
            # The one that takes longest: strangers who say nothing keep no peer out.
            oldest = next(iter(self._shaking_hands))
            del self._shaking_hands[oldest]
            oldest.cancel()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await cancel_and_wait([task])
            raise
        finally:
            self._shaking_hands.pop(task, None)

    async def aclose(self) -> None:
        """Flush and close every link. May be called twice."""
        await asyncio.gather(*(link.aclose() for link in list(self._links.values())))
        await cancel_and_wait([*self._diallers.values(), *self._listeners])
        if self._session is not None:
            await self._session.close()
            self._session = None

    def abort(self) -> None:
        """Drop every link at once, as a crash would; ``aclose`` is still needed."""
        for task in (*self._diallers.values(), *self._listeners):
            task.cancel()

    def _dial_if_needed(self, peer: OperatorAddress) -> None:
        dials = peer in self._roster and self._identity.operator.lower() < peer.lower()
        if dials and peer not in self._diallers and self._session is not None:
            task = asyncio.create_task(self._dial(peer, self._session), name=f"peer link, dialling {peer}")
            self._diallers[peer] = task

    async def _dial(self, peer: OperatorAddress, session: aiohttp.ClientSession) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            while self._wanted[peer] > 0:
                try:
                    link = await self._open(peer, session)
                except (ConnectionError, TimeoutError, ProtocolError) as error:
                    _log.debug("peer %s: no link yet: %s", peer, error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
                else:
                    pause_s = _FIRST_PAUSE_S
                    await self._run(link)
        finally:
            del self._diallers[peer]

    async def _open(self, peer: OperatorAddress, session: aiohttp.ClientSession) -> PeerLink:
        """Open a link. A ConnectionError: none, or closed in the middle; a ProtocolError: somebody else answered."""
        async with asyncio.timeout(self._limits.handshake_s):
            try:
                websocket = await session.ws_connect(
                    self._roster[peer],
                    autoping=False,
                    max_msg_size=self._limits.max_peer_frame_bytes + 64,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_FLUSH_S),
                )
            except aiohttp.ClientError as error:
                raise ConnectionError(f"no connection to the peer ({type(error).__name__})") from error
            try:
                dialler = Dialler(self._identity, peer)
                await websocket.send_bytes(dialler.hello())
                finish, keys = dialler.finish(await _receive(websocket))
                await websocket.send_bytes(finish)
            except BaseException:
                await websocket.close()
                raise
        return PeerLink(peer, websocket, keys, self._limits)

    async def _answer(self, websocket: web.WebSocketResponse) -> PeerLink:
        """Answer a peer that opens a link, and close the connection if it may not; errors as for ``_open``."""
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                hello = await _receive(websocket)
                answer, accepted = accept_hello(self._identity, hello[: HELLO_LENGTH + 1], self.peers)
                await websocket.send_bytes(answer)
                check_finish(accepted, await _receive(websocket))
        except BaseException:
            await websocket.close(code=CLOSE_REFUSED)
            raise
        return PeerLink(accepted.dialler, websocket, accepted.keys, self._limits)

    async def _listen(self, websocket: web.WebSocketResponse) -> None:
        try:
            link = await self._answer(websocket)
        except (ConnectionError, TimeoutError, ProtocolError) as error:
            _log.warning("a link was refused: %s %s", type(error).__name__, error)
            return
        task = asyncio.current_task()
        assert task is not None
        self._shaking_hands.pop(task, None)
        await self._run(link)

    async def _run(self, link: PeerLink) -> None:
        replaced = self._links.get(link.peer)
        self._links[link.peer] = link
        if replaced is not None:  # the peer came back before we noticed that it was gone
            await replaced.aclose()
        try:
            self._on_linked(link.peer)
            await link.run(lambda frame: self._on_frame(link.peer, frame))
        finally:
            if self._links.get(link.peer) is link:
                del self._links[link.peer]
