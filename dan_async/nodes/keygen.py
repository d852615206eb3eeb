"""
One key generation of a client over the nodes themselves: who takes part, the owner's signature, and starting again.

What was not yet shown to the owner's wallet is replaced silently; what was, is started again only for a wallet that no
person looks at, unless the caller allows to ask the person again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from dan_async.config import Threshold, Timeouts
from dan_async.deadline import Deadline
from dan_async.errors import (
    ClientClosedError,
    FailureKind,
    NodeOutcome,
    NodeRefusedError,
    QuorumError,
    failure_kind,
)
from dan_async.events import OperationRestarted, RequestLog, wallet_turn
from dan_async.network import KeygenReport, KeygenRequest, KeygenTimings
from dan_async.nodes.health import rank
from dan_async.nodes.node import Node, probing
from dan_async.nodes.round import NodeRound, SetupText, open_round, out_of_time, run_keygen
from dan_async.protocols import gateway_1 as revision_1
from dan_async.protocols.node import MOST_RESTARTS, restarted_request_id
from dan_async.protocols.setups import KeygenSetup, UserAuthentication
from dan_async.types import OperatorAddress, RequestId

if TYPE_CHECKING:
    from dan_async.network import AuthModule

_log = logging.getLogger(__name__)

#: How many times a key generation is started again that cannot leave out anybody new. One that can always is.
_VAIN_RESTARTS = 2


@frozen(kw_only=True)
class _Opened:
    """A round whose nodes are ready, and what the owner is to sign for it."""

    setup: KeygenSetup
    threshold: Threshold
    round: NodeRound
    outcomes: tuple[NodeOutcome[Any], ...]

    @property
    def replaced(self) -> tuple[NodeOutcome[Any], ...]:
        """What became of the nodes that were asked and do not take part."""
        return tuple(o for o in self.outcomes if o.operator not in self.round.participants)


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
        self._events = nodes[0].events
        self._first = request
        self._auth = auth
        self._deadline = deadline
        self._timeouts = timeouts
        self._least = request.min_parties or request.threshold.n
        self._left_out: set[OperatorAddress] = set()  # of later rounds, as long as there are enough others
        self._replaced: list[NodeOutcome[Any]] = []
        self._culprits: set[OperatorAddress] = set()
        self._restarts = 0
        self._vain_restarts = 0

    async def run(self) -> KeygenReport:
        """Run it; see ``Network.keygen`` for what it raises."""
        started = time.monotonic()
        unasked = rank(self._nodes.values())[self._first.threshold.n :]
        async with probing(unasked, deadline=self._deadline):
            report = await self._run()
        timings = evolve(report.timings, total_s=time.monotonic() - started)
        return evolve(
            report,
            timings=timings,
            replaced=tuple(self._replaced),
            culprits=tuple(sorted(self._culprits)),
        )

    async def _run(self) -> KeygenReport:
        request = self._first
        while True:
            times = [time.monotonic()]
            opened = await self._open(request)
            self._replaced += opened.replaced
            times.append(time.monotonic())
            authentication = await self._authorise(opened)
            times.append(time.monotonic())
            try:
                report = await run_keygen(
                    self._nodes,
                    opened.round,
                    authentication,
                    opened.threshold,
                    deadline=self._deadline,
                    grace_s=self._timeouts.grace_s,
                )
            except QuorumError as error:
                self._leave_out(error)
                obstacle = self._obstacle(error)
                if obstacle is not None:
                    error.hint = obstacle
                    error.outcomes = (*self._replaced, *error.outcomes)
                    error.earlier_culprits = tuple(sorted(self._culprits))
                    raise
                self._replaced += [o for o in error.outcomes if not o.is_success]
            else:
                times.append(time.monotonic())
                challenge_s, wallet_s, keygen_s = (b - a for a, b in pairwise(times))
                timings = KeygenTimings(challenge_s=challenge_s, wallet_s=wallet_s, keygen_s=keygen_s)
                return evolve(report, restarts=self._restarts, timings=timings)
            self._restarts += 1
            RequestLog(_log, request.request_id).warning("starting again, for the %d. time", self._restarts)
            old_id = request.request_id
            request = evolve(request, request_id=restarted_request_id(self._first.request_id, self._restarts))
            if self._events.hooks:
                self._events.emit(
                    OperationRestarted(
                        request_id=old_id,
                        new_request_id=request.request_id,
                        restart=self._restarts,
                        excluded=tuple(sorted(self._left_out)),
                    )
                )

    # --- starting again -----------------------------------------------------------------------------------------------

    def _leave_out(self, error: QuorumError) -> None:
        """Note whom to leave out of the next round: who is blamed by most, who answered wrong, who did not answer."""
        before = len(self._left_out)
        self._culprits |= {OperatorAddress(culprit) for culprit in error.culprits}
        self._left_out |= self._culprits
        for outcome in error.outcomes:
            is_refusal = isinstance(outcome.error, NodeRefusedError) and not _is_final(outcome)
            if outcome.error is not None and not is_refusal:
                self._left_out.add(outcome.operator)
        if len(self._left_out) == before or self._left() < self._least:
            self._vain_restarts += 1

    def _left(self) -> int:
        return len(self._nodes.keys() - self._left_out)

    def _obstacle(self, error: QuorumError) -> str | None:
        """Say why the key generation is not started again, as the error's hint; None if it is."""
        is_closed = any(isinstance(outcome.error, ClientClosedError) for outcome in error.outcomes)
        if not error.retryable or self._deadline.is_over or is_closed:
            return error.hint
        if 2 * sum(map(_is_final, error.outcomes)) > len(error.outcomes):
            return (
                "Most nodes refuse the request itself: read their reasons below; repeating it does not help"
            )
        if self._auth.interactive and not self._first.allow_resign:
            return (
                "The owner has signed, and another attempt needs another signature: call again, which is safe, "
                "or allow it with allow_resign=True"
            )
        if self._vain_restarts <= _VAIN_RESTARTS and self._restarts < MOST_RESTARTS:
            return None
        if self._left() < self._least:
            return (
                f"Without the nodes at fault {self._left()} are left, and {self._least} are needed: "
                "add spare nodes, or allow fewer with min_parties"
            )
        return f"It was started again {self._restarts} times. Look at each node's outcome below"

    # --- the steps of a round -----------------------------------------------------------------------------------------

    async def _open(self, request: KeygenRequest) -> _Opened:
        """Find n nodes that are ready; fewer, if that many do not answer and the request allows it."""
        least = self._least
        candidates = rank(self._nodes.values(), without=self._left_out)
        if len(candidates) < least:  # nothing better is left: those that failed may have recovered
            candidates = rank(self._nodes.values())
        threshold = Threshold(request.threshold.t, max(least, min(len(candidates), request.threshold.n)))
        opened = await self._ask(request, threshold, candidates)
        ready = len(opened.round.participants)
        if least <= ready < threshold.n:
            # n is part of what is signed, so a smaller set of parties needs nonces of its own.
            answered = [self._nodes[operator] for operator in opened.round.participants]
            first, opened = opened, await self._ask(request, Threshold(threshold.t, ready), answered)
            opened = evolve(opened, outcomes=(*first.replaced, *opened.outcomes))
            ready = len(opened.round.participants)
        if ready < opened.threshold.n:
            closed = next((o.error for o in opened.outcomes if isinstance(o.error, ClientClosedError)), None)
            if closed is not None:
                raise closed
            outcomes = (*self._replaced, *opened.outcomes)
            error = not_ready(ready, opened.threshold, outcomes, request.request_id, deadline=self._deadline)
            error.earlier_culprits = tuple(sorted(self._culprits))
            if self._restarts:
                error.hint = (
                    "A first attempt had failed. Repeating the call is safe; add spare nodes, or allow fewer"
                )
            raise error
        return opened

    async def _ask(self, request: KeygenRequest, threshold: Threshold, candidates: Sequence[Node]) -> _Opened:
        setup, text = _setup_for(request, threshold)
        remaining = self._deadline.remaining()
        opened, outcomes = await open_round(
            candidates,
            text,
            threshold.n,
            deadline=self._deadline,
            hedge_s=self._timeouts.hedge_s,
            least=min(self._least, threshold.n),
            # Fewer parties than asked for are taken late, but while there is time to go on with them.
            patience_s=min(self._timeouts.patience_s, *([] if remaining is None else [remaining / 2])),
        )
        return _Opened(setup=setup, threshold=threshold, round=opened, outcomes=tuple(outcomes))

    async def _authorise(self, opened: _Opened) -> UserAuthentication:
        challenge = opened.round.challenge
        waiting = self._deadline.paused() if self._auth.interactive else nullcontext()
        with waiting, wallet_turn(self._events, opened.round.setup.request_id, self._auth.interactive):
            signature = await self._auth.authorise(
                challenge=challenge, typed_data=revision_1.keygen_typed_data(opened.setup, challenge)
            )
        return UserAuthentication(
            method=self._auth.method,
            id=self._auth.id,
            credentials=revision_1.encode_claim(self._first.claim),
            signature=signature,
        )


def not_ready(
    ready: int,
    threshold: Threshold,
    outcomes: Sequence[NodeOutcome[Any]],
    request_id: RequestId,
    *,
    deadline: Deadline,
) -> QuorumError:
    """Make the error of a key generation that could not begin."""
    error = QuorumError(
        f"{ready} nodes are ready for key generation, {threshold.n} are needed",
        hint="The owner was not asked, nothing was created. Allow fewer with min_parties, or add nodes",
        threshold=threshold.t,
        outcomes=sorted(outcomes, key=lambda outcome: outcome.is_success),  # what went wrong comes first
        phase="challenge",
        request_id=request_id,
    )
    if deadline.is_over:
        return out_of_time(deadline, "waiting for nodes to be ready", error, phase="challenge")
    return error


def _is_final(outcome: NodeOutcome[Any]) -> bool:
    """Whether a node refused what another round would bring again."""
    return isinstance(outcome.error, NodeRefusedError) and FailureKind.CURABLE not in failure_kind(
        outcome.error
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
