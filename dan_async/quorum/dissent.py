"""Acknowledgements that are right in themselves, and not what t nodes agree on. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from dan_async.errors import AcknowledgementError, NodeOutcome
from dan_async.models.acknowledgement import Acknowledgement

__all__ = ["set_dissent_apart"]


def set_dissent_apart(
    outcomes: Sequence[NodeOutcome[Acknowledgement]], winners: Sequence[Acknowledgement]
) -> tuple[NodeOutcome[Acknowledgement], ...]:
    """
    Turn the acknowledgements of another key than the agreed one into the failures that they are.

    Args:
        outcomes: What each node answered.
        winners: One acknowledgement of each group of t nodes. Unless there is exactly one, nobody can tell who is right,
            and nothing is changed.

    Returns:
        The outcomes; an acknowledgement among them says what t nodes agree on.
    """
    if len(winners) != 1:
        return tuple(outcomes)
    return tuple(_against(winners[0], outcome) for outcome in outcomes)


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
