"""What a node can do wrong when it signs: in the rounds of a presignature, or with its share of the signature."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import ClassVar

from attrs import evolve, field, frozen

from dan_async.crypto.point import ORDER
from dan_async.devnet.faults.base import Fault
from dan_async.models._fields import check_int, check_seconds, optional, required
from dan_async.models.signing import SignatureShares
from dan_async.wire.node_signing import shares_digest

__all__ = [
    "SIGNING_KINDS",
    "CheatInSigning",
    "CrashInSigning",
    "SilentInSigning",
    "WrongSignatureShare",
    "forge_signature_shares",
    "spoil_multiplication",
]

_MULTIPLY = 2


@frozen(kw_only=True)
class CrashInSigning(Fault):
    """
    The node dies before it sends a round of a presignature.

    Args:
        at_round: The round: 1 commit, 2 multiply.
        restart_after: Seconds after which it comes back by itself; None leaves it down until ``DevnetNode.start``.
    """

    takes_methods: ClassVar[bool] = False

    at_round: int = field(default=1, validator=required(check_int, least=1, most=_MULTIPLY))
    restart_after: float | None = field(default=None, validator=optional(check_seconds))


@frozen(kw_only=True)
class SilentInSigning(Fault):
    """
    The node sends nothing in a round of a presignature.

    Args:
        round: The round: 1 commit, 2 multiply.
    """

    takes_methods: ClassVar[bool] = False

    round: int = field(default=1, validator=required(check_int, least=1, most=_MULTIPLY))


@frozen(kw_only=True)
class CheatInSigning(Fault):
    """The node spoils what it multiplies with each other signer: a check notices, and they never sign with it again."""

    takes_methods: ClassVar[bool] = False


@frozen(kw_only=True)
class WrongSignatureShare(Fault):
    """The node's share of a signature is a wrong one, properly signed: the signature does not hold."""

    takes_methods: ClassVar[bool] = False


#: Every kind of fault that is about signing.
SIGNING_KINDS: tuple[type[Fault], ...] = (
    CheatInSigning,
    CrashInSigning,
    SilentInSigning,
    WrongSignatureShare,
)


def forge_signature_shares(shares: SignatureShares, sign: Callable[[bytes], bytes]) -> SignatureShares:
    """Answer with shares that do not make the signature."""
    wrong = tuple(
        evolve(share, w=(share.w + 1 + secrets.randbelow(ORDER - 1)) % ORDER) for share in shares.shares
    )
    forged = evolve(shares, shares=wrong)
    return evolve(forged, signature=sign(shares_digest(forged)))


def spoil_multiplication(bodies: Mapping[int, bytes]) -> dict[int, bytes]:
    """Change the last byte of each message of round 2: the hash by which its recipient checks the multiplication."""
    return {index: body[:-1] + bytes((body[-1] ^ 1,)) for index, body in bodies.items()}
