"""
The presignatures that a node keeps ready, in memory only: each signs once, soon, for one ephemeral key.

They do not outlive the process. That is what keeps any of them from being used twice across a restart: nothing has to be
written before the first byte of a signature leaves, because nothing could bring a presignature back.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import field, frozen

from dan_async.devnet.mpc.presignature import Presignature
from dan_async.devnet.rpc_errors import RefusalError, rate_limited
from dan_async.errors import NodeCode
from dan_async.types import Clock, MpcKeyId, OperatorAddress
from dan_async.wire.node_signing_hashes import presignature_id

__all__ = ["PresignatureOwner", "PresignatureStock", "StockedPresignature"]

#: How many ids of presignatures that are gone are remembered, to say what became of them.
_MOST_SPENT = 65_536

#: How many there may be in all.
_MOST_READY = 65_536


@frozen
class PresignatureOwner:
    """Who may use a presignature: an ephemeral key, for a key."""

    key_id: MpcKeyId
    eph_id: str


@frozen(kw_only=True)
class StockedPresignature:
    """
    A presignature, and what it may be used for.

    Args:
        presignature: The presignature.
        owner: Who may use it.
        signers: Its signers' operators.
        expires_at: When it is thrown away, in Unix seconds.
    """

    presignature: Presignature
    owner: PresignatureOwner
    signers: tuple[OperatorAddress, ...]
    expires_at: float
    #: The 32 bytes of its id on the wire, which binds it to the nonce point.
    name: bytes = field(init=False)

    @name.default
    def _name(self) -> bytes:
        return presignature_id(self.presignature.id, self.presignature.nonce_point)


class PresignatureStock:
    """
    The presignatures of one node.

    Args:
        most: How many one ephemeral key may have, those being made included.
        clock: The wall clock.
    """

    def __init__(self, *, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._ready: dict[bytes, StockedPresignature] = {}
        self._expiries: list[tuple[float, bytes]] = []  # a heap
        self._counts: Counter[PresignatureOwner] = Counter()
        self._spent: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        self._forget_expired()
        return len(self._ready)

    @contextmanager
    def making(self, owner: PresignatureOwner, count: int = 1) -> Iterator[None]:
        """
        Hold room for presignatures while they are made; ``add`` them inside.

        Raises:
            RefusalError: ``RATE_LIMITED``: the ephemeral key, or the node, has as many as it may have.
        """
        self._forget_expired()
        if self._counts[owner] + count > self._most or len(self._ready) >= _MOST_READY:
            raise rate_limited("there are enough presignatures", 1.0)
        self._counts[owner] += count
        try:
            yield
        finally:
            self._uncount(owner, count)

    def add(self, stocked: StockedPresignature) -> None:
        """Keep a presignature ready."""
        self._ready[stocked.name] = stocked
        self._counts[stocked.owner] += 1
        heapq.heappush(self._expiries, (stocked.expires_at, stocked.name))

    def find(
        self, id_: bytes, *, owner: PresignatureOwner, signers: tuple[OperatorAddress, ...]
    ) -> StockedPresignature:
        """
        Give a presignature that may be used for this.

        Raises:
            RefusalError: ``PRESIGNATURE_SPENT``, or ``PRESIGNATURE_UNKNOWN``: there is none, it has expired, or it is for
                another key, ephemeral key or set of signers.
        """
        self._forget_expired()
        if id_ in self._spent:
            raise RefusalError(NodeCode.PRESIGNATURE_SPENT, "the presignature was used before")
        found = self._ready.get(id_)
        if found is None or found.owner != owner or found.signers != signers:
            raise RefusalError(NodeCode.PRESIGNATURE_UNKNOWN, "there is no such presignature for this")
        return found

    def take(self, stocked: StockedPresignature) -> Presignature:
        """Take a presignature out for good; from here on its id is spent."""
        del self._ready[stocked.name]
        self._uncount(stocked.owner, 1)
        self._spent[stocked.name] = None
        if len(self._spent) > _MOST_SPENT:
            self._spent.popitem(last=False)
        return stocked.presignature

    def discard(self, key_id: MpcKeyId, eph_id: str) -> None:
        """Throw away what an ephemeral key has: it was revoked."""
        self._drop([s for s in self._ready.values() if s.owner == PresignatureOwner(key_id, eph_id)])

    def clear(self) -> None:
        """Throw everything away: the node is stopping."""
        self._drop(list(self._ready.values()))

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            stocked = self._ready.get(heapq.heappop(self._expiries)[1])
            if stocked is not None:
                self._drop([stocked])

    def _drop(self, dropped: list[StockedPresignature]) -> None:
        for stocked in dropped:
            del self._ready[stocked.name]
            self._uncount(stocked.owner, 1)
            stocked.presignature.discard()

    def _uncount(self, owner: PresignatureOwner, count: int) -> None:
        self._counts[owner] -= count
        if not self._counts[owner]:
            del self._counts[owner]
