"""
Every error that dan_async raises on purpose. docs/reference/errors.md has their tree, and what to do about each.

Every error has ``message`` (what happened) and ``hint`` (what to do), and where they are known ``phase``,
``node``, ``nodes``, ``request_id``, ``attempts``, ``elapsed_s`` and ``retryable``. No error holds a secret: not in its text
and not in its attributes.

``NodeCode`` has the codes with which a node refuses. ``FAILURE_KINDS`` says what follows from an error's class and
number, and ``retryable`` whether repeating this very call is safe.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from enum import Flag, IntEnum, auto
from types import MappingProxyType, ModuleType
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from dan_async.types import Hex, OperatorAddress

# Without a handler, Python prints warnings of programs that do not configure logging. Here, since all that logs raises too.
logging.getLogger("dan_async").addHandler(logging.NullHandler())

__all__ = [
    "AcknowledgementError",
    "BatchInterruptedError",
    "BundlerError",
    "ChallengeError",
    "ClientClosedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLostError",
    "DanError",
    "DeadlineExceededError",
    "DuplicateUserOperationError",
    "EphemeralKeyRefusedError",
    "FailureKind",
    "GatewayError",
    "InsecureTransportError",
    "InvalidFieldError",
    "KeySubstitutionError",
    "MissingExtraError",
    "NodeCode",
    "NodeError",
    "NodeOutcome",
    "NodeProtocolError",
    "NodeRefusedError",
    "NodeTimeoutError",
    "NodeUnreachableError",
    "NotPermittedError",
    "OverloadedError",
    "PaymasterError",
    "PendingNotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "QuorumDeadlineError",
    "QuorumError",
    "RateLimitedError",
    "RecordConflictError",
    "RequestTimeoutError",
    "RpcError",
    "SessionExpiredError",
    "SessionFailedError",
    "SessionPendingError",
    "SignatureCheckError",
    "StoreClockError",
    "StoreConnectionError",
    "StoreCorruptedError",
    "StoreError",
    "StoreKeyError",
    "StoreLockedError",
    "StoreSchemaError",
    "StoreTamperedError",
    "StoreUnavailableError",
    "ThresholdDowngradeError",
    "TransportError",
    "UserOperationCostError",
    "UserOperationError",
    "UserOperationInDoubtError",
    "UserOperationRevertedError",
    "UserOperationTimeoutError",
    "WalletError",
    "WalletRefusedError",
    "WalletSignatureError",
    "WalletTimeoutError",
    "WrongSignerError",
]

A = TypeVar("A")


def escape_controls(text: str) -> str:
    """Escape control and format characters, but for line breaks: a peer's text must not command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class DanError(Exception):
    """
    Base of every error of ours: one ``except DanError`` catches them all.

    Args:
        message: What happened, in one sentence.
        hint: What the reader can do about it.
        phase: The step of the job: ``"challenge"``, ``"wallet"``, ``"keygen"``, ``"verdict"`` and so on.
        node: The node concerned, as its operator address or URL without credentials.
        request_id: The id under which the nodes know the request.
        attempts: How many attempts were made.
        retryable: Whether repeating the very same call is safe and may help.
    """

    #: Default of ``retryable`` for the class.
    is_retryable = False

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        phase: str | None = None,
        node: str | None = None,
        request_id: str | None = None,
        attempts: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        message = escape_controls(message)
        super().__init__(message)
        self.message = message
        self.hint = escape_controls(hint)
        self.phase, self.node, self.request_id, self.attempts = phase, node, request_id, attempts
        #: Seconds from the first attempt to the last one's failure, where attempts were counted.
        self.elapsed_s: float | None = None
        self.retryable = self.is_retryable if retryable is None else retryable

    @property
    def nodes(self) -> Sequence[NodeOutcome[Any]]:
        """The outcome of each node, where the error speaks of several."""
        return ()

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments would be lost by Exception's own pickling (process pools need this).
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[DanError], args: tuple[Any, ...], state: dict[str, Any]) -> DanError:
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(DanError, ValueError):
    """A value given by the caller is wrong. Nothing was sent."""


class InvalidFieldError(ConfigurationError):
    """
    One named field has a wrong value; the value itself is never repeated.

    Every function, and every class of settings or payloads when it is made, raises it for an argument that is wrong.

    Args:
        field: The field's name, as the caller wrote it.
        problem: What is wrong with it, as the end of a sentence that begins with the name.
        hint: What to give instead.
    """

    def __init__(self, field: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{field} {problem}", hint=hint)
        self.field, self.problem = field, problem


class InsecureTransportError(ConfigurationError):
    """A URL without TLS points to a host that is not loopback."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is needed and not installed; the hint is the pip line."""


def require_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency that *extra* brings; *purpose* names its user at the start of the error's sentence."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {module.partition('.')[0]}, which is not installed",
            hint=f'Install it with: pip install "dan-async[{extra}]"',
        ) from error


class ClientClosedError(DanError, RuntimeError):
    """The object was closed by its owner and cannot be used any more."""


class DeadlineExceededError(DanError, TimeoutError):
    """The deadline over the whole job ran out."""

    is_retryable = True


class OverloadedError(DeadlineExceededError):
    """
    The call's time ran out before its turn came, or no place is left for it. Nothing was signed or begun.

    Args:
        message: What happened.
        waiting: How many others were waiting: calls for their turn, or session keys for their owners.
        **context: As for ``DanError``.
    """

    def __init__(self, message: str, *, waiting: int, **context: Any) -> None:
        super().__init__(message, **context)
        self.waiting = waiting


class WalletError(DanError):
    """The owner's wallet did not authorise the request. Nothing was created."""


class WalletRefusedError(WalletError):
    """The wallet, or the person using it, declined."""


class WalletTimeoutError(WalletError, TimeoutError):
    """The wallet did not answer in time."""


class WalletSignatureError(WalletError):
    """The wallet's answer is not a 65-byte recoverable signature."""


class WrongSignerError(WalletError):
    """The signature recovers to another address than the owner's."""


class TransportError(DanError):
    """A request could not be sent to a peer, or its reply not received."""


class ConnectError(TransportError, ConnectionError):
    """
    The connection could not be opened; nothing of the request was sent.

    Args:
        message: What happened.
        status: The HTTP status, if the server sent one.
        retry_after: The seconds that it asked to wait.
        **context: As for ``DanError``.
    """

    is_retryable = True

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.status, self.retry_after = status, retry_after


class ConnectionLostError(TransportError, ConnectionError):
    """
    The connection broke while a reply was awaited.

    Args:
        message: What happened.
        close_code: The WebSocket close code, if the peer sent one.
        close_reason: Its reason text, shortened.
        **context: As for ``DanError``.
    """

    is_retryable = True

    def __init__(
        self, message: str, *, close_code: int | None = None, close_reason: str = "", **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.close_code, self.close_reason = close_code, close_reason


class RequestTimeoutError(TransportError, TimeoutError):
    """No reply arrived within the time of this attempt."""

    is_retryable = True


class RpcError(TransportError):
    """
    The peer answered with a JSON-RPC error object.

    Args:
        code: Its number.
        message: Its text, shortened and masked.
        data: Its ``data`` member, if it is an object.
    """

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data or {}


class ProtocolError(DanError):
    """A peer sent something that the protocol does not allow."""


class ChallengeError(ProtocolError):
    """The challenge is malformed, or was already used by this process; the wallet was not asked."""


class KeySubstitutionError(ProtocolError):
    """The gateway registered another passkey than the one that was made."""


class NodeCode(IntEnum):
    """Error codes of dan-node/1, JSON-RPC's own among them. docs/reference/node-protocol.md explains them."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    #: The request is longer than the node accepts.
    TOO_LARGE = -32010
    #: Too many requests; ``data.retryAfter`` has the seconds to wait.
    RATE_LIMITED = -32011
    #: The node is shutting down or not yet ready.
    UNAVAILABLE = -32012
    #: The nonce was never handed out, or for another request, operation or setup.
    CHALLENGE_MISMATCH = -32020
    #: The nonce's time has passed.
    CHALLENGE_EXPIRED = -32021
    #: The nonce was used already.
    CHALLENGE_REUSED = -32022
    #: The signature is not the owner's over this request.
    WRONG_OWNER = -32023
    #: The ephemeral claim has expired, or lives longer than allowed.
    CLAIM_EXPIRED = -32024
    #: The request id is known with other content.
    REQUEST_CONFLICT = -32025
    #: The participants are not ascending, do not contain this node, or hold one that it does not know.
    WRONG_PARTICIPANTS = -32026
    #: t, n, algorithm, method or revision that this node does not do.
    UNSUPPORTED = -32027
    #: Distributed key generation failed; ``data.culprits`` names the operators to blame, if any.
    KEYGEN_FAILED = -32030
    #: The signers could not make a presignature; ``data.culprits`` as above.
    SIGNING_FAILED = -32031
    #: No such key, or not this owner's.
    UNKNOWN_KEY = -32040
    #: The ephemeral key is not registered, was revoked or has expired (``data.reason`` says which), or did not sign this.
    EPHEMERAL_KEY_REFUSED = -32041
    #: The permissions do not allow it.
    NOT_PERMITTED = -32042
    #: No such presignature: never made, expired, forgotten, or for another key or other signers.
    PRESIGNATURE_UNKNOWN = -32043
    #: The presignature was used already.
    PRESIGNATURE_SPENT = -32044


class NodeError(DanError):
    """
    One node did not do what it was asked.

    Args:
        message: What happened.
        method: The JSON-RPC method.
        **context: As for ``DanError``; ``node`` is the operator address.
    """

    def __init__(self, message: str, *, method: str = "", **context: Any) -> None:
        super().__init__(message, **context)
        self.method = method


class NodeUnreachableError(NodeError, ConnectionError):
    """The node could not be reached, or the connection to it broke."""

    is_retryable = True


class NodeTimeoutError(NodeError, TimeoutError):
    """The node did not answer in time."""

    is_retryable = True


class NodeRefusedError(NodeError):
    """
    The node answered with an error code of the node protocol.

    Args:
        message: The node's own words, shortened.
        code: The code, listed in docs/reference/node-protocol.md.
        culprits: Operators that the node blames, by what it saw itself.
        evidence: ``"proof"`` if the node says that it can prove that, ``"silence"`` if they sent it nothing until its own
            limit; empty if they sent it something wrong.
        aborted_by: The operator that gave up first as far as the node knows, which is no blame by itself.
        **context: As for ``NodeError``.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int,
        culprits: tuple[str, ...] = (),
        evidence: str = "",
        aborted_by: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.code, self.culprits, self.evidence, self.aborted_by = code, culprits, evidence, aborted_by


class RateLimitedError(NodeRefusedError):
    """
    The peer asks to slow down.

    Args:
        message: What happened.
        retry_after: Seconds to wait before the next attempt.
        **context: As for ``NodeRefusedError``.
    """

    is_retryable = True

    def __init__(self, message: str, *, retry_after: float, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after = retry_after


class NodeProtocolError(NodeError, ProtocolError):
    """The node answered with something that the node protocol does not allow."""


class AcknowledgementError(NodeError, ProtocolError):
    """A node's acknowledgement failed a check and does not count."""


class ThresholdDowngradeError(AcknowledgementError):
    """A node's acknowledgement is for another threshold or number of parties than was asked for."""


@frozen(kw_only=True)
class NodeOutcome(Generic[A]):
    """
    One node's part in a request.

    Args:
        operator: The node.
        answer: Its answer, if that passed every check; in a key generation, its acknowledgement. None says that it gave
            none, so no answer is ever None.
        summary: The answer in a few words.
        error: The reason why it does not count, otherwise.
        attempts: How many times it was asked.
        elapsed_s: Seconds from the first attempt to the end.
        step: The step of the job in which it was asked: ``"challenge"``, ``"keygen"`` and so on; empty if there is but one.
    """

    operator: OperatorAddress
    answer: A | None = field(default=None, repr=False)
    summary: str = "ready"
    error: BaseException | None = None
    attempts: int = 1
    elapsed_s: float = 0.0
    step: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the node did its part: its answer counts."""
        return self.answer is not None

    @property
    def code(self) -> int | None:
        """The error code of the node protocol with which it refused, if it did."""
        return getattr(self.error, "code", None)

    def describe(self) -> str:
        """Return one line for an error or a log: the node, the step, the answer, and how long it took."""
        if self.answer is not None:
            what = self.summary
        elif self.error is None:
            what = "had not answered yet"
        else:
            what = getattr(self.error, "message", None) or type(self.error).__name__
            if culprits := getattr(self.error, "culprits", ()):
                silence = " for silence" if getattr(self.error, "evidence", "") == "silence" else ""
                what += f"; it blames {', '.join(culprits)}{silence}"
            if aborted_by := getattr(self.error, "aborted_by", None):
                what += f"; {aborted_by} had given up"
        step = f"{self.step}: " if self.step else ""
        facts = [f"{self.elapsed_s:.2f} s", f"{self.attempts} attempt{'' if self.attempts == 1 else 's'}"]
        if self.code is not None:
            facts.append(f"code {self.code}")
        return f"node {self.operator}: {step}{what} ({', '.join(facts)})"


class QuorumError(DanError):
    """
    Fewer than t nodes agree, so there is no result.

    Args:
        message: What happened.
        threshold: t, how many had to agree.
        outcomes: The outcome of every node that was asked.
        **context: As for ``DanError``.
    """

    is_retryable = True
    #: Culprits of rounds that were given up before.
    earlier_culprits: tuple[str, ...] = ()

    def __init__(
        self, message: str, *, threshold: int, outcomes: Sequence[NodeOutcome[Any]], **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.threshold = threshold
        self.outcomes = tuple(outcomes)

    @property
    def nodes(self) -> Sequence[NodeOutcome[Any]]:
        """The outcome of every node that was asked."""
        return self.outcomes

    @property
    def culprits(self) -> tuple[str, ...]:
        """
        The operators that most of the other refusing nodes blame, in this round or in one that was given up before.

        One node's word is not enough: a dishonest one could have honest nodes left out, one after the other. Nor does a
        node's own refusal speak for it.
        """
        refusals = [(o.operator, o.error) for o in self.outcomes if isinstance(o.error, NodeRefusedError)]
        blamed = {operator for _, refusal in refusals for operator in refusal.culprits}

        def is_culprit(accused: str) -> bool:
            others = [refusal for operator, refusal in refusals if operator != accused]
            return 2 * sum(accused in refusal.culprits for refusal in others) > len(others)

        return tuple(sorted({*filter(is_culprit, blamed), *self.earlier_culprits}))

    def __str__(self) -> str:
        lines = [super().__str__()]
        lines += [f"  blamed by most of the others: node {operator}" for operator in self.culprits]
        lines += [f"  {outcome.describe()}" for outcome in self.outcomes]
        return "\n".join(lines)


class QuorumDeadlineError(QuorumError, DeadlineExceededError):
    """The deadline over the whole job ran out before t nodes agreed."""


class EphemeralKeyRefusedError(QuorumError):
    """The nodes refuse the session's ephemeral key: unknown, revoked or expired. Nothing was signed."""

    is_retryable = False


class PermissionDeniedError(DanError):
    """
    The session's permissions do not allow the request. Nothing was signed.

    Args:
        rule: The rule that says no, as a path into the permissions (``permissions[0].args.value``), or the part
            of the request that no permission covers (``requestType``, ``callData``).
        problem: What is not allowed, as the end of a sentence.
        hint: What to do about it.
    """

    def __init__(self, rule: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"the permissions do not allow this: {rule}: {problem}", hint=hint)
        self.rule, self.problem = rule, problem


class NotPermittedError(QuorumError, PermissionDeniedError):
    """The nodes say that the session's permissions do not allow the message; each one's words are in ``nodes``."""

    is_retryable = False

    def __init__(
        self, message: str, *, threshold: int, outcomes: Sequence[NodeOutcome[Any]], **context: Any
    ) -> None:
        DanError.__init__(self, message, **context)
        self.threshold, self.outcomes = threshold, tuple(outcomes)
        self.rule, self.problem = "", message


class GatewayError(DanError):
    """
    The gateway did not complete the operation.

    Args:
        message: What happened.
        close_code: The WebSocket close code, if there was one.
        close_reason: Its reason text, shortened and masked.
        status: The HTTP status, where the upgrade was refused.
        retry_after: Seconds the gateway asked to wait, if it did.
        **context: As for ``DanError``; ``phase`` says which step failed.
    """

    def __init__(
        self,
        message: str,
        *,
        close_code: int | None = None,
        close_reason: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.close_code, self.close_reason = close_code, close_reason
        self.status, self.retry_after = status, retry_after


class StoreError(DanError):
    """A session store did not do what it was asked. Nothing that it had reported as saved is lost."""


class StoreUnavailableError(StoreError):
    """
    The store cannot be reached, opened or written to: a full disk, a read-only file.

    Nothing was changed, unless it is a subclass that says otherwise.
    """

    is_retryable = True


class StoreConnectionError(StoreUnavailableError, ConnectionError):
    """
    The connection to the store's database broke or gave no answer, and so did the one after it.

    A change that was being committed may have been made: get the record to see it.
    """


class StoreLockedError(StoreUnavailableError, TimeoutError):
    """Somebody else kept the store locked for longer than the store waits. Nothing was changed."""


class StoreCorruptedError(StoreError):
    """The store's file is damaged, or is no store."""


class StoreSchemaError(StoreError):
    """The store was made by another version of the package, and its schema is not the one that this version reads."""


class StoreKeyError(StoreError):
    """There is no encryption key, or it is not the one that a record was encrypted with."""


class StoreTamperedError(StoreError):
    """A record was changed from outside, or put in another one's place. It is withheld."""


class StoreClockError(StoreError):
    """The clock is behind the newest record, so nothing can be called expired by it."""


class RecordConflictError(StoreError):
    """The record, or its reference, exists already; or it is in another state than expected. Nothing was changed."""


class BatchInterruptedError(DanError):
    """
    The cluster that a batch ran on failed before the batch had ended. Run it again: no row gets a second key.

    Args:
        message: The problem.
        pending: The references of the rows whose outcome is not known.
        hint: Advice for the user.
        **context: As for ``DanError``.
    """

    is_retryable = True

    def __init__(self, message: str, *, pending: tuple[str, ...] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.pending = pending


class PendingNotFoundError(DanError, LookupError):
    """No session key waits here for that signature: completed or cancelled, too late, or begun elsewhere. Begin again."""


class SessionPendingError(DanError):
    """The result of an earlier attempt is not known, so no second one is made."""

    is_retryable = True


class SessionFailedError(DanError):
    """In a resumed batch: an earlier attempt at this row failed, and no new one was asked for. There is no key."""


class SessionExpiredError(DanError):
    """The session, or a new ephemeral key before it was authorised, has expired. Nothing was made or signed."""


class SignatureCheckError(DanError):
    """A signature does not recover to the session's address; it is withheld."""


class UserOperationError(DanError):
    """
    A user operation failed.

    Args:
        message: What happened.
        user_operation_hash: Its hash, where it has one.
        **context: As for ``DanError``.
    """

    def __init__(self, message: str, *, user_operation_hash: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.user_operation_hash = user_operation_hash


class BundlerError(UserOperationError):
    """
    The bundler, the paymaster or the chain's node answered with an error. docs/reference/bundler-errors.md has the codes.

    Args:
        message: What happened, in plain words where the code is known.
        service: Who answered: ``"bundler"``, ``"paymaster"`` or ``"node"``.
        code: The JSON-RPC error code.
        entry_point_code: The entry point's own code, as ``"AA21"``; None if it named none.
        **context: As for ``UserOperationError``.
    """

    def __init__(
        self, message: str, *, service: str, code: int, entry_point_code: str | None = None, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.service, self.code, self.entry_point_code = service, code, entry_point_code


class PaymasterError(BundlerError):
    """The paymaster does not pay for this operation."""


class DuplicateUserOperationError(UserOperationError):
    """This very operation was sent before, or an earlier one has made the same calls after all. Nothing was sent."""


class UserOperationRevertedError(UserOperationError):
    """
    The operation is on the chain, its gas is paid, and its calls were reverted.

    Args:
        message: What happened.
        transaction_hash: The transaction that carried it.
        reason: The revert's text or bytes, shortened; empty if nothing is known.
        receipt: The bundler's whole answer, which ``UserOperationReceipt.from_dict`` reads.
        **context: As for ``UserOperationError``.
    """

    def __init__(
        self, message: str, *, transaction_hash: Hex, reason: str, receipt: Mapping[str, Any], **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.transaction_hash = transaction_hash
        self.reason = escape_controls(reason)
        self.receipt = receipt


class UserOperationCostError(UserOperationError):
    """
    An operation could cost more than the account's *cost_limit*. Nothing was signed or sent.

    Args:
        message: What happened.
        cost: Most that the entry point could take for its gas, in wei.
        limit: The limit, in wei.
        **context: As for ``UserOperationError``.
    """

    def __init__(self, message: str, *, cost: int, limit: int, **context: Any) -> None:
        super().__init__(message, **context)
        self.cost, self.limit = cost, limit


class UserOperationTimeoutError(UserOperationError, TimeoutError):
    """The operation was sent and is not on the chain yet. It may still come: do not send it again with another nonce."""


class UserOperationInDoubtError(UserOperationTimeoutError):
    """
    The operation was sent, and neither bundler nor chain says what became of it: it may have been executed.

    Wait for the receipt of ``user_operation_hash``; the same calls in another operation could be made twice.
    """


# --- how a failure is to be taken -------------------------------------------------------------------------------------


class FailureKind(Flag):
    """The consequences of a failure."""

    #: Repeating does not cure it, and it counts against the node.
    NONE = 0
    #: The peer did not look at the request, or failed by accident: the same call may be made again.
    RETRYABLE = auto()
    #: A new round may cure it: it has new nonces, other participants, or better luck.
    CURABLE = auto()
    #: The node refuses the request itself: asking other nodes along with it changes nothing.
    FINAL = auto()
    #: It is not the fault of the node that answers so.
    BLAMELESS = auto()


#: HTTP statuses of a server in trouble or in a hurry (RFC 9110 section 15, RFC 6585 section 4, RFC 8470 section 5.2).
HTTP_FAILURES = MappingProxyType(dict.fromkeys((408, 425, 429, 500, 502, 503, 504), FailureKind.RETRYABLE))

#: Refusals for the time, the last one among other reasons; then the node says what its clock shows.
TIME_CODES = frozenset({NodeCode.CHALLENGE_EXPIRED, NodeCode.CLAIM_EXPIRED, NodeCode.EPHEMERAL_KEY_REFUSED})

#: The codes of dan-node/1.
NODE_FAILURES: Mapping[int, FailureKind] = MappingProxyType(
    {
        NodeCode.INTERNAL_ERROR: FailureKind.RETRYABLE | FailureKind.CURABLE,
        NodeCode.RATE_LIMITED: FailureKind.RETRYABLE | FailureKind.CURABLE,
        NodeCode.UNAVAILABLE: FailureKind.RETRYABLE | FailureKind.CURABLE,
        NodeCode.CHALLENGE_MISMATCH: FailureKind.CURABLE,
        NodeCode.CHALLENGE_EXPIRED: FailureKind.CURABLE,
        NodeCode.CHALLENGE_REUSED: FailureKind.CURABLE,
        NodeCode.KEYGEN_FAILED: FailureKind.CURABLE,
        NodeCode.METHOD_NOT_FOUND: FailureKind.FINAL,
        NodeCode.INVALID_PARAMS: FailureKind.FINAL,
        NodeCode.UNSUPPORTED: FailureKind.FINAL,
        NodeCode.CLAIM_EXPIRED: FailureKind.FINAL,
        NodeCode.UNKNOWN_KEY: FailureKind.FINAL,
        NodeCode.EPHEMERAL_KEY_REFUSED: FailureKind.FINAL,
        NodeCode.NOT_PERMITTED: FailureKind.FINAL,
        NodeCode.WRONG_PARTICIPANTS: FailureKind.BLAMELESS,
        NodeCode.SIGNING_FAILED: FailureKind.BLAMELESS,
        NodeCode.PRESIGNATURE_UNKNOWN: FailureKind.BLAMELESS,
        NodeCode.PRESIGNATURE_SPENT: FailureKind.BLAMELESS,
    }
)

#: The kind of each failure by its class, and by its number where it has one; a number that is not listed is of kind NONE.
#: ``dan_async.retry`` takes its rows from here, and key generation and signing their next steps.
FAILURE_KINDS: Mapping[type[DanError], FailureKind | Mapping[int, FailureKind]] = MappingProxyType(
    {
        ConnectError: HTTP_FAILURES,
        GatewayError: HTTP_FAILURES,
        RateLimitedError: FailureKind.RETRYABLE | FailureKind.CURABLE,
        NodeRefusedError: NODE_FAILURES,
        # These end a whole job, which is more than one call to make again.
        DeadlineExceededError: FailureKind.NONE,
        QuorumError: FailureKind.NONE,
    }
)


def failure_number(error: DanError) -> int | None:
    """Return the peer's error code, or the HTTP status, if the error has one."""
    number: int | None = getattr(error, "code", None)
    return getattr(error, "status", None) if number is None else number


def failure_kind(error: DanError) -> FailureKind:
    """Return the kind of a failure: by class and number, as for the nearest ancestor in the table, or by its own word."""
    own = FailureKind.RETRYABLE if error.retryable else FailureKind.NONE
    kinds = next((FAILURE_KINDS[kind] for kind in type(error).__mro__ if kind in FAILURE_KINDS), own)
    if isinstance(kinds, FailureKind):
        return kinds | own
    number = failure_number(error)
    return own if number is None else kinds.get(number, FailureKind.NONE)
