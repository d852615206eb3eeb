"""
Counting acknowledgements: who says what, and whether enough nodes say the same.

Pure: no clock, no socket. The verdict is a function of the set of what was recorded, never of its order. An
acknowledgement is believed only after every check below, so that at most t - 1 dishonest nodes can delay a verdict but
never change it:

1. it answers this request, for the threshold and the participants that were asked;
2. it comes from the node that was asked, and names the index that node has;
3. that node's operator signed it;
4. its key id is the hash that we compute ourselves;
5. the public shares it lists lie, together with the public key, on one polynomial of degree t - 1 "in the exponent",
   which is Lagrange interpolation over every subset at once, extra shares included.

Then t nodes must make the very same claims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve

from dan_async.config import Threshold
from dan_async.crypto.curve import decode, points_fit_degree
from dan_async.crypto.signature import recover_address
from dan_async.errors import (
    AcknowledgementError,
    DanError,
    InvalidFieldError,
    NodeOutcome,
    QuorumError,
    ThresholdDowngradeError,
)
from dan_async.protocols.node import Acknowledgement
from dan_async.types import MpcKeyId, OperatorAddress, RequestId

#: Computes the key id of a public key: the hash that the node protocol prescribes, everything else being fixed.
KeyIdOf = Callable[[bytes], MpcKeyId]

#: The hash that an operator signs.
DigestOf = Callable[[Acknowledgement], bytes]


class KeygenTally:
    """
    The acknowledgements of one key generation.

    Args:
        request_id: The request they must answer.
        threshold: t and n of that request.
        participants: The n operators that were asked, ascending; party i is ``participants[i - 1]``.
        key_id_of: Computes the key id from a public key.
        digest_of: Computes what an operator signs.
    """

    def __init__(
        self,
        *,
        request_id: RequestId,
        threshold: Threshold,
        participants: Sequence[OperatorAddress],
        key_id_of: KeyIdOf,
        digest_of: DigestOf,
    ) -> None:
        self._request_id = request_id
        self._threshold = threshold
        self._participants = tuple(participants)
        self._index = {operator: index for index, operator in enumerate(self._participants, 1)}
        self._key_id_of = key_id_of
        self._digest_of = digest_of
        self._claim_problems: dict[object, str] = {}
        self._groups: dict[object, dict[OperatorAddress, Acknowledgement]] = {}
        self._answered: set[OperatorAddress] = set()

    def record(self, operator: OperatorAddress, acknowledgement: Acknowledgement) -> None:
        """
        Check an acknowledgement and count it.

        Args:
            operator: The node that was asked.
            acknowledgement: What it answered.

        Raises:
            AcknowledgementError: It failed a check, or the node has answered before. It does not count.
        """
        if operator in self._answered:
            raise self._refused(operator, "the node has already answered this request")
        self._answered.add(operator)
        problem = self._problem(operator, acknowledgement)
        if problem:
            raise self._refused(operator, problem)
        self._groups.setdefault(acknowledgement.claims, {})[operator] = acknowledgement

    def record_failure(self, operator: OperatorAddress) -> None:
        """Note that a node will give no acknowledgement."""
        self._answered.add(operator)

    @property
    def winners(self) -> list[Acknowledgement]:
        """One acknowledgement of each group in which t distinct nodes agree; more than one is a conflict."""
        return [
            next(iter(group.values())) for group in self._groups.values() if len(group) >= self._threshold.t
        ]

    @property
    def is_won(self) -> bool:
        """Whether t distinct nodes agree."""
        return any(len(group) >= self._threshold.t for group in self._groups.values())

    @property
    def is_lost(self) -> bool:
        """Whether no group can reach t any more, however the other nodes answer."""
        outstanding = len(self._participants) - len(self._answered)
        largest = max((len(group) for group in self._groups.values()), default=0)
        return largest + outstanding < self._threshold.t

    def verdict(self) -> Acknowledgement:
        """
        Give what t nodes agree on.

        Raises:
            QuorumError: Fewer than t nodes agree, or two groups of t contradict each other.
        """
        winners = self.winners
        if len(winners) == 1:
            return winners[0]
        if winners:
            raise QuorumError(
                f"{len(winners)} groups of {self._threshold.t} nodes each vouch for a different key",
                hint="At least t nodes are dishonest: do not use this network before its operators have explained it",
                threshold=self._threshold.t,
                outcomes=(),
                phase="verdict",
                request_id=self._request_id,
                retryable=False,
            )
        agreeing = max((len(group) for group in self._groups.values()), default=0)
        raise QuorumError(
            f"{agreeing} of {len(self._participants)} nodes agree on a key, {self._threshold.t} are needed",
            hint="Look at each node's outcome below; repeating the call is safe",
            threshold=self._threshold.t,
            outcomes=(),
            phase="verdict",
            request_id=self._request_id,
        )

    def _problem(self, operator: OperatorAddress, ack: Acknowledgement) -> str:
        if ack.request_id != self._request_id:
            return "it answers another request"
        if ack.threshold != self._threshold:
            problem = f"it is for {ack.threshold}, not for {self._threshold}"
            raise self._refused(operator, problem, ThresholdDowngradeError)
        if ack.participants != self._participants:
            return "it names other participants"
        if ack.operator != operator:
            return f"it speaks for another operator, {ack.operator}"
        if ack.party_index != self._index.get(operator):
            return f"it claims index {ack.party_index}, which is not the node's"
        try:
            signer: str = recover_address(self._digest_of(ack), ack.signature)
        except DanError:
            return "its signature is malformed"
        if signer != operator:
            return "it is not signed by the node's operator"
        return self._problem_with_claims(ack)

    def _problem_with_claims(self, ack: Acknowledgement) -> str:
        # The same claims come from every honest node, so they are checked once for all of them.
        claims = ack.claims
        problem = self._claim_problems.get(claims)
        if problem is None:
            problem = self._claim_problems[claims] = self._check_claims(ack)
        return problem

    def _check_claims(self, ack: Acknowledgement) -> str:
        if ack.key_id != self._key_id_of(ack.public_key):
            return "its key id is not the hash of the key"
        try:
            points = dict(enumerate(map(decode, (ack.public_key, *ack.public_shares))))
        except InvalidFieldError:
            return "it holds something that is not a point of the curve"
        if not points_fit_degree(points, self._threshold.t - 1):
            return "its public shares do not make the public key"
        return ""

    def _refused(
        self,
        operator: OperatorAddress,
        problem: str,
        kind: type[AcknowledgementError] = AcknowledgementError,
    ) -> AcknowledgementError:
        return kind(
            f"the acknowledgement does not count: {problem}",
            hint="The node is faulty or dishonest; tell its operator",
            phase="verdict",
            node=operator,
            method="dan_keygen",
            request_id=self._request_id,
        )


def set_dissent_apart(
    outcomes: Sequence[NodeOutcome[Acknowledgement]], winners: Sequence[Acknowledgement]
) -> tuple[NodeOutcome[Acknowledgement], ...]:
    """
    Turn the acknowledgements of another key than the agreed one into the failures that they are.

    *winners* has one acknowledgement of each group of t nodes. Unless there is exactly one, nobody can tell who is right,
    and nothing is changed.
    """
    if len(winners) != 1:
        return tuple(outcomes)
    return tuple([_against(winners[0], outcome) for outcome in outcomes])


def _against(agreed: Acknowledgement, outcome: NodeOutcome[Acknowledgement]) -> NodeOutcome[Acknowledgement]:
    said = outcome.answer
    if said is None or said.claims == agreed.claims:
        return outcome
    error = AcknowledgementError(
        f"the acknowledgement does not count: it is for another key ({said.key_id[:8]}…) than the one agreed upon",
        hint="The node is faulty or dishonest; tell its operator",
        phase="verdict",
        node=outcome.operator,
        method="dan_keygen",
        request_id=agreed.request_id,
    )
    return evolve(outcome, answer=None, error=error)
