"""
Finding out over the nodes whether a key generation made a key (docs/reference/node-protocol.md, "dan_settle_keygen").

Every node of the pool is asked. A node that answers begins nothing more under the request. So if t nodes acknowledge the
same key, there is a session; and if fewer than t nodes are left that acknowledged or did not answer, there can never be one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from dan_async.deadline import Deadline
from dan_async.errors import AcknowledgementError, NodeOutcome, QuorumError
from dan_async.network import KeygenQuestion, KeygenReport, KeygenSettlement
from dan_async.nodes.acknowledgements import KeygenTally
from dan_async.nodes.ask_many import Plan, ask_many
from dan_async.nodes.node import Node, Request
from dan_async.protocols.fields import encode
from dan_async.protocols.node import (
    SETTLE_KEYGEN,
    Acknowledgement,
    KeygenClaims,
    Settlement,
    SettleParams,
    request_ids,
    settle_digest,
)
from dan_async.retry import Tries
from dan_async.types import OperatorAddress


async def settle_keygen(
    nodes: Sequence[Node], question: KeygenQuestion, *, deadline: Deadline
) -> KeygenSettlement:
    """Ask the nodes; see ``SettlesKeygen``."""
    key = question.ephemeral_key

    async def ask(node: Node, tries: Tries) -> tuple[Acknowledgement, ...]:
        digest = settle_digest(request_id=question.request_id, operator=node.operator, eph_pk=key.public_key)
        params = SettleParams(
            request_id=question.request_id,
            eph_pk=key.public_key,
            sign_alg=key.algorithm,
            signature=key.sign_message(digest),
        )
        request = Request(SETTLE_KEYGEN, encode(params), Settlement.read, question.request_id)
        settlement = await node.call(tries, request=request, deadline=deadline)
        return settlement.acknowledgements

    plan: Plan[tuple[Acknowledgement, ...]] = Plan(wanted=len(nodes))
    answers = await ask_many(nodes, ask, plan, step="settling", deadline=deadline)
    return judge(question, answers.values, answers.failures)


def judge(
    question: KeygenQuestion,
    answers: Mapping[OperatorAddress, tuple[Acknowledgement, ...]],
    failures: Sequence[NodeOutcome[Any]],
) -> KeygenSettlement:
    """Judge by the acknowledgements of each node, none if it knows of no key, and by the nodes that did not answer. Pure."""
    groups: dict[Hashable, dict[OperatorAddress, Acknowledgement]] = {}
    for operator, acknowledgements in answers.items():
        for ack in acknowledgements:
            groups.setdefault((ack.request_id, ack.threshold, ack.participants), {})[operator] = ack
    largest, report = 0, None
    for found in groups.values():
        claims = next(iter(found.values())).claims
        if not _was_asked(question, claims):
            continue
        tally = KeygenTally(
            request_id=claims.request_id,
            threshold=claims.threshold,
            participants=claims.participants,
            owner_id=question.owner_id,
        )
        outcomes: list[NodeOutcome[Acknowledgement]] = []
        for operator, ack in found.items():
            try:
                tally.record(operator, ack)
            except AcknowledgementError as error:
                outcomes.append(NodeOutcome(operator=operator, error=error))
            else:
                outcomes.append(NodeOutcome(operator=operator, answer=ack, summary=ack.summary))
        largest = max(largest, sum([outcome.is_success for outcome in outcomes]))
        # More than one, if a key generation that had been given up for another one ended well after all: any will do.
        with suppress(QuorumError):
            agreed = tally.verdict()
            report = KeygenReport(
                request_id=claims.request_id,
                key_id=agreed.key_id,
                public_key=agreed.public_key,
                threshold=claims.threshold,
                outcomes=(*outcomes, *failures),
            )
    if report is not None:
        return KeygenSettlement(report=report, is_certain=True, outcomes=report.outcomes)
    is_certain = largest + len(failures) < question.threshold.t
    return KeygenSettlement(report=None, is_certain=is_certain, outcomes=tuple(failures))


def _was_asked(question: KeygenQuestion, claims: KeygenClaims) -> bool:
    asked = question.threshold
    return (
        claims.request_id in request_ids(question.request_id)
        and claims.t == asked.t
        and (question.min_parties or asked.n) <= claims.n <= asked.n
        and len(claims.participants) == claims.n
    )
