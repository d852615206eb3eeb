"""
Signing over the nodes for an ephemeral key that is elsewhere: what a gateway does (docs/node-protocol.md, "Signing").

Whoever has the ephemeral key signs once. So the challenge covers a nonce of every node that is ready, and any t of these may
sign: where one fails then, others take over without asking again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen

from dan_async.config import MAX_PARTIES
from dan_async.deadline import Deadline
from dan_async.errors import NodeCode, NodeOutcome, NodeRefusedError, QuorumError
from dan_async.nodes.ask_many import fill_seats
from dan_async.nodes.changes import Authenticate
from dan_async.nodes.health import rank
from dan_async.nodes.node import Node
from dan_async.nodes.round import NodeRound, SetupText
from dan_async.nodes.signature_shares import ExpectedShares
from dan_async.nodes.signing import NodeSigner
from dan_async.nodes.signing_race import Run, SignerRace
from dan_async.protocols.node_signing import SignParams

#: How long nodes are waited for when t have given their nonces, in seconds.
_PATIENCE_S = 0.25


@frozen(kw_only=True)
class RelayedOrder:
    """
    What somebody else asks to have signed.

    Args:
        setup: The setup, as it was sent; it names the key.
        t: How many nodes must sign.
        digests: What gets signed of each message.
        is_oneshot: Whether the ephemeral key has signed already, without a challenge from the nodes.
    """

    setup: SetupText
    t: int
    digests: tuple[bytes, ...]
    is_oneshot: bool = False


async def relay_signgen(
    signer: NodeSigner,
    nodes: Sequence[Node],
    order: RelayedOrder,
    authenticate: Authenticate,
    *,
    deadline: Deadline,
) -> tuple[bytes, ...]:
    """
    Have t of the nodes sign.

    Args:
        signer: What the network signs with.
        nodes: The pool.
        order: What is to be signed.
        authenticate: Takes the challenge to the ephemeral key and brings its authentication back.
        deadline: The job's deadline.

    Returns:
        For each message 65 bytes r, s, v. They recover to the key that t nodes say it is.

    Raises:
        QuorumError: Fewer than t nodes are ready, or no t of them signed.
        DeadlineExceededError: The time ran out.
        DanError: What *authenticate* raised.
    """
    setup = order.setup
    assert setup.key_id is not None
    asking = setup.challenge_params
    candidates = rank(nodes)
    seats = await fill_seats(
        candidates,
        min(len(candidates), MAX_PARTIES),
        lambda node, tries: setup.ask_nonce(node, asking, deadline, tries),
        step="challenge",
        least=order.t,
        patience_s=_PATIENCE_S,
    )
    if len(seats.answers) < order.t:
        raise _not_ready(order, seats.outcomes)
    opened = NodeRound.of(setup, seats.answers)
    if order.is_oneshot:  # the nonces only showed who holds the key
        opened = evolve(opened, nonces=())
    authentication = await authenticate(opened.challenge)
    expected = ExpectedShares(
        request_id=setup.request_id,
        key_id=setup.key_id,
        digests=order.digests,
        presignature_ids=None,
        address=None,
    )

    async def attempt(run: Run) -> tuple[bytes, ...]:
        params = SignParams(
            request_id=setup.request_id,
            revision=setup.revision,
            setup=setup.text,
            signers=tuple(node.operator for node in run.signers),
            participants=opened.participants if opened.nonces else (),
            nonces=opened.nonces,
            user_authentication=authentication,
        )
        return await signer.collect(run, params, expected, deadline)

    ready = [node for node in candidates if node.operator in opened.participants]
    race = SignerRace(ready, order.t, attempt, lateness=signer.lateness, deadline=deadline)
    return await race.run()


def _not_ready(order: RelayedOrder, outcomes: list[NodeOutcome[Any]]) -> QuorumError:
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
