"""
One round of the node protocol (docs/reference/node-protocol.md): nonces, the authorisation, the request, the answers.

First a nonce from each node; then, with the owner's authorisation over all of them, the request itself. Who the owner is,
and which wire revision it signs, is the caller's business: a client signs itself, a gateway relays its client's signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from dan_async.config import MAX_PARTIES
from dan_async.deadline import Deadline
from dan_async.errors import (
    ClientClosedError,
    FailureKind,
    NodeOutcome,
    NodeRefusedError,
    QuorumDeadlineError,
    QuorumError,
    failure_kind,
)
from dan_async.listeners import EventHub, wallet_turn
from dan_async.network import AuthModule
from dan_async.nodes.ask_many import Answers, Plan, ask_many
from dan_async.nodes.node import Node, Request
from dan_async.protocols.fields import encode
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    METHODS,
    ChallengeParams,
    ChallengeResult,
    KeygenParams,
    final_challenge,
    setup_hash,
)
from dan_async.protocols.setups import Setup, UserAuthentication
from dan_async.retry import Tries
from dan_async.types import Json, MpcKeyId, OperatorAddress, RequestId, TypedData

A = TypeVar("A")

#: Has the owner sign a challenge of 64 hex digits.
Authenticate = Callable[[str], Awaitable[UserAuthentication]]


@frozen(kw_only=True, eq=False, repr=False)
class SetupText:
    """A setup as its owner signs it."""

    request_id: RequestId
    operation: str  # as the gateway's paths call it
    revision: str  # the wire revision of the text: "0.1", "0.3" or "1"
    text: str  # one setup object's exact JSON text
    key_id: MpcKeyId | None = None  # the key it is about, unless it makes one
    #: The setup hash, to which the nodes bind their nonces.
    digest: bytes = field(init=False, repr=False)

    @classmethod
    def of(
        cls, request_id: RequestId, operation: str, setup: Setup, key_id: MpcKeyId | None = None
    ) -> SetupText:
        """Write a setup of our own, in revision 1."""
        text = REVISION_1.encode_setup(setup)
        return cls(request_id=request_id, operation=operation, revision="1", text=text, key_id=key_id)

    @digest.default
    def _hash(self) -> bytes:
        return setup_hash(operation=self.operation, revision=self.revision, setup=self.text)


@frozen(kw_only=True, eq=False, repr=False)
class NodeRound:
    """The nodes that take part, ascending, and the nonce of each; no nonces if the owner signed without asking anyone."""

    setup: SetupText
    participants: tuple[OperatorAddress, ...]
    nonces: tuple[bytes, ...]

    @classmethod
    def of(cls, setup: SetupText, ready: Mapping[OperatorAddress, ChallengeResult]) -> NodeRound:
        """Make a round of the nodes that are ready: the first of them, if they are more than may take part."""
        participants = tuple(sorted(islice(ready, MAX_PARTIES), key=str.lower))
        nonces = tuple([ready[operator].nonce for operator in participants])
        return cls(setup=setup, participants=participants, nonces=nonces)

    @classmethod
    def oneshot(cls, setup: SetupText, nodes: Iterable[Node], n: int) -> NodeRound:
        """Make a round without nonces; the same setup meets the same nodes, so those who know it already see a replay."""
        ranked = sorted(
            [node.operator for node in nodes],
            key=lambda operator: hashlib.sha256(f"{setup.request_id}{operator}".encode()).digest(),
        )
        return cls(setup=setup, participants=tuple(sorted(ranked[:n], key=str.lower)), nonces=())

    def without_nonces(self) -> NodeRound:
        """Return the same nodes for an owner who has signed already: the nonces only showed who holds the key."""
        return evolve(self, nonces=())

    @cached_property
    def challenge(self) -> str:
        """The final challenge, as the owner's typed data carries it: 64 hex digits."""
        if not self.nonces:
            return REVISION_1.oneshot_challenge(self.setup.text)
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


async def open_round(
    candidates: Sequence[Node], setup: SetupText, plan: Plan[ChallengeResult], *, deadline: Deadline
) -> tuple[NodeRound, Answers[ChallengeResult]]:
    """Ask nodes for a nonce each; fewer take part than the plan wants if the candidates run out."""
    params = ChallengeParams(
        request_id=setup.request_id, operation=setup.operation, setup_hash=setup.digest, key_id=setup.key_id
    )
    request = Request("dan_challenge", encode(params), ChallengeResult.read, setup.request_id)
    answers = await ask_many(candidates, request.within(deadline), plan, step="challenge", deadline=deadline)
    return NodeRound.of(setup, answers.values), answers


async def authenticate(
    auth: AuthModule,
    challenge: str,
    *,
    typed_data: TypedData,
    credentials: str,
    request_id: RequestId,
    deadline: Deadline,
    events: EventHub,
) -> UserAuthentication:
    """Have the owner sign the challenge. The deadline stands still while a person is asked."""
    is_interactive = auth.interactive
    waiting = deadline.paused() if is_interactive else nullcontext()
    with waiting, wallet_turn(events, request_id, is_interactive):
        signature = await auth.authorise(challenge=challenge, typed_data=typed_data)
    return UserAuthentication(method=auth.method, id=auth.id, credentials=credentials, signature=signature)


def submit(
    nodes: Mapping[OperatorAddress, Node],
    opened: NodeRound,
    authentication: UserAuthentication,
    *,
    decode: Callable[[Json], A],
    check: Callable[[OperatorAddress, A], None] | None = None,
    plan: Plan[A],
    deadline: Deadline,
    join: Callable[[Request[A]], Callable[[Node, Tries], Awaitable[A]]] | None = None,
) -> Awaitable[Answers[A]]:
    """
    Send the authorised request to every participant, of the pool *nodes*, and count their answers as the plan does.

    *join* says how each node is asked, if it is not with the request alone.
    """
    setup = opened.setup
    params = opened.params(authentication)
    request = Request(METHODS[setup.operation], params, decode, setup.request_id, check)
    ask = request.within(deadline) if join is None else join(request)
    participants = [nodes[operator] for operator in opened.participants]
    return ask_many(participants, ask, plan, step=setup.operation, deadline=deadline)


def raise_if_closed(outcomes: Iterable[NodeOutcome[Any]]) -> None:
    """Raise a node's ClientClosedError: whoever closed the network does not look for faults of the nodes."""
    for outcome in outcomes:
        if isinstance(outcome.error, ClientClosedError):
            raise outcome.error


def is_incurable(outcome: NodeOutcome[Any]) -> bool:
    """Whether a node refused something that another round would bring again."""
    error = outcome.error
    return isinstance(error, NodeRefusedError) and FailureKind.CURABLE not in failure_kind(error)


def out_of_time(failure: QuorumError, deadline: Deadline, doing: str, *, phase: str) -> QuorumError:
    """Return the failure; if the deadline is over, as the error that says so."""
    if not (deadline.is_over and failure.retryable):
        return failure
    plain = deadline.error(doing)
    return QuorumDeadlineError(
        f"{plain.message}: {failure.message}",
        hint=plain.hint,
        threshold=failure.threshold,
        outcomes=failure.outcomes,
        phase=phase,
        request_id=failure.request_id,
    )
