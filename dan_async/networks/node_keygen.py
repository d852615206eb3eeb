"""
One key generation of a client over the nodes themselves: who takes part, the owner's signature, and starting again.

What was not yet shown to the owner's wallet is replaced silently; what was, is started again only for a wallet that no
person looks at.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from attrs import evolve

from dan_async._tasks import Deadline
from dan_async.config import Timeouts
from dan_async.errors import ClientClosedError, NodeRefusedError, QuorumError
from dan_async.models.authentication import UserAuthentication
from dan_async.models.keygen import KeygenReport, KeygenRequest
from dan_async.models.outcome import NodeOutcome
from dan_async.models.setup import KeygenSetup
from dan_async.models.threshold import Threshold
from dan_async.networks.node import Node
from dan_async.networks.node_round import NodeRound, SetupText, open_round, run_keygen
from dan_async.networks.pool import rank
from dan_async.types import OperatorAddress, RequestId
from dan_async.wire import node_1, revision_1

if TYPE_CHECKING:
    from dan_async.auth.base import AuthModule

__all__ = ["NodeKeygen", "not_ready"]

_log = logging.getLogger(__name__)

#: How many times a key generation that failed after the owner had signed is started anew.
_RESTARTS = 2


class NodeKeygen:
    """
    Runs one key generation.

    Args:
        nodes: The pool.
        request: What is asked for.
        auth: Who authorises it.
        deadline: The job's deadline.
        timeouts: Limits within it.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        request: KeygenRequest,
        auth: AuthModule,
        *,
        deadline: Deadline,
        timeouts: Timeouts,
    ) -> None:
        self._nodes = {node.operator: node for node in nodes}
        self._first = request
        self._auth = auth
        self._deadline = deadline
        self._timeouts = timeouts

    async def run(self) -> KeygenReport:
        """Run it; see ``Network.keygen`` for what it raises."""
        request, excluded = self._first, set[OperatorAddress]()
        restart = 0
        while True:
            setup, threshold, opened = await self._open(request, excluded)
            authentication = await self._authorise(setup, opened)
            try:
                return await run_keygen(
                    self._nodes,
                    opened,
                    authentication,
                    threshold,
                    deadline=self._deadline,
                    grace_s=self._timeouts.grace_s,
                )
            except QuorumError as error:
                restart += 1
                if restart > _RESTARTS or not self._may_restart(error):
                    raise
                excluded |= _culprits(error.outcomes)
            _log.warning("request %s: starting again (%d of %d)", request.request_id, restart, _RESTARTS)
            request = evolve(request, request_id=node_1.restarted_request_id(self._first.request_id, restart))

    def _may_restart(self, error: QuorumError) -> bool:
        # Someone who has read and signed one prompt is never shown a second one behind the caller's back.
        is_closed = any(isinstance(outcome.error, ClientClosedError) for outcome in error.outcomes)
        return error.retryable and not (self._auth.interactive or self._deadline.is_over or is_closed)

    async def _open(
        self, request: KeygenRequest, excluded: Collection[OperatorAddress]
    ) -> tuple[KeygenSetup, Threshold, NodeRound]:
        """Find n nodes that are ready; fewer, if that many do not answer and the request allows it."""
        asked = request.threshold
        least = request.min_parties or asked.n
        candidates = rank(self._nodes.values(), without=excluded)
        if len(candidates) < least:  # nothing better is left: those that failed may have recovered
            candidates = rank(self._nodes.values())
        setup, text = _setup_for(request, asked)
        threshold = asked
        opened, failures = await open_round(candidates, text, asked.n, deadline=self._deadline)
        ready = len(opened.participants)
        if least <= ready < asked.n:
            # n is part of what is signed, so a smaller set of parties needs nonces of its own.
            threshold = Threshold(asked.t, ready)
            setup, text = _setup_for(request, threshold)
            answered = [self._nodes[operator] for operator in opened.participants]
            opened, later = await open_round(answered, text, ready, deadline=self._deadline)
            failures += later
        ready = len(opened.participants)
        if ready < threshold.n:
            closed = next((f.error for f in failures if isinstance(f.error, ClientClosedError)), None)
            if closed is not None:
                raise closed
            raise not_ready(ready, threshold, failures, request.request_id)
        return setup, threshold, opened

    async def _authorise(self, setup: KeygenSetup, opened: NodeRound) -> UserAuthentication:
        challenge = opened.challenge
        waiting = self._deadline.paused() if self._auth.interactive else nullcontext()
        with waiting:
            signature = await self._auth.authorise(
                challenge=challenge, typed_data=revision_1.keygen_typed_data(setup, challenge)
            )
        return UserAuthentication(
            method=self._auth.method,
            id=self._auth.id,
            credentials=revision_1.encode_claim(self._first.claim),
            signature=signature,
        )


def not_ready(
    ready: int, threshold: Threshold, failures: Sequence[NodeOutcome], request_id: RequestId
) -> QuorumError:
    """Make the error of a key generation that could not begin."""
    return QuorumError(
        f"{ready} nodes are ready for key generation, {threshold.n} are needed",
        hint="The owner was not asked, nothing was created. Allow fewer with min_parties, or add nodes",
        threshold=threshold.t,
        outcomes=failures,
        phase="challenge",
        request_id=request_id,
    )


def _setup_for(request: KeygenRequest, threshold: Threshold) -> tuple[KeygenSetup, SetupText]:
    setup = revision_1.keygen_setup(
        threshold=threshold,
        claim=request.claim,
        permissions=request.permissions,
        key_label=request.key_label,
    )
    text = SetupText(
        request_id=request.request_id,
        operation="keygen",
        revision="1",
        text=revision_1.encode_keygen_setup(setup),
    )
    return setup, text


def _culprits(outcomes: Sequence[NodeOutcome]) -> set[OperatorAddress]:
    """
    Who to leave out of the next attempt: nodes that did not answer, and those that most of the others blame.

    One node's word is not enough: a dishonest one could have honest nodes left out, one after the other.
    """
    refusals = {o.operator: o.error for o in outcomes if isinstance(o.error, NodeRefusedError)}
    silent = {o.operator for o in outcomes if not o.is_success and o.operator not in refusals}
    blamed: dict[str, int] = {}
    for error in refusals.values():
        for operator in error.culprits:
            blamed[operator] = blamed.get(operator, 0) + 1
    return silent | {OperatorAddress(o) for o, times in blamed.items() if 2 * times > len(refusals)}
