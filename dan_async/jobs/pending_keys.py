"""Session keys in two steps: to the challenge, and on with the signature that the owner's browser brings."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field, frozen

from dan_async._json import dump
from dan_async._values import check_int, check_reference, shown_name, to_hex
from dan_async.config import Threshold, Timeouts
from dan_async.crypto.address import parse_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.errors import (
    ClientClosedError,
    DanError,
    InvalidFieldError,
    NodeCode,
    OverloadedError,
    PendingNotFoundError,
    QuorumError,
    RecordConflictError,
    WalletRefusedError,
    WalletTimeoutError,
)
from dan_async.jobs.generate_session_key import run_prepared
from dan_async.jobs.keeping import SessionKeeper, intended
from dan_async.jobs.recover import settle, when_free
from dan_async.network import KeygenReport, KeygenRequest, Network, OpensKeygen
from dan_async.protocols.setups import EphemeralClaim
from dan_async.request import (
    ClaimOutdatedError,
    OnReport,
    PreparedRequest,
    SessionKeyParameters,
    SessionKeyRequest,
    clock_check,
    prepare,
)
from dan_async.session import DanSessionKeyPayload
from dan_async.types import Address, Clock, RequestId, TypedData
from dan_async.wallets.base import CallbackWallet, EoaAuth

if TYPE_CHECKING:
    from dan_async.storage.base import KeygenIntent, StoredSession

Sign: TypeAlias = Callable[[TypedData], Awaitable[str]]

#: How many whose time is over are cleared away for each that is begun.
_CLEARED_AT_ONCE = 8

#: How long a call that was called off has to end by itself, in seconds.
_CALL_OFF_S = 0.5


@frozen(kw_only=True)
class PendingSessionKey:
    """
    A session key that waits for its owner's signature. Nothing has been made.

    Args:
        id: Its name, for ``DanClient.complete_session_key``.
        owner: The address that has to sign.
        typed_data: The EIP-712 data to sign, as ``eth_signTypedData_v4`` takes it.
        expires_at: When it is too late to sign, in Unix seconds.
    """

    id: RequestId
    owner: Address
    typed_data: TypedData = field(repr=False)
    expires_at: int

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON members, for a page: id, owner, typedData, expiresAt. None is secret."""
        return {
            "id": self.id,
            "owner": self.owner,
            "typedData": self.typed_data,
            "expiresAt": self.expires_at,
        }

    def to_json(self) -> str:
        """Return ``to_dict()`` as JSON text."""
        return dump(self.to_dict())


class _Call:
    """A key generation over a network that cannot take one up again: a call, whose wallet waits for the signature."""

    task: asyncio.Task[DanSessionKeyPayload]

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[TypedData] = loop.create_future()
        self.signature: asyncio.Future[str] = loop.create_future()
        self.on_report: OnReport | None = None
        #: What those who are completing it are told, once it was called off.
        self.why_off: DanError | None = None

    async def sign(self, typed_data: TypedData) -> str:
        self.asked.set_result(typed_data)
        return await self.signature

    def report(self, report: KeygenReport) -> None:
        if self.on_report is not None:
            self.on_report(report)

    async def call_off(self, why: DanError) -> None:
        """End it: as if its owner had declined, so that no record is left, if nobody has signed yet."""
        self.why_off = why
        if not self.signature.done():
            self.signature.set_exception(WalletRefusedError("it was cancelled", hint="Begin again"))
            self.signature.exception()  # marks it as seen: the call may have ended before
            await asyncio.wait([self.task], timeout=_CALL_OFF_S)
        await cancel_and_wait([self.task])

    async def finish(self, sign: Sign, owner: Address, deadline: Deadline) -> DanSessionKeyPayload:
        typed_data = self.asked.result()
        await _check_signature(sign, owner, "", typed_data)
        if not self.signature.done():
            self.signature.set_result(await sign(typed_data))
        async with deadline.enforced("waiting for the session key"):
            await asyncio.wait([self.task])
        if self.task.cancelled():
            raise ClientClosedError("the client was closed", hint="Make a new DanClient, and begin again")
        try:
            return self.task.result()
        except WalletTimeoutError as error:
            raise _too_late() from error
        except WalletRefusedError as error:
            if self.why_off is None:
                raise
            raise self.why_off from error


@define(eq=False, repr=False)
class _Begun:
    """A session key that was begun here; a call, or a record in a store."""

    owner: Address
    expires_at: int
    call: _Call | None = None
    #: Whether it need not be waited for any more.
    is_over: bool = False
    #: How many callers are completing it.
    completing: int = 0


class PendingSessionKeys:
    """
    The session keys of one client that wait for their owners.

    Over a network that can take up a key generation again, each is a record: in the client's store, where every process
    finds it, or else in one that lives as long as the client.
    """

    def __init__(self, keeper: SessionKeeper | None, *, most: int, timeouts: Timeouts, clock: Clock) -> None:
        self._most = check_int("max_pending", most, least=1, most=1_000_000)
        self._keeper = keeper
        self._timeouts = timeouts
        self._clock = clock
        self._begun: dict[RequestId, _Begun] = {}
        self._beginning = 0
        self._is_closed = False

    @cached_property
    def _records(self) -> SessionKeeper:
        if self._keeper is not None:
            return self._keeper
        from dan_async.storage.base import MemorySessionStore

        return SessionKeeper(MemorySessionStore(clock=self._clock), self._clock)

    # --- the first step -----------------------------------------------------------------------------------------------

    async def begin(
        self, network: Network, owner: str, parameters: SessionKeyParameters
    ) -> PendingSessionKey:
        """Run the first step; ``DanClient.begin_session_key`` has the full description."""
        for name in parameters:
            if name not in SessionKeyParameters.__annotations__:
                raise InvalidFieldError(
                    shown_name(name, otherwise="a name"), "is not a parameter of begin_session_key"
                )
        call = _Call()
        request = SessionKeyRequest(
            wallet=CallbackWallet(parse_address("owner", owner), call.sign), **parameters
        )
        await self._make_room()
        self._beginning += 1
        try:
            check = clock_check(network)
            ready = partial(
                prepare,
                request,
                network,
                timeouts=self._timeouts,
                clock=self._clock,
                has_store=self._keeper is not None,
            )
            prepared = await ready()
            if isinstance(network, OpensKeygen):
                try:
                    return await self._open(network, prepared, check)
                except ClaimOutdatedError:
                    return await self._open(network, await ready())
            return await self._call(network, prepared, call)
        finally:
            self._beginning -= 1

    async def _make_room(self) -> None:
        """Clear away some whose time is over; raise an OverloadedError if that leaves no place."""
        now = self._clock()
        idle = [(pending_id, begun) for pending_id, begun in self._begun.items() if not begun.completing]
        late = [(pending_id, begun) for pending_id, begun in idle if begun.expires_at <= now]
        if not late and len(self._begun) + self._beginning >= self._most:
            late = [(pending_id, begun) for pending_id, begun in idle if begun.is_over][:1]
        late = late[:_CLEARED_AT_ONCE]
        for pending_id, _ in late:
            self._begun.pop(pending_id, None)
        for pending_id, begun in late:
            if begun.call is not None:
                await begun.call.call_off(_too_late(pending_id))
            else:  # anything else than that it waits is for the client's store to keep
                await self._records.store.delete(pending_id, expected="waiting" if self._keeper else None)
        waiting = len(self._begun) + self._beginning
        if waiting >= self._most:
            raise OverloadedError(
                f"{waiting} session keys already wait for their owners",
                waiting=waiting,
                hint="Nothing was begun. Try again later, or allow more with DanClient(max_pending=…)",
            )

    async def _open(
        self, network: OpensKeygen, prepared: PreparedRequest, check: Callable[[], None] | None = None
    ) -> PendingSessionKey:
        deadline, request_id = Deadline(prepared.timeout_s), prepared.keygen.request_id
        try:
            async with deadline.enforced("waiting for nodes to be ready", request_id=request_id):
                opened = await network.open_keygen(prepared.keygen, deadline=deadline)
            if check is not None:
                check()
            record = intended(prepared, now=self._clock(), opened=opened)
            async with deadline.enforced("storing the request", request_id=request_id):
                await self._records.store.save(record)
        finally:
            prepared.wipe_key()
        return self._noted(request_id, _Begun(prepared.owner, opened.expires_at), opened.typed_data)

    async def _call(self, network: Network, prepared: PreparedRequest, call: _Call) -> PendingSessionKey:
        request_id = prepared.keygen.request_id
        begun = _Begun(prepared.owner, math.floor(self._clock() + self._timeouts.wallet_s), call)
        keygen = partial(network.keygen, prepared.keygen)
        running = run_prepared(prepared, keygen, keeper=self._keeper, on_report=call.report)
        call.task = asyncio.create_task(running, name=f"dan keygen {request_id}")
        try:
            first: set[asyncio.Future[Any]] = {call.task, call.asked}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not call.asked.done():
                await call.task  # it has failed: the owner was not asked
            if self._is_closed:
                raise ClientClosedError("the client was closed", hint="Make a new DanClient")
        except BaseException:
            await cancel_and_wait([call.task])
            raise

        def end(task: asyncio.Task[DanSessionKeyPayload]) -> None:
            begun.is_over = True
            if not task.cancelled():
                task.exception()  # marks it as seen: perhaps nobody comes to complete it

        call.task.add_done_callback(end)
        return self._noted(request_id, begun, call.asked.result())

    def _noted(self, request_id: RequestId, begun: _Begun, typed_data: TypedData) -> PendingSessionKey:
        self._begun[request_id] = begun
        return PendingSessionKey(
            id=request_id, owner=begun.owner, typed_data=typed_data, expires_at=begun.expires_at
        )

    # --- the second step ----------------------------------------------------------------------------------------------

    async def complete(
        self,
        network: Network,
        pending_id: str,
        signature: str | bytes,
        *,
        timeout_s: float,
        on_report: OnReport | None,
    ) -> DanSessionKeyPayload:
        """Run the second step; ``DanClient.complete_session_key`` has the full description."""
        request_id = RequestId(check_reference("pending_id", pending_id))

        async def sign(_: TypedData) -> str:
            return to_hex(signature) if isinstance(signature, bytes) else signature

        begun, deadline = self._begun.get(request_id), Deadline(timeout_s)
        if begun is None:
            return await self._complete_record(network, request_id, sign, deadline, on_report)
        begun.completing += 1
        try:
            if begun.call is not None:
                begun.call.on_report = on_report
                return await begun.call.finish(sign, begun.owner, deadline)
            session = await self._complete_record(network, request_id, sign, deadline, on_report)
        finally:
            begun.completing -= 1
        begun.is_over = True
        return session

    async def _complete_record(
        self,
        network: Network,
        request_id: RequestId,
        sign: Sign,
        deadline: Deadline,
        on_report: OnReport | None,
    ) -> DanSessionKeyPayload:
        get = partial(self._records.store.get, request_id)
        async with deadline.enforced("reading the store", request_id=request_id):
            record = await get()
        if record is None:
            raise PendingNotFoundError(
                "no session key with this id waits for its owner",
                hint="It was completed or cancelled, it is too late, or another process began it without a shared "
                "store: begin again",
                request_id=request_id,
            )
        intent = record.intent
        if intent is None or intent.opened is None or not isinstance(network, OpensKeygen):
            raise PendingNotFoundError(
                "this session key waits with a connection to a gateway, in the process that began it",
                hint="Bring the signature to that process while it lasts, or begin again",
                request_id=request_id,
            )
        opened = network.reopen_keygen(_request_of(record, intent), intent.opened)
        owner = await _check_signature(sign, record.owner, opened.challenge, opened.typed_data)
        while True:
            record = await when_free(self._records, get, deadline.remaining() or 0.0)
            if record is None or (record.state == "waiting" and opened.expires_at <= self._clock()):
                raise _too_late(request_id)
            if record.state == "active" and record.session is not None:
                return record.session
            if record.state not in ("waiting", "pending"):
                raise PendingNotFoundError(
                    f"the session key is {record.state} {record.problem}".rstrip(),
                    hint="Begin again",
                    request_id=request_id,
                )
            prepared = PreparedRequest(
                keygen=_request_of(record, intent),
                auth=owner,
                ephemeral_key=EphemeralKey.from_hex(intent.hex_eph_sk, intent.eph_alg),
                owns_key=True,
                owner=record.owner,
                chain_id=record.chain_id,
                timeout_s=deadline.remaining() or 0.0,
                reference=record.reference,
            )
            try:
                return await run_prepared(
                    prepared, opened.finish, keeper=self._records, known=record, on_report=on_report
                )
            except RecordConflictError:  # somebody else was faster: theirs is the same key
                if deadline.is_over:
                    raise
            except QuorumError as error:
                conflicts = [o for o in error.outcomes if o.code == NodeCode.REQUEST_CONFLICT]
                if len(conflicts) < error.threshold:
                    raise
                # A call that was broken off had brought another signature of the owner's, and the nodes did their work.
                record = record.changed("pending", now=self._clock())
                settled = await settle(network, self._records, record, timeout_s=deadline.remaining() or 0.0)
                if settled.session is None:
                    raise
                return settled.session

    # --- no second step -----------------------------------------------------------------------------------------------

    async def cancel(self, pending_id: str) -> bool:
        """Call one off; ``DanClient.cancel_session_key`` has the full description."""
        request_id = RequestId(check_reference("pending_id", pending_id))
        begun = self._begun.get(request_id)
        if begun is None or begun.call is None:
            deleting = self._records.store.delete(request_id, expected="waiting")
            deadline = Deadline(self._timeouts.total_s)
            is_gone = await self._records.in_time(deleting, "cancelling it", deadline, request_id)
        else:
            is_gone = not begun.call.signature.done()
            if is_gone:
                await begun.call.call_off(_too_late(request_id))
        if is_gone:
            self._begun.pop(request_id, None)
        return is_gone

    async def aclose(self) -> None:
        """End the calls; records stay in the client's store, to be completed by others."""
        self._is_closed = True
        closed = ClientClosedError("the client was closed", hint="Make a new DanClient, and begin again")
        calls = [begun.call for begun in self._begun.values() if begun.call is not None]
        await asyncio.gather(*(call.call_off(closed) for call in calls))


async def _check_signature(sign: Sign, owner: Address, challenge: str, typed_data: TypedData) -> EoaAuth:
    """Return the owner, who has signed."""
    auth = EoaAuth(CallbackWallet(owner, sign))
    await auth.authorise(challenge=challenge, typed_data=typed_data)
    return auth


def _too_late(request_id: RequestId | None = None) -> PendingNotFoundError:
    return PendingNotFoundError(
        "the session key no longer waits for its owner: it was cancelled, or it is too late",
        hint="Nothing was made. Begin again",
        request_id=request_id,
    )


def _request_of(record: StoredSession, intent: KeygenIntent) -> KeygenRequest:
    with EphemeralKey.from_hex(intent.hex_eph_sk, intent.eph_alg) as key:
        claim = EphemeralClaim(
            eph_id=intent.eph_id, eph_pk=key.public_key, expiry=record.expires_at, sign_alg=intent.eph_alg
        )
    return KeygenRequest(
        request_id=record.record_id,
        owner_id=intent.owner_id,
        threshold=Threshold(intent.threshold, intent.parties_number),
        claim=claim,
        permissions=intent.permissions,
        key_label=intent.key_label,
        min_parties=intent.min_parties,
        min_holders=intent.min_holders,
    )
