"""A session that renews itself: its ephemeral key is replaced before it expires, by a wallet that asks no person."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from dan_async.deadline import cancel_and_wait
from dan_async.errors import ConfigurationError, SessionExpiredError
from dan_async.jobs.keeping import describe_problem
from dan_async.jobs.sign_message import Message
from dan_async.session import DanModuleInfo
from dan_async.types import Clock, Hex

if TYPE_CHECKING:
    from dan_async.batch import SigningRun
    from dan_async.userops.sign_user_operation import Operation

__all__ = ["LiveSession"]

_log = logging.getLogger(__name__)

#: A session is renewed when this part of its time is left, but not earlier than so many seconds before its end.
_LAST_PART, _MOST_AHEAD_S = 0.25, 600.0

#: Between two attempts to renew, in seconds: at first, and at most. No sleep is longer, so that a clock that jumps shows.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class LiveSession:
    """
    A session that ``DanClient.keep_alive`` renews while the context lasts; that of ``DanClient.session`` also ends then.

    Attributes:
        session: The current session: read it for each signature, or use the methods, which do.
        failure: Why the last attempt to renew or revoke it failed; None if it did not.
        is_revoked: Whether its ephemeral key was revoked at the end.
    """

    def __init__(
        self,
        session: DanModuleInfo,
        renew: Callable[[DanModuleInfo], Awaitable[DanModuleInfo]] | None,
        *,
        client: Any,
        duration_s: int,
        on_renewed: Callable[[DanModuleInfo], object] | None,
        clock: Clock,
    ) -> None:
        if session.expires_at is None:
            raise ConfigurationError(
                "the session has no expiry", hint="Keep all its fields: to_dict(extended=True)"
            )
        self.session = session
        self.failure: Exception | None = None
        self.is_revoked = False
        self._client = client
        self._renew = renew
        self._ahead_s = min(_LAST_PART * duration_s, _MOST_AHEAD_S)
        self._on_renewed = on_renewed
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"LiveSession({self.session!r})"

    async def __aenter__(self) -> Self:
        if self._left_s() <= 0:
            raise SessionExpiredError("the session has expired, and cannot be renewed", hint="Make a new one")
        if self._renew is not None:
            self._task = asyncio.create_task(self._keep(self._renew), name="dan session renewal")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await cancel_and_wait([self._task])

    async def sign_message(self, message: Message, **options: Any) -> Hex:
        """
        Have a message signed with the session as it is now. The errors are those of ``DanClient.sign_message``.

        Args:
            message: Text or bytes, typed data, or a user operation.
            **options: Any other parameter of ``DanClient.sign_message``.

        Returns:
            The signature: 0x and 130 hex digits.
        """
        signature: Hex = await self._client.sign_message(message, self.session, **options)
        return signature

    def sign_many(self, messages: Iterable[Message] | AsyncIterable[Message], **options: Any) -> SigningRun:
        """
        Have many messages signed, each with the session as it is then. The errors are those of ``DanClient.sign_many``.

        Args:
            messages: Anything to iterate over, sync or async.
            **options: Any other parameter of ``DanClient.sign_many``.

        Returns:
            The results, as an async iterator of ``SignedMessage``.
        """
        run: SigningRun = self._client.sign_many(messages, lambda: self.session, **options)
        return run

    async def sign_user_operation(self, user_op: Operation, **options: Any) -> Operation:
        """
        Have an operation signed with the session as it is now. The errors are those of ``DanClient.sign_user_operation``.

        Args:
            user_op: The operation, complete except for its signature.
            **options: Any other parameter of ``DanClient.sign_user_operation``.

        Returns:
            The operation with its signature.
        """
        signed: Operation = await self._client.sign_user_operation(user_op, self.session, **options)
        return signed

    def _left_s(self) -> float:
        return (self.session.expires_at or 0) - self._clock()

    async def _keep(self, renew: Callable[[DanModuleInfo], Awaitable[DanModuleInfo]]) -> None:
        pause_s = _FIRST_PAUSE_S
        while (left_s := self._left_s()) > 0:
            if left_s > self._ahead_s:
                await asyncio.sleep(min(left_s - self._ahead_s, _LONGEST_PAUSE_S))
                continue
            try:
                self.session = await renew(self.session)
            except Exception as error:  # noqa: BLE001 - a store or an owner of the caller's own may raise any
                self.failure = error
                _log.warning(
                    "the session could not be renewed, %.0f s before its end: %s",
                    left_s,
                    describe_problem(error),
                )
                await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))
                pause_s *= 2
                continue
            self.failure, pause_s = None, _FIRST_PAUSE_S
            if self._on_renewed is not None:
                try:
                    self._on_renewed(self.session)
                except Exception:  # noqa: BLE001 - a listener's bug must not end the session
                    _log.exception("on_renewed failed; the session is renewed all the same")
