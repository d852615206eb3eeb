"""Nonces that a node gives out: each for one request, once, and not for long."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from attrs import define, frozen

from dan_async.errors import DanError
from dan_async.types import Clock, RequestId
from dan_async.wire.node_1 import ChallengeResult

__all__ = [
    "ExpiredNonceError",
    "MismatchedNonceError",
    "NonceBook",
    "NonceBookFullError",
    "NonceError",
    "UnknownNonceError",
    "UsedNonceError",
]


class NonceError(DanError):
    """A nonce that does not count."""


class UnknownNonceError(NonceError):
    """This node never gave it out, or so long ago that it has forgotten."""


class MismatchedNonceError(NonceError):
    """It was given out for another request, operation or setup."""


class ExpiredNonceError(NonceError):
    """Its time has passed."""


class UsedNonceError(NonceError):
    """It was used before."""


class NonceBookFullError(DanError):
    """
    Too many nonces are outstanding.

    Args:
        retry_after: Seconds until the oldest is forgotten.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many challenges are outstanding")
        self.retry_after = retry_after


@frozen
class _Purpose:
    request_id: RequestId
    operation: str
    setup_hash: bytes


@define
class _Entry:
    purpose: _Purpose
    expires_at: int
    is_used: bool = False


class NonceBook:
    """
    The nonces of one node, in memory: a restart forgets them, and what was forgotten is refused.

    A nonce is remembered for as long again as it may be used, so that a late or repeated one gets its own error.

    Args:
        clock: The wall clock.
        lifetime_s: How long a nonce may be used, in seconds.
        capacity: How many are remembered. A full book refuses new ones: making room by dropping old ones would let a
            flood of challenges push out the nonce of a request whose owner is looking at the wallet prompt.
        entropy: Gives random bytes.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        lifetime_s: float,
        capacity: int,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._capacity = capacity
        self._entropy = entropy
        self._entries: dict[bytes, _Entry] = {}  # oldest first, since all live equally long

    def __len__(self) -> int:
        return len(self._entries)

    def issue(self, request_id: RequestId, operation: str, setup_hash: bytes) -> ChallengeResult:
        """
        Give out a nonce for one request.

        Raises:
            NonceBookFullError: Too many are remembered.
        """
        now = self._clock()
        self._forget(now)
        if len(self._entries) >= self._capacity:
            oldest = next(iter(self._entries.values()))
            raise NonceBookFullError(oldest.expires_at + self._lifetime_s - now)
        nonce = self._entropy(32)
        expires_at = int(now + self._lifetime_s)
        self._entries[nonce] = _Entry(_Purpose(request_id, operation, setup_hash), expires_at)
        return ChallengeResult(nonce=nonce, expires_at=expires_at)

    def check(self, nonce: bytes, request_id: RequestId, operation: str, setup_hash: bytes) -> None:
        """
        See whether a nonce may be used for this.

        Raises:
            UnknownNonceError: It is not in the book.
            MismatchedNonceError: It is for something else.
            UsedNonceError: It was used.
            ExpiredNonceError: It is too old.
        """
        self._usable(nonce, _Purpose(request_id, operation, setup_hash))

    def use(self, nonce: bytes, request_id: RequestId, operation: str, setup_hash: bytes) -> None:
        """Use a nonce up; raises as ``check`` does."""
        self._usable(nonce, _Purpose(request_id, operation, setup_hash)).is_used = True

    def _usable(self, nonce: bytes, purpose: _Purpose) -> _Entry:
        entry = self._entries.get(nonce)
        if entry is None:
            raise UnknownNonceError("the nonce was not given out by this node")
        if entry.purpose != purpose:
            raise MismatchedNonceError("the nonce was given out for another request, operation or setup")
        if entry.is_used:
            raise UsedNonceError("the nonce was used before")
        if self._clock() >= entry.expires_at:
            raise ExpiredNonceError("the nonce has expired")
        return entry

    def _forget(self, now: float) -> None:
        while self._entries:
            nonce, entry = next(iter(self._entries.items()))
            if now < entry.expires_at + self._lifetime_s:
                return
            del self._entries[nonce]
