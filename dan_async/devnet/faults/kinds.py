"""
The faults: the options of each, its spelling on the command line, and the moments at which it changes something.

This module is the registry: a class here with a ``name`` is a fault that can be set, spelt and sent to another process. A
node with several faults uses them in the order in which they stand here. docs/how-to/testing-with-the-devnet.md says what a
client sees of each.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import attrs
from attrs import evolve, field, frozen

from dan_async._values import check_int, check_number, check_seconds, in_seconds, optional, required
from dan_async.config import MAX_PARTIES
from dan_async.crypto.curve import ORDER, add, base_multiply, decode, encode
from dan_async.crypto.signature import sign_digest, signing_key
from dan_async.devnet.faults.lies import KeygenFace, Sign, SpoiltReply, spoilt
from dan_async.devnet.mpc.field import Polynomial, random_scalar, scalar_to_bytes
from dan_async.devnet.mpc.framing import SCALAR_BYTES, join_parts, split_parts
from dan_async.devnet.mpc.vole import REPLY_BYTES
from dan_async.errors import InvalidFieldError
from dan_async.protocols.node import (
    CERTIFY_KEYGEN,
    KEYGEN_BATCH,
    METHODS,
    PRESIGN,
    SETTLE_KEYGEN,
    SIGN,
    Acknowledgement,
    ChangeReceipt,
    Claims,
    SignatureShares,
    SignedClaims,
    compute_key_id,
)

S = TypeVar("S", bound=SignedClaims[Any])

#: The methods of a node, which a fault can be limited to.
RPC_METHODS = (
    *("dan_identify", "dan_health", "dan_challenge"),
    *(*METHODS.values(), KEYGEN_BATCH, SETTLE_KEYGEN, CERTIFY_KEYGEN, PRESIGN, SIGN),
)

#: What ``SendGarbage`` can send.
GARBAGE_FORMS = ("json", "binary", "raw")

#: The rounds of key generation, and those of a presignature.
_COMMIT, _OPEN, _ECHO = 1, 2, 3
_MULTIPLY = 2

#: What each party is sent in a round, by its index.
Bodies = Mapping[int, bytes]


class RequestDropped(Exception):  # noqa: N818 - nothing went wrong that was not asked for
    """The fault in force is that this request gets no answer."""


class NodeCrashed(Exception):  # noqa: N818 - as above
    """The fault in force is that the node dies here, and comes back by itself after some seconds, if it does."""

    def __init__(self, restart_after: float | None = None) -> None:
        super().__init__()
        self.restart_after = restart_after


class FalseAccusation(Exception):  # noqa: N818 - as above
    """The fault in force is that the node gives a session up here, and blames these parties for silence."""

    def __init__(self, *culprits: int) -> None:
        super().__init__()
        self.culprits = culprits


class HttpRefusal(NamedTuple):
    """The HTTP status that turns a client away, and the seconds in its Retry-After header, if it has one."""

    status: int
    retry_after: int | None


# --- spelling ---------------------------------------------------------------------------------------------------------


#: How an option's value is spelt: a whole number; a time span; whole seconds or ``none``; RPC methods joined with ``+``.
Spelling = Literal["number", "seconds", "retry-after", "methods"]


@frozen
class Option:
    """How a field of a fault is spelt on the command line; ``value`` may also be the words to choose from."""

    name: str
    value: Spelling | tuple[str, ...]
    missing: str = ""
    spread: str = ""


def spelt(name: str, value: Spelling | tuple[str, ...] = "number", **more: str) -> dict[str, Option]:
    return {"option": Option(name, value, **more)}


def _number(
    option: str,
    default: int | None,
    *,
    least: int = 1,
    most: int,
    spelling: Spelling = "number",
    may_be_none: bool = False,
) -> Any:
    check = optional if may_be_none else required
    return field(
        default=default, validator=check(check_int, least=least, most=most), metadata=spelt(option, spelling)
    )


def _restart_after() -> Any:
    return field(
        default=None,
        converter=attrs.converters.optional(in_seconds),
        validator=optional(check_seconds),
        metadata=spelt("restart", "seconds"),
    )


def _check_methods(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidFieldError(attribute.name, "must be a list of RPC methods")
    if not all(method in RPC_METHODS for method in value):
        raise InvalidFieldError(
            attribute.name,
            "has a method that nodes do not have",
            hint=f"The methods are {', '.join(RPC_METHODS)}",
        )


def _to_methods(value: Any) -> Any:
    # A text would silently become a tuple of letters.
    return value if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


# --- what all faults have in common -----------------------------------------------------------------------------------


class Moments:
    """
    The moments at which a fault may act: it overrides some of these.

    None is for nothing to be done at that moment, which then does not count as a use of the fault.
    """

    __slots__ = ()

    #: Whether nobody may connect while it is in force, and whether clients' connections are cut when it comes into force.
    refuses_connections: ClassVar[bool] = False
    cuts_clients: ClassVar[bool] = False
    #: Whether the node keeps to itself that all parties of a key generation agree.
    keeps_certificates: ClassVar[bool] = False

    def at_use(self, _used: int, /) -> Self:
        """Return the fault as it is when it has been used so often before."""
        return self

    def on_connect(self) -> HttpRefusal | None:
        """Turn a client away that upgrades to a WebSocket or POSTs."""

    def on_arrival(self, draw: Callable[[], float], /) -> float | None:
        """Delay a request by some seconds; *draw* returns numbers from 0 to 1 for jitter."""

    def on_request(self) -> RequestDropped | None:
        """End a request before its work."""

    def on_nonce(self) -> bool | None:
        """Take a nonce that is being used for an expired one."""

    def on_result(self) -> NodeCrashed | RequestDropped | None:
        """End a request, or the node, after the work."""

    def on_reply(self) -> ReplyFault | None:
        """Write the reply in the node's place."""

    def on_acknowledgement(
        self, ack: Acknowledgement, sign: Sign, owner_id: str, /
    ) -> Acknowledgement | None:
        """Send another acknowledgement; *sign* signs as the operator, and the owner's id goes into the key's."""

    def on_receipt(self, receipt: ChangeReceipt, sign: Sign, /) -> ChangeReceipt | None:
        """Send another receipt for a change of an ephemeral key."""

    def on_keygen(self) -> KeygenFault | None:
        """Send other messages than it should in a key generation that begins."""

    def before_keygen_round(self, round_: int, /) -> NodeCrashed | None:
        """End the node before it sends its messages of a round of key generation."""

    def before_signing_round(self, round_: int, bodies: Bodies, /) -> NodeCrashed | FalseAccusation | None:
        """End the node, or its part in it, before it sends its messages of a round of a presignature."""

    def on_signing_round(self, round_: int, bodies: Bodies, /) -> Bodies | None:
        """Send other messages in a round of a presignature."""

    def on_shares(self, shares: SignatureShares, sign: Sign, /) -> SignatureShares | None:
        """Send other shares of signatures."""


@frozen(kw_only=True)
class Fault(Moments):
    """
    Something a node does wrong.

    Args:
        methods: The RPC methods concerned; all, if there are none. Not for faults that are about no method.
        times: How often it happens; always, if None. Not for faults that are a state.

    Raises:
        InvalidFieldError: A value is out of range, or the fault does not take it.
    """

    #: What it is called on the command line.
    name: ClassVar[str] = ""
    #: The option whose value may stand there without the option's name.
    first: ClassVar[str] = "times"
    #: A correct spelling, for an error message.
    example: ClassVar[str] = ""
    #: Whether the fault can be limited to some methods, and to so many times.
    takes_methods: ClassVar[bool] = True
    takes_times: ClassVar[bool] = True

    methods: tuple[str, ...] = field(
        default=(), converter=_to_methods, validator=_check_methods, metadata=spelt("methods", "methods")
    )
    times: int | None = _number("times", None, most=2**31, may_be_none=True)

    def __attrs_post_init__(self) -> None:
        if self.methods and not self.takes_methods:
            raise InvalidFieldError("methods", f"are not for {type(self).__name__}, which is about no method")
        if self.times is not None and not self.takes_times:
            raise InvalidFieldError(
                "times", f"is not for {type(self).__name__}, which lasts until it is taken away"
            )


@frozen(kw_only=True)
class ReplyFault(Fault):
    """The node does the work, and then writes half a reply, or none."""

    #: Whether the reply never ends, so that nothing else can be sent after it.
    is_endless: ClassVar[bool] = False

    def on_reply(self) -> ReplyFault:
        return self

    @abstractmethod
    async def spoil(self, reply: SpoiltReply) -> None:
        """Write what becomes of the reply."""


@frozen(kw_only=True)
class KeygenFault(Fault):
    """In key generation, the node sends other messages than it should."""

    takes_methods = False

    def on_keygen(self) -> KeygenFault:
        return self

    @abstractmethod
    def on_keygen_round(self, round_: int, bodies: Bodies, face: KeygenFace, /) -> Bodies | None:
        """Return what the node sends in a round instead of *bodies*, if anything else."""


def sign_claims(said: S, claims: Claims, sign: Sign) -> S:
    return type(said).make(claims, operator=said.operator, party_index=said.party_index, sign=sign)


def _random_scalar() -> int:
    return random_scalar(secrets.token_bytes)


# --- requests and their answers ---------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Delay(Fault):
    """
    The node begins to work on a request only after a while.

    Args:
        seconds: How long.
        jitter_s: How much shorter or longer that may be, evenly spread; at most *seconds*.
    """

    name = "delay"
    first = "seconds"
    example = "delay:2s±500ms or delay:2s,methods=dan_keygen"

    seconds: float = field(
        converter=in_seconds,
        validator=required(check_seconds),
        metadata=spelt("seconds", "seconds", missing="must say for how long", spread="jitter"),
    )
    jitter_s: float = field(
        default=0.0,
        converter=in_seconds,
        validator=required(check_number),
        metadata=spelt("jitter", "seconds"),
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.jitter_s > self.seconds:
            raise InvalidFieldError("jitter_s", "must not be greater than seconds")

    def on_arrival(self, draw: Callable[[], float], /) -> float:
        return max(0.0, self.seconds + self.jitter_s * (2 * draw() - 1))


@frozen(kw_only=True)
class DropRequest(Fault):
    """The node does not answer, and does nothing."""

    name = "drop-request"
    example = "drop-request:1,methods=dan_keygen"

    def on_request(self) -> RequestDropped:
        return RequestDropped()


@frozen(kw_only=True)
class ExpireNonces(Fault):
    """The nonces that the node gives out have expired when they are used."""

    name = "expired-nonces"

    def on_nonce(self) -> bool:
        return True


@frozen(kw_only=True)
class Crash(Fault):
    """
    The node dies: when it has done the work and before it answers, or in key generation before it sends a round.

    Args:
        at_round: The round of key generation: 1 commit, 2 open, 3 echo. None for after the work.
        restart_after: Seconds after which it comes back by itself, at the same port with the same identity and shares;
            None leaves it down until ``DevnetNode.start``.
    """

    name = "crash"
    example = "crash:round=2,restart=1s"

    at_round: int | None = _number("round", None, most=_ECHO, may_be_none=True)
    restart_after: float | None = _restart_after()

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.methods and self.at_round is not None:
            raise InvalidFieldError("methods", "are not for a Crash at a round, which is about no method")

    def on_result(self) -> NodeCrashed | None:
        return NodeCrashed(self.restart_after) if self.at_round is None else None

    def before_keygen_round(self, round_: int, /) -> NodeCrashed | None:
        return NodeCrashed(self.restart_after) if self.at_round == round_ else None


@frozen(kw_only=True)
class DropReply(Fault):
    """The node does the work, and its answer is lost."""

    name = "drop-reply"
    example = "drop-reply:1"

    def on_result(self) -> RequestDropped:
        return RequestDropped()


# --- connections ------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class RefuseConnections(Fault):
    """The node refuses new connections, of clients and of other nodes, and cuts those that it had accepted."""

    name = "refuse"
    takes_methods = False
    takes_times = False
    refuses_connections = True
    cuts_clients = True


@frozen(kw_only=True)
class HttpError(Fault):
    """
    The node's server answers an upgrade to WebSocket, and a POST, with an HTTP status, and cuts clients' connections.

    Args:
        status: The status: 429, 503, or another of 400 to 599.
        retry_after: Whole seconds in the Retry-After header; None for no header.
    """

    name = "http"
    first = "status"
    example = "http:503,retry-after=2s"
    takes_methods = False
    cuts_clients = True

    status: int = _number("status", 503, least=400, most=599)
    retry_after: int | None = _number(
        "retry-after", 1, least=0, most=24 * 3600, spelling="retry-after", may_be_none=True
    )

    def on_connect(self) -> HttpRefusal:
        return HttpRefusal(self.status, self.retry_after)


@frozen(kw_only=True)
class Disconnect(ReplyFault):
    """The node does the work, sends half of its answer's frame, and closes the connection."""

    name = "disconnect"
    example = "disconnect:1"

    async def spoil(self, reply: SpoiltReply) -> None:
        reply.cut()


@frozen(kw_only=True)
class SendGarbage(ReplyFault):
    """
    The node does the work, and sends what is no answer.

    Args:
        form: ``"json"`` for text that is not JSON, ``"binary"`` for a message of random bytes, ``"raw"`` for random bytes
            that are no WebSocket frame and no HTTP; None for one after the other.
    """

    name = "garbage"
    first = "form"
    example = "garbage:binary"

    form: str | None = field(default=None, metadata=spelt("form", GARBAGE_FORMS))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.form not in (None, *GARBAGE_FORMS):
            raise InvalidFieldError("form", f"must be one of {', '.join(GARBAGE_FORMS)}, or None")

    def at_use(self, used: int, /) -> Self:
        return evolve(self, form=self.form or GARBAGE_FORMS[used % len(GARBAGE_FORMS)])

    async def spoil(self, reply: SpoiltReply) -> None:
        reply.garble(self.form)


@frozen(kw_only=True)
class Trickle(ReplyFault):
    """
    The node does the work, and sends, byte by byte, a message that never ends.

    Args:
        seconds: The time from one byte to the next.
    """

    name = "trickle"
    first = "interval"
    example = "trickle:100ms"
    is_endless = True

    seconds: float = field(
        default=0.1,
        converter=in_seconds,
        validator=required(check_seconds),
        metadata=spelt("interval", "seconds"),
    )

    async def spoil(self, reply: SpoiltReply) -> None:
        await reply.trickle(self.seconds)


# --- acknowledgements -------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class AcknowledgeOtherKey(Fault):
    """The node's acknowledgements are for another key: right in themselves and properly signed."""

    name = "other-key"
    takes_methods = False

    def on_acknowledgement(self, ack: Acknowledgement, sign: Sign, owner_id: str, /) -> Acknowledgement:
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


@frozen(kw_only=True)
class ForgeShares(Fault):
    """The node's acknowledgements list public shares that do not make the public key, properly signed."""

    name = "forged-shares"
    takes_methods = False

    def on_acknowledgement(self, ack: Acknowledgement, sign: Sign, _owner_id: str, /) -> Acknowledgement:
        forged = (encode(base_multiply(_random_scalar())) for _ in ack.public_shares)
        return sign_claims(ack, evolve(ack.claims, public_shares=tuple(forged)), sign)


@frozen(kw_only=True)
class ForgeSignature(Fault):
    """The node's acknowledgements are signed with another key than its operator's."""

    name = "forged-signature"
    takes_methods = False

    def on_acknowledgement(self, ack: Acknowledgement, _sign: Sign, _owner_id: str, /) -> Acknowledgement:
        key = signing_key(b"\x01" + secrets.token_bytes(31))
        return sign_claims(ack, ack.claims, lambda digest: sign_digest(key, digest))


@frozen(kw_only=True)
class ClaimOtherThreshold(Fault):
    """The node's receipts say that all nodes of the key must sign, so that one could revoke alone; properly signed."""

    name = "other-threshold"

    def on_receipt(self, receipt: ChangeReceipt, sign: Sign, /) -> ChangeReceipt:
        return sign_claims(receipt, evolve(receipt.claims, t=receipt.claims.n), sign)


# --- key generation ---------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Equivocate(KeygenFault):
    """In key generation, the node commits to one polynomial towards one party, and to another towards the others."""

    name = "equivocate"

    def on_keygen_round(self, round_: int, bodies: Bodies, face: KeygenFace, /) -> Bodies | None:
        if round_ == _COMMIT:
            return {**bodies, face.victim: face.other_commitment()}
        if round_ == _OPEN:
            return {**bodies, face.victim: face.other_opening()}
        return None


@frozen(kw_only=True)
class DealWrongShare(KeygenFault):
    """In key generation, the node sends one party a share that does not fit its commitments."""

    name = "wrong-share"

    def on_keygen_round(self, round_: int, bodies: Bodies, face: KeygenFace, /) -> Bodies | None:
        if round_ != _OPEN:
            return None
        return {**bodies, face.victim: face.with_wrong_share(bodies[face.victim])}


@frozen(kw_only=True)
class DealBadOpening(KeygenFault):
    """In key generation, the node opens to one party what it has not committed to, unsigned: nobody else can be shown it."""

    name = "bad-opening"

    def on_keygen_round(self, round_: int, bodies: Bodies, face: KeygenFace, /) -> Bodies | None:
        if round_ != _OPEN:
            return None
        opened, share = split_parts(bodies[face.victim], 2)
        return {**bodies, face.victim: join_parts((spoilt(opened), share))}


@frozen(kw_only=True)
class WithholdEcho(KeygenFault):
    """
    In key generation, the node sends its last message to some of the other parties only.

    Args:
        reach: To how many of them: the first ones.
    """

    name = "withhold-echo"
    first = "reach"
    example = "withhold-echo:reach=2"
    keeps_certificates = True

    reach: int = _number("reach", 1, most=MAX_PARTIES)

    def on_keygen_round(self, round_: int, bodies: Bodies, _face: KeygenFace, /) -> Bodies | None:
        return dict(sorted(bodies.items())[: self.reach]) if round_ == _ECHO else None

    def on_acknowledgement(self, ack: Acknowledgement, _sign: Sign, _owner_id: str, /) -> Acknowledgement:
        return evolve(ack, certificate=b"")


@frozen(kw_only=True)
class FallSilent(KeygenFault):
    """
    In key generation, the node sends nothing from some round on.

    Args:
        round: The round: 1 commit, 2 open, 3 echo.
    """

    name = "silent"
    first = "round"
    example = "silent:round=2"
    keeps_certificates = True

    round: int = _number("round", _COMMIT, most=_ECHO)

    def on_keygen_round(self, round_: int, _bodies: Bodies, _face: KeygenFace, /) -> Bodies | None:
        return {} if round_ >= self.round else None


@frozen(kw_only=True)
class SquatSession(KeygenFault):
    """Before it takes part in a key generation, the node starts set-ups for signing under the id of its session."""

    name = "squat-session"

    def on_keygen_round(self, round_: int, _bodies: Bodies, face: KeygenFace, /) -> None:
        if round_ == _COMMIT:
            face.squat()


@frozen(kw_only=True)
class Accuse(KeygenFault):
    """
    In key generation, the node gives up at the start of a round, and says that the last other party sent it nothing.

    Args:
        round: The round: 1 commit, 2 open, 3 echo.
    """

    name = "accuse"
    first = "round"
    example = "accuse:round=2"

    round: int = _number("round", _COMMIT, most=_ECHO)

    def on_keygen_round(self, round_: int, _bodies: Bodies, face: KeygenFace, /) -> None:
        if round_ == self.round:
            raise FalseAccusation(face.victim)


# --- signing ----------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class CrashInSigning(Fault):
    """
    The node dies before it sends a round of a presignature.

    Args:
        at_round: The round: 1 commit, 2 multiply.
        restart_after: Seconds after which it comes back by itself; None leaves it down until ``DevnetNode.start``.
    """

    name = "signing-crash"
    first = "round"
    example = "signing-crash:round=2,restart=1s"
    takes_methods = False

    at_round: int = _number("round", _COMMIT, most=_MULTIPLY)
    restart_after: float | None = _restart_after()

    def before_signing_round(self, round_: int, _bodies: Bodies, /) -> NodeCrashed | None:
        return NodeCrashed(self.restart_after) if round_ == self.at_round else None


@frozen(kw_only=True)
class SilentInSigning(Fault):
    """
    The node sends nothing in a round of a presignature.

    Args:
        round: The round: 1 commit, 2 multiply.
    """

    name = "signing-silent"
    first = "round"
    example = "signing-silent:round=2"
    takes_methods = False

    round: int = _number("round", _COMMIT, most=_MULTIPLY)

    def on_signing_round(self, round_: int, _bodies: Bodies, /) -> Bodies | None:
        return {} if round_ == self.round else None


@frozen(kw_only=True)
class AccuseInSigning(Fault):
    """
    The node gives a presignature up at the start of a round, and says that the last other signer sent it nothing.

    Args:
        round: The round: 1 commit, 2 multiply.
    """

    name = "signing-accuse"
    first = "round"
    example = "signing-accuse:round=2"
    takes_methods = False

    round: int = _number("round", _COMMIT, most=_MULTIPLY)

    def before_signing_round(self, round_: int, bodies: Bodies, /) -> FalseAccusation | None:
        return FalseAccusation(max(bodies)) if round_ == self.round else None


@frozen(kw_only=True)
class CheatInSigning(Fault):
    """The node spoils what it multiplies with each other signer: a check notices, and they never sign with it again."""

    name = "signing-cheat"
    takes_methods = False

    def on_signing_round(self, round_: int, bodies: Bodies, /) -> Bodies | None:
        # The last byte is of the hash by which the recipient checks the multiplication.
        return {i: spoilt(body) for i, body in bodies.items()} if round_ == _MULTIPLY else None


@frozen(kw_only=True)
class ContradictInSigning(Fault):
    """
    In a presignature, the node sends one other signer a number that does not fit what it sends to the rest.

    No check among the nodes notices. The signature does not hold, and the two contradict each other about what they have
    exchanged.
    """

    name = "signing-contradiction"
    takes_methods = False

    def on_signing_round(self, round_: int, bodies: Bodies, /) -> Bodies | None:
        if round_ != _MULTIPLY:
            return None
        victim = min(bodies)
        head, vole = bodies[victim][:-REPLY_BYTES], bodies[victim][-REPLY_BYTES:]
        psi = (int.from_bytes(head[-SCALAR_BYTES:], "big") + 1) % ORDER
        return {**bodies, victim: head[:-SCALAR_BYTES] + scalar_to_bytes(psi) + vole}


@frozen(kw_only=True)
class ForgeCommitments(Fault):
    """The node's share of a signature is a wrong one, and so are the commitments that come with it, so that it fits them."""

    name = "forged-commitments"
    takes_methods = False

    def on_shares(self, shares: SignatureShares, sign: Sign, /) -> SignatureShares:
        forged = []
        for share in shares.claims.shares:
            offset = _random_scalar()
            start, u, rest = (share.commitments[a:b] for a, b in ((0, 33), (33, 66), (66, None)))
            moved = add([decode(u), base_multiply(offset)])
            assert moved is not None
            commitments = start + encode(moved) + rest
            forged.append(evolve(share, u=(share.u + offset) % ORDER, commitments=commitments))
        return sign_claims(shares, evolve(shares.claims, shares=tuple(forged)), sign)


@frozen(kw_only=True)
class WrongSignatureShare(Fault):
    """The node's share of a signature is a wrong one, properly signed: the signature does not hold."""

    name = "wrong-signature-share"
    example = "wrong-signature-share:1"
    takes_methods = False

    def on_shares(self, shares: SignatureShares, sign: Sign, /) -> SignatureShares:
        wrong = [evolve(share, w=(share.w + _random_scalar()) % ORDER) for share in shares.claims.shares]
        return sign_claims(shares, evolve(shares.claims, shares=tuple(wrong)), sign)


#: Every kind of fault, in the order of use.
KINDS: tuple[type[Fault], ...] = tuple(
    kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Fault) and kind.name
)
