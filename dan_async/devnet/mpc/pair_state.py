"""What a party keeps about another one, so that the two can sign together many times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from dan_async._hex import from_hex, to_hex
from dan_async.devnet.mpc.hashing import DIGEST_BYTES, tagged_hash
from dan_async.devnet.mpc.ot_base import SEED_BYTES, TRANSFERS
from dan_async.devnet.mpc.ot_extension import ReceiverSeeds, SenderSeeds
from dan_async.devnet.mpc.pair_abort import PairReason
from dan_async.devnet.mpc.signing_abort import SigningAbort
from dan_async.errors import InvalidFieldError

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
