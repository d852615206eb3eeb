"""Where a node gives out nonces and takes them back, with the error codes of dan-node/1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dan_async.devnet.key_record import KeyRing
from dan_async.devnet.nonces import (
    ExpiredNonceError,
    NonceBook,
    NonceBookFullError,
    NonceError,
    UsedNonceError,
)
from dan_async.devnet.rpc_errors import RefusalError, rate_limited
from dan_async.errors import NodeCode
from dan_async.types import RequestId
from dan_async.wire.node_1 import ChallengeParams, ChallengeResult
from dan_async.wire.node_passkeys import METHOD as REGISTER_METHOD
from dan_async.wire.node_passkeys import OPERATION as REGISTER_PASSKEY
from dan_async.wire.node_receipts import METHODS
from dan_async.wire.node_signing import OPERATION as SIGNGEN
from dan_async.wire.node_signing import SIGN

__all__ = ["NonceDesk"]

#: Operations that are about no key that exists, and those that are about one.
_WITHOUT_KEY = frozenset({"keygen", REGISTER_PASSKEY})
_WITH_KEY = frozenset({*METHODS, SIGNGEN})
#: The RPC method that carries out an operation.
_METHODS = {"keygen": "dan_keygen", SIGNGEN: SIGN, REGISTER_PASSKEY: REGISTER_METHOD, **METHODS}


class NonceDesk:
    """
    The nonces of one node.

    Args:
        book: Remembers them.
        ring: The keys that the node holds.
        is_expired: Tells for an RPC method whether, by a fault, a nonce counts as expired.
    """

    def __init__(
        self, book: NonceBook, ring: KeyRing, *, is_expired: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._book = book
        self._ring = ring
        self._is_expired = is_expired

    def issue(self, params: ChallengeParams) -> ChallengeResult:
        """
        Give out a nonce.

        Raises:
            RefusalError: ``UNSUPPORTED`` for another operation, ``UNKNOWN_KEY`` for a key that this node does not hold,
                ``RATE_LIMITED`` if too many are outstanding.
        """
        if params.operation not in _WITHOUT_KEY | _WITH_KEY:
            known = ", ".join(sorted(_WITHOUT_KEY | _WITH_KEY))
            raise RefusalError(NodeCode.UNSUPPORTED, f"operation must be one of {known}")
        if params.key_id is not None and self._ring.by_key(params.key_id) is None:
            raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key")
        try:
            return self._book.issue(params.request_id, params.operation, params.setup_hash)
        except NonceBookFullError as error:
            raise rate_limited(error.message, error.retry_after) from error

    @contextmanager
    def spending(
        self, nonce: bytes | None, request_id: RequestId, operation: str, setup_hash: bytes
    ) -> Iterator[None]:
        """
        Check the nonce first, and use it up only if what is inside succeeds: a refused request costs it nothing.

        Args:
            nonce: The nonce; None for a one-shot request, which has none.
            request_id: The request.
            operation: Its operation.
            setup_hash: Its setup's hash.

        Raises:
            RefusalError: ``CHALLENGE_MISMATCH``, ``CHALLENGE_EXPIRED`` or ``CHALLENGE_REUSED``.
        """
        if nonce is None:
            yield
            return
        try:
            self._book.check(nonce, request_id, operation, setup_hash)
            if self._is_expired(_METHODS.get(operation, "")):
                raise ExpiredNonceError("the nonce has expired")
            yield
            self._book.use(nonce, request_id, operation, setup_hash)
        except NonceError as error:
            raise _refusal(error) from error


def _refusal(error: NonceError) -> RefusalError:
    if isinstance(error, UsedNonceError):
        return RefusalError(NodeCode.CHALLENGE_REUSED, error.message)
    if isinstance(error, ExpiredNonceError):
        return RefusalError(NodeCode.CHALLENGE_EXPIRED, error.message)
    return RefusalError(NodeCode.CHALLENGE_MISMATCH, error.message)
