"""
What a node checks before it takes part in a key generation. Pure: the time is an argument.

A node's side of key generation: checked requests in, one key for each request id, ever.

A node's answer to a client that was cut off: what came of its key generation, and that nothing more will come of it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from attrs import evolve, frozen

from dan_async.config import Threshold
from dan_async.devnet.context import NodeIdentity, NodeLimits, Workers
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.node.checks import (
    check_claim,
    check_signature,
    own_nonce,
    owner_name,
    read_request,
    read_setup,
    session_id_of,
    signed_challenge,
)
from dan_async.devnet.node.keys import EphemeralRegistry, KeyRecord, KeyRing, RegisteredKey
from dan_async.devnet.node.passkeys import PasskeyRegistry
from dan_async.devnet.node.requests import NonceDesk, RequestRuns, check_same
from dan_async.devnet.node.rpc import RefusalError, invalid_params
from dan_async.devnet.peers.keygen import DkgSessions
from dan_async.errors import InvalidFieldError, NodeCode
from dan_async.permissions.rules import permissions_text
from dan_async.protocols.gateway import Operation
from dan_async.protocols.node import (
    Acknowledgement,
    KeygenParams,
    acknowledgement_digest,
    compute_key_id,
    decode_settle,
    encode_keygen,
    encode_settle_result,
    request_ids,
    setup_hash,
)
from dan_async.protocols.setups import EphemeralClaim, KeygenSetup
from dan_async.types import Clock, Json, OperatorAddress, RequestId

OPERATION = str(Operation.KEYGEN)

#: The parameters have the form of every request that an owner authorises.
read_keygen = read_request


@frozen(kw_only=True)
class CheckedKeygen:
    """
    A request in which all is well but for what is still to be checked: the nonce, and the owner's signature.

    Args:
        params: The request as it came.
        setup: Its setup.
        setup_digest: The setup's hash.
        threshold: t and n.
        claim: The ephemeral key that the owner vouches for.
        nonce: The nonce that this node gave out for it; None for a one-shot request.
        challenge: What the owner must have signed: 64 hex digits.
        session_id: What the parties call the work, 32 bytes.
    """

    params: KeygenParams
    setup: KeygenSetup
    setup_digest: bytes
    threshold: Threshold
    claim: EphemeralClaim
    nonce: bytes | None
    challenge: str
    session_id: bytes


def check_request(
    params: KeygenParams, *, operator: OperatorAddress, roster: frozenset[OperatorAddress], now: float
) -> CheckedKeygen:
    """
    Check everything but the nonce and the owner's signature.

    Args:
        params: The request.
        operator: This node.
        roster: The other nodes that this node knows.
        now: The time, in Unix seconds.

    Raises:
        RefusalError: ``INVALID_PARAMS``, ``UNSUPPORTED``, ``WRONG_PARTICIPANTS``, ``CLAIM_EXPIRED`` or
            ``CHALLENGE_MISMATCH``.
    """
    setup = read_setup(params, OPERATION)
    assert isinstance(setup, KeygenSetup)
    threshold = _read_threshold(setup)
    _check_participants(params, threshold, operator, roster)
    claim = check_claim(params, setup, now)
    _check_permissions(setup.permissions)
    challenge = signed_challenge(params, OPERATION)
    return CheckedKeygen(
        params=params,
        setup=setup,
        setup_digest=setup_hash(operation=OPERATION, revision=params.revision, setup=params.setup),
        threshold=threshold,
        claim=claim,
        nonce=own_nonce(params, operator),
        challenge=challenge,
        session_id=session_id_of(challenge, params.participants),
    )


def check_owner(checked: CheckedKeygen, passkeys: PasskeyRegistry | None = None) -> None:
    """
    Check that the owner signed this very request.

    Args:
        checked: The request.
        passkeys: The passkeys that the node knows.

    Raises:
        RefusalError: ``WRONG_OWNER``, or ``INVALID_PARAMS`` if the owner is no address.
    """
    check_signature(checked.params, OPERATION, checked.setup, checked.challenge, passkeys)


def _read_threshold(setup: KeygenSetup) -> Threshold:
    if setup.sign_alg != "secp256k1":
        raise RefusalError(NodeCode.UNSUPPORTED, "this node makes secp256k1 keys only")
    try:
        return Threshold(setup.t, setup.n)
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, error.message) from error


def _check_participants(
    params: KeygenParams, threshold: Threshold, operator: OperatorAddress, roster: frozenset[OperatorAddress]
) -> None:
    if len(params.participants) != threshold.n:
        problem = f"there are {len(params.participants)} participants, and the setup says {threshold.n}"
    elif operator not in params.participants:
        problem = "this node is not a participant"
    elif not roster.issuperset(set(params.participants) - {operator}):
        problem = "a participant is not known to this node"
    else:
        return
    raise RefusalError(NodeCode.WRONG_PARTICIPANTS, problem)


def _check_permissions(text: str | None) -> None:
    try:
        permissions_text(text)
    except InvalidFieldError as error:
        raise invalid_params(error) from error


#: How many settled requests are remembered, and for how long: nonces given out before are over long before then, and those
#: given out later go to clients that know what they ask for.
_MOST_SETTLED = 65_536

_REMEMBERED_S = 3600.0


class KeygenSettling:
    """
    Settles key generations.

    Args:
        identity: The node.
        ring: What was finished.
        clock: The wall clock.
    """

    def __init__(self, *, identity: NodeIdentity, ring: KeyRing, clock: Clock) -> None:
        self._identity = identity
        self._ring = ring
        self._clock = clock
        self._settled: OrderedDict[tuple[RequestId, bytes], float] = OrderedDict()

    def check_open(self, request_id: RequestId, claim: EphemeralClaim) -> None:
        """
        Check that a request may still begin.

        Raises:
            RefusalError: ``REQUEST_CONFLICT``: its ephemeral key has settled it, and was told that nothing had begun.
        """
        forget_at = self._settled.get((request_id, claim.eph_pk))
        if forget_at is not None and self._clock() < forget_at:
            raise RefusalError(
                NodeCode.REQUEST_CONFLICT, "the request was settled: nothing begins under it any more"
            )

    async def settle(self, params: dict[str, Json], wait_for: Callable[[RequestId], Awaitable[None]]) -> Json:
        """
        Answer ``dan_settle_keygen``.

        Args:
            params: Its parameters.
            wait_for: Waits until the request of that id has ended, if it is under way.

        Raises:
            InvalidFieldError: A parameter is wrong.
            RefusalError: ``EPHEMERAL_KEY_REFUSED``: the ephemeral key did not sign it for this node.
        """
        asked = decode_settle(params)
        if not asked.is_signed_for(self._identity.operator):
            raise RefusalError(
                NodeCode.EPHEMERAL_KEY_REFUSED, "the signature is not the ephemeral key's over this request"
            )
        ids = request_ids(asked.request_id)
        # First nothing new may begin, then what has begun must end: so the answer stays true.
        self._remember(ids, asked.eph_pk)
        for request_id in ids:
            await wait_for(request_id)
        found: list[Acknowledgement] = []
        for request_id in ids:
            record = self._ring.by_request(request_id)
            if record is not None and record.claim.eph_pk == asked.eph_pk:
                found.append(record.acknowledgement)
        return encode_settle_result(tuple(found))

    def _remember(self, ids: tuple[RequestId, ...], eph_pk: bytes) -> None:
        now = self._clock()
        for request_id in ids:
            self._settled.pop((request_id, eph_pk), None)
            self._settled[request_id, eph_pk] = now + _REMEMBERED_S
        while self._settled and (
            len(self._settled) > _MOST_SETTLED or next(iter(self._settled.values())) <= now
        ):
            self._settled.popitem(last=False)


_log = logging.getLogger(__name__)


class KeygenService:
    """
    Key generation at one node.

    Args:
        identity: The node.
        roster: The other nodes that it knows.
        sessions: Runs the distributed key generation.
        ring: What was finished before.
        nonces: What the node gave out.
        passkeys: The passkeys it knows.
        workers: Where blocking work goes.
        limits: How much at a time, and for how long.
        clock: The wall clock.
        on_made: Told who made a key, when it is stored.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        roster: frozenset[OperatorAddress],
        sessions: DkgSessions,
        ring: KeyRing,
        nonces: NonceDesk,
        passkeys: PasskeyRegistry,
        workers: Workers,
        limits: NodeLimits,
        clock: Clock,
        on_made: Callable[[Sequence[OperatorAddress]], None] = lambda _: None,
    ) -> None:
        self._identity = identity
        self._roster = roster
        self._sessions = sessions
        self._ring = ring
        self._workers = workers
        self._clock = clock
        self._on_made = on_made
        self._nonces = nonces
        self._passkeys = passkeys
        self._settling = KeygenSettling(identity=identity, ring=ring, clock=clock)
        # Failures are kept for as long as the client may wonder what became of a request whose nonce is spent.
        self._runs: RequestRuns[Acknowledgement] = RequestRuns(
            "key generations",
            task_name="keygen",
            most=limits.max_keygens,
            keep_s=limits.nonce_lifetime_s,
            clock=clock,
        )

    async def keygen(self, params: KeygenParams) -> Acknowledgement:
        """
        Take part in making a key, or say again what came of it.

        Raises:
            RefusalError: With the code of what is wrong.
        """
        content = hashlib.sha256(encode_keygen(params).encode()).digest()
        record = self._ring.by_request(params.request_id)
        if record is not None:
            check_same(record.content, content)
            return record.acknowledgement
        return await self._runs.run(params.request_id, content, lambda: self._begin(params, content))

    async def settle(self, params: dict[str, Json]) -> Json:
        """Answer ``dan_settle_keygen``; see ``KeygenSettling.settle``."""
        return await self._settling.settle(params, self._runs.wait_for)

    async def aclose(self) -> None:
        """Give up what is running, and wait until it has ended."""
        await self._runs.aclose()

    def _begin(self, params: KeygenParams, content: bytes) -> Coroutine[Any, Any, Acknowledgement]:
        checked = check_request(
            params, operator=self._identity.operator, roster=self._roster, now=self._clock()
        )
        self._settling.check_open(params.request_id, checked.claim)
        with self._nonces.spending(checked.nonce, params.request_id, OPERATION, checked.setup_digest):
            check_owner(checked, self._passkeys)
            if self._sessions.has_run(checked.session_id):
                # Nonces see to that; a one-shot request, which has none, may come again after it failed.
                raise RefusalError(
                    NodeCode.CHALLENGE_REUSED, "the nodes have worked under this challenge before"
                )
        return self._generate(checked, content)

    async def _generate(self, checked: CheckedKeygen, content: bytes) -> Acknowledgement:
        params = checked.params
        _log.info("request %s: key generation %s begins", params.request_id, checked.threshold)
        share = await self._sessions.run(
            request_id=params.request_id,
            session_id=checked.session_id,
            threshold=checked.threshold,
            participants=params.participants,
        )
        acknowledgement = self._acknowledge(checked, share)
        record = KeyRecord(
            content=content,
            acknowledgement=acknowledgement,
            share=share,
            owner_id=owner_name(params.user_authentication),
            claim=checked.claim,
            permissions=checked.setup.permissions,
            ephemeral_keys=EphemeralRegistry(keys=(RegisteredKey(claim=checked.claim),)),
        )
        if params.user_authentication.method == "passkey":
            await self._workers.use_disk(self._passkeys.save, params.user_authentication.id)
        await self._workers.use_disk(self._ring.add, record)
        self._on_made(params.participants)
        _log.info("request %s: key %s is made", params.request_id, acknowledgement.key_id)
        return acknowledgement

    def _acknowledge(self, checked: CheckedKeygen, share: KeyShare) -> Acknowledgement:
        params = checked.params
        unsigned = Acknowledgement(
            request_id=params.request_id,
            operator=self._identity.operator,
            party_index=share.index,
            key_id=compute_key_id(
                public_key=share.public_key,
                t=checked.threshold.t,
                participants=params.participants,
                owner_id=params.user_authentication.id,
                request_id=params.request_id,
            ),
            public_key=share.public_key,
            public_shares=share.public_shares,
            threshold=checked.threshold,
            participants=params.participants,
            transcript_hash=share.transcript_hash,
            signature=b"",
        )
        return evolve(unsigned, signature=self._identity.sign(acknowledgement_digest(unsigned)))
