"""``Devnet.faults``: which faults are in force at which node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping

from dan_async.devnet.faults.base import Fault
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int

__all__ = ["FaultBoard", "Faults"]

#: What may be set: one fault, several, or none.
Faults = Fault | Iterable[Fault] | None


class FaultBoard(MutableMapping[int, tuple[Fault, ...]]):
    """
    ``Devnet.faults``: the faults in force, by the node's place in ``Devnet.nodes``, from 0.

    Args:
        count: How many nodes there are.
        apply: Tells a node what is in force now.
        first: The faults to begin with.
    """

    def __init__(
        self,
        count: int,
        apply: Callable[[int, tuple[Fault, ...]], None],
        first: Mapping[int, Faults] | None = None,
    ) -> None:
        self._faults: list[tuple[Fault, ...]] = [()] * count
        self._apply = apply
        for index, faults in (first or {}).items():
            self[index] = faults

    def __getitem__(self, index: int) -> tuple[Fault, ...]:
        if index not in range(len(self._faults)):
            raise KeyError(index)
        return self._faults[index]

    def __setitem__(self, index: int, faults: Faults) -> None:
        listed = () if faults is None else (faults,) if isinstance(faults, Fault) else tuple(faults)
        if not all(isinstance(fault, Fault) for fault in listed):
            raise InvalidFieldError("faults", "must be a Fault, a list of them, or None")
        self._faults[self._checked(index)] = listed
        self._apply(index, listed)

    def __delitem__(self, index: int) -> None:
        self[index] = None

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._faults)))

    def __len__(self) -> int:
        return len(self._faults)

    def _checked(self, index: int) -> int:
        return check_int("index", index, least=0, most=len(self._faults) - 1)
