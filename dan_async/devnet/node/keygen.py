"""A node's side of key generation: checked requests in, one key for each request id, ever; and what came of a request."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from attrs import define, evolve, field

from dan_async._values import from_hex, to_hex
from dan_async.crypto.hashes import tagged_hash
from dan_async.deadline import cancel_and_wait, wait_for_event
from dan_async.devnet.context import NodeContext
from dan_async.devnet.mpc.dkg import KeyShare, Session
from dan_async.devnet.node.checks import (
    KEYGEN,
    CheckedKeygen,
    check_owner,
    check_request,
    content_hash,
    owner_name,
)
from dan_async.devnet.node.keys import EphemeralRegistry, KeyRecord, KeyRing, RegisteredKey
from dan_async.devnet.node.passkeys import PasskeyRegistry
from dan_async.devnet.node.requests import NonceStore, RequestRuns, check_same, result_of
from dan_async.devnet.node.rpc import RefusalError, rate_limited, reading, refusing
from dan_async.devnet.peers.keygen import KeygenSession
from dan_async.devnet.peers.links import PeerLinks
from dan_async.devnet.peers.sessions import Kind, PeerMessage, PeerSessions
from dan_async.errors import NodeCode
from dan_async.protocols.fields import decode, to_json
from dan_async.protocols.node import (
    Acknowledgement,
    CertifyParams,
    KeygenClaims,
    KeygenParams,
    Settlement,
    SettleParams,
    compute_key_id,
    request_ids,
)
from dan_async.types import Clock, Json, OperatorAddress, RequestId

_log = logging.getLogger(__name__)

#: For how long settled requests are remembered: nonces given out before are over long before then, and those given out
#: later go to clients that know what they ask for. And for how long a key generation may still be certified.
_REMEMBERED_S = 3600.0

#: Names the records of one-shot requests.
_ONE_SHOT = "oneshot"

#: No address has more than this part of the settled requests that are remembered.
_ADDRESS_PART = 4

#: Most key generations that wait for a certificate, and how long settling one waits for it, in seconds.
_MOST_UNFINISHED = 1024
_LAST_CALL_S = 0.25


@define(eq=False, repr=False)
class _Settled:
    """
    The requests under which nothing begins any more, each with the ephemeral key that settled it.

    None is forgotten before its time, else a flood of strangers' questions would make an answer untrue. A full store, and an
    address that has its part of it, are refused instead.
    """

    _most: int
    _clock: Clock
    #: The address that asked, and the end of its time, by key and first request id; oldest first.
    _entries: OrderedDict[tuple[bytes, RequestId], tuple[str, float]] = field(factory=OrderedDict, init=False)
    _by_key: dict[bytes, set[RequestId]] = field(factory=dict, init=False)
    _by_address: Counter[str] = field(factory=Counter, init=False)

    def put(self, eph_pk: bytes, first: RequestId, address: str) -> None:
        now = self._clock()
        while self._entries and next(iter(self._entries.values()))[1] <= now:
            self._remove(next(iter(self._entries)))
        known = self._entries.pop((eph_pk, first), None)
        if known is not None:
            self._entries[eph_pk, first] = known[0], now + _REMEMBERED_S
            return
        most_of_one = max(1, self._most // _ADDRESS_PART)
        if len(self._entries) >= self._most or self._by_address[address] >= most_of_one:
            oldest = next(iter(self._entries.values()))
            raise rate_limited("too many key generations were settled", oldest[1] - now)
        self._entries[eph_pk, first] = address, now + _REMEMBERED_S
        self._by_key.setdefault(eph_pk, set()).add(first)
        self._by_address[address] += 1

    def covers(self, eph_pk: bytes, request_id: RequestId) -> bool:
        return any(
            request_id in request_ids(first) and self._clock() < self._entries[eph_pk, first][1]
            for first in self._by_key.get(eph_pk, ())
        )

    def _remove(self, entry: tuple[bytes, RequestId]) -> None:
        eph_pk, first = entry
        address, _ = self._entries.pop(entry)
        self._by_address[address] -= 1
        self._by_key[eph_pk].discard(first)
        if not self._by_key[eph_pk]:
            del self._by_key[eph_pk]
        if not self._by_address[address]:
            del self._by_address[address]


@define(eq=False, repr=False)
class _Unfinished:
    """A key generation that may be certified: it is under way, or has failed for want of echoes."""

    works: Sequence[CheckedKeygen]
    session: KeygenSession
    forget_at: float
    #: Held by whoever stores the key or gives it up.
    lock: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    is_kept: asyncio.Event = field(factory=asyncio.Event, init=False)


@define(kw_only=True, eq=False, repr=False)
class KeygenService:
    """Key generation at one node; ``on_made`` is called with the participants when a key is stored."""

    _context: NodeContext
    _links: PeerLinks
    _sessions: PeerSessions
    _ring: KeyRing
    _nonces: NonceStore
    _passkeys: PasskeyRegistry
    _on_made: Callable[[Sequence[OperatorAddress]], None]
    _settled: _Settled = field(init=False)
    _runs: RequestRuns[Acknowledgement] = field(init=False)
    _unfinished: OrderedDict[RequestId, _Unfinished] = field(factory=OrderedDict, init=False)  # oldest first
    #: The certificates that are being looked at: one of each peer for each request at a time.
    _taking: dict[tuple[RequestId, OperatorAddress], asyncio.Task[None]] = field(factory=dict, init=False)
    #: The sessions of one-shot requests, which no nonce keeps from coming again.
    _one_shots: set[bytes] = field(factory=set, init=False)
    #: Batches under way, each of which several requests wait for.
    _batches: set[asyncio.Task[Sequence[Acknowledgement]]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._settled = _Settled(self._context.limits.max_settled, self._context.clock)
        most = self._context.limits.max_keygens
        self._runs = RequestRuns(self._context, "key generations", most=most)

    async def keygen(self, params: KeygenParams) -> Acknowledgement:
        """Take part in making a key, or say again what came of it."""
        content = content_hash(params)
        unfinished = self._unfinished.get(params.request_id)
        if unfinished is not None:
            async with unfinished.lock:  # a certificate may be finishing an earlier attempt right now
                pass
        record = self._ring.by_request(params.request_id)
        if record is not None:
            check_same(record.content, content)
            return record.acknowledgement
        return await self._runs.run(params.request_id, content, lambda: self._begin(params))

    async def keygen_batch(self, batch: Sequence[KeygenParams]) -> Sequence[Acknowledgement]:
        """
        Take part in making several keys at once. Each request of them may be repeated alone.

        A request that cannot begin keeps all from beginning, and nothing is lost: each may then come alone.
        """
        works = [self._check(params) for params in batch]
        for work in works:
            if self._runs.knows(work.request_id) or self._ring.by_request(work.request_id) is not None:
                raise RefusalError(NodeCode.REQUEST_CONFLICT, "a request of the batch has come before")
        agreed = _agreement(works)
        if self._sessions.has_run(Kind.KEYGEN, agreed.session_id):
            raise RefusalError(NodeCode.CHALLENGE_REUSED, "the nodes have worked on this batch before")
        self._runs.check_room(len(works))
        self._spend(works)
        making = asyncio.create_task(self._generate(works, agreed), name="key generations of a batch")
        self._batches.add(making)
        making.add_done_callback(self._batches.discard)

        async def one(place: int) -> Acknowledgement:
            return (await result_of(making))[place]

        for place, work in enumerate(works):
            self._runs.begin(work.request_id, work.content, partial(one, place))
        return await result_of(making)

    def load(self) -> None:
        """Read which one-shot requests this node has worked on. Blocks."""
        kinds = (name.rpartition("-") for name in self._context.store.names())
        self._one_shots = {bytes.fromhex(session_id) for kind, _, session_id in kinds if kind == _ONE_SHOT}

    async def settle(self, params: dict[str, Json], address: str) -> Json:
        """Answer a client that was cut off: what came of its request, and that nothing more will come of it."""
        asked = decode(SettleParams, params)
        if not asked.is_signed_for(self._context.identity.operator):
            raise RefusalError(
                NodeCode.EPHEMERAL_KEY_REFUSED, "the signature is not the ephemeral key's over this request"
            )
        ids = request_ids(asked.request_id)
        # First nothing new may begin, then what has begun must end: so the answer stays true.
        self._settled.put(asked.eph_pk, asked.request_id, address)
        for request_id in ids:
            await self._runs.wait_for(request_id)
            unfinished = self._unfinished.get(request_id)
            if unfinished is not None and any(
                work.request_id == request_id and work.claim.eph_pk == asked.eph_pk
                for work in unfinished.works
            ):
                await self._give_up(request_id, unfinished)
        records = (self._ring.by_request(request_id) for request_id in ids)
        found = (r.acknowledgement for r in records if r is not None and r.claim.eph_pk == asked.eph_pk)
        return to_json(Settlement(acknowledgements=tuple(found)))

    async def certify(self, params: dict[str, Json]) -> Json:
        """Finish a key generation by a certificate that a client brings, and acknowledge the key."""
        asked = decode(CertifyParams, params)
        await self._take(asked.request_id, asked.certificate)
        await self._runs.wait_for(asked.request_id)
        record = self._ring.by_request(asked.request_id)
        if record is None or record.acknowledgement.certificate != asked.certificate:
            raise RefusalError(
                NodeCode.KEYGEN_FAILED,
                "no key generation is waiting for this certificate",
                data={"culprits": []},
            )
        return to_json(record.acknowledgement)

    def on_certificate(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Answer a participant that asks for a certificate, or take one from whoever passes it on."""
        request_id = RequestId(to_hex(message.session_id))
        record, unfinished = self._ring.by_request(request_id), self._unfinished.get(request_id)
        if message.round:
            if unfinished is not None and (request_id, peer) not in self._taking:
                task = asyncio.create_task(self._take(request_id, message.body), name="a certificate")
                self._taking[request_id, peer] = task
                task.add_done_callback(partial(self._taken, request_id, peer))
        elif record is not None and peer in record.acknowledgement.participants:
            self._pass_on(request_id, record.acknowledgement.certificate, (peer,))
        elif unfinished is not None and peer in unfinished.session.peers:
            unfinished.session.asked.add(peer)

    async def aclose(self) -> None:
        await self._runs.aclose()
        await cancel_and_wait([*self._taking.values(), *self._batches])

    def _begin(self, params: KeygenParams) -> Coroutine[Any, Any, Acknowledgement]:
        works = [self._check(params)]
        agreed = _agreement(works)
        self._spend(works)

        async def one() -> Acknowledgement:
            (acknowledgement,) = await self._generate(works, agreed)
            return acknowledgement

        return one()

    def _check(self, params: KeygenParams) -> CheckedKeygen:
        """Check all of a request but its nonce and its owner's signature."""
        checked = check_request(
            params,
            operator=self._context.identity.operator,
            roster=self._links.peers,
            now=self._context.clock(),
        )
        if self._settled.covers(checked.claim.eph_pk, params.request_id):
            raise RefusalError(
                NodeCode.REQUEST_CONFLICT, "the request was settled: nothing begins under it any more"
            )
        return checked

    def _spend(self, works: Sequence[CheckedKeygen]) -> None:
        """Use up the nonces of requests, if their owners have signed them."""
        with ExitStack() as spending:
            for checked in works:
                spending.enter_context(
                    self._nonces.spending(checked.nonce, checked.request_id, KEYGEN, checked.setup_digest)
                )
                check_owner(checked, self._passkeys)
                has_run = self._sessions.has_run(Kind.KEYGEN, checked.session_id)
                if has_run or checked.session_id in self._one_shots:
                    # Nonces see to that; a one-shot request, which has none, may come again after it failed.
                    raise RefusalError(
                        NodeCode.CHALLENGE_REUSED, "the nodes have worked under this challenge before"
                    )
                if checked.nonce is None:
                    self._one_shots.add(checked.session_id)
        for work in works:
            # An earlier attempt under the same id is over for good.
            self._unfinished.pop(work.request_id, None)

    async def _generate(self, works: Sequence[CheckedKeygen], agreed: Session) -> Sequence[Acknowledgement]:
        first, name = works[0], works[0].request_id
        if first.nonce is None:
            # Before the first message: whoever has it could take another one under the same id, after a restart, for a lie.
            record = f"{_ONE_SHOT}-{first.session_id.hex()}"
            await self._context.workers.use_disk(self._context.store.put, record, b"")
        _log.info(
            "request %s: key generation %s begins; keys to make: %d", name, agreed.threshold, len(works)
        )
        session = KeygenSession(self._context, self._sessions, agreed, name)
        unfinished = self._remember(works, session)
        try:
            with refusing(NodeCode.KEYGEN_FAILED, "key generation"):
                shares = await session.run()
        except BaseException:
            if not session.may_be_certified:
                for work in works:
                    self._unfinished.pop(work.request_id, None)
            raise
        return await self._keep(unfinished, works, shares)

    # --- certificates -------------------------------------------------------------------------------------------------

    def _remember(self, works: Sequence[CheckedKeygen], session: KeygenSession) -> _Unfinished:
        now = self._context.clock()
        entry = _Unfinished(works, session, now + _REMEMBERED_S)
        self._unfinished.update({work.request_id: entry for work in works})
        while (
            len(self._unfinished) > _MOST_UNFINISHED or next(iter(self._unfinished.values())).forget_at <= now
        ):
            self._unfinished.popitem(last=False)
        return entry

    async def _take(self, request_id: RequestId, certificate: bytes) -> None:
        """Finish a key generation if this is its certificate."""
        unfinished = self._unfinished.get(request_id)
        if unfinished is None or unfinished.forget_at <= self._context.clock():
            return
        async with unfinished.lock:
            shares = await unfinished.session.certify(certificate)
            if shares is not None:
                # Not those that were given up, whose owners know that there is no key.
                left = [w for w in unfinished.works if self._unfinished.get(w.request_id) is unfinished]
                await self._keep(unfinished, left, shares)

    def _taken(self, request_id: RequestId, peer: OperatorAddress, task: asyncio.Task[None]) -> None:
        del self._taking[request_id, peer]
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("request %s: the key cannot be kept: %s", request_id, type(error).__name__)

    async def _give_up(self, request_id: RequestId, unfinished: _Unfinished) -> None:
        """Ask for the certificate once more; from then on none is taken."""
        with self._links.wanted(unfinished.session.peers):
            unfinished.session.ask()
            await wait_for_event(unfinished.is_kept, _LAST_CALL_S)
        async with unfinished.lock:
            self._unfinished.pop(request_id, None)

    def _pass_on(self, name: RequestId, certificate: bytes, peers: Iterable[OperatorAddress]) -> None:
        if self._context.faults.keeps_certificates:
            return
        frame = PeerMessage(Kind.CERTIFICATE, from_hex(name, field="requestId"), 1, certificate).encode()
        for peer in peers:
            self._links.send(peer, frame)

    # --- the key ------------------------------------------------------------------------------------------------------

    async def _keep(
        self, unfinished: _Unfinished, works: Sequence[CheckedKeygen], shares: Sequence[KeyShare]
    ) -> list[Acknowledgement]:
        """Store the shares of *works*, and only then acknowledge the keys."""
        session = unfinished.session
        records = []
        for work, share in zip(unfinished.works, shares, strict=True):
            if work in works:
                records.append(self._record(work, share, session.certificate))
                if work.params.user_authentication.method == "passkey":
                    credential = work.params.user_authentication.id
                    await self._context.workers.use_disk(self._passkeys.save, credential)
        await self._context.workers.use_disk(self._ring.put, *records)
        for work in works:
            self._unfinished.pop(work.request_id, None)
        unfinished.is_kept.set()
        acknowledgements = [record.acknowledgement for record in records]
        for acknowledgement in acknowledgements:
            _log.info("request %s: key %s is made", acknowledgement.request_id, acknowledgement.key_id)
            self._on_made(acknowledgement.participants)
        if acknowledgements:
            self._pass_on(unfinished.works[0].request_id, session.certificate, session.asked)
        return acknowledgements

    def _record(self, work: CheckedKeygen, share: KeyShare, certificate: bytes) -> KeyRecord:
        params = work.params
        claims = KeygenClaims(
            request_id=params.request_id,
            key_id=compute_key_id(
                public_key=share.public_key,
                t=share.t,
                participants=params.participants,
                owner_id=params.user_authentication.id,
                request_id=params.request_id,
            ),
            public_key=share.public_key,
            public_shares=share.public_shares,
            t=share.t,
            n=share.n,
            participants=params.participants,
            transcript_hash=share.transcript_hash,
        )
        acknowledgement = self._context.signed(Acknowledgement, claims, params.participants)
        return KeyRecord(
            content=work.content,
            acknowledgement=evolve(acknowledgement, certificate=certificate),
            share=share,
            owner_id=owner_name(params.user_authentication),
            claim=work.claim,
            permissions=work.setup.permissions,
            ephemeral_keys=EphemeralRegistry(keys=(RegisteredKey(claim=work.claim),)),
        )


def _agreement(works: Sequence[CheckedKeygen]) -> Session:
    """Return what all parties agree on: the session of one key, or that of several, which has an id of its own."""
    first = works[0]
    session_id = first.session_id
    if len(works) > 1:
        session_id = tagged_hash("dan-devnet batch", *(work.session_id for work in works))
    for work in works:
        is_alike = work.params.participants == first.params.participants and work.threshold == first.threshold
        if not is_alike or (len(works) > 1 and work.nonce is None):
            raise RefusalError(
                NodeCode.UNSUPPORTED, "the requests of a batch have nonces, and the same participants and t"
            )
    if len({work.request_id for work in works}) != len(works):
        raise RefusalError(NodeCode.REQUEST_CONFLICT, "the requests of a batch differ in their ids")
    with reading("keygens"):
        return Session(
            session_id=session_id,
            threshold=first.threshold,
            identities=first.params.participants,
            count=len(works),
        )
