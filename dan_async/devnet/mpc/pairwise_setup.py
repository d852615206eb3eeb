"""
The set-up of a pair of parties, once before they first sign together.

It makes base oblivious transfers in both directions and a seed in common (DKLs23, ePrint 2023/765, section 5, with the
transfers of ``ot_base``). The seed is committed to before it is shown, so that neither side chooses it. Both parties run
the same five rounds at the same time::

    start      key and proof of the base transfers in which this side is the sender; commitment to a seed
    choose     choices of those in which it is the receiver; the seed
    challenge, respond, open     the verification of the base transfers

The set-up does not depend on any key, and serves every key that the two hold shares of. The link must be authenticated and
encrypted. An abort throws everything away and may be followed by a fresh set-up.

What a party keeps about another one, so that the two can sign together many times.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

from attrs import define, field

from dan_async._values import from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.devnet.mpc.aborts import PairAbort, PairReason, SigningAbort
from dan_async.devnet.mpc.dkg import ProtocolStateError
from dan_async.devnet.mpc.field import Entropy
from dan_async.devnet.mpc.ot import (
    CHALLENGE_BYTES,
    CHOICE_BYTES,
    OPENING_BYTES,
    RESPONSE_BYTES,
    SEED_BYTES,
    START_BYTES,
    TRANSFERS,
    OtBaseReceiver,
    OtBaseSender,
    ReceiverSeeds,
    SenderSeeds,
)
from dan_async.errors import InvalidFieldError
from dan_async.types import OperatorAddress

_MEMBERS = ("context", "isFirst", "commonSeed", "receiverSeeds", "delta", "senderSeeds", "banned")


def _masked(_: object) -> str:
    return "***"


@define(kw_only=True, eq=False)
class PairState:
    """
    One party's side of the set-up of a pair.

    Args:
        context: 32 bytes that name the set-up's session and both parties.
        is_first: Whether this side's address is the lower one of the two.
        common_seed: 32 bytes that both chose together and only they know.
        receiver: For the extension as its receiver.
        sender: For the extension as its sender.
        banned: Whether the other party has failed a consistency check. The pair must then never run again, in any
            session: keep this as durably as the rest.
    """

    context: bytes
    is_first: bool
    common_seed: bytes = field(repr=_masked)
    receiver: ReceiverSeeds = field(repr=_masked)
    sender: SenderSeeds = field(repr=_masked)
    banned: bool = False

    @property
    def setup_id(self) -> bytes:
        """32 bytes that are equal on both sides, and different for every set-up; they tell nothing about the seeds."""
        return tagged_hash("dan-ecdsa/1 set-up", self.context, self.common_seed)

    def gadget_context(self, *, receiving: bool) -> bytes:
        """
        Give what the gadget vector of one direction is derived from: chosen by both, so by neither.

        Args:
            receiving: Whether this side is the receiver in that direction.
        """
        direction = b"\x01" if receiving is self.is_first else b"\x02"
        return tagged_hash("dan-ecdsa/1 gadget context", self.context, self.common_seed, direction)

    def to_dict(self) -> dict[str, Any]:
        """Give the state as JSON members. They are secret: encrypt them before they touch a disk."""
        return {
            "context": to_hex(self.context),
            "isFirst": self.is_first,
            "commonSeed": to_hex(self.common_seed),
            "receiverSeeds": to_hex(b"".join(zero + one for zero, one in self.receiver.pairs)),
            "delta": to_hex(self.sender.delta.to_bytes(TRANSFERS // 8, "big")),
            "senderSeeds": to_hex(b"".join(self.sender.chosen)),
            "banned": self.banned,
        }

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> PairState:
        """
        Read a state back.

        Raises:
            InvalidFieldError: A member is missing, unknown or wrong.
        """
        if not isinstance(members, Mapping):
            raise InvalidFieldError("pair state", "must be an object")
        for name in _MEMBERS:
            if name not in members:
                raise InvalidFieldError(name, "is missing")
        if len(members) != len(_MEMBERS):
            raise InvalidFieldError("pair state", "has members that are not known")
        for name in ("isFirst", "banned"):
            if not isinstance(members[name], bool):
                raise InvalidFieldError(name, "must be true or false")

        def block(name: str, length: int) -> bytes:
            return from_hex(members[name], field=name, length=length)

        def seeds(name: str, count: int) -> list[bytes]:
            data = block(name, count * SEED_BYTES)
            return [data[i : i + SEED_BYTES] for i in range(0, len(data), SEED_BYTES)]

        both = seeds("receiverSeeds", 2 * TRANSFERS)
        return cls(
            context=block("context", DIGEST_BYTES),
            is_first=members["isFirst"],
            common_seed=block("commonSeed", DIGEST_BYTES),
            receiver=ReceiverSeeds(tuple(zip(both[::2], both[1::2], strict=True))),
            sender=SenderSeeds(
                int.from_bytes(block("delta", TRANSFERS // 8), "big"), tuple(seeds("senderSeeds", TRANSFERS))
            ),
            banned=members["banned"],
        )


def refuse_banned(pairs: Mapping[int, PairState]) -> None:
    """
    Check that no pair is banned, by now.

    Raises:
        SigningAbort: Some are; it names the parties.
    """
    banned = [index for index, pair in pairs.items() if pair.banned]
    if banned:
        raise SigningAbort(PairReason.BANNED, banned, ban=True)


SESSION_ID_BYTES = 32

_SEED_BYTES = 32


class _Step(Enum):
    START = 1
    CHOOSE = 2
    CHALLENGE = 3
    RESPOND = 4
    OPEN = 5
    FINISH = 6
    OVER = 7


#: Length of the body of each round's message.
_BODY_BYTES = {
    _Step.START: START_BYTES + DIGEST_BYTES,
    _Step.CHOOSE: CHOICE_BYTES + 2 * _SEED_BYTES,
    _Step.CHALLENGE: CHALLENGE_BYTES,
    _Step.RESPOND: RESPONSE_BYTES,
    _Step.OPEN: OPENING_BYTES,
}


def _raw(name: str, address: OperatorAddress) -> bytes:
    return from_hex(parse_address(name, address), field=name)


class PairSetup:
    """
    One party's side: ``start``, ``choose``, ``challenge``, ``respond``, ``open``, ``finish``, each once and in that order.

    Each step takes what the other party sent in its step before, and gives the message for it. After an abort the object
    takes no further step.

    Args:
        session_id: 32 bytes that both know and that no other set-up of the two ever had.
        own: The address of this party's identity key.
        peer: The address of the other party's.
        entropy: Source of randomness, for tests.

    Raises:
        InvalidFieldError: The session id is not 32 bytes, or the addresses are wrong or the same.
    """

    def __init__(
        self,
        *,
        session_id: bytes,
        own: OperatorAddress,
        peer: OperatorAddress,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        if not isinstance(session_id, bytes) or len(session_id) != SESSION_ID_BYTES:
            raise InvalidFieldError("session_id", f"must be {SESSION_ID_BYTES} bytes")
        self._own, self._peer = _raw("own", own), _raw("peer", peer)
        if self._own == self._peer:
            raise InvalidFieldError("peer", "must be another party")
        self._context = tagged_hash("dan-ecdsa/1 pair", session_id, *sorted((self._own, self._peer)))
        self._step = _Step.START
        self._choices = int.from_bytes(entropy(TRANSFERS // 8), "big")
        self._sender = OtBaseSender(self._direction(self._own), entropy)
        self._receiver = OtBaseReceiver(self._direction(self._peer), self._choices, entropy)
        self._seed = entropy(_SEED_BYTES) + entropy(
            _SEED_BYTES
        )  # the seed, and what hides it in its commitment
        self._peer_commitment = b""
        self._common_seed = b""

    def __repr__(self) -> str:
        return f"PairSetup(step={self._step.name})"

    def start(self) -> bytes:
        """
        Round 1.

        Raises:
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.START):
            return self._message(
                _Step.START, self._sender.start() + self._seed_commitment(self._own, self._seed)
            )

    def choose(self, message: bytes) -> bytes:
        """
        Round 2.

        Args:
            message: The other party's message of round 1.

        Raises:
            PairAbort: The message is malformed or a check fails.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.CHOOSE):
            body = self._body(_Step.START, message)
            self._peer_commitment = body[START_BYTES:]
            return self._message(_Step.CHOOSE, self._receiver.choose(body[:START_BYTES]) + self._seed)

    def challenge(self, message: bytes) -> bytes:
        """
        Round 3.

        Args:
            message: The other party's message of round 2.

        Raises:
            PairAbort: The message is malformed or a check fails.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.CHALLENGE):
            body = self._body(_Step.CHOOSE, message)
            seed = body[CHOICE_BYTES:]
            if self._seed_commitment(self._peer, seed) != self._peer_commitment:
                raise PairAbort(PairReason.SEED_COMMITMENT)
            parts = sorted(((self._own, self._seed), (self._peer, seed)))
            self._common_seed = tagged_hash(
                "dan-ecdsa/1 common seed", self._context, *(part for _, part in parts)
            )
            return self._message(_Step.CHALLENGE, self._sender.challenge(body[:CHOICE_BYTES]))

    def respond(self, message: bytes) -> bytes:
        """
        Round 4.

        Args:
            message: The other party's message of round 3.

        Raises:
            PairAbort: The message is malformed.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.RESPOND):
            return self._message(_Step.RESPOND, self._receiver.respond(self._body(_Step.CHALLENGE, message)))

    def open(self, message: bytes) -> bytes:
        """
        Round 5.

        Args:
            message: The other party's message of round 4.

        Raises:
            PairAbort: The message is malformed or a check fails.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.OPEN):
            return self._message(_Step.OPEN, self._sender.open(self._body(_Step.RESPOND, message)))

    def finish(self, message: bytes) -> PairState:
        """
        Check the other party's message of round 5 and give what is to be kept.

        Raises:
            PairAbort: The message is malformed or a check fails.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.FINISH):
            chosen = self._receiver.finish(self._body(_Step.OPEN, message))
            return PairState(
                context=self._context,
                is_first=self._own < self._peer,
                common_seed=self._common_seed,
                receiver=ReceiverSeeds(self._sender.seeds()),
                sender=SenderSeeds(self._choices, chosen),
            )

    # --- inside -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _round(self, step: _Step) -> Iterator[None]:
        if self._step is not step:
            raise ProtocolStateError(
                f"The set-up of a pair was asked for {step.name.lower()}, but its next step is {self._step.name.lower()}",
                hint="Each step is taken once and in order; begin a new set-up under a new session id",
            )
        self._step = _Step.OVER
        yield
        self._step = _Step(step.value + 1)

    def _direction(self, sender: bytes) -> bytes:
        return tagged_hash("dan-ecdsa/1 pair direction", self._context, sender)

    def _seed_commitment(self, party: bytes, seed: bytes) -> bytes:
        return tagged_hash("dan-ecdsa/1 seed commitment", self._context, party, seed)

    def _message(self, step: _Step, body: bytes) -> bytes:
        return bytes((step.value,)) + self._context + body

    def _body(self, step: _Step, message: bytes) -> bytes:
        header = self._message(step, b"")
        length = len(header) + _BODY_BYTES[step]
        if not isinstance(message, bytes) or len(message) != length or not message.startswith(header):
            raise PairAbort(PairReason.MALFORMED_MESSAGE)
        return message[len(header) :]
