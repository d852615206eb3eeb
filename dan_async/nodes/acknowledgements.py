"""
Checking and counting acknowledgements: signatures, t equal texts, public shares that make the public key.

Pure: no clock, no socket. The verdict is a function of the set of answers, never of their order. An
acknowledgement is believed only after every check below, so that at most t - 1 dishonest nodes can delay a verdict but
never change it:

1. it answers this request, for the threshold and the participants that were asked;
2. it comes from the node that was asked, and names the index that node has;
3. that node's operator signed it, its text included;
4. its key id is the hash that we compute ourselves;
5. the public shares it lists lie, together with the public key, on one polynomial of degree t - 1 "in the exponent",
   which is Lagrange interpolation over every subset at once, extra shares included.

Then t nodes must have sent the very same text. A text is read and checked once, however many nodes send it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from attrs import define, evolve, field, frozen

from dan_async.config import Threshold
from dan_async.crypto.curve import point_of_key, points_fit_degree
from dan_async.errors import (
    AcknowledgementError,
    NodeOutcome,
    NodeProtocolError,
    QuorumError,
    ThresholdDowngradeError,
)
from dan_async.protocols.node import Acknowledgement, KeygenClaims, compute_key_id
from dan_async.types import OperatorAddress, RequestId


@frozen(eq=False, repr=False)
class _Problem:
    """Why a text does not count, from whichever node."""

    text: str
    kind: type[AcknowledgementError] = AcknowledgementError


@define(eq=False, kw_only=True, repr=False)
class KeygenTally:
    """The acknowledgements of one key generation."""

    _request_id: RequestId
    _threshold: Threshold
    #: The operators that were asked, ascending; party i is ``participants[i - 1]``.
    _participants: tuple[OperatorAddress, ...]
    _owner_id: str  # a part of the key id
    #: How many must hold a share; t, if it is fewer.
    _holders: int = 0
    _checked: dict[tuple[str, str], _Problem | None] = field(factory=dict, init=False)  # by check and text
    #: By a text that passed every check.
    _groups: dict[str, dict[OperatorAddress, Acknowledgement]] = field(factory=dict, init=False)
    _agreeing: int = field(default=0, init=False)  # in the largest group
    _wanted: int = field(init=False)  # how many must agree
    _indices: dict[OperatorAddress, int] = field(init=False)
    _answered: set[OperatorAddress] = field(factory=set, init=False)
    #: Whether as many distinct nodes agree as are wanted.
    is_won: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._wanted = max(self._threshold.t, self._holders)
        self._indices = dict(zip(self._participants, count(1), strict=False))

    def record(self, operator: OperatorAddress, acknowledgement: Acknowledgement) -> None:
        """Check an acknowledgement and count it; raise an AcknowledgementError if it does not count."""
        if operator in self._answered:
            raise _does_not_count("the node has already answered this request", operator, self._request_id)
        self._answered.add(operator)
        group = self._groups.get(acknowledgement.text)
        if group is None:
            self._once(self._check_question, acknowledgement, operator)
        index = self._indices.get(operator)
        problem = acknowledgement.problem(request_id=self._request_id, operator=operator, party_index=index)
        if problem:
            raise _does_not_count(problem, operator, self._request_id)
        if group is None:
            self._once(self._check_key, acknowledgement, operator)
            group = self._groups[acknowledgement.text] = {}
        else:
            acknowledgement.share_claims(next(iter(group.values())))
        group[operator] = acknowledgement
        if len(group) > self._agreeing:
            self._agreeing = len(group)
            self.is_won = self._agreeing >= self._wanted

    def record_failure(self, operator: OperatorAddress) -> None:
        """Note that a node will send no acknowledgement."""
        self._answered.add(operator)

    def forget_failure(self, operator: OperatorAddress) -> None:
        """Let a node that sent no acknowledgement answer after all."""
        self._answered.discard(operator)

    @property
    def winners(self) -> list[Acknowledgement]:
        """One acknowledgement of each group in which t distinct nodes agree; more than one is a conflict."""
        return [
            next(iter(group.values())) for group in self._groups.values() if len(group) >= self._threshold.t
        ]

    @property
    def is_lost(self) -> bool:
        """Whether no group can become large enough any more, however the other nodes answer."""
        outstanding = len(self._participants) - len(self._answered)
        return self._agreeing + outstanding < self._wanted

    def verdict(self) -> Acknowledgement:
        """Return an acknowledgement of the one key on which enough nodes agree; raise a QuorumError if there is none."""
        winners, t = self.winners, self._threshold.t
        if len(winners) == 1 and self.is_won:
            return winners[0]
        if len(winners) == 1:
            problem = f"{self._agreeing} nodes hold a share of the key, {self._holders} are wanted"
            hint = "Look at each node's outcome below; repeating the call is safe, and so is a smaller min_holders"
        elif winners:
            problem = f"{len(winners)} groups of {t} nodes each vouch for a different key"
            hint = "At least t nodes are dishonest: do not use this network before its operators have explained it"
        else:
            problem = f"{self._agreeing} of {len(self._participants)} nodes agree on a key, {t} are needed"
            hint = "Look at each node's outcome below; repeating the call is safe"
        raise QuorumError(
            problem,
            hint=hint,
            threshold=t,
            outcomes=(),
            phase="verdict",
            request_id=self._request_id,
            retryable=len(winners) < 2,
        )

    def _once(
        self,
        check: Callable[[KeygenClaims], _Problem | None],
        acknowledgement: Acknowledgement,
        operator: OperatorAddress,
    ) -> None:
        """Check a text, unless it was checked when another node sent it."""
        key = (check.__name__, acknowledgement.text)
        if key not in self._checked:
            try:
                self._checked[key] = check(acknowledgement.claims)
            except NodeProtocolError as error:
                self._checked[key] = _Problem(error.message)
        problem = self._checked[key]
        if problem is not None:
            raise _does_not_count(problem.text, operator, self._request_id, problem.kind)

    def _check_question(self, claims: KeygenClaims) -> _Problem | None:
        if claims.request_id != self._request_id:
            return _Problem("it answers another request")
        if claims.threshold != self._threshold:
            return _Problem(
                f"it is for {claims.threshold}, not for {self._threshold}", ThresholdDowngradeError
            )
        if claims.participants != self._participants:
            return _Problem("it names other participants")
        return None

    def _check_key(self, claims: KeygenClaims) -> _Problem | None:
        key_id = compute_key_id(
            public_key=claims.public_key,
            t=self._threshold.t,
            participants=self._participants,
            owner_id=self._owner_id,
            request_id=self._request_id,
        )
        if claims.key_id != key_id:
            return _Problem("its key id is not the hash of the key")
        try:  # their form has 33 bytes for each
            points = dict(enumerate(map(point_of_key, (claims.public_key, *claims.public_shares))))
        except ValueError:
            return _Problem("it holds something that is not a point of the curve")
        if not points_fit_degree(points, self._threshold.t - 1):
            return _Problem("its public shares do not make the public key")
        return None


def set_dissent_apart(
    outcomes: Sequence[NodeOutcome[Acknowledgement]], agreed: Acknowledgement
) -> tuple[NodeOutcome[Acknowledgement], ...]:
    """Turn the acknowledgements of another key than the agreed one into the failures that they are."""
    found = list(outcomes)
    for place, outcome in enumerate(outcomes):
        said = outcome.answer
        if said is not None and said.text != agreed.text:
            problem = f"it is for another key ({said.key_id[:8]}…) than the one agreed upon"
            error = _does_not_count(problem, outcome.operator, agreed.request_id)
            found[place] = evolve(outcome, answer=None, error=error)
    return tuple(found)


def _does_not_count(
    problem: str,
    operator: OperatorAddress,
    request_id: RequestId,
    kind: type[AcknowledgementError] = AcknowledgementError,
) -> AcknowledgementError:
    return kind(
        f"the acknowledgement does not count: {problem}",
        hint="The node is faulty or dishonest; tell its operator",
        phase="verdict",
        node=operator,
        method="dan_keygen",
        request_id=request_id,
    )
