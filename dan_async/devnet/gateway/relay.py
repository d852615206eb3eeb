"""What a gateway does with the nodes for an owner, or an ephemeral key, that signs elsewhere and in whichever revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from dan_async.config import MAX_PARTIES, Threshold
from dan_async.deadline import Deadline
from dan_async.errors import NodeCode, NodeOutcome, NodeRefusedError, QuorumError
from dan_async.network import EphemeralKeyReport, KeygenReport
from dan_async.nodes.ask_many import Plan
from dan_async.nodes.changes import change_ephemeral_key, register_passkey
from dan_async.nodes.health import rank
from dan_async.nodes.keygen import not_ready, run_keygen
from dan_async.nodes.network import NodePool
from dan_async.nodes.node import probing
from dan_async.nodes.round import Authenticate, NodeRound, SetupText, open_round
from dan_async.nodes.signature_shares import ExpectedShares
from dan_async.nodes.signing_race import Run, SignerRace
from dan_async.protocols.node import ChallengeResult, SignParams

#: How long nodes are waited for when t have given their nonces for a signature, in seconds.
_PATIENCE_S = 0.25


async def relay_keygen(
    pool: NodePool,
    setup: SetupText,
    threshold: Threshold,
    authenticate: Authenticate,
    *,
    deadline: Deadline,
    is_oneshot: bool = False,
) -> KeygenReport:
    """
    Make a key; *authenticate* takes the challenge to the owner and brings the signature back.

    An owner may have signed already, without a challenge (revision 1, "v2").
    """

    async def generate(opened: NodeRound) -> KeygenReport:
        return await run_keygen(
            pool.by_operator,
            opened,
            await authenticate(opened.challenge),
            threshold,
            deadline=deadline,
            grace_s=pool.timeouts.grace_s,
        )

    pool.refuse_if_closed()
    with pool.operation(setup.request_id, setup.operation):
        ranked = rank(pool.nodes)
        if is_oneshot:
            if len(ranked) < threshold.n:
                raise not_ready(len(ranked), threshold, (), setup.request_id, deadline=deadline)
            return await generate(NodeRound.oneshot(setup, pool.nodes, threshold.n))
        async with probing(ranked[threshold.n :], deadline=deadline):
            plan: Plan[ChallengeResult] = Plan(wanted=threshold.n, hedge_s=pool.timeouts.hedge_s)
            opened, asked = await open_round(ranked, setup, plan, deadline=deadline)
            ready = len(opened.participants)
            if ready < threshold.n:
                raise not_ready(ready, threshold, asked.outcomes, setup.request_id, deadline=deadline)
            return await generate(opened)


async def relay_change(
    pool: NodePool,
    setup: SetupText,
    authenticate: Authenticate,
    *,
    eph_id: str,
    deadline: Deadline,
    is_oneshot: bool = False,
) -> EphemeralKeyReport:
    pool.refuse_if_closed()
    with pool.operation(setup.request_id, setup.operation):
        return await change_ephemeral_key(
            pool.by_operator,
            setup,
            authenticate,
            eph_id=eph_id,
            deadline=deadline,
            is_oneshot=is_oneshot,
        )


async def relay_passkey(
    pool: NodePool, setup: SetupText, authenticate: Authenticate, *, deadline: Deadline
) -> str:
    pool.refuse_if_closed()
    needed = min(pool.default_threshold.n, len(pool.nodes))
    with pool.operation(setup.request_id, setup.operation):
        return await register_passkey(pool.by_operator, setup, authenticate, needed=needed, deadline=deadline)


# --- signing ----------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class RelayedOrder:
    """A client's request to sign the digests with the key that the setup names."""

    setup: SetupText
    t: int
    digests: tuple[bytes, ...]
    is_oneshot: bool = False  # the ephemeral key has signed already, without a challenge from the nodes


async def relay_signgen(
    pool: NodePool, order: RelayedOrder, authenticate: Authenticate, *, deadline: Deadline
) -> tuple[bytes, ...]:
    """
    Have t of the nodes sign: 65 bytes r, s, v for each message, which recover to the key that t nodes say it is.

    Whoever has the ephemeral key signs once. So the challenge covers a nonce of every node that is ready, and any t of these
    may sign: where one fails then, others take over without asking again.
    """
    setup = order.setup
    pool.refuse_if_closed()
    with pool.operation(setup.request_id, setup.operation):
        candidates = rank(pool.nodes)
        assert setup.key_id is not None
        plan: Plan[ChallengeResult] = Plan(
            wanted=min(len(candidates), MAX_PARTIES), least=order.t, patience_s=_PATIENCE_S
        )
        opened, asked = await open_round(candidates, setup, plan, deadline=deadline)
        if len(asked.values) < order.t:
            raise _not_ready(order, asked.outcomes)
        if order.is_oneshot:
            opened = opened.without_nonces()
        authentication = await authenticate(opened.challenge)
        expected = ExpectedShares(
            request_id=setup.request_id,
            key_id=setup.key_id,
            digests=order.digests,
            presignatures=None,
            address=None,
        )

        async def attempt(run: Run) -> tuple[bytes, ...]:
            params = SignParams(
                request_id=setup.request_id,
                revision=setup.revision,
                setup=setup.text,
                signers=run.operators,
                participants=opened.participants if opened.nonces else (),
                nonces=opened.nonces,
                user_authentication=authentication,
            )
            return await pool.signer.collect(run, params, expected, deadline)

        ready = [node for node in candidates if node.operator in opened.participants]
        race = SignerRace(ready, order.t, attempt, lateness=pool.signer.lateness, deadline=deadline)
        return await race.run()


def _not_ready(order: RelayedOrder, outcomes: Sequence[NodeOutcome[Any]]) -> QuorumError:
    holds = [
        outcome
        for outcome in outcomes
        if not (isinstance(outcome.error, NodeRefusedError) and outcome.error.code == NodeCode.UNKNOWN_KEY)
    ]
    return QuorumError(
        f"fewer than {order.t} nodes that hold the key are ready to sign"
        if holds
        else "no node holds this key",
        hint="Nothing was signed; look at the network's health()" if holds else "Check the key id",
        threshold=order.t,
        outcomes=outcomes,
        phase="challenge",
        request_id=order.setup.request_id,
        retryable=bool(holds),
    )
