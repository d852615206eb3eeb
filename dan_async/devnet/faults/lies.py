"""What a faulty node sends instead of the truth: acknowledgements, messages to other nodes, shares, replies to clients."""

from __future__ import annotations

import asyncio
import base64
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from attrs import define, evolve, field

from dan_async.crypto.curve import ORDER, add, base_multiply, decode, encode
from dan_async.devnet.mpc.dkg import DkgParty, Session, ShareMessage, sign_message
from dan_async.devnet.mpc.evidence import sign_commitment
from dan_async.devnet.mpc.field import Polynomial, scalar_to_bytes
from dan_async.devnet.mpc.framing import SCALAR_BYTES, join_parts, split_parts
from dan_async.devnet.mpc.vole import REPLY_BYTES
from dan_async.protocols.node import Acknowledgement, Claims, SignatureShares, SignedClaims, compute_key_id

S = TypeVar("S", bound=SignedClaims[Any])

#: Signs a 32-byte digest as the node's operator.
Sign = Callable[[bytes], bytes]

# --- acknowledgements and shares --------------------------------------------------------------------------------------


def forge_shares(ack: Acknowledgement, sign: Sign) -> Acknowledgement:
    forged = (encode(base_multiply(_random_scalar())) for _ in ack.public_shares)
    return sign_claims(ack, evolve(ack.claims, public_shares=tuple(forged)), sign)


def substitute_key(ack: Acknowledgement, sign: Sign, owner_id: str) -> Acknowledgement:
    """Acknowledge another key, of which everything is right: the shares make it, and its id is the hash of it."""
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
    return sign_claims(ack, claims, sign)


def sign_claims(said: S, claims: Claims, sign: Sign) -> S:
    return type(said).make(claims, operator=said.operator, party_index=said.party_index, sign=sign)


def falsify_shares(shares: SignatureShares, sign: Sign) -> SignatureShares:
    """Answer with shares that do not make the signature, properly signed."""
    wrong = tuple(evolve(share, w=(share.w + _random_scalar()) % ORDER) for share in shares.claims.shares)
    return sign_claims(shares, evolve(shares.claims, shares=wrong), sign)


def forge_commitments(shares: SignatureShares, sign: Sign) -> SignatureShares:
    """Change u, and what the node says that it committed to, by the same number: the two fit one another."""
    forged = []
    for share in shares.claims.shares:
        offset = _random_scalar()
        start, u, rest = (share.commitments[a:b] for a, b in ((0, 33), (33, 66), (66, None)))
        moved = add([decode(u), base_multiply(offset)])
        assert moved is not None
        commitments = start + encode(moved) + rest
        forged.append(evolve(share, u=(share.u + offset) % ORDER, commitments=commitments))
    return sign_claims(shares, evolve(shares.claims, shares=tuple(forged)), sign)


def _random_scalar() -> int:
    return 1 + secrets.randbelow(ORDER - 1)


# --- messages to other nodes ------------------------------------------------------------------------------------------


def spoil_multiplication(bodies: Mapping[int, bytes]) -> dict[int, bytes]:
    """Change the last byte of each message of round 2: the hash by which its recipient checks the multiplication."""
    return {index: body[:-1] + bytes((body[-1] ^ 1,)) for index, body in bodies.items()}


def contradict(bodies: Mapping[int, bytes]) -> dict[int, bytes]:
    """Change ψ in the message of round 2 to one other signer; no check among the nodes is about it."""
    victim = min(bodies)
    head, vole = bodies[victim][:-REPLY_BYTES], bodies[victim][-REPLY_BYTES:]
    psi = (int.from_bytes(head[-SCALAR_BYTES:], "big") + 1) % ORDER
    return {**bodies, victim: head[:-SCALAR_BYTES] + scalar_to_bytes(psi) + vole}


@define(kw_only=True)
class KeygenFace:
    """A node in one key generation, with a second face for its victim, who is the last of the other parties."""

    session: Session
    index: int
    sign: Sign
    #: Makes another party in the node's name.
    new_party: Callable[[], DkgParty]
    #: What the other parties have committed to, once they have.
    commitments: Mapping[int, bytes] = field(factory=dict)
    _second: DkgParty | None = field(default=None, init=False)

    @property
    def victim(self) -> int:
        last = len(self.session.identities)
        return last if last != self.index else last - 1

    def other_commitment(self) -> bytes:
        """Commit to another polynomial: the body of round 1 for the victim."""
        return sign_commitment(self.session, self._other().commit(), self.sign)

    def other_opening(self) -> bytes:
        """Open the other polynomial: the body of round 2 for the victim."""
        opening = self._other().open(self.commitments)
        return join_parts((opening.broadcast, opening.shares[self.victim]))

    def with_wrong_share(self, body: bytes) -> bytes:
        """Change the share in a body of round 2 and sign it again: only the commitments tell that it is wrong."""
        opened, share = split_parts(body, 2)
        context = self.session.context
        message = ShareMessage.decode(share, context)
        wrong = evolve(message, share=message.share[:-1] + bytes((message.share[-1] ^ 1,)))
        return join_parts((opened, sign_message(wrong, context, self.sign).encode(context)))

    def with_bad_opening(self, body: bytes) -> bytes:
        """Change the opening in a body of round 2, and leave the share as it is."""
        opened, share = split_parts(body, 2)
        return join_parts((opened[:-1] + bytes((opened[-1] ^ 1,)), share))

    def _other(self) -> DkgParty:
        if self._second is None:
            self._second = self.new_party()
        return self._second


# --- replies to clients -----------------------------------------------------------------------------------------------

#: RFC 6455 section 5.2: opcodes, the bit of a message's last frame, and what says that the length follows.
_CONTINUATION, _TEXT, _BINARY, _LAST = 0x0, 0x1, 0x2, 0x80
_LENGTH_16, _LENGTH_64 = 126, 127
_LONGEST_16 = 0xFFFF

_GARBAGE_BYTES = 64


class SpoiltReply(ABC):
    """A reply that a fault writes in the node's place, past aiohttp to the connection itself."""

    def __init__(self, transport: asyncio.Transport, text: str, *, is_over: Callable[[], bool]) -> None:
        self._transport = transport
        self._text = text.encode()
        self._is_over = is_over

    #: Whether the connection stays open, and fit for further replies, after garbage.
    stays_open: ClassVar[bool]

    @abstractmethod
    def half(self) -> bytes:
        """Return the first half of it."""

    @abstractmethod
    def whole(self, content: bytes, *, is_text: bool) -> bytes:
        """Return a complete message in its place."""

    def cut(self) -> None:
        """Send half of it and close the connection."""
        self._transport.write(self.half())
        self._transport.close()  # when that has been sent

    def garble(self, form: str | None) -> None:
        """Send something else: random bytes that are ``raw`` or in a ``binary`` message, or text that is not JSON."""
        noise = secrets.token_bytes(_GARBAGE_BYTES)
        if form == "raw":
            # All reserved bits and a reserved opcode: never a frame that a reader would wait to see completed.
            garbage = b"\xff" + noise
        elif form == "binary":
            garbage = self.whole(noise, is_text=False)
        else:
            garbage = self.whole(b'{"jsonrpc":"2.0",' + base64.b64encode(noise), is_text=True)
        self._transport.write(garbage)
        if not self.stays_open:
            self._transport.close()

    async def trickle(self, pause_s: float) -> None:
        """Send a byte at a time, without end."""
        try:
            for piece in self._endless():
                if self._transport.is_closing() or self._is_over():
                    return
                self._transport.write(piece)
                await asyncio.sleep(pause_s)
        finally:
            # In the middle of a message there is nothing else to say, and no one may be reading.
            self._transport.abort()

    @abstractmethod
    def _endless(self) -> Iterator[bytes]: ...


class SpoiltMessage(SpoiltReply):
    """A reply over a WebSocket."""

    stays_open = True

    def half(self) -> bytes:
        whole = self.whole(self._text, is_text=True)
        return whole[: len(whole) // 2]

    def whole(self, content: bytes, *, is_text: bool) -> bytes:
        return _head(_LAST | (_TEXT if is_text else _BINARY), len(content)) + content

    def _endless(self) -> Iterator[bytes]:
        # One frame after the other, none of them the message's last.
        opcode = _TEXT
        while True:
            for byte in _head(opcode, _LONGEST_16):
                yield bytes((byte,))
            for _ in range(_LONGEST_16):
                yield b" "
            opcode = _CONTINUATION


class SpoiltResponse(SpoiltReply):
    """A reply to a POST."""

    stays_open = False

    def half(self) -> bytes:
        whole = self.whole(self._text, is_text=True)
        return whole[: len(whole) - len(self._text) // 2 - 1]

    def whole(self, content: bytes, *, is_text: bool) -> bytes:
        content_type = "application/json" if is_text else "application/octet-stream"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    def _endless(self) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"1\r\n \r\n"


def _head(first: int, length: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, length))
    if length <= _LONGEST_16:
        return bytes((first, _LENGTH_16)) + length.to_bytes(2, "big")
    return bytes((first, _LENGTH_64)) + length.to_bytes(8, "big")
