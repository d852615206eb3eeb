"""
Every error that dan_async raises on purpose.

The tree::

    DanError
    ├── ConfigurationError (ValueError)       a value given by the caller is wrong; nothing was sent
    │   ├── InvalidFieldError                 ... and this is the field
    │   ├── InsecureTransportError            plain ws:// or http:// to a host that is not loopback
    │   └── MissingExtraError (ImportError)   an optional dependency is not installed
    ├── ClientClosedError (RuntimeError)      the client, network or connection was closed by its owner
    ├── DeadlineExceededError (TimeoutError)  the one deadline over the whole job ran out
    ├── WalletError                           the owner's wallet did not authorise
    │   ├── WalletRefusedError                it said no
    │   ├── WalletTimeoutError (TimeoutError) it did not answer in time
    │   ├── WalletSignatureError              what it returned is not a signature
    │   └── WrongSignerError                  it signed with another address than the owner's
    ├── TransportError                        bytes could not be moved
    │   ├── ConnectError (ConnectionError)    the connection was not made
    │   ├── ConnectionLostError (ConnectionError)  it broke; carries close code and reason
    │   ├── RequestTimeoutError (TimeoutError)     no reply within this attempt's time
    │   └── RpcError                          the peer answered with a JSON-RPC error
    ├── ProtocolError                         a peer sent what the protocol does not allow
    │   ├── ChallengeError                    the challenge is malformed or was seen before
    │   ├── ThresholdDowngradeError           the answer is for another t or n than asked
    │   ├── KeySubstitutionError              the public key or key id is not the one agreed upon
    │   └── PolicyMismatchError               the permissions in force are not those asked for
    ├── NodeError                             one node, one request
    │   ├── NodeUnreachableError (ConnectionError)
    │   ├── NodeTimeoutError (TimeoutError)
    │   ├── NodeRefusedError                  the node answered with an error code
    │   │   └── RateLimitedError              ... come back after ``retry_after`` seconds
    │   ├── NodeProtocolError (ProtocolError) the node's answer breaks the protocol
    │   └── AcknowledgementError (ProtocolError)  its acknowledgement failed a check
    ├── QuorumError                           fewer than t nodes agree; carries every node's outcome
    │   ├── QuorumDeadlineError (DeadlineExceededError)  ... when the job's deadline ran out
    │   ├── EphemeralKeyRefusedError          the nodes refuse the session's ephemeral key
    │   └── NotPermittedError (PermissionDeniedError)  the session's permissions do not allow the message
    ├── GatewayError                          the gateway did not complete the operation
    ├── StoreError                            a session store did not do what it was asked
    │   ├── StoreUnavailableError             it cannot be reached, opened or written to; its disk is full
    │   │   └── StoreLockedError (TimeoutError)  somebody else keeps it locked
    │   ├── StoreCorruptedError               its file is damaged
    │   ├── StoreSchemaError                  its schema is of another version
    │   ├── StoreKeyError                     there is no key, or it is not the one that a record was encrypted with
    │   ├── StoreTamperedError                a record is not what was stored
    │   ├── StoreClockError                   the clock is behind what is stored, so nothing can be called expired
    │   └── RecordConflictError               the record exists already, or was changed by somebody else
    ├── SessionPendingError                   it is not known what came of an earlier attempt
    ├── SessionFailedError                    an earlier attempt failed, and was not to be repeated
    ├── SessionExpiredError                   the session's expiry has passed
    ├── PermissionDeniedError                 the session's permissions do not allow what was asked
    ├── UserOperationError                    a user operation did not go the way it should
    │   ├── BundlerError                      bundler, paymaster or the chain's node refused, in plain words
    │   │   └── PaymasterError                ... and it is the paymaster's doing
    │   ├── DuplicateUserOperationError       it was sent before
    │   ├── UserOperationRevertedError        it is on the chain, and its calls were reverted
    │   └── UserOperationTimeoutError (TimeoutError)  it is not on the chain yet
    └── SignatureCheckError                   a signature does not recover to the session's address

Every error has ``message`` (what happened) and ``hint`` (what to do), and where they are known ``phase``,
``node``, ``nodes``, ``request_id``, ``attempts``, ``elapsed_s`` and ``retryable``. No error holds a secret: not in its text
and not in its attributes.

The base class stands in _error_base, the errors of stores, user operations and wallets in files of their own;
everybody imports them from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dan_async._error_base import DanError as DanError
from dan_async._store_errors import RecordConflictError as RecordConflictError
from dan_async._store_errors import SessionFailedError as SessionFailedError
from dan_async._store_errors import SessionPendingError as SessionPendingError
from dan_async._store_errors import StoreClockError as StoreClockError
from dan_async._store_errors import StoreCorruptedError as StoreCorruptedError
from dan_async._store_errors import StoreError as StoreError
from dan_async._store_errors import StoreKeyError as StoreKeyError
from dan_async._store_errors import StoreLockedError as StoreLockedError
from dan_async._store_errors import StoreSchemaError as StoreSchemaError
from dan_async._store_errors import StoreTamperedError as StoreTamperedError
from dan_async._store_errors import StoreUnavailableError as StoreUnavailableError
from dan_async._user_operation_errors import BundlerError as BundlerError
from dan_async._user_operation_errors import DuplicateUserOperationError as DuplicateUserOperationError
from dan_async._user_operation_errors import PaymasterError as PaymasterError
from dan_async._user_operation_errors import PermissionDeniedError as PermissionDeniedError
from dan_async._user_operation_errors import UserOperationError as UserOperationError
from dan_async._user_operation_errors import UserOperationRevertedError as UserOperationRevertedError
from dan_async._user_operation_errors import UserOperationTimeoutError as UserOperationTimeoutError
from dan_async._wallet_errors import WalletError as WalletError
from dan_async._wallet_errors import WalletRefusedError as WalletRefusedError
from dan_async._wallet_errors import WalletSignatureError as WalletSignatureError
from dan_async._wallet_errors import WalletTimeoutError as WalletTimeoutError
from dan_async._wallet_errors import WrongSignerError as WrongSignerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dan_async.models.outcome import NodeOutcome


class ConfigurationError(DanError, ValueError):
    """A value given by the caller is wrong. Nothing was sent."""


class InvalidFieldError(ConfigurationError):
    """
    One named field has a wrong value; the value itself is never repeated.

    Args:
        field: The field's name, as the caller wrote it.
        problem: What is wrong with it, as the end of a sentence that begins with the name.
        hint: What to give instead.
    """

    def __init__(self, field: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{field} {problem}", hint=hint)
        self.field = field


class InsecureTransportError(ConfigurationError):
    """A URL without TLS points to a host that is not loopback."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is needed and not installed; the hint is the pip line."""


class ClientClosedError(DanError, RuntimeError):
    """The object was closed by its owner and cannot be used any more."""


class DeadlineExceededError(DanError, TimeoutError):
    """The deadline over the whole job ran out."""

    is_retryable = True


class TransportError(DanError):
    """Bytes could not be moved to or from a peer."""


class ConnectError(TransportError, ConnectionError):
    """The connection could not be opened; nothing of the request was sent."""

    is_retryable = True

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.retry_after = retry_after


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
        self.close_code = close_code
        self.close_reason = close_reason


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


class ThresholdDowngradeError(ProtocolError):
    """The answer is for another threshold or number of parties than was asked for."""


class KeySubstitutionError(ProtocolError):
    """The public key or the key id is not the one the nodes agreed upon."""


class PolicyMismatchError(ProtocolError):
    """The permissions in force are not those that were asked for."""


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
        code: The code, listed in docs/node-protocol.md.
        culprits: Operators that the node blames, with evidence that it checked itself.
        **context: As for ``NodeError``.
    """

    def __init__(self, message: str, *, code: int, culprits: tuple[str, ...] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.code = code
        self.culprits = culprits


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


class QuorumError(DanError):
    """
    Fewer than t nodes agree, so there is no result.

    Args:
        message: What happened.
        threshold: t, how many had to agree.
        outcomes: What every node that was asked answered.
        **context: As for ``DanError``.
    """

    is_retryable = True
    #: Culprits of rounds that were given up before.
    earlier_culprits: tuple[str, ...] = ()

    def __init__(
        self, message: str, *, threshold: int, outcomes: Sequence[NodeOutcome], **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.threshold = threshold
        self.outcomes = tuple(outcomes)

    @property
    def nodes(self) -> Sequence[NodeOutcome]:
        """What every node that was asked answered."""
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


class NotPermittedError(QuorumError, PermissionDeniedError):
    """The nodes say that the session's permissions do not allow the message; each one's words are in ``nodes``."""

    is_retryable = False

    def __init__(
        self, message: str, *, threshold: int, outcomes: Sequence[NodeOutcome], **context: Any
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
        self.close_code = close_code
        self.close_reason = close_reason
        self.status = status
        self.retry_after = retry_after


class SessionExpiredError(DanError):
    """The session's expiry has passed. Nothing was sent."""


class SignatureCheckError(DanError):
    """A signature does not recover to the session's address; it is withheld."""
