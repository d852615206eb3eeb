"""The faults in force: at one node, with how often each was used, and at all of them, as ``Devnet.faults``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TypeVar

from dan_async._values import check_int, check_list, check_mapping
from dan_async.deadline import wait_for_event
from dan_async.devnet.faults.kinds import KINDS, Bodies, Fault, HttpRefusal, ReplyFault
from dan_async.devnet.faults.lies import KeygenFace, Sign
from dan_async.errors import InvalidFieldError
from dan_async.protocols.node import Acknowledgement, ChangeReceipt, SignatureShares

T = TypeVar("T")

_KEYGEN, _PRESIGN, _SIGN = "dan_keygen", "dan_presign", "dan_sign"


class NodeFaults:
    """The faults in force at one node, which asks at each point where something may go wrong."""

    def __init__(
        self,
        *,
        wait: Callable[[asyncio.Event, float], Awaitable[object]] = wait_for_event,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._wait = wait
        self._random = random
        self._faults: tuple[Fault, ...] = ()
        self._groups: tuple[list[int], ...] = ()
        self._uses: dict[int, int] = {}
        self._on_change: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    @property
    def uses(self) -> Mapping[int, int]:
        """How often each fault was used, by its place."""
        return dict(self._uses)

    def set(self, faults: Iterable[Fault], uses: Mapping[int, int] | None = None) -> None:
        """Put these in force and take away what was; *uses* says how often each was used already, by place."""
        self._faults = tuple(faults)
        places = ([p for p, fault in enumerate(self._faults) if isinstance(fault, kind)] for kind in KINDS)
        self._groups = tuple(group for group in places if group)
        self._uses = dict(uses or {})
        self._changed.set()  # delayed requests go on
        self._changed = asyncio.Event()
        if self._on_change is not None:
            self._on_change()

    def watch(self, on_change: Callable[[], None] | None) -> None:
        """Have a function called after each change; the node that runs does so, and passes None when it stops."""
        self._on_change = on_change

    def is_in_force(self, fault: Fault) -> bool:
        return any(fault is active for active in self._faults)

    # --- connections --------------------------------------------------------------------------------------------------

    @property
    def is_refusing(self) -> bool:
        return any(fault.refuses_connections for fault in self._faults)

    @property
    def cuts_clients(self) -> bool:
        """Whether the connections of clients are to be cut when the faults have changed."""
        return any(fault.cuts_clients for fault in self._faults)

    @property
    def keeps_certificates(self) -> bool:
        return any(fault.keeps_certificates for fault in self._faults)

    def turn_away(self) -> HttpRefusal | None:
        """Return the HTTP status with which an upgrade or a POST is turned away."""
        return self._first("", lambda fault: fault.on_connect())

    def spoil_reply(self, method: str) -> ReplyFault | None:
        return self._first(method, lambda fault: fault.on_reply())

    # --- requests -----------------------------------------------------------------------------------------------------

    async def before_work(self, method: str) -> None:
        """Delay or drop a request that has arrived."""
        changed = self._changed
        delays = [
            s for group in self._use(method, lambda fault: fault.on_arrival(self._random)) for s in group
        ]
        for seconds in delays:
            await self._wait(changed, seconds)
        self._end(method, lambda fault: fault.on_request())

    def expires_nonce(self, method: str) -> bool:
        return self._first(method, lambda fault: fault.on_nonce()) is not None

    def before_reply(self, method: str) -> None:
        """Lose the answer, or the node, when the work is done."""
        self._end(method, lambda fault: fault.on_result())

    def forge(self, ack: Acknowledgement, sign: Sign, *, owner_id: str) -> Acknowledgement:
        forged = ack

        def falsify(fault: Fault) -> Acknowledgement | None:
            return fault.on_acknowledgement(forged, sign, owner_id)

        for forgeries in self._use(_KEYGEN, falsify):  # each kind on top of the last
            forged = forgeries[0]
        return forged

    def forge_receipt(self, method: str, receipt: ChangeReceipt, sign: Sign) -> ChangeReceipt:
        return self._first(method, lambda fault: fault.on_receipt(receipt, sign)) or receipt

    # --- key generation -----------------------------------------------------------------------------------------------

    def begin_keygen(self, face: KeygenFace) -> Callable[[int, Bodies, Bodies], Bodies]:
        """
        Return what comes of the faults in a key generation that begins: a function of a round, and its bodies.

        It loses the node before it sends the round, or returns other bodies; last come the other parties' bodies of round 1.
        """
        faults = list(self._use(_KEYGEN, lambda fault: fault.on_keygen()))

        def outgoing(round_: int, bodies: Bodies, committed: Bodies) -> Bodies:
            self._end(_KEYGEN, lambda fault: fault.before_keygen_round(round_))
            face.commitments = committed
            for group in faults:
                # The first that changes anything: the same lie told twice might be none.
                told = (fault.on_keygen_round(round_, bodies, face) for fault in group)
                bodies = next((changed for changed in told if changed is not None), bodies)
            return bodies

        return outgoing

    # --- signing ------------------------------------------------------------------------------------------------------

    def signing_round(self, round_: int, bodies: Bodies) -> Bodies:
        """Lose the node, or its part, before it sends its messages of a round of a presignature, or return others."""
        self._end(_PRESIGN, lambda fault: fault.before_signing_round(round_, bodies))
        changed = self._first(_PRESIGN, lambda fault: fault.on_signing_round(round_, bodies))
        return bodies if changed is None else changed

    def forge_shares(self, shares: SignatureShares, sign: Sign) -> SignatureShares:
        return self._first(_SIGN, lambda fault: fault.on_shares(shares, sign)) or shares

    # --- use ----------------------------------------------------------------------------------------------------------

    def _end(self, method: str, hook: Callable[[Fault], Exception | None]) -> None:
        ending = self._first(method, hook)
        if ending is not None:
            raise ending

    def _first(self, method: str, hook: Callable[[Fault], T | None]) -> T | None:
        return next((outcomes[0] for outcomes in self._use(method, hook)), None)

    def _use(self, method: str, hook: Callable[[Fault], T | None]) -> Iterator[list[T]]:
        """
        Call a hook of the faults in force and yield what they do, kind after kind.

        All of one kind are used at once, also where only the first then matters; a later kind is not used before it is
        asked for.
        """
        for group in self._groups:
            outcomes = []
            for place in group:
                fault, used = self._faults[place], self._uses.get(place, 0)
                is_spared = bool(fault.methods) and method not in fault.methods
                if is_spared or (fault.times is not None and used >= fault.times):
                    continue
                outcome = hook(fault.at_use(used))
                if outcome is not None:
                    self._uses[place] = used + 1
                    outcomes.append(outcome)
            if outcomes:
                yield outcomes


#: What may be set: one fault, several, or none.
Faults = Fault | Iterable[Fault] | None


class FaultBoard(MutableMapping[int, tuple[Fault, ...]]):
    """``Devnet.faults``: the faults in force, by the node's place in ``Devnet.nodes``; *apply* puts them in force there."""

    def __init__(
        self,
        count: int,
        apply: Callable[[int, tuple[Fault, ...]], None],
        first: Mapping[int, Faults] | None = None,
    ) -> None:
        self._faults: list[tuple[Fault, ...]] = [()] * count
        self._apply = apply
        for index, faults in check_mapping("faults", first or {}).items():
            self[index] = faults

    def __getitem__(self, index: int) -> tuple[Fault, ...]:
        if index not in range(len(self._faults)):
            raise KeyError(index)
        return self._faults[index]

    def __setitem__(self, index: int, faults: Faults) -> None:
        listed = (
            () if faults is None else (faults,) if isinstance(faults, Fault) else check_list("faults", faults)
        )
        if not all(isinstance(fault, Fault) for fault in listed):
            raise InvalidFieldError(
                "faults", "must be a Fault, a list of them, or None", hint="For example Delay(seconds=2)"
            )
        self._faults[check_int("index of faults", index, least=0, most=len(self._faults) - 1)] = listed
        self._apply(index, listed)

    def __delitem__(self, index: int) -> None:
        self[index] = None

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._faults)))

    def __len__(self) -> int:
        return len(self._faults)
