"""What a node keeps about every other node that it has a set-up for signing with, bans included."""

from __future__ import annotations

from dan_async.devnet.mpc.pair_state import PairState
from dan_async.devnet.share_store import ShareStore, ShareStoreError
from dan_async.errors import DanError
from dan_async.types import OperatorAddress
from dan_async.wire.json_text import dump, load
from dan_async.wire.members import members

__all__ = ["PAIR_PREFIX", "PairStore"]

#: Names of pair records in the node's store begin with this.
PAIR_PREFIX = "pair-"

_VERSION = 1
_MEMBERS = ("version", "operator", "state")


class PairStore:
    """
    The set-ups of one node with others, in memory for use and in the store for the next start.

    A ban outlives everything: a later set-up with the same node is stored as banned.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: ShareStore) -> None:
        self._store = store
        self._pairs: dict[OperatorAddress, PairState] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def load(self) -> None:
        """
        Read everything from the store. Blocks.

        Raises:
            ShareStoreError: A record cannot be read; a node does not start if it might have forgotten a ban.
        """
        for name in self._store.names():
            data = self._store.get(name) if name.startswith(PAIR_PREFIX) else None
            if data is not None:
                operator, state = _decode(data)
                self._pairs[operator] = state

    def get(self, operator: OperatorAddress) -> PairState | None:
        """Give this side of the set-up with a node, or None if there was none."""
        return self._pairs.get(operator)

    def put(self, operator: OperatorAddress, state: PairState) -> None:
        """Keep a set-up in the place of an earlier one, durably before anyone can use it. Blocks."""
        known = self._pairs.get(operator)
        state.banned |= known is not None and known.banned
        self._store.put(_name(operator), _encode(operator, state))
        self._pairs[operator] = state

    def ban(self, operator: OperatorAddress) -> None:
        """Never run with a node again: at once in memory, and durably before this returns. Blocks."""
        state = self._pairs[operator]
        state.banned = True
        self._store.put(_name(operator), _encode(operator, state))


def _name(operator: OperatorAddress) -> str:
    return PAIR_PREFIX + operator[2:].lower()


def _encode(operator: OperatorAddress, state: PairState) -> bytes:
    return dump({"version": _VERSION, "operator": operator, "state": state.to_dict()}).encode()


def _decode(data: bytes) -> tuple[OperatorAddress, PairState]:
    try:
        found = members(load(data), "record", _MEMBERS)
        if found["version"] != _VERSION:
            raise ShareStoreError(f"the record of a pair is of version {found['version']}, not {_VERSION}")
        return OperatorAddress(found["operator"]), PairState.from_dict(found["state"])
    except ShareStoreError:
        raise
    except DanError as error:
        raise ShareStoreError(f"the record of a pair is malformed: {error.message}") from error
