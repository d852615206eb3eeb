"""
The faults there are. Each says what the node does; docs/testing-with-the-devnet.md says what a client sees.

What every fault has in common, and how a fault in force ends a request or a node.

What a node can do wrong when it signs: in the rounds of a presignature, or with its share of the signature.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs
from attrs import evolve, field, frozen

from dan_async._values import check_int, check_seconds, check_text, optional, required
from dan_async.crypto.curve import ORDER
from dan_async.errors import InvalidFieldError
from dan_async.protocols.node_signing import SignatureShares
from dan_async.types import Json


class RequestDropped(Exception):  # noqa: N818 - nothing went wrong that was not asked for
    """The fault in force is that this request gets no answer."""


class NodeCrashed(Exception):  # noqa: N818 - as above
    """
    The fault in force is that the node dies here.

    Args:
        restart_after: Seconds until it comes back by itself; None for never.
    """

    def __init__(self, restart_after: float | None = None) -> None:
        super().__init__()
        self.restart_after = restart_after


def _check_methods(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidFieldError(attribute.name, "must be a list of RPC methods")
    for method in value:
        check_text("methods", method, most=64)


def _to_methods(value: Any) -> Any:
    # A text would silently become a tuple of letters.
    return value if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class Fault:
    """
    Something a node does wrong.

    Args:
        methods: The RPC methods concerned; all, if there are none. Not for faults that are about no method.
        times: How often it happens; always, if None. Not for faults that are a state.

    Raises:
        InvalidFieldError: A value is out of range, or the fault does not take it.
    """

    #: Whether the fault can be limited to some methods.
    takes_methods: ClassVar[bool] = True
    #: Whether the fault can be limited to so many times.
    takes_times: ClassVar[bool] = True

    methods: tuple[str, ...] = field(default=(), converter=_to_methods, validator=_check_methods)
    times: int | None = field(default=None, validator=optional(check_int, least=1, most=2**31))

    def __attrs_post_init__(self) -> None:
        if self.methods and not self.takes_methods:
            raise InvalidFieldError("methods", f"are not for {type(self).__name__}, which is about no method")
        if self.times is not None and not self.takes_times:
            raise InvalidFieldError(
                "times", f"is not for {type(self).__name__}, which lasts until it is taken away"
            )

    def to_dict(self) -> dict[str, Json]:
        """Give it as JSON members, for a node in another process."""
        members = attrs.asdict(self)
        return {**members, "kind": type(self).__name__, "methods": list(self.methods)}

    @staticmethod
    def from_dict(members: Mapping[str, Json]) -> Fault:
        """
        Read it back.

        Raises:
            InvalidFieldError: There is no such fault.
        """
        values = dict(members)
        name = values.pop("kind", None)
        kind = next((kind for kind in KINDS if kind.__name__ == name), None)
        if kind is None:
            raise InvalidFieldError("fault", "is of an unknown kind")
        return kind(**values)


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
        evolve(share, w=(share.w + 1 + secrets.randbelow(ORDER - 1)) % ORDER)
        for share in shares.claims.shares
    )
    claims = evolve(shares.claims, shares=wrong)
    return SignatureShares.make(claims, operator=shares.operator, party_index=shares.party_index, sign=sign)


def spoil_multiplication(bodies: Mapping[int, bytes]) -> dict[int, bytes]:
    """Change the last byte of each message of round 2: the hash by which its recipient checks the multiplication."""
    return {index: body[:-1] + bytes((body[-1] ^ 1,)) for index, body in bodies.items()}


#: What ``SendGarbage`` can send.
GARBAGE_FORMS = ("json", "binary", "raw")

_LONGEST_RETRY_AFTER_S = 24 * 3600

_LAST_ROUND = 3


def _check_not_negative(_: object, attribute: Any, value: object) -> None:
    if isinstance(value, bool) or value != 0:
        check_seconds(attribute.name, value)


# --- requests and their answers ---------------------------------------------------------------------------------------
@frozen(kw_only=True)
class Delay(Fault):
    """
    The node begins to work on a request only after a while.

    Args:
        seconds: How long.
        jitter_s: How much shorter or longer that may be, evenly spread; at most *seconds*.
    """

    seconds: float = field(validator=required(check_seconds))
    jitter_s: float = field(default=0.0, validator=_check_not_negative)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.jitter_s > self.seconds:
            raise InvalidFieldError("jitter_s", "must not be greater than seconds")


@frozen(kw_only=True)
class DropRequest(Fault):
    """The node does not answer, and does nothing."""


@frozen(kw_only=True)
class DropReply(Fault):
    """The node does the work, and its answer is lost."""


@frozen(kw_only=True)
class Crash(Fault):
    """
    The node dies: when it has done the work and before it answers, or in key generation before it sends a round.

    Args:
        at_round: The round of key generation: 1 commit, 2 open, 3 echo. None for after the work.
        restart_after: Seconds after which it comes back by itself, at the same port with the same identity and shares;
            None leaves it down until ``DevnetNode.start``.
    """

    at_round: int | None = field(default=None, validator=optional(check_int, least=1, most=_LAST_ROUND))
    restart_after: float | None = field(default=None, validator=optional(check_seconds))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.methods and self.at_round is not None:
            raise InvalidFieldError("methods", "are not for a Crash at a round, which is about no method")


@frozen(kw_only=True)
class ExpireNonces(Fault):
    """The nonces that the node gives out have expired when they are used."""


# --- connections ------------------------------------------------------------------------------------------------------
@frozen(kw_only=True)
class Disconnect(Fault):
    """The node does the work, sends half of its answer's frame, and closes the connection."""


@frozen(kw_only=True)
class RefuseConnections(Fault):
    """The node refuses new connections, of clients and of other nodes, and cuts those that it had accepted."""

    takes_methods: ClassVar[bool] = False
    takes_times: ClassVar[bool] = False


@frozen(kw_only=True)
class HttpError(Fault):
    """
    The node's server answers an upgrade to WebSocket, and a POST, with an HTTP status, and cuts clients' connections.

    Args:
        status: The status: 429, 503, or another of 400 to 599.
        retry_after: Whole seconds in the Retry-After header; None for no header.
    """

    takes_methods: ClassVar[bool] = False

    status: int = field(default=503, validator=required(check_int, least=400, most=599))
    retry_after: int | None = field(
        default=1, validator=optional(check_int, least=0, most=_LONGEST_RETRY_AFTER_S)
    )


@frozen(kw_only=True)
class SendGarbage(Fault):
    """
    The node does the work, and sends what is no answer.

    Args:
        form: ``"json"`` for text that is not JSON, ``"binary"`` for a message of random bytes, ``"raw"`` for random bytes
            that are no WebSocket frame and no HTTP; None for one after the other.
    """

    form: str | None = field(default=None)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.form not in (None, *GARBAGE_FORMS):
            raise InvalidFieldError("form", f"must be one of {', '.join(GARBAGE_FORMS)}, or None")


@frozen(kw_only=True)
class Trickle(Fault):
    """
    The node does the work, and sends, byte by byte, a message that never ends.

    Args:
        seconds: The time from one byte to the next.
    """

    seconds: float = field(default=0.1, validator=required(check_seconds))


# --- acknowledgements -------------------------------------------------------------------------------------------------
@frozen(kw_only=True)
class ForgeSignature(Fault):
    """The node's acknowledgements are signed with another key than its operator's."""

    takes_methods: ClassVar[bool] = False


@frozen(kw_only=True)
class ForgeShares(Fault):
    """The node's acknowledgements list public shares that do not make the public key, properly signed."""

    takes_methods: ClassVar[bool] = False


@frozen(kw_only=True)
class AcknowledgeOtherKey(Fault):
    """The node's acknowledgements are for another key: right in themselves and properly signed."""

    takes_methods: ClassVar[bool] = False


# --- key generation ---------------------------------------------------------------------------------------------------
@frozen(kw_only=True)
class DealWrongShare(Fault):
    """In key generation, the node sends one party a share that does not fit its commitments."""

    takes_methods: ClassVar[bool] = False


@frozen(kw_only=True)
class Equivocate(Fault):
    """In key generation, the node commits to one polynomial towards one party, and to another towards the others."""

    takes_methods: ClassVar[bool] = False


@frozen(kw_only=True)
class FallSilent(Fault):
    """
    In key generation, the node sends nothing from some round on.

    Args:
        round: The round: 1 commit, 2 open, 3 echo.
    """

    takes_methods: ClassVar[bool] = False

    round: int = field(default=1, validator=required(check_int, least=1, most=_LAST_ROUND))


#: Every kind of fault.
KINDS: tuple[type[Fault], ...] = (
    AcknowledgeOtherKey,
    Crash,
    DealWrongShare,
    Delay,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    ForgeShares,
    ForgeSignature,
    HttpError,
    RefuseConnections,
    SendGarbage,
    Trickle,
    *SIGNING_KINDS,
)
