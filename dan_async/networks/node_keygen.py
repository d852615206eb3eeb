"""
One key generation over the nodes themselves (docs/node-protocol.md, "Key generation").

Two round trips: challenges from n nodes, one signature of the owner over all of it, then the request itself. What was not
yet shown to the owner's wallet is replaced silently; what was, is started again only for a wallet that no person looks at.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dan_async._tasks import Deadline
from dan_async.config import Timeouts
from dan_async.errors import NodeRefusedError, QuorumError
from dan_async.models.authentication import UserAuthentication
from dan_async.models.keygen import KeygenReport, KeygenRequest
from dan_async.models.outcome import NodeOutcome
from dan_async.models.setup import KeygenSetup
from dan_async.models.threshold import Threshold
from dan_async.networks.node import Node
from dan_async.networks.pool import fill_seats, rank
from dan_async.quorum.fan_out import Answer, fan_out
from dan_async.quorum.tally import KeygenTally
from dan_async.types import OperatorAddress
from dan_async.wire import node_1, revision_1

if TYPE_CHECKING:
    from dan_async.auth.base import AuthModule

__all__ = ["NodeKeygen"]

_log = logging.getLogger(__name__)

#: The revision whose typed data the owner signs.
_REVISION = "1"
_OPERATION = "keygen"

#: How many times a key generation that failed after the owner had signed is started anew.
_RESTARTS = 2


@frozen
class _Round:
    """The nodes that answered the challenge, and what is to be signed."""

    setup: KeygenSetup
    setup_text: str
    setup_digest: bytes
    threshold: Threshold
    nonces: dict[OperatorAddress, node_1.ChallengeResult]

    @property
    def participants(self) -> tuple[OperatorAddress, ...]:
        return tuple(sorted(self.nonces, key=str.lower))


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
        self._request = request
        self._auth = auth
        self._deadline = deadline
        self._timeouts = timeouts

    async def run(self) -> KeygenReport:
        """Run it; see ``Network.keygen`` for what it raises."""
        request, excluded = self._request, set[OperatorAddress]()
        for restart in range(1, _RESTARTS + 2):
            opened = await self._open_round(request, excluded)
            try:
                return await self._finish(request, opened)
            except QuorumError as error:
                if restart > _RESTARTS or not self._may_restart(error):
                    raise
                excluded |= _culprits(error.outcomes)
                _log.warning("request %s: starting again (%d of %d)", request.request_id, restart, _RESTARTS)
                request = evolve(
                    request, request_id=node_1.restarted_request_id(self._request.request_id, restart)
                )
        raise AssertionError("the loop above returns or raises")

    def _may_restart(self, error: QuorumError) -> bool:
        # Someone who has read and signed one prompt is never shown a second one behind the caller's back.
        return error.retryable and not self._auth.interactive and not self._deadline.is_over

    # --- first round trip ---------------------------------------------------------------------------------------------

    async def _open_round(self, request: KeygenRequest, excluded: set[OperatorAddress]) -> _Round:
        """Collect a nonce from each of n nodes; fewer, if that many do not answer and the request allows it."""
        asked = request.threshold
        least = request.min_parties or asked.n
        candidates = rank(self._nodes.values(), without=excluded)
        if len(candidates) < least:  # nothing better is left: those that failed may have recovered
            candidates = rank(self._nodes.values())
        opened, failures = await self._ask_challenges(request, asked, candidates)
        if len(opened.nonces) < asked.n and len(opened.nonces) >= least:
            # n is part of what is signed, so a smaller set of parties needs challenges of its own.
            answered = [node for node in candidates if node.operator in opened.nonces]
            opened, later = await self._ask_challenges(request, Threshold(asked.t, len(answered)), answered)
            failures += later
        if len(opened.nonces) != opened.threshold.n:
            raise QuorumError(
                f"{len(opened.nonces)} nodes are ready for key generation, {opened.threshold.n} are needed",
                hint="The owner was not asked, nothing was created. Allow fewer with min_parties, or add nodes",
                threshold=asked.t,
                outcomes=failures,
                phase="challenge",
                request_id=request.request_id,
            )
        return opened

    async def _ask_challenges(
        self, request: KeygenRequest, threshold: Threshold, candidates: Sequence[Node]
    ) -> tuple[_Round, list[NodeOutcome]]:
        setup = revision_1.keygen_setup(
            threshold=threshold,
            claim=request.claim,
            permissions=request.permissions,
            key_label=request.key_label,
        )
        text = revision_1.encode_keygen_setup(setup)
        digest = node_1.setup_hash(operation=_OPERATION, revision=_REVISION, setup=text)
        params = node_1.encode_challenge(
            node_1.ChallengeParams(request_id=request.request_id, operation=_OPERATION, setup_hash=digest)
        )

        async def ask(node: Node) -> node_1.ChallengeResult:
            result = await node.call(
                "dan_challenge",
                params,
                node_1.decode_challenge_result,
                deadline=self._deadline,
                request_id=request.request_id,
            )
            return result.value

        nonces, failures = await fill_seats(candidates, threshold.n, ask)
        return _Round(setup, text, digest, threshold, nonces), failures

    # --- the owner, and the second round trip -------------------------------------------------------------------------

    async def _authorise(self, challenge: str, setup: KeygenSetup) -> UserAuthentication:
        waiting = self._deadline.paused() if self._auth.interactive else nullcontext()
        with waiting:
            signature = await self._auth.authorise(
                challenge=challenge, typed_data=revision_1.keygen_typed_data(setup, challenge)
            )
        return UserAuthentication(
            method=self._auth.method,
            id=self._auth.id,
            credentials=revision_1.encode_claim(self._request.claim),
            signature=signature,
        )

    async def _finish(self, request: KeygenRequest, opened: _Round) -> KeygenReport:
        participants = opened.participants
        nonces = tuple(opened.nonces[operator].nonce for operator in participants)
        challenge = node_1.final_challenge(
            operation=_OPERATION,
            request_id=request.request_id,
            setup_digest=opened.setup_digest,
            participants=participants,
            nonces=nonces,
        )
        params = node_1.encode_keygen(
            node_1.KeygenParams(
                request_id=request.request_id,
                revision=_REVISION,
                setup=opened.setup_text,
                participants=participants,
                nonces=nonces,
                user_authentication=await self._authorise(challenge.hex(), opened.setup),
            )
        )

        async def ask(operator: OperatorAddress) -> Answer:
            result = await self._nodes[operator].call(
                "dan_keygen",
                params,
                node_1.decode_acknowledgement,
                deadline=self._deadline,
                request_id=request.request_id,
            )
            return Answer(result.value, result.attempts)

        tally = KeygenTally(
            request_id=request.request_id,
            threshold=opened.threshold,
            participants=participants,
            key_id_of=lambda public_key: node_1.compute_key_id(
                public_key=public_key,
                t=opened.threshold.t,
                participants=participants,
                owner_id=request.owner_id,
                request_id=request.request_id,
            ),
            digest_of=node_1.acknowledgement_digest,
        )
        outcomes = await fan_out(
            participants, ask, tally=tally, deadline=self._deadline, grace_s=self._timeouts.grace_s
        )
        if self._deadline.is_over and not tally.is_won:
            raise self._deadline.error(
                "waiting for the nodes to generate the key", phase="keygen", request_id=request.request_id
            )
        try:
            agreed = tally.verdict()
        except QuorumError as error:
            error.outcomes = outcomes
            raise
        return KeygenReport(
            request_id=request.request_id,
            key_id=agreed.key_id,
            public_key=agreed.public_key,
            threshold=opened.threshold,
            outcomes=outcomes,
        )


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
