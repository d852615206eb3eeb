"""
The set-up of a pair of parties, once before they first sign together, and the state that each side keeps of it.

It makes base oblivious transfers in both directions (``ot``) and a seed in common: DKLs23 (ePrint 2023/765), section 5, and
Functionality 3.4 for the seed. The seed is committed to before it is shown, so that neither side chooses it. Both parties
run the same five rounds at the same time::

    start      key and proof of the base transfers in which this side is the sender; commitment to a seed
    choose     choices of those in which it is the receiver; the seed
    challenge, respond, open     the verification of the base transfers

Adversary: static, malicious, either side, as in ``ot``. The set-up does not depend on any key, and serves every key that
the two hold shares of. The link must be authenticated and encrypted. An abort throws everything away and may be followed
by a fresh set-up.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from attrs import define, field, frozen

from dan_async._values import check_bool, from_hex, mask_secret, to_hex
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.devnet.mpc import ot
from dan_async.devnet.mpc.aborts import PairAbort, Reason, SigningAbort, Stepwise, step
from dan_async.devnet.mpc.field import Entropy
from dan_async.devnet.mpc.framing import Digest, Message, check_session_id, fixed
from dan_async.errors import InvalidFieldError
from dan_async.protocols.fields import members
from dan_async.types import Json, OperatorAddress

M = TypeVar("M", bound=Message)

_SEED_BYTES = 32

_MEMBERS = ("context", "isFirst", "commonSeed", "receiverSeeds", "delta", "senderSeeds")


# --- the state --------------------------------------------------------------------------------------------------------


@define(eq=False)
class Ban:
    """Whether the pair must never run again: one object for all set-ups with the same party."""

    is_set: bool = False


@define(kw_only=True, eq=False)
class PairState:
    """One side of the set-up of a pair. Once banned, the pair must never run again, in any session."""

    #: 32 bytes that name the set-up's session and both parties.
    context: bytes
    #: Whether this side's address is the lower one of the two.
    is_first: bool
    #: 32 bytes that both chose together and only they know.
    common_seed: bytes = field(repr=mask_secret)
    #: For the extension as its receiver, and as its sender.
    receiver: ot.ReceiverSeeds = field(repr=mask_secret)
    sender: ot.SenderSeeds = field(repr=mask_secret)
    #: Kept apart from this state, which it outlives.
    ban: Ban = field(factory=Ban)

    @property
    def setup_id(self) -> bytes:
        """32 bytes that are equal on both sides, and different for every set-up; they tell nothing about the seeds."""
        return tagged_hash("dan-ecdsa/1 set-up", self.context, self.common_seed)

    def gadget_context(self, *, receiving: bool) -> bytes:
        """Return the origin of one direction's gadget vector: chosen by both, so by neither."""
        direction = b"\x01" if receiving is self.is_first else b"\x02"
        return tagged_hash("dan-ecdsa/1 gadget context", self.context, self.common_seed, direction)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON members. They are secret: encrypt them before they touch a disk."""
        return {
            "context": to_hex(self.context),
            "isFirst": self.is_first,
            "commonSeed": to_hex(self.common_seed),
            "receiverSeeds": to_hex(b"".join(zero + one for zero, one in self.receiver.pairs)),
            "delta": to_hex(self.sender.delta.to_bytes(ot.TRANSFERS // 8, "big")),
            "senderSeeds": to_hex(b"".join(self.sender.chosen)),
        }

    @classmethod
    def from_dict(cls, value: Json) -> PairState:
        """Read a state back, strictly: no member missing, unknown or wrong."""
        found = members(value, "pair state", _MEMBERS)

        def block(name: str, length: int) -> bytes:
            return from_hex(found[name], field=name, length=length)

        def seeds(name: str, count: int) -> list[bytes]:
            data = block(name, count * ot.SEED_BYTES)
            return [data[i : i + ot.SEED_BYTES] for i in range(0, len(data), ot.SEED_BYTES)]

        both = seeds("receiverSeeds", 2 * ot.TRANSFERS)
        return cls(
            context=block("context", DIGEST_BYTES),
            is_first=check_bool("isFirst", found["isFirst"]),
            common_seed=block("commonSeed", DIGEST_BYTES),
            receiver=ot.ReceiverSeeds(tuple(zip(both[::2], both[1::2], strict=True))),
            sender=ot.SenderSeeds(
                int.from_bytes(block("delta", ot.TRANSFERS // 8), "big"),
                tuple(seeds("senderSeeds", ot.TRANSFERS)),
            ),
        )


def refuse_banned(pairs: Mapping[int, PairState]) -> None:
    """Abort, naming the parties, if pairs are banned by now."""
    banned = [index for index, pair in pairs.items() if pair.ban.is_set]
    if banned:
        raise SigningAbort(Reason.BANNED, banned, ban=True)


# --- messages ---------------------------------------------------------------------------------------------------------


@frozen(repr=False)
class StartMessage(Message):
    """Round 1: key and proof of the base transfers, commitment to the seed."""

    KIND = 1

    start: Annotated[bytes, fixed(ot.START_BYTES)]
    commitment: Digest


@frozen(repr=False)
class ChooseMessage(Message):
    """Round 2: choices, and the seed with the blinding of its commitment."""

    KIND = 2

    choices: Annotated[bytes, fixed(ot.CHOICE_BYTES)]
    seed: Annotated[bytes, fixed(2 * _SEED_BYTES)]


@frozen(repr=False)
class ChallengeMessage(Message):
    """Round 3."""

    KIND = 3

    challenges: Annotated[bytes, fixed(ot.CHALLENGE_BYTES)]


@frozen(repr=False)
class RespondMessage(Message):
    """Round 4."""

    KIND = 4

    responses: Annotated[bytes, fixed(ot.RESPONSE_BYTES)]


@frozen(repr=False)
class OpenMessage(Message):
    """Round 5."""

    KIND = 5

    openings: Annotated[bytes, fixed(ot.OPENING_BYTES)]


# --- one party --------------------------------------------------------------------------------------------------------


def _raw(name: str, address: OperatorAddress) -> bytes:
    return from_hex(parse_address(name, address), field=name)


class PairSetup(Stepwise):
    """One party's side: each step takes the other party's message of the step before. No session id is used twice."""

    PROTOCOL = "The set-up of a pair"
    STEPS = ("start", "choose", "challenge", "respond", "open", "finish")
    HINT = "begin a new set-up under a new session id"

    def __init__(
        self,
        *,
        session_id: bytes,
        own: OperatorAddress,
        peer: OperatorAddress,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        check_session_id(session_id)
        self._own, self._peer = _raw("own", own), _raw("peer", peer)
        if self._own == self._peer:
            raise InvalidFieldError("peer", "must be another party")
        self._context = tagged_hash("dan-ecdsa/1 pair", session_id, *sorted((self._own, self._peer)))
        self._choices = int.from_bytes(entropy(ot.TRANSFERS // 8), "big")
        self._sender = ot.OtBaseSender(self._direction(self._own), entropy)
        self._receiver = ot.OtBaseReceiver(self._direction(self._peer), self._choices, entropy)
        #: The seed, and the blinding of its commitment.
        self._seed = entropy(_SEED_BYTES) + entropy(_SEED_BYTES)
        self._peer_commitment = b""
        self._common_seed = b""

    def __repr__(self) -> str:
        return f"PairSetup(step={self.next_step.upper()})"

    @step
    def start(self) -> bytes:
        commitment = self._seed_commitment(self._own, self._seed)
        return StartMessage(self._sender.start(), commitment).encode(self._context)

    @step
    def choose(self, data: bytes) -> bytes:
        message = self._read(StartMessage, data)
        self._peer_commitment = message.commitment
        choices = self._receiver.choose(message.start)
        return ChooseMessage(choices, self._seed).encode(self._context)

    @step
    def challenge(self, data: bytes) -> bytes:
        message = self._read(ChooseMessage, data)
        if self._seed_commitment(self._peer, message.seed) != self._peer_commitment:
            raise PairAbort(Reason.SEED_COMMITMENT)
        parts = sorted(((self._own, self._seed), (self._peer, message.seed)))
        self._common_seed = tagged_hash(
            "dan-ecdsa/1 common seed", self._context, *(part for _, part in parts)
        )
        return ChallengeMessage(self._sender.challenge(message.choices)).encode(self._context)

    @step
    def respond(self, data: bytes) -> bytes:
        message = self._read(ChallengeMessage, data)
        return RespondMessage(self._receiver.respond(message.challenges)).encode(self._context)

    @step
    def open(self, data: bytes) -> bytes:
        message = self._read(RespondMessage, data)
        return OpenMessage(self._sender.open(message.responses)).encode(self._context)

    @step
    def finish(self, data: bytes) -> PairState:
        """Check the other party's message of round 5, and return the state to be kept."""
        chosen = self._receiver.finish(self._read(OpenMessage, data).openings)
        return PairState(
            context=self._context,
            is_first=self._own < self._peer,
            common_seed=self._common_seed,
            receiver=ot.ReceiverSeeds(self._sender.seeds()),
            sender=ot.SenderSeeds(self._choices, chosen),
        )

    def _direction(self, sender: bytes) -> bytes:
        return tagged_hash("dan-ecdsa/1 pair direction", self._context, sender)

    def _seed_commitment(self, party: bytes, seed: bytes) -> bytes:
        return tagged_hash("dan-ecdsa/1 seed commitment", self._context, party, seed)

    def _read(self, kind: type[M], data: bytes) -> M:
        try:
            return kind.decode(data, self._context)
        except InvalidFieldError:
            raise PairAbort(Reason.MALFORMED_MESSAGE) from None
