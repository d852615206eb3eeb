"""
The faults in force at one node, and how often each was used.

``Devnet.faults``: which faults are in force at which node.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TypeVar

from attrs import evolve

from dan_async._values import check_int
from dan_async.deadline import wait_for_event
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.faults.kinds import (
    GARBAGE_FORMS,
    AcknowledgeOtherKey,
    CheatInSigning,
    Crash,
    CrashInSigning,
    DealWrongShare,
    Delay,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    Fault,
    ForgeShares,
    ForgeSignature,
    HttpError,
    NodeCrashed,
    RefuseConnections,
    RequestDropped,
    SendGarbage,
    SilentInSigning,
    Trickle,
    WrongSignatureShare,
    forge_signature_shares,
    spoil_multiplication,
)
from dan_async.devnet.faults.lies import forge_shares, forge_signature, substitute_key
from dan_async.errors import InvalidFieldError
from dan_async.protocols.node_claims import Acknowledgement
from dan_async.protocols.node_signing import SignatureShares

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


T = TypeVar("T", bound=Fault)

#: The method whose answer is an acknowledgement.
_KEYGEN = "dan_keygen"

_PRESIGN, _SIGN = "dan_presign", "dan_sign"

#: The last round of a presignature.
_MULTIPLY = 2


def _any(_: object) -> bool:
    return True


class NodeFaults:
    """
    The faults in force at one node; the node asks at each point where something may go wrong.

    Args:
        wait: Waits for an event, but no longer than so many seconds; injected by tests.
        random: Gives numbers from 0 to 1 for jitter; injected by tests. Not a source of secrets.
    """

    def __init__(
        self,
        *,
        wait: Callable[[asyncio.Event, float], Awaitable[object]] = wait_for_event,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._wait = wait
        self._random = random
        self._faults: tuple[Fault, ...] = ()
        self._uses: dict[int, int] = {}
        self._on_change: Callable[[], None] | None = None
        self._changed = asyncio.Event()

    @property
    def active(self) -> tuple[Fault, ...]:
        """The faults as they were set."""
        return self._faults

    @property
    def uses(self) -> Mapping[int, int]:
        """How often each fault was used, by its place in ``active``."""
        return dict(self._uses)

    def set(self, faults: Iterable[Fault], uses: Mapping[int, int] | None = None) -> None:
        """
        Put these in force and take away what was.

        Args:
            faults: The faults.
            uses: How often each was used already, by place.
        """
        self._faults = tuple(faults)
        self._uses = dict(uses or {})
        self._changed.set()  # what is being delayed goes on
        self._changed = asyncio.Event()
        if self._on_change is not None:
            self._on_change()

    def watch(self, on_change: Callable[[], None] | None) -> None:
        """Have a function called after each change; the node that runs does so, and says None when it stops."""
        self._on_change = on_change

    def is_in_force(self, fault: Fault) -> bool:
        """Tell whether a fault has not been taken away meanwhile."""
        return any(fault is active for active in self._faults)

    # --- connections --------------------------------------------------------------------------------------------------

    @property
    def is_refusing(self) -> bool:
        """Whether nobody may connect."""
        return any(isinstance(fault, RefuseConnections) for fault in self._faults)

    @property
    def cuts_clients(self) -> bool:
        """Whether the connections of clients are to be cut when the faults have changed."""
        return any(isinstance(fault, HttpError | RefuseConnections) for fault in self._faults)

    def http_error(self) -> HttpError | None:
        """Give the status with which an upgrade or a POST is turned away."""
        return next(iter(self._take(HttpError, "")), None)

    def spoil_reply(self, method: str) -> Disconnect | SendGarbage | Trickle | None:
        """Give what becomes of an answer that is about to be sent."""
        for disconnect in self._take(Disconnect, method):
            return disconnect
        for position, garbage in self._taken(SendGarbage, method, _any):
            form = garbage.form or GARBAGE_FORMS[(self._uses[position] - 1) % len(GARBAGE_FORMS)]
            return evolve(garbage, form=form)
        return next(iter(self._take(Trickle, method)), None)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def before_work(self, method: str) -> None:
        """Delay or drop a request that has arrived."""
        for delay in self._take(Delay, method):
            seconds = delay.seconds + delay.jitter_s * (2 * self._random() - 1)
            await self._wait(self._changed, max(0.0, seconds))
        if self._take(DropRequest, method):
            raise RequestDropped

    def expires_nonce(self, method: str) -> bool:
        """Tell whether a nonce that is being used is to be taken for an expired one."""
        return bool(self._take(ExpireNonces, method))

    def before_reply(self, method: str) -> None:
        """Lose the answer, or the node, when the work is done."""
        for crash in self._take(Crash, method, lambda crash: crash.at_round is None):
            raise NodeCrashed(crash.restart_after)
        if self._take(DropReply, method):
            raise RequestDropped

    def forge(self, ack: Acknowledgement, identity: NodeIdentity, *, owner_id: str) -> Acknowledgement:
        """Give the acknowledgement that the node sends instead of its true one."""
        if self._take(AcknowledgeOtherKey, _KEYGEN):
            ack = substitute_key(ack, identity.sign, owner_id)
        if self._take(ForgeShares, _KEYGEN):
            ack = forge_shares(ack, identity.sign)
        if self._take(ForgeSignature, _KEYGEN):
            ack = forge_signature(ack)
        return ack

    # --- key generation -----------------------------------------------------------------------------------------------

    def in_key_generation(self) -> tuple[Fault, ...]:
        """Give the faults of a key generation that begins."""
        kinds: tuple[type[Fault], ...] = (DealWrongShare, Equivocate, FallSilent)
        return tuple(fault for kind in kinds for fault in self._take(kind, _KEYGEN))

    def before_round(self, round_: int) -> None:
        """Lose the node before it sends its messages of a round."""
        for crash in self._take(Crash, _KEYGEN, lambda crash: crash.at_round == round_):
            raise NodeCrashed(crash.restart_after)

    # --- signing ------------------------------------------------------------------------------------------------------

    def signing_round(self, round_: int, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:
        """
        Lose the node before it sends its messages of a round, or give what it sends instead.

        Args:
            round_: The round: 1 commit, 2 multiply.
            bodies: What it should send to each other signer.
        """
        for crash in self._take(CrashInSigning, _PRESIGN, lambda crash: crash.at_round == round_):
            raise NodeCrashed(crash.restart_after)
        if self._take(SilentInSigning, _PRESIGN, lambda silent: silent.round == round_):
            return {}
        if self._take(CheatInSigning, _PRESIGN, lambda _: round_ == _MULTIPLY):
            return spoil_multiplication(bodies)
        return bodies

    def forge_shares(self, shares: SignatureShares, identity: NodeIdentity) -> SignatureShares:
        """Give the shares of signatures that the node sends instead of its true ones."""
        if self._take(WrongSignatureShare, _SIGN):
            return forge_signature_shares(shares, identity.sign)
        return shares

    # ------------------------------------------------------------------------------------------------------------------

    def _take(self, kind: type[T], method: str, applies: Callable[[T], bool] = _any) -> list[T]:
        return [fault for _, fault in self._taken(kind, method, applies)]

    def _taken(self, kind: type[T], method: str, applies: Callable[[T], bool]) -> list[tuple[int, T]]:
        """Find the faults that apply here, and count this use of them."""
        taken = []
        for position, fault in enumerate(self._faults):
            if not isinstance(fault, kind) or (fault.methods and method not in fault.methods):
                continue
            used = self._uses.get(position, 0)
            if applies(fault) and (fault.times is None or used < fault.times):
                self._uses[position] = used + 1
                taken.append((position, fault))
        return taken
