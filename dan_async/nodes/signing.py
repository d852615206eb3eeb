"""
Signing over the nodes themselves (docs/reference/node-protocol.md, "Signing").

First t nodes make a presignature, then the same t sign the message: two round trips, or one if the presignature was made
ahead. Calls wait for their turn in a queue.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import TypeAlias

from attrs import define, field, frozen

from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline, TimeLimits, cancel_and_wait, settle, wait_for_event
from dan_async.errors import (
    DanError,
    FailureKind,
    NodeCode,
    OverloadedError,
    QuorumError,
    RateLimitedError,
    failure_kind,
)
from dan_async.network import SigningOptions, SigningOrder
from dan_async.nodes.health import Lateness, NetworkClock, rank
from dan_async.nodes.node import Node, Request
from dan_async.nodes.signature_shares import (
    ExpectedShares,
    Offers,
    SpoiltSharesError,
    check_offers,
    join_shares,
)
from dan_async.nodes.signing_race import Run, SetFailedError, SignerRace, ask_set
from dan_async.protocols.fields import decode_key_id, encode, new_request_id
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    PRESIGN,
    SIGN,
    SIGNGEN,
    PresignatureOffer,
    PresignParams,
    SignatureShares,
    SignParams,
    presign_digest,
    setup_hash,
    sign_challenge,
)
from dan_async.protocols.setups import UserAuthentication
from dan_async.retry import Tries
from dan_async.types import MpcKeyId, OperatorAddress, RequestId

PresignRequest: TypeAlias = Request[PresignatureOffer]

#: How long the nodes may keep a presignature that is asked for, in seconds. Usually their own limit is shorter; this one
#: leaves room for clocks that differ.
_PRESIGN_S = 120

#: Seconds that making a presignature ahead may take; and for which each signer has to keep it, if the others do.
_REFILL_S = 15.0
_LEAST_LIFE_S = 5.0

#: The shortest wait, in seconds, before a call is tried again because nodes are busy: a dishonest node could ask for none,
#: and so have the others asked without end.
_LEAST_BUSY_S = 0.05

#: How long after it has asked the client begins the work that does not depend on the answers, in seconds: by then, nodes on
#: the same machine have read the request.
_MEANWHILE_S = 0.001

#: A signer is slow if its latency is more than so many times that of the slowest of the t quickest nodes, plus so many
#: seconds.
_SLOW_TIMES, _SLOW_S = 1.25, 0.01

#: Sessions whose stock is remembered at the same time, sessions that are slowed down, and keys whose nodes without a share
#: are remembered.
_MOST_SESSIONS = 1024
_MOST_LIMITS = 1024
_MOST_KEYS = 1024

#: Signatures of a session that lie further back than this, in seconds, do not count.
_MEMORY_S = 60.0


class NodeSigner:
    """Signs for a ``NodeNetwork``; it owns the stock of presignatures and the tasks that refill it."""

    def __init__(self, nodes: Sequence[Node], *, options: SigningOptions, clock: NetworkClock) -> None:
        self._nodes = nodes
        self._by_operator = {node.operator: node for node in nodes}
        self._options = options
        self._clock = clock
        self.stock = PresignStock(options.stock)
        self.queue = SigningQueue(options.at_once, options.max_waiting)
        self.lateness = Lateness()
        self._without_share: dict[MpcKeyId, set[OperatorAddress]] = {}
        self._refills: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def aclose(self) -> None:
        """Discard the stock, stop making presignatures, and end calls that wait until the nodes are less busy."""
        self._closing.set()
        self.stock.clear()
        await cancel_and_wait(tuple(self._refills))

    async def sign(self, order: SigningOrder, key: EphemeralKey, *, deadline: Deadline) -> tuple[bytes, ...]:
        """Sign the messages of an order; see ``Network.signgen``. The signatures were checked to recover to the key."""
        decode_key_id(order.key_id)
        session = order.key_id, order.claim.eph_id  # presignatures belong to both
        job: _SigningJob | None = None  # thousands of calls may wait for a place
        is_again = False
        while True:
            correction_s = self._clock.correction_s(order.t)
            try:
                with await self.queue.place(session, deadline, is_again=is_again):
                    job = job or _SigningJob(self, order, session, key, deadline)
                    job.presigned_by = math.floor(self._clock.wall() + correction_s) + _PRESIGN_S
                    return await self._race(job, deadline)
            except QuorumError as error:
                is_again = True
                if (
                    any(outcome.code == NodeCode.CHALLENGE_EXPIRED for outcome in error.outcomes)
                    and self._clock.correction_s(order.t) != correction_s
                ):
                    continue  # the refusals say what time it is
                wait_s = self._busy_s(error, order.t)
                if wait_s is None:
                    if self._without_share.pop(order.key_id, None):
                        continue  # these may hold it by now
                    self.stock.drop(session)
                    raise
                if deadline.cap(wait_s) != wait_s:
                    raise self.queue.overloaded("the nodes ask to slow down, past the deadline") from error
                self.queue.slow_down(session)
            await wait_for_event(self._closing, wait_s)

    async def _race(self, job: _SigningJob, deadline: Deadline) -> tuple[bytes, ...]:
        order, session = job.order, job.session
        job.stocked = self.stock.take(session, len(order.digests), usable=self._may_sign)
        stocked = job.stocked[0].signers if job.stocked else ()
        race = SignerRace(
            self._holders(order.key_id),
            order.t,
            job.attempt,
            lateness=self.lateness,
            deadline=deadline,
            preferred=tuple(map(self._by_operator.__getitem__, stocked)),
        )
        try:
            signatures = await race.run()
        finally:
            if race.is_crowded:
                self.queue.slow_down(job.session)
        if race.without_share:
            self._note_without_share(order.key_id, race.without_share)
        self.stock.used(session, len(order.digests), was_stocked=bool(stocked))
        self._refill(job)
        return signatures

    def _busy_s(self, error: QuorumError, t: int) -> float | None:
        """Return the seconds for which busy nodes ask, if t might sign then; None if too many failed in other ways."""
        waits = [o.error.retry_after for o in error.outcomes if isinstance(o.error, RateLimitedError)]
        kinds = [failure_kind(o.error) for o in error.outcomes if isinstance(o.error, DanError)]
        failed = sum(not kind & (FailureKind.BLAMELESS | FailureKind.RETRYABLE) for kind in kinds)
        return max(_LEAST_BUSY_S, min(waits)) if waits and len(self._nodes) - failed >= t else None

    def _may_sign(self, signers: tuple[OperatorAddress, ...]) -> bool:
        return not any(
            self._by_operator[operator].health.suspicion or self._by_operator[operator].health.failures
            for operator in signers
        )

    def _holders(self, key_id: MpcKeyId) -> Sequence[Node]:
        without_share = self._without_share.get(key_id)
        if without_share is None:
            return self._nodes
        return [node for node in self._nodes if node.operator not in without_share]

    def _note_without_share(self, key_id: MpcKeyId, without_share: set[OperatorAddress]) -> None:
        """Remember which nodes do not hold a key that others have just signed with."""
        while len(self._without_share) >= _MOST_KEYS:
            del self._without_share[next(iter(self._without_share))]
        self._without_share.setdefault(key_id, set()).update(without_share)

    # --- presignatures ------------------------------------------------------------------------------------------------

    async def presign(self, run: Run, requests: Sequence[PresignRequest], deadline: Deadline) -> list[Offers]:
        """Have one set make a presignature for each request; raise a SetFailedError if they do not agree on them."""

        async def ask_for_all(node: Node, _: Tries) -> list[PresignatureOffer]:
            calls = [
                asyncio.create_task(node.call(request=request, deadline=deadline)) for request in requests
            ]
            try:
                return await asyncio.gather(*calls)
            finally:
                await cancel_and_wait(calls)

        offered: list[Offers]
        if len(requests) == 1:
            offered = [await ask_set(run, "presign", requests[0].within(deadline), deadline=deadline)]
        else:
            answers = await ask_set(run, "presign", ask_for_all, deadline=deadline)
            offered = [
                dict(zip(answers, offers, strict=True)) for offers in zip(*answers.values(), strict=True)
            ]
        for offers in offered:
            try:
                check_offers(offers)
            except SpoiltSharesError as error:
                raise SetFailedError({}, error.disputes) from error
        if len(offered) > 1 and len(set(map(_id_of, offered))) != len(offered):
            raise SetFailedError({}, [frozenset(run.operators)])
        return offered

    def _refill(self, job: _SigningJob) -> None:
        while job.winner is not None and self.stock.order(job.session):
            run, request = job.following.pop() if job.following else self.ask_ahead(job, job.winner)
            making = self._make_ahead(job, run, request)
            task = asyncio.create_task(making, name="dan-presign-ahead")
            self._refills.add(task)
            task.add_done_callback(self._refills.discard)

    def ask_ahead(self, job: _SigningJob, winner: Run) -> tuple[Run, PresignRequest]:
        """Return the signers of a presignature for later, and the request, signed while the ephemeral key is there."""
        run = Run(self._next_signers(job.order, winner.signers), self.lateness)
        return run, job.presign_request(run.operators)

    def _next_signers(self, order: SigningOrder, signers: tuple[Node, ...]) -> tuple[Node, ...]:
        """Return the same signers, or the quickest if one of these is slow: made ahead with it, all would stay slow."""
        seconds = [node.health.latency_s or 0.0 for node in signers]
        if max(seconds) <= _SLOW_S:
            return signers
        holders = rank(self._holders(order.key_id))
        quick = [node for node in holders if self._may_sign((node.operator,))][: order.t]
        usual_s = max([node.health.latency_s or min(seconds) for node in quick], default=0.0)
        if len(quick) < order.t or max(seconds) <= _SLOW_TIMES * usual_s + _SLOW_S:
            return signers
        return tuple(sorted(quick, key=lambda node: node.operator.lower()))

    async def _make_ahead(self, job: _SigningJob, run: Run, request: PresignRequest) -> None:
        made: StockedPresignature | None = None
        asked = time.monotonic()
        try:
            (offers,) = await self.presign(run, [request], Deadline(_REFILL_S))
            now = self._clock.now(len(run.signers))
            left_s = {operator: offer.expires_at - now for operator, offer in offers.items()}
            hasty = {frozenset((operator,)) for operator, left in left_s.items() if left < _LEAST_LIFE_S}
            if len(hasty) < len(left_s):  # else it is the ephemeral key that ends
                run.suspect(hasty)
            ends = asked + min(self._options.stock_s, min(left_s.values()) - 1.0)
            made = StockedPresignature(offers=offers, signers=run.operators, ends=ends)
        except SetFailedError as failure:
            run.suspect(failure.conflicts, failure.reasonless)
        except DanError:
            # The next signature makes its own, and reports the failure.
            run.suspect([frozenset(run.operators)])
        finally:
            self.stock.arrived(job.session, made)

    # --- shares -------------------------------------------------------------------------------------------------------

    async def collect(
        self, run: Run, params: SignParams, expected: ExpectedShares, deadline: Deadline
    ) -> tuple[bytes, ...]:
        """Have one set sign; raise a SetFailedError if one does not answer, or their shares make no signature."""
        request = Request(SIGN, encode(params), SignatureShares.read, params.request_id, expected.check)
        step = "sign" if params.presignature_ids else "presign"
        answers = await ask_set(run, step, request.within(deadline), deadline=deadline)
        try:
            return join_shares(tuple(answers.values()))
        except SpoiltSharesError as error:
            conflicts = error.disputes if error.liars or error.disputes else [frozenset(run.operators)]
            raise SetFailedError(error.failures(params.request_id), conflicts) from error


class _SigningJob:
    """One call of ``NodeSigner.sign``."""

    def __init__(
        self,
        signer: NodeSigner,
        order: SigningOrder,
        session: Hashable,
        key: EphemeralKey,
        deadline: Deadline,
    ) -> None:
        self._signer = signer
        self.order = order
        self.key = key
        self.session = session
        self._deadline = deadline
        self.stocked: list[StockedPresignature] = []
        #: When presignatures that are asked for end at the latest, in Unix seconds.
        self.presigned_by = 0
        self.winner: Run | None = None
        #: Presignatures to be asked for when the winner has signed, as far as that is prepared.
        self.following: list[tuple[Run, PresignRequest]] = []
        setup = REVISION_1.signgen_setup(
            t=order.t, key_id=order.key_id, message=REVISION_1.encode_message(order.requests)
        )
        self._message = setup.message
        self._setup = REVISION_1.encode_setup(setup)
        self._setup_digest = setup_hash(operation=SIGNGEN, revision="1", setup=self._setup)

    async def attempt(self, run: Run) -> tuple[bytes, ...]:
        """Have one set sign."""
        if self.stocked and self.stocked[0].signers == run.operators:
            run.is_stocked = True
            presignatures = [entry.offers for entry in self.stocked]
            self.stocked = []
        else:  # another set may come that the stocked ones are of
            requests = [self.presign_request(run.operators) for _ in self.order.digests]
            presignatures = await self._signer.presign(run, requests, self._deadline)
        ids = tuple(map(_id_of, presignatures))
        request_id = new_request_id()
        params = SignParams(
            request_id=request_id,
            revision="1",
            setup=self._setup,
            signers=run.operators,
            presignature_ids=ids,
            user_authentication=self._authenticate(request_id, run.operators, ids),
        )
        expected = ExpectedShares(
            request_id=request_id,
            key_id=self.order.key_id,
            digests=self.order.digests,
            presignatures=tuple(presignatures),
            address=self.order.address,
        )
        following: list[tuple[Run, PresignRequest]] = []
        loop = asyncio.get_running_loop()
        meanwhile = loop.call_later(_MEANWHILE_S, self._prepare, run, expected, following)
        try:
            signatures = await self._signer.collect(run, params, expected, self._deadline)
        finally:
            meanwhile.cancel()
        self.winner, self.following = run, following
        return signatures

    def _prepare(
        self, run: Run, expected: ExpectedShares, following: list[tuple[Run, PresignRequest]]
    ) -> None:
        expected.prepare()
        if run.is_stocked:  # each that is used is replaced, as a rule
            following += [self._signer.ask_ahead(self, run) for _ in self.order.digests]

    def presign_request(self, signers: tuple[OperatorAddress, ...]) -> PresignRequest:
        """Have the ephemeral key ask for one presignature."""
        request_id, order = new_request_id(), self.order
        digest = presign_digest(
            request_id=request_id,
            key_id=order.key_id,
            eph_id=order.claim.eph_id,
            signers=signers,
            expires_at=self.presigned_by,
        )
        params = PresignParams(
            request_id=request_id,
            key_id=order.key_id,
            eph_id=order.claim.eph_id,
            signers=signers,
            expires_at=self.presigned_by,
            signature=self.key.sign_message(digest),
        )
        return Request(PRESIGN, encode(params), PresignatureOffer.read, request_id)

    def _authenticate(
        self, request_id: RequestId, signers: Sequence[OperatorAddress], ids: Sequence[bytes]
    ) -> UserAuthentication:
        challenge = sign_challenge(
            request_id=request_id, setup_digest=self._setup_digest, signers=signers, presignature_ids=ids
        )
        payload = REVISION_1.ephemeral_payload(self._setup, challenge.hex())
        return REVISION_1.ephemeral_authentication(
            claim=self.order.claim,
            owner_id=self.order.owner_id or "",
            message=self._message,
            signature=self.key.sign_message(payload),
        )


def _id_of(offers: Offers) -> bytes:
    """Return the id by which the signers of a presignature know it: they all say the same."""
    return next(iter(offers.values())).presignature_id


# --- presignatures made ahead: short-lived, each given out once --------------------------------------------------


@frozen(kw_only=True, repr=False)
class StockedPresignature:
    """A presignature of these signers, ascending; not to be used after *ends*, in monotonic seconds."""

    offers: Offers
    signers: tuple[OperatorAddress, ...]
    ends: float


@define(eq=False, repr=False)
class _Shelf:
    entries: deque[StockedPresignature] = field(factory=deque)
    #: How many should be kept: one more for each signature that found none, one less for each that expired.
    wanted: int = 0
    last_use: float = 0.0
    ordered: int = 0


@define(eq=False, repr=False)
class PresignStock:
    """
    The presignatures made ahead for each session: as many as it uses, up to a maximum.

    They are made only after a signature, so those of an idle session expire and are not replaced.
    """

    _most: int
    _clock: Callable[[], float] = time.monotonic
    _shelves: dict[Hashable, _Shelf] = field(factory=dict, init=False)
    #: How many have been made, used and thrown away since the network was opened.
    made: int = field(default=0, init=False)
    used_up: int = field(default=0, init=False)
    wasted: int = field(default=0, init=False)

    def __len__(self) -> int:
        return sum(len(shelf.entries) for shelf in self._shelves.values())

    def take(
        self, session: Hashable, count: int, *, usable: Callable[[tuple[OperatorAddress, ...]], bool]
    ) -> list[StockedPresignature]:
        """Take *count* presignatures of one set of signers out for good, or none; throw away those not *usable* now."""
        shelf = self._shelves.get(session)
        if shelf is None or not shelf.entries:
            return []
        now, before = self._clock(), len(shelf.entries)
        by_signers: dict[tuple[OperatorAddress, ...], list[StockedPresignature]] = {}
        for entry in shelf.entries:
            if entry.ends > now:
                by_signers.setdefault(entry.signers, []).append(entry)
        expired = before - sum(map(len, by_signers.values()))
        shelf.wanted = max(1, shelf.wanted - expired)
        shelf.entries.clear()
        taken: list[StockedPresignature] = []
        for signers, entries in by_signers.items():
            if usable(signers):
                if not taken and len(entries) >= count:
                    taken = entries[:count]
                    del entries[:count]
                shelf.entries.extend(entries)
        self.used_up += len(taken)
        self.wasted += before - len(taken) - len(shelf.entries)
        return taken

    def used(self, session: Hashable, count: int, *, was_stocked: bool = False) -> None:
        """Note that a session has signed *count* messages, and whether their presignatures had been made ahead."""
        now = self._clock()
        shelf = self._shelves.pop(session, None) or _Shelf()
        self._shelves[session] = shelf  # the latest use stands last
        if now - shelf.last_use >= _MEMORY_S or not shelf.wanted:
            shelf.wanted = count
        elif not was_stocked:
            shelf.wanted = min(self._most, shelf.wanted + count)
        shelf.last_use = now
        while len(self._shelves) > _MOST_SESSIONS:
            del self._shelves[next(iter(self._shelves))]

    def order(self, session: Hashable) -> bool:
        """Whether one more presignature should be made for a session; if so, ``arrived`` must be called in the end."""
        shelf = self._shelves.get(session)
        if shelf is None:
            return False
        if len(shelf.entries) + shelf.ordered >= min(self._most, shelf.wanted):
            return False
        shelf.ordered += 1
        return True

    def arrived(self, session: Hashable, entry: StockedPresignature | None) -> None:
        """Put a presignature that was ordered into the stock; None if it could not be made."""
        shelf = self._shelves.get(session)
        self.made += entry is not None
        if shelf is not None and shelf.ordered:  # else it was forgotten meanwhile
            shelf.ordered -= 1
            if entry is not None:
                shelf.entries.append(entry)
                return
        self.wasted += entry is not None

    def drop(self, session: Hashable) -> None:
        """Throw away everything of a session: the nodes do not know it any more."""
        shelf = self._shelves.get(session)
        if shelf is not None:
            self.wasted += len(shelf.entries)
            shelf.entries.clear()

    def clear(self) -> None:
        """Throw everything away."""
        self._shelves.clear()


# --- the queue: so many calls at once, the sessions in turn, none of them able to take every place --------------------


@define(eq=False, repr=False)
class SigningQueue:
    """
    Admits calls of sessions.

    Each call in progress holds one of the places. A session may take one more while it holds fewer than are free. So alone
    it gets half of them, and beside k busy sessions one of k + 2 parts: a newcomer finds a place even if another session's
    calls hang. A session for whose calls the nodes have no capacity gets a limit of its own: one place less for each such
    call, and one more after as many successes as it has places.
    """

    _places: int
    _most_waiting: int
    _held: Counter[Hashable] = field(factory=Counter, init=False)
    _free: int = field(init=False)
    _limits: dict[Hashable, float] = field(factory=dict, init=False)
    #: The calls that wait, by session; the session whose turn it is stands first.
    _lines: dict[Hashable, OrderedDict[asyncio.Future[bool], None]] = field(factory=dict, init=False)
    waiting: int = field(default=0, init=False)
    #: The limits of their waits, with one timer for all: one for each would be four more objects for the garbage collector.
    _ends: TimeLimits[asyncio.Future[bool]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._free = self._places
        self._ends = TimeLimits(partial(settle, result=False))

    async def place(self, session: Hashable, deadline: Deadline, *, is_again: bool = False) -> _Place:
        """
        Take a place, and return what holds it: ``with await queue.place(…)``.

        A call that comes again is the next one of its session.

        Raises:
            OverloadedError: There is none before the deadline, or too many wait already.
        """
        if session not in self._lines and self._admits(session):
            self._hold(session)
            return _Place(self, session)
        if self.waiting >= self._most_waiting:
            raise self.overloaded("the queue for signing is full")
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(session, OrderedDict())
        line[turn] = None
        line.move_to_end(turn, last=not is_again)
        self.waiting += 1
        if (left_s := deadline.remaining()) is not None:
            self._ends.begin(turn, left_s)
        has_place = False
        try:
            has_place = await turn and not deadline.is_over
        finally:
            self._ends.end(turn)
            self._leave_line(session, turn)
            # It may have got a place in the moment in which its caller gave up, or its time was over.
            if not has_place and turn.done() and not turn.cancelled() and turn.result():
                self._give_back(session)
        if not has_place:
            raise self.overloaded(
                f"the deadline of {deadline.timeout_s:g} s ran out before this call's turn came"
            )
        return _Place(self, session)

    def leave(self, session: Hashable, *, has_succeeded: bool) -> None:
        """Give a place back, after a call that succeeded or not."""
        if has_succeeded and (limit := self._limits.get(session)):
            self._limits[session] = limit + 1 / limit
            if limit >= self._places / 2:  # more than it could have anyway
                del self._limits[session]
        self._give_back(session)

    def slow_down(self, session: Hashable) -> None:
        """Note that the nodes had no room for a call."""
        limit = min(self._limits.pop(session, self._places), self._held[session])
        self._limits[session] = max(1.0, limit - 1.0)  # the latest stands last
        while len(self._limits) > _MOST_LIMITS:
            del self._limits[next(iter(self._limits))]

    def overloaded(self, problem: str) -> OverloadedError:
        """Return the error of a call that did not get its turn."""
        return OverloadedError(
            f"{problem}; {self.waiting} other calls are waiting to sign",
            waiting=self.waiting,
            hint="Nothing was signed. Send fewer calls at once, or give them a longer timeout",
            phase="signing",
        )

    def _leave_line(self, session: Hashable, turn: asyncio.Future[bool]) -> None:
        line = self._lines.get(session)
        if line is not None and turn in line:
            self.waiting -= 1
            del line[turn]
            if not line:
                del self._lines[session]

    def _admits(self, session: Hashable) -> bool:
        return self._held[session] < min(self._free, int(self._limits.get(session, self._free)))

    def _hold(self, session: Hashable) -> None:
        self._held[session] += 1
        self._free -= 1

    def _give_back(self, session: Hashable) -> None:
        self._free += 1
        self._held[session] -= 1
        if not self._held[session]:
            del self._held[session]
        if self._lines:
            self._admit_next()

    def _admit_next(self) -> None:
        """Hand out the free places, one for each session in turn."""
        while self._free:
            session = next(filter(self._admits, self._lines), None)
            if session is None:
                return
            line = self._lines.pop(session)
            turn = next(iter(line))
            self._lines[session] = line  # to the end
            self._leave_line(session, turn)
            if not turn.done():  # else it was cancelled or is late, and its task learns of that in a moment
                self._hold(session)
                turn.set_result(True)


class _Place:
    """A place in the queue, left when the block that it is held for ends."""

    __slots__ = ("_queue", "_session")

    def __init__(self, queue: SigningQueue, session: Hashable) -> None:
        self._queue, self._session = queue, session

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._queue.leave(self._session, has_succeeded=kind is None)
