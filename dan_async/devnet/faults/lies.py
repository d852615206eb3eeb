"""
What a node with a fault sends to the others in a key generation, instead of what it should.

Answers that are none: half a frame, garbage, and bytes that never end, written past aiohttp to the connection itself.

Acknowledgements that are lies, each of its own kind. Pure.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Iterator, Mapping

from attrs import evolve

from dan_async.crypto.curve import ORDER, base_multiply, encode
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.faults.kinds import (
    DealWrongShare,
    Disconnect,
    Equivocate,
    FallSilent,
    Fault,
    SendGarbage,
    Trickle,
)
from dan_async.devnet.mpc.dkg import DkgParty
from dan_async.devnet.mpc.dkg_messages import Session, ShareMessage
from dan_async.devnet.mpc.evidence import sign_commitment
from dan_async.devnet.mpc.field import Polynomial
from dan_async.devnet.mpc.framing import join_parts, split_parts
from dan_async.protocols.node import compute_key_id
from dan_async.protocols.node_claims import Acknowledgement, KeygenClaims
from dan_async.types import OperatorAddress

_COMMIT, _OPEN = 1, 2

Bodies = Mapping[OperatorAddress, bytes]


class DkgFaults:
    """
    The faults of one node in one session. The victim of a fault that has one is the last of the other parties.

    Args:
        faults: Those in force when the session begins.
        identity: The node.
        session: What the parties agree on.
        new_party: Makes another party in the node's name, for a node with two faces.
    """

    def __init__(
        self,
        faults: tuple[Fault, ...],
        *,
        identity: NodeIdentity,
        session: Session,
        new_party: Callable[[], DkgParty],
    ) -> None:
        self._identity = identity
        self._session = session
        self._silent_from = min(
            (fault.round for fault in faults if isinstance(fault, FallSilent)), default=99
        )
        self._deals_wrong = any(isinstance(fault, DealWrongShare) for fault in faults)
        self._other_face = new_party() if any(isinstance(fault, Equivocate) for fault in faults) else None
        self._victim = [peer for peer in session.identities if peer != identity.operator][-1]

    def outgoing(self, round_: int, bodies: Bodies, commitments: Mapping[int, bytes]) -> Bodies:
        """
        Change what the node is about to send.

        Args:
            round_: The round.
            bodies: What it should send to each peer.
            commitments: What the peers have committed to, once they have.
        """
        if round_ >= self._silent_from:
            return {}
        changed = dict(bodies)
        if round_ == _COMMIT and self._other_face is not None:
            changed[self._victim] = sign_commitment(
                self._session, self._other_face.commit(), self._identity.sign
            )
        if round_ == _OPEN and self._other_face is not None:
            opening = self._other_face.open(commitments)
            share = opening.shares[self._session.identities.index(self._victim) + 1]
            changed[self._victim] = join_parts((opening.broadcast, share))
        if round_ == _OPEN and self._deals_wrong:
            opened, share = split_parts(changed[self._victim], 2)
            changed[self._victim] = join_parts((opened, self._wrong(share)))
        return changed

    def _wrong(self, share: bytes) -> bytes:
        """Change a share and sign it again, so that nothing but the commitments tells that it is wrong."""
        context = self._session.context
        message = ShareMessage.decode(share, context)
        message = evolve(message, share=message.share[:-1] + bytes((message.share[-1] ^ 1,)))
        digest = ShareMessage.digest(
            context,
            sender=message.sender,
            recipient=message.recipient,
            share=message.share,
            commitment=message.commitment,
        )
        return evolve(message, signature=self._identity.sign(digest)).encode(context)


SpoiledReply = Disconnect | SendGarbage | Trickle

#: RFC 6455 section 5.2: opcodes, the bit of a message's last frame, and what says that the length follows.
_CONTINUATION, _TEXT, _BINARY, _LAST = 0x0, 0x1, 0x2, 0x80

_LENGTH_16, _LENGTH_64 = 126, 127

_LONGEST_16 = 0xFFFF

_GARBAGE_BYTES = 64


def frame(opcode: int, payload: bytes) -> bytes:
    """Write a server's whole frame."""
    return _head(_LAST | opcode, len(payload)) + payload


def _head(first: int, length: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, length))
    if length <= _LONGEST_16:
        return bytes((first, _LENGTH_16)) + length.to_bytes(2, "big")
    return bytes((first, _LENGTH_64)) + length.to_bytes(8, "big")


def endless_message() -> Iterator[bytes]:
    """Give a text message without end, a byte at a time: one frame after the other, none of them the last."""
    opcode = _TEXT
    while True:
        for byte in _head(opcode, _LONGEST_16):
            yield bytes((byte,))
        for _ in range(_LONGEST_16):
            yield b" "
        opcode = _CONTINUATION


def endless_body() -> Iterator[bytes]:
    """Give the head of an HTTP response, and then its body without end, a chunk of one byte at a time."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"1\r\n \r\n"


def _no_json() -> str:
    return '{"jsonrpc":"2.0",' + base64.b64encode(secrets.token_bytes(_GARBAGE_BYTES)).decode()


def _no_frame() -> bytes:
    # All reserved bits and a reserved opcode: never a frame that a reader would wait to see completed.
    return b"\xff" + secrets.token_bytes(_GARBAGE_BYTES)


async def spoil_websocket(
    transport: asyncio.Transport, fault: SpoiledReply, reply: str, *, is_over: Callable[[], bool]
) -> None:
    """
    Write what the fault makes of an answer. Only garbage leaves the connection open and fit for further answers.

    Args:
        transport: The connection, past the upgrade.
        fault: What to do.
        reply: The answer, as it would have been.
        is_over: Tells a trickle that it has to end.
    """
    if isinstance(fault, Disconnect):
        whole = frame(_TEXT, reply.encode())
        _cut_after(transport, whole[: len(whole) // 2])
    elif isinstance(fault, Trickle):
        await _trickle(transport, endless_message(), fault.seconds, is_over)
    elif fault.form == "raw":
        transport.write(_no_frame())
    elif fault.form == "binary":
        transport.write(frame(_BINARY, secrets.token_bytes(_GARBAGE_BYTES)))
    else:
        transport.write(frame(_TEXT, _no_json().encode()))


async def spoil_http(
    transport: asyncio.Transport, fault: SpoiledReply, reply: str, *, is_over: Callable[[], bool]
) -> None:
    """Write what the fault makes of an answer to a POST, and close the connection; see ``spoil_websocket``."""
    if isinstance(fault, Trickle):
        await _trickle(transport, endless_body(), fault.seconds, is_over)
        return
    body = reply.encode()
    if isinstance(fault, Disconnect):
        whole = _http(body)
        _cut_after(transport, whole[: len(whole) - len(body) // 2 - 1])
    elif fault.form == "raw":
        _cut_after(transport, _no_frame())
    elif fault.form == "binary":
        _cut_after(transport, _http(secrets.token_bytes(_GARBAGE_BYTES), "application/octet-stream"))
    else:
        _cut_after(transport, _http(_no_json().encode()))


def _http(body: bytes, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _cut_after(transport: asyncio.Transport, data: bytes) -> None:
    transport.write(data)
    transport.close()  # when that has been sent


async def _trickle(
    transport: asyncio.Transport, pieces: Iterator[bytes], seconds: float, is_over: Callable[[], bool]
) -> None:
    try:
        for piece in pieces:
            if transport.is_closing() or is_over():
                return
            transport.write(piece)
            await asyncio.sleep(seconds)
    finally:
        # In the middle of a message there is nothing else to say, and no one may be reading.
        transport.abort()


Sign = Callable[[bytes], bytes]


def _signed(ack: Acknowledgement, claims: KeygenClaims, sign: Sign) -> Acknowledgement:
    return Acknowledgement.make(claims, operator=ack.operator, party_index=ack.party_index, sign=sign)


def forge_signature(ack: Acknowledgement) -> Acknowledgement:
    """Have a stranger sign it."""
    return _signed(ack, ack.claims, NodeIdentity.generate().sign)


def forge_shares(ack: Acknowledgement, sign: Sign) -> Acknowledgement:
    """List public shares that do not make the public key."""
    forged = (encode(base_multiply(1 + secrets.randbelow(ORDER - 1))) for _ in ack.public_shares)
    return _signed(ack, evolve(ack.claims, public_shares=tuple(forged)), sign)


def substitute_key(ack: Acknowledgement, sign: Sign, owner_id: str) -> Acknowledgement:
    """
    Speak of another key, of which everything is right: the shares make it, and its id is the hash of it.

    Args:
        ack: The true acknowledgement.
        sign: The operator's signature.
        owner_id: The owner, who goes into the key id.
    """
    polynomial = Polynomial.random(ack.threshold.t - 1, secrets.token_bytes)
    public_key = encode(base_multiply(polynomial.coefficients[0]))
    shares = (encode(base_multiply(polynomial.evaluate(i + 1))) for i in range(ack.threshold.n))
    key_id = compute_key_id(
        public_key=public_key,
        t=ack.threshold.t,
        participants=ack.participants,
        owner_id=owner_id,
        request_id=ack.request_id,
    )
    claims = evolve(ack.claims, key_id=key_id, public_key=public_key, public_shares=tuple(shares))
    return _signed(ack, claims, sign)
