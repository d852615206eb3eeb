"""
How a protocol between two parties ends early.

How signing ends early.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from dan_async.errors import DanError


class PairReason(StrEnum):
    """Why a protocol between two parties was aborted."""

    MALFORMED_MESSAGE = "malformed message"
    OT_PROOF = "oblivious transfer: the sender does not know its key"
    OT_RESPONSE = "oblivious transfer: the receiver does not know its pad"
    OT_OPENING = "oblivious transfer: the sender's pads do not fit its challenge"
    SEED_COMMITMENT = "seed does not match its commitment"
    OT_EXTENSION_CHECK = "oblivious transfer extension: the consistency check failed"
    VOLE_CHECK = "vector OLE: the consistency check failed"
    BANNED = "the pair is banned"


class PairAbort(DanError):  # noqa: N818 - "abort" is what the papers call it
    """
    The other party of a pair broke the protocol.

    Args:
        reason: In which way.
        ban: Whether the pair must never run again. An abort after a failed consistency check of the extension or of the
            vector OLE may tell the other party bits of what the set-up keeps secret; repeated, that adds up to the key
            (DKLs23, ePrint 2023/765, section 3.2). It has to be remembered durably.
    """

    def __init__(self, reason: PairReason, *, ban: bool = False) -> None:
        self.reason: str = reason
        self.ban = ban
        super().__init__(
            f"The other party of the pair broke the protocol: {reason}",
            hint="Never run this pair again" if ban else "It may be tried again",
        )


class SigningReason(StrEnum):
    """Why signing was aborted, besides the reasons of ``PairReason``."""

    MISSING_MESSAGE = "missing message"
    MALFORMED_MESSAGE = "malformed message"
    SETUP_MISMATCH = "the pair's set-up is another one"
    EQUIVOCATION = "equivocation"
    COMMITMENT_MISMATCH = "opening does not match its commitment"
    INVALID_POINT = "invalid point"
    NONCE_CHECK = "the nonce multiplied is not the one committed to"
    KEY_CHECK = "the key share multiplied is not the one committed to"
    PUBLIC_KEY_CHECK = "the key shares do not add up to the key"
    DEGENERATE_NONCE = "degenerate nonce"
    DIGEST_MISMATCH = "asked to sign another digest"
    INVALID_SIGNATURE = "the signature does not verify"


class SigningAbort(DanError):  # noqa: N818 - "abort" is what the papers call it
    """
    Signing has ended without a signature.

    Args:
        reason: A ``SigningReason`` or a ``PairReason``.
        culprits: Indices of the parties to blame, ascending. Empty where the protocol cannot tell.
        ban: Whether the pairs with these parties must never run again (see ``PairAbort``). Their ``PairState`` is marked
            already; it has to be stored. Otherwise signing may be tried again, with the same signers or with others.
    """

    def __init__(self, reason: str, culprits: Sequence[int] = (), *, ban: bool = False) -> None:
        self.reason = str(reason)
        self.culprits = tuple(sorted(culprits))
        self.ban = ban
        who = f" by party {', '.join(map(str, self.culprits))}" if self.culprits else ""
        super().__init__(
            f"Signing was aborted: {self.reason}{who}",
            hint="Never sign with this party again"
            if ban
            else "Try again with fresh randomness, or other signers",
            phase="signing",
        )
