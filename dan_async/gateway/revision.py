"""Which revision a gateway speaks: named by the caller, or found out by beginning an operation in one after the other."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from dan_async.deadline import Deadline
from dan_async.errors import ConfigurationError, DanError, GatewayError
from dan_async.gateway.failures import is_about_the_moment
from dan_async.protocols.gateway import GatewayProtocol
from dan_async.protocols.gateway_0_3 import REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: The order of the tries. 0.1 is spoken only where it is named: no signature covers its ephemeral key's expiry, and whoever
#: can break connections could have a client fall back to it.
CANDIDATES: tuple[GatewayProtocol, ...] = (REVISION_1, REVISION_0_3)

#: Begins an operation, up to the gateway's challenge: in that revision, waiting for one in so many parts of the time left.
Begin = Callable[[GatewayProtocol, int], Awaitable[T]]


class RevisionChoice:
    """
    The revision of one gateway.

    It is found out with the first operation itself: each candidate gets a connection of its own and the operation's own
    setup, and the first one that the gateway answers with a challenge of the right form is it. The operation goes on from
    there, so nothing is begun twice and no wallet is asked before.
    """

    def __init__(self, given: GatewayProtocol | None) -> None:
        #: The revision's protocol, if it was given or has been found out.
        self.known = given
        self._is_given = given is not None
        self._finding = asyncio.Lock()
        self._failures = 0
        #: Of the last search: its kind, the seconds it had, and its error.
        self._last_failure: tuple[Hashable, float, DanError] | None = None

    def doubt(self, error: DanError) -> None:
        """
        Find out again with the next attempt, after a failure to begin that may be about the revision.

        A gateway that was changed may speak another one now.
        """
        if not self._is_given and not is_about_the_moment(error):
            self.known = None

    async def find_out(self, begin: Begin[T], *, kind: Hashable, deadline: Deadline, where: str) -> T:
        """
        Begin an operation in the first revision that works; *begin* raises a ConfigurationError if one cannot carry it.

        *kind* names the conditions of the outcome, so that operations waiting for the same one can share a failure: of a
        search that had no less time than they have left, since a slow gateway may answer those who wait longer.
        """
        failures = self._failures
        await self._acquire(deadline)
        try:
            if self.known is None:
                left_s = deadline.remaining()
                time_s = math.inf if left_s is None else left_s
                if failures != self._failures and self._last_failure:
                    other, had_s, error = self._last_failure  # somebody else has just tried
                    if other == kind and had_s >= time_s:
                        raise copy.copy(error)
                return await self._try_each(begin, kind, time_s, where)
        finally:
            self._finding.release()
        return await begin(self.known, 1)

    async def _acquire(self, deadline: Deadline) -> None:
        limit = asyncio.timeout(deadline.remaining())
        try:
            async with limit:
                await self._finding.acquire()
        except TimeoutError:
            raise deadline.error("finding out the gateway's revision", phase="challenge") from None

    async def _try_each(self, begin: Begin[T], kind: Hashable, time_s: float, where: str) -> T:
        tries: dict[GatewayProtocol, DanError] = {}
        for place, protocol in enumerate(CANDIDATES):
            try:
                # Each try leaves as much for each of those that follow, and for what comes after the challenge.
                begun = await begin(protocol, len(CANDIDATES) - place + 1)
            except DanError as error:
                if not isinstance(error, ConfigurationError) and is_about_the_moment(error):
                    raise
                tries[protocol] = error
            else:
                self.known = protocol
                _log.info("%s speaks revision %s", where, protocol.revision)
                return begun
        failure = _none_works(tries, where)
        self._failures += 1
        self._last_failure = (kind, time_s, failure)
        raise failure


def _none_works(tries: dict[GatewayProtocol, DanError], where: str) -> DanError:
    errors = list(tries.values())
    if all(isinstance(error, ConfigurationError) for error in errors):
        return errors[0]
    tried = "; ".join(
        f"revision {protocol.revision}: {error.message.replace(f'{where} ', '')}"
        for protocol, error in tries.items()
    )
    closed = [e for e in errors if isinstance(e, GatewayError) and e.close_code is not None]
    return GatewayError(
        f"{where} accepted none of the revisions ({tried})",
        hint="Check the URL; if you know the gateway's revision, name it: 0.1 is never tried, since no signature covers its "
        "expiry. The wallet was not asked",
        phase="challenge",
        close_code=closed[-1].close_code if closed else None,
        close_reason=closed[-1].close_reason if closed else "",
    )
