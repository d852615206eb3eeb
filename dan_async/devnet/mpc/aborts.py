"""The order of a party's steps, and every way in which a protocol ends early: reason, culprits, and bans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

from dan_async.errors import DanError, InvalidFieldError

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Stepwise")


class Reason(StrEnum):
    """Why a key generation, a set-up or a presignature was aborted."""

    MISSING_MESSAGE = "missing message"
    MALFORMED_MESSAGE = "malformed message"
    COMMITMENT_MISMATCH = "opening does not match its commitment"
    INVALID_POINT = "invalid point"
    EQUIVOCATION = "equivocation"
    # key generation
    VECTOR_LENGTH = "number of commitments is not t"
    PROOF_OF_POSSESSION = "proof of possession does not hold"
    SHARE_SIGNATURE = "share is not signed by its sender"
    SHARE_COMMITMENT = "share belongs to another commitment"
    WRONG_SHARE = "wrong share"
    ECHO_SIGNATURE = "echo is not signed by its sender"
    DEGENERATE_KEY = "degenerate key"
    # between two parties
    OT_PROOF = "oblivious transfer: the sender does not know its key"
    OT_RESPONSE = "oblivious transfer: the receiver does not know its pad"
    OT_OPENING = "oblivious transfer: the sender's pads do not fit its challenge"
    SEED_COMMITMENT = "seed does not match its commitment"
    OT_EXTENSION_CHECK = "oblivious transfer extension: the consistency check failed"
    VOLE_CHECK = "vector OLE: the consistency check failed"
    BANNED = "the pair is banned"
    # signing
    SETUP_MISMATCH = "the pair's set-up is another one"
    NONCE_CHECK = "the nonce multiplied is not the one committed to"
    KEY_CHECK = "the key share multiplied is not the one committed to"
    PUBLIC_KEY_CHECK = "the key shares do not add up to the key"
    DEGENERATE_NONCE = "degenerate nonce"


class ProtocolStateError(DanError, RuntimeError):
    """A party was asked for a step that is not its next one: out of order, twice, or after it had ended."""


class Stepwise:
    """A party whose steps are taken once each and in order; after any error it has dropped its secrets and takes no more."""

    #: The protocol, its phase in errors, the names of the methods that are steps, and the advice when they come out of turn.
    PROTOCOL: ClassVar[str]
    PHASE: ClassVar[str | None] = None
    STEPS: ClassVar[tuple[str, ...]]
    HINT: ClassVar[str]

    _taken: int = 0

    @property
    def next_step(self) -> str:
        return (*self.STEPS, "over")[self._taken]

    def _begin(self, name: str) -> None:
        if name != self.next_step:
            raise ProtocolStateError(
                f"{self.PROTOCOL} was asked for {name!r}, but its next step is {self.next_step!r}",
                hint=f"Each step is taken once and in order; {self.HINT}",
                phase=self.PHASE,
            )
        self._taken = len(self.STEPS)

    def _forget(self) -> None:
        """Drop what is secret."""


def step(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Make a method one of the ``STEPS``."""

    @wraps(method)
    def take(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._begin(method.__name__)
        try:
            result = method(self, *args, **kwargs)
        except BaseException:
            self._forget()
            raise
        self._taken = self.STEPS.index(method.__name__) + 1
        return result

    return take


class ProtocolAbort(DanError):  # noqa: N818 - "abort" is what the papers call it
    """A protocol has ended without a result; it names culprits where it can tell. With ``ban``, never run with them."""

    MESSAGE: ClassVar[str]
    PHASE: ClassVar[str | None] = None
    #: What to do, without and with a ban.
    HINTS: ClassVar[tuple[str, str]]

    def __init__(self, reason: str, culprits: Sequence[int] = (), *, ban: bool = False) -> None:
        self.reason = str(reason)
        self.culprits = tuple(sorted(culprits))
        self.ban = ban
        by = f" by party {', '.join(map(str, self.culprits))}" if self.culprits else ""
        super().__init__(f"{self.MESSAGE}: {self.reason}{by}", hint=self.HINTS[ban], phase=self.PHASE)


class DkgAbort(ProtocolAbort):
    """Key generation has ended without a key; ``check_complaint`` reads the complaint, which convinces others."""

    # Nobody is blamed for an equivocation seen only as differing signed hashes, since either side may be the honest one;
    # ``echoes`` then has every party's echo message.

    MESSAGE = "Key generation was aborted"
    PHASE = "keygen"
    HINTS = ("No key was made; start again under a new session id",) * 2

    def __init__(
        self,
        reason: Reason,
        culprits: Sequence[int] = (),
        *,
        complaint: bytes | None = None,
        echoes: Mapping[int, bytes] | None = None,
    ) -> None:
        super().__init__(reason, culprits)
        self.complaint = complaint
        self.echoes = dict(echoes or {})


class PairAbort(ProtocolAbort):
    """The other party of a pair broke the protocol; what its failed check has shown may make it a ban."""

    # A failed consistency check of the extension or the vector OLE may show the other party bits of the set-up's secrets;
    # repeated, that adds up to the key (DKLs23, ePrint 2023/765, section 3.2). A ban has to be remembered durably.

    MESSAGE = "The other party of the pair broke the protocol"
    HINTS = ("It may be tried again", "Never run this pair again")


class SigningAbort(ProtocolAbort):
    """
    Signing has ended without a signature; with ``ban``, the culprits' ``PairState`` is marked and has to be stored.

    The *aborter*, if it is honest, has given up as well, and names whom this party cannot tell from it.
    """

    MESSAGE = "Signing was aborted"
    PHASE = "signing"
    HINTS = ("Try again with fresh randomness, or other signers", "Never sign with this party again")

    def __init__(
        self, reason: str, culprits: Sequence[int] = (), *, ban: bool = False, aborter: int | None = None
    ) -> None:
        super().__init__(reason, culprits, ban=ban)
        self.aborter = aborter


def from_all_others(
    others: Sequence[int], name: str, messages: Mapping[int, bytes], abort: type[DkgAbort | SigningAbort]
) -> dict[int, bytes]:
    """Take one message of every other party; abort, naming the silent ones, if some are missing."""
    if any(sender not in others for sender in messages):
        raise InvalidFieldError(name, "must be keyed by the other parties' indices")
    missing = [sender for sender in others if sender not in messages]
    if missing:
        raise abort(Reason.MISSING_MESSAGE, missing)
    return {sender: messages[sender] for sender in others}
