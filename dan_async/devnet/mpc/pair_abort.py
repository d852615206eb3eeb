"""How a protocol between two parties ends early."""

from __future__ import annotations

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
