"""
What a devnet node can be made to do wrong, so that software can be tested against a network that misbehaves.

A fault is a frozen value; ``net.faults[index] = fault`` puts it in force at ``net.nodes[index]``, also while requests are
running, several at once as a list, and None takes all away. ``methods`` limits a fault to some RPC methods, ``times``
to so many uses.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

import attrs
from attrs import evolve, field, frozen

from dan_async.crypto.point import ORDER, base_multiply, encode
from dan_async.devnet.identity import NodeIdentity
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int, check_seconds, check_text, optional, required
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.types import Json
from dan_async.wire.node_hashes import acknowledgement_digest

__all__ = [
    "Crash",
    "DealWrongShare",
    "Delay",
    "DropReply",
    "DropRequest",
    "Equivocate",
    "FallSilent",
    "Fault",
    "FaultBoard",
    "ForgeShares",
    "ForgeSignature",
    "NodeFaults",
]


class RequestDropped(Exception):  # noqa: N818 - nothing went wrong that was not asked for
    """The fault in force is that this request gets no answer."""


class NodeCrashed(Exception):  # noqa: N818 - as above
    """The fault in force is that the node dies here."""


def _check_methods(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidFieldError(attribute.name, "must be a list of RPC methods")
    for method in value:
        check_text("methods", method, most=64)


@frozen(kw_only=True)
class Fault:
    """
    Something a node does wrong.

    Args:
        methods: The RPC methods concerned; all, if there are none.
        times: How often it happens; always, if None.
    """

    methods: tuple[str, ...] = field(default=(), converter=tuple, validator=_check_methods)
    times: int | None = field(default=None, validator=optional(check_int, least=1, most=2**31))

    def to_dict(self) -> dict[str, Json]:
        """Give it as JSON members, for a node in another process."""
        members = attrs.asdict(self)
        return {**members, "kind": type(self).__name__, "methods": list(self.methods)}

    @staticmethod
    def from_dict(members: Mapping[str, Json]) -> Fault:
        """
        Read it back.

        Raises:
            InvalidFieldError: There is no such fault.
        """
        values = dict(members)
        name = values.pop("kind", None)
        kind = next((kind for kind in _KINDS if kind.__name__ == name), None)
        if kind is None:
            raise InvalidFieldError("fault", "is of an unknown kind")
        return kind(**values)


@frozen(kw_only=True)
class Delay(Fault):
    """
    The node begins to work on a request only after a while.

    Args:
        seconds: How long.
    """

    seconds: float = field(validator=required(check_seconds))


@frozen(kw_only=True)
class DropRequest(Fault):
    """The node does not answer, and does nothing."""


@frozen(kw_only=True)
class DropReply(Fault):
    """The node does the work, and its answer is lost."""


@frozen(kw_only=True)
class Crash(Fault):
    """The node does the work, and dies before it answers; ``start`` brings it back."""


@frozen(kw_only=True)
class ForgeSignature(Fault):
    """The node's acknowledgements are signed with another key than its operator's."""


@frozen(kw_only=True)
class ForgeShares(Fault):
    """The node's acknowledgements list public shares that do not make the public key, properly signed."""


@frozen(kw_only=True)
class DealWrongShare(Fault):
    """In key generation, the node sends one party a share that does not fit its commitments."""


@frozen(kw_only=True)
class Equivocate(Fault):
    """In key generation, the node tells one party something else than the others."""


@frozen(kw_only=True)
class FallSilent(Fault):
    """
    In key generation, the node sends nothing from some round on.

    Args:
        round: The round: 1 commit, 2 open, 3 echo.
    """

    round: int = field(default=1, validator=required(check_int, least=1, most=3))


_KINDS: tuple[type[Fault], ...] = (
    Crash,
    DealWrongShare,
    Delay,
    DropReply,
    DropRequest,
    Equivocate,
    FallSilent,
    ForgeShares,
    ForgeSignature,
)


class NodeFaults:
    """The faults in force at one node; the node asks at each point where something may go wrong."""

    #: The methods whose answer is an acknowledgement.
    ACKNOWLEDGED: ClassVar = "dan_keygen"

    def __init__(self) -> None:
        self._faults: tuple[Fault, ...] = ()
        self._uses: dict[int, int] = {}

    @property
    def active(self) -> tuple[Fault, ...]:
        """The faults as they were set."""
        return self._faults

    def set(self, faults: Iterable[Fault]) -> None:
        """Put these in force and take away what was."""
        self._faults = tuple(faults)
        self._uses = {}

    async def before_work(self, method: str) -> None:
        """Delay or drop a request that has arrived."""
        for delay in self._take(Delay, method):
            if isinstance(delay, Delay):
                await asyncio.sleep(delay.seconds)
        if any(self._take(DropRequest, method)):
            raise RequestDropped

    def forge(self, ack: Acknowledgement, identity: NodeIdentity) -> Acknowledgement:
        """Give the acknowledgement that the node sends instead of its true one."""
        if any(self._take(ForgeShares, self.ACKNOWLEDGED)):
            forged = [encode(base_multiply(1 + secrets.randbelow(ORDER - 1))) for _ in ack.public_shares]
            ack = evolve(ack, public_shares=tuple(forged))
            ack = evolve(ack, signature=identity.sign(acknowledgement_digest(ack)))
        if any(self._take(ForgeSignature, self.ACKNOWLEDGED)):
            ack = evolve(ack, signature=NodeIdentity.generate().sign(acknowledgement_digest(ack)))
        return ack

    def before_reply(self, method: str) -> None:
        """Lose the answer, or the node, when the work is done."""
        if any(self._take(Crash, method)):
            raise NodeCrashed
        if any(self._take(DropReply, method)):
            raise RequestDropped

    def in_key_generation(self) -> tuple[Fault, ...]:
        """Give the faults of a key generation that begins."""
        kinds = (DealWrongShare, Equivocate, FallSilent)
        return tuple(fault for kind in kinds for fault in self._take(kind, self.ACKNOWLEDGED))

    def _take(self, kind: type[Fault], method: str) -> list[Fault]:
        taken = []
        for position, fault in enumerate(self._faults):
            if not isinstance(fault, kind) or (fault.methods and method not in fault.methods):
                continue
            used = self._uses.get(position, 0)
            if fault.times is None or used < fault.times:
                self._uses[position] = used + 1
                taken.append(fault)
        return taken


class FaultBoard(MutableMapping[int, tuple[Fault, ...]]):
    """
    ``Devnet.faults``: the faults in force, by the node's place in ``Devnet.nodes``.

    Args:
        count: How many nodes there are.
        apply: Tells a node what is in force now.
    """

    def __init__(self, count: int, apply: Callable[[int, tuple[Fault, ...]], None]) -> None:
        self._faults: list[tuple[Fault, ...]] = [()] * count
        self._apply = apply

    def __getitem__(self, index: int) -> tuple[Fault, ...]:
        if index not in range(len(self._faults)):
            raise KeyError(index)
        return self._faults[index]

    def __setitem__(self, index: int, faults: Fault | Iterable[Fault] | None) -> None:
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
