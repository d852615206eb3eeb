"""
The two round trips that make a key over the nodes (docs/node-protocol.md, "Key generation").

First a nonce from each node; then, with the owner's authorisation over all of it, the request itself. Who the owner is,
and which wire revision it signs, is the caller's business: a client signs itself, a gateway relays its client's signature.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import frozen

from dan_async.config import Threshold
from dan_async.deadline import Deadline
from dan_async.errors import AcknowledgementError, NodeOutcome, QuorumDeadlineError, QuorumError
from dan_async.events import tell_verdict
from dan_async.network import KeygenReport
from dan_async.nodes.ask_many import fan_out, fill_seats
from dan_async.nodes.node import Node
from dan_async.nodes.tally import KeygenTally, set_dissent_apart
from dan_async.protocols.fields import encode
from dan_async.protocols.gateway_1 import oneshot_challenge
from dan_async.protocols.node import (
    ChallengeParams,
    ChallengeResult,
    KeygenParams,
    final_challenge,
    setup_hash,
)
from dan_async.protocols.node_claims import Acknowledgement
from dan_async.protocols.setups import UserAuthentication
from dan_async.retry import Tries
from dan_async.types import MpcKeyId, OperatorAddress, RequestId


@frozen(kw_only=True)
class SetupText:
    """
    A setup as its owner signs it.

    Args:
        request_id: The request it belongs to.
        operation: What it is for, as the gateway's paths call it.
        revision: The wire revision of the text: "0.1", "0.3" or "1".
        text: One setup object's exact JSON text.
        key_id: The key it is about, unless it makes one.
    """

    request_id: RequestId
    operation: str
    revision: str
    text: str
    key_id: MpcKeyId | None = None

    @property
    def digest(self) -> bytes:
        """The setup hash, to which the nodes bind their nonces."""
        return setup_hash(operation=self.operation, revision=self.revision, setup=self.text)

    @property
    def challenge_params(self) -> str:
        """The parameters of ``dan_challenge``: the same for every node."""
        return encode(
            ChallengeParams(
                request_id=self.request_id,
                operation=self.operation,
                setup_hash=self.digest,
                key_id=self.key_id,
            )
        )

    async def ask_nonce(
        self, node: Node, params: str, deadline: Deadline, tries: Tries | None = None
    ) -> bytes:
        """Have one node prepare for it; see ``Node.call`` for what it raises."""
        result = await node.call(
            "dan_challenge",
            params,
            ChallengeResult.read,
            deadline=deadline,
            request_id=self.request_id,
            tries=tries,
        )
        return result.value.nonce


@frozen(kw_only=True)
class NodeRound:
    """The nodes that take part, ascending, and the nonce of each."""

    setup: SetupText
    participants: tuple[OperatorAddress, ...]
    nonces: tuple[bytes, ...]

    @property
    def challenge(self) -> str:
        """The final challenge, as the owner's typed data carries it: 64 hex digits."""
        if not self.nonces:
            return oneshot_challenge(self.setup.text)
        return final_challenge(
            operation=self.setup.operation,
            request_id=self.setup.request_id,
            setup_digest=self.setup.digest,
            participants=self.participants,
            nonces=self.nonces,
        ).hex()

    def params(self, authentication: UserAuthentication) -> str:
        """The parameters of the request itself, authorised: the same for every participant."""
        return encode(
            KeygenParams(
                request_id=self.setup.request_id,
                revision=self.setup.revision,
                setup=self.setup.text,
                participants=self.participants,
                nonces=self.nonces,
                user_authentication=authentication,
            )
        )

    @classmethod
    def oneshot(cls, setup: SetupText, nodes: Iterable[Node], seats: int) -> NodeRound:
        """
        Make a round without nonces, for an owner who signed without asking anyone.

        The same setup always goes to the same nodes, so that its replay meets those who know it already.
        """
        ranked = sorted(
            (node.operator for node in nodes),
            key=lambda operator: hashlib.sha256(f"{setup.request_id}{operator}".encode()).digest(),
        )
        participants = tuple(sorted(ranked[:seats], key=str.lower))
        return cls(setup=setup, participants=participants, nonces=())

    @classmethod
    def of(cls, setup: SetupText, nonces: Mapping[OperatorAddress, bytes]) -> NodeRound:
        """Make a round of the nodes that gave nonces."""
        participants = tuple(sorted(nonces, key=str.lower))
        return cls(setup=setup, participants=participants, nonces=tuple(nonces[o] for o in participants))


async def open_round(
    candidates: Sequence[Node],
    setup: SetupText,
    seats: int,
    *,
    deadline: Deadline,
    hedge_s: float | None = None,
    least: int | None = None,
    patience_s: float | None = None,
) -> tuple[NodeRound, list[NodeOutcome[Any]]]:
    """
    Collect a nonce from each of n nodes, with a spare for each that fails or is late.

    Args:
        candidates: The nodes, best first.
        setup: What they are asked to prepare for.
        seats: n.
        deadline: The job's deadline.
        hedge_s: Seconds after which a spare is asked beside a node that is late; None for never.
        least: How many nonces will do after *patience_s*, if there are not n; n if None.
        patience_s: Seconds to wait for n before *least* will do; None for without limit.

    Returns:
        The round, with fewer than n participants if the candidates ran out; and what became of every node asked.
    """
    params = setup.challenge_params
    seated = await fill_seats(
        candidates,
        seats,
        lambda node, tries: setup.ask_nonce(node, params, deadline, tries),
        step="challenge",
        hedge_s=hedge_s,
        least=least,
        patience_s=patience_s,
    )
    return NodeRound.of(setup, seated.answers), seated.outcomes


async def run_keygen(
    nodes: Mapping[OperatorAddress, Node],
    opened: NodeRound,
    authentication: UserAuthentication,
    threshold: Threshold,
    *,
    deadline: Deadline,
    grace_s: float | None = None,
) -> KeygenReport:
    """
    Send the authorised request to every participant and aggregate what they acknowledge.

    Args:
        nodes: The pool, by operator.
        opened: The round that was authorised.
        authentication: The owner's signature over its challenge.
        threshold: The t and n that the setup names.
        deadline: The job's deadline.
        grace_s: Seconds to listen on after t nodes agree; see ``Timeouts``.

    Raises:
        QuorumError: Fewer than t nodes agree; it has every node's outcome.
        QuorumDeadlineError: The time ran out first; it is a DeadlineExceededError as well, and has the same outcomes.
    """
    setup = opened.setup
    params = opened.params(authentication)

    async def ask(operator: OperatorAddress, tries: Tries) -> Acknowledgement:
        node = nodes[operator]
        node.health.keygens += 1
        result = await node.call(
            "dan_keygen",
            params,
            Acknowledgement.read,
            deadline=deadline,
            request_id=setup.request_id,
            tries=tries,
        )
        return result.value

    tally = KeygenTally(
        request_id=setup.request_id,
        threshold=threshold,
        participants=opened.participants,
        owner_id=authentication.id,
    )
    started = time.monotonic()
    laggards = {o for o in opened.participants if not nodes[o].health.is_worth_the_grace}
    outcomes = await fan_out(
        opened.participants,
        ask,
        tally=tally,
        deadline=deadline,
        grace_s=grace_s,
        laggards=laggards if grace_s is None else (),
    )
    outcomes = set_dissent_apart(outcomes, tally.winners)
    tell = partial(
        tell_verdict,
        nodes[opened.participants[0]].events,
        setup.request_id,
        setup.operation,
        needed=threshold.t,
        agreed=[outcome.operator for outcome in outcomes if outcome.is_success],
        outcomes=outcomes,
        elapsed_s=time.monotonic() - started,
    )
    try:
        agreed = tally.verdict()
    except QuorumError as error:
        failure: QuorumError = error
        if deadline.is_over and error.retryable:
            doing = "waiting for the nodes to generate the key"
            failure = out_of_time(deadline, doing, error, phase="keygen")
        failure.outcomes = outcomes
        _note_misbehaviour(nodes, outcomes, failure.culprits)
        tell(is_won=False)
        raise failure from None
    _note_misbehaviour(nodes, outcomes, ())
    for outcome in outcomes:
        if outcome.error is None:
            nodes[outcome.operator].health.acknowledged(in_time=outcome.is_success)
    tell(is_won=True, key_id=agreed.key_id)
    return KeygenReport(
        request_id=setup.request_id,
        key_id=agreed.key_id,
        public_key=agreed.public_key,
        threshold=threshold,
        outcomes=outcomes,
    )


def out_of_time(deadline: Deadline, doing: str, failure: QuorumError, *, phase: str) -> QuorumDeadlineError:
    """Say that it was the deadline that kept a quorum from coming about."""
    plain = deadline.error(doing)
    return QuorumDeadlineError(
        f"{plain.message}: {failure.message}",
        hint=plain.hint,
        threshold=failure.threshold,
        outcomes=failure.outcomes,
        phase=phase,
        request_id=failure.request_id,
    )


def _note_misbehaviour(
    nodes: Mapping[OperatorAddress, Node], outcomes: Sequence[NodeOutcome[Any]], culprits: Collection[str]
) -> None:
    """Let those rest whose acknowledgement failed a check, and those that most of the others blame."""
    for outcome in outcomes:
        if isinstance(outcome.error, AcknowledgementError) or outcome.operator in culprits:
            nodes[outcome.operator].health.misbehaved()
