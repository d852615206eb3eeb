"""
What an owner changes on the nodes: ephemeral keys that are added or revoked, passkeys that are registered.

Ephemeral keys (docs/reference/node-protocol.md, ``dan_add_ephemeral_key``): every node of the pool that holds the key is
told. An added one can be used as soon as t nodes know it; a revoked one cannot be used any more as soon as fewer than t
nodes are left that do not know: n - t + 1 must confirm. Each receipt says what t and n are and which nodes count, and
the key's id is the hash of that. When enough have answered, the others have *patience_s*: a silent one stops no change.
Passkeys (docs/how-to/passkeys.md, "On the nodes"): every node that answers is told. A key takes n nodes that know its
owner's passkey, so that many must confirm.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from attrs import frozen

from dan_async.config import MAX_PARTIES, Threshold
from dan_async.deadline import Deadline
from dan_async.errors import AcknowledgementError, NodeCode, NodeOutcome, NodeRefusedError, QuorumError
from dan_async.listeners import report_verdict
from dan_async.network import EphemeralKeyReport
from dan_async.nodes.ask_many import Answers, Plan
from dan_async.nodes.health import rank
from dan_async.nodes.node import Node
from dan_async.nodes.round import (
    Authenticate,
    NodeRound,
    SetupText,
    is_incurable,
    open_round,
    out_of_time,
    raise_if_closed,
    submit,
)
from dan_async.protocols.node import REGISTER_PASSKEY, ChallengeResult, ChangeReceipt, PasskeyReceipt
from dan_async.types import OperatorAddress

# --- ephemeral keys ---------------------------------------------------------------------------------------------------


async def change_ephemeral_key(
    nodes: Mapping[OperatorAddress, Node],
    setup: SetupText,
    authenticate: Authenticate,
    *,
    eph_id: str,
    threshold: Threshold | None = None,
    deadline: Deadline,
    patience_s: float,
    is_oneshot: bool = False,
) -> EphemeralKeyReport:
    """Carry out the change that the setup names; the threshold is only the caller's word, until a node says what it is."""
    least = 1 if threshold is None else _needed(setup.operation, threshold)
    opened, asked = await _open_with_everybody(nodes, setup, deadline, least=least, patience_s=patience_s)
    failures: list[NodeOutcome[Any]] = [o for o in asked.failures if not _holds_no_share(o.error)]
    if not asked.values:
        raise _too_few(0, 1, setup, failures, deadline)
    if is_oneshot:
        opened = opened.without_nonces()
    authentication = await authenticate(opened.challenge)
    receipts = await submit(
        nodes,
        opened,
        authentication,
        decode=ChangeReceipt.read,
        check=partial(_check_change_receipt, opened, eph_id, authentication.id),
        plan=_Confirmed(wanted=len(opened.participants), operation=setup.operation, listen_s=patience_s),
        deadline=deadline,
    )
    failures += receipts.failures
    # The same in all that count, or they would not make the key's id.
    agreed = next((receipt.claims.threshold for receipt in receipts.values.values()), threshold)
    if agreed is None:
        raise _too_few(0, 1, setup, failures, deadline)
    needed = _needed(setup.operation, agreed)
    if not _is_confirmed(nodes, opened, receipts, needed, failures):
        raise _too_few(len(receipts.values), needed, setup, failures, deadline)
    return EphemeralKeyReport(
        request_id=setup.request_id,
        confirmed_by=tuple(receipts.values),
        failures=tuple([outcome.describe() for outcome in failures]),
    )


def _needed(operation: str, threshold: Threshold) -> int:
    return threshold.t if operation == "addEphemeralKey" else threshold.n - threshold.t + 1


@frozen(kw_only=True, eq=False, repr=False)
class _Confirmed(Plan[ChangeReceipt]):
    """Over when enough have confirmed; then the others are listened to for a while, since they should know as well."""

    operation: str
    listen_s: float

    def is_settled(self, answers: Answers[ChangeReceipt]) -> bool:
        receipt = next(iter(answers.values.values()), None)  # they all say the same threshold
        return receipt is not None and len(answers.values) >= _needed(
            self.operation, receipt.claims.threshold
        )

    def linger_s(self, answers: Answers[ChangeReceipt]) -> float:  # noqa: ARG002 - always the same
        return self.listen_s


def _holds_no_share(error: BaseException | None) -> bool:
    return isinstance(error, NodeRefusedError) and error.code == NodeCode.UNKNOWN_KEY


def _check_change_receipt(
    opened: NodeRound, eph_id: str, owner_id: str, operator: OperatorAddress, receipt: ChangeReceipt
) -> None:
    setup, claims = opened.setup, receipt.claims
    said = (claims.request_id, claims.operation, claims.key_id, claims.eph_id)
    asked = (setup.request_id, setup.operation, setup.key_id, eph_id)
    is_holder = operator in claims.participants and claims.is_of_key(owner_id)
    _check_receipt(receipt, opened, operator, is_asked=said == asked and is_holder)


# --- passkeys ---------------------------------------------------------------------------------------------------------


async def register_passkey(
    nodes: Mapping[OperatorAddress, Node],
    setup: SetupText,
    authenticate: Authenticate,
    *,
    needed: int,
    deadline: Deadline,
    patience_s: float,
) -> str:
    """Register one passkey, which *authenticate* makes, with at least *needed* nodes; return its credential id."""
    opened, asked = await _open_with_everybody(
        nodes, setup, deadline, most=MAX_PARTIES, least=needed, patience_s=patience_s
    )
    if len(asked.values) < needed:
        raise _too_few(len(asked.values), needed, setup, asked.failures, deadline)
    authentication = await authenticate(opened.challenge)
    receipts = await submit(
        nodes,
        opened,
        authentication,
        decode=PasskeyReceipt.read,
        check=partial(_check_passkey_receipt, opened, authentication.id),
        plan=Plan(wanted=len(opened.participants), least=needed, patience_s=patience_s),
        deadline=deadline,
    )
    failures = asked.failures + receipts.failures
    if not _is_confirmed(nodes, opened, receipts, needed, failures):
        raise _too_few(len(receipts.values), needed, setup, failures, deadline)
    return authentication.id


def _check_passkey_receipt(
    opened: NodeRound, credential_id: str, operator: OperatorAddress, receipt: PasskeyReceipt
) -> None:
    said = (receipt.claims.request_id, receipt.claims.credential_id)
    _check_receipt(receipt, opened, operator, is_asked=said == (opened.setup.request_id, credential_id))


# --- both -------------------------------------------------------------------------------------------------------------


async def _open_with_everybody(
    nodes: Mapping[OperatorAddress, Node],
    setup: SetupText,
    deadline: Deadline,
    *,
    most: int | None = None,
    least: int,
    patience_s: float,
) -> tuple[NodeRound, Answers[ChallengeResult]]:
    """Ask all nodes for a nonce, since a change is for everybody who can be reached; after a while *least* will do."""
    candidates, remaining = rank(nodes.values())[:most], deadline.remaining()
    patience_s = patience_s if remaining is None else min(patience_s, remaining / 2)
    plan: Plan[ChallengeResult] = Plan(wanted=len(candidates), least=least, patience_s=patience_s)
    return await open_round(candidates, setup, plan, deadline=deadline)


def _check_receipt(
    receipt: ChangeReceipt | PasskeyReceipt, opened: NodeRound, operator: OperatorAddress, *, is_asked: bool
) -> None:
    index = opened.participants.index(operator) + 1
    request_id = opened.setup.request_id
    if not is_asked or receipt.problem(request_id=request_id, operator=operator, party_index=index):
        raise AcknowledgementError(
            "the receipt does not count: it is for something else, describes another key, or is not signed by the operator",
            hint="The node is faulty or dishonest; tell its operator",
        )


def _is_confirmed(
    nodes: Mapping[OperatorAddress, Node],
    opened: NodeRound,
    receipts: Answers[ChangeReceipt] | Answers[PasskeyReceipt],
    needed: int,
    failures: list[NodeOutcome[Any]],
) -> bool:
    """Return whether enough nodes confirm, and report it."""
    is_won = len(receipts.values) >= needed
    report_verdict(
        nodes[opened.participants[0]].events,
        opened.setup.request_id,
        opened.setup.operation,
        is_won=is_won,
        needed=needed,
        agreed=receipts.values,
        outcomes=failures,
        elapsed_s=receipts.elapsed_s,
        key_id=opened.setup.key_id,
    )
    return is_won


def _too_few(
    found: int, needed: int, setup: SetupText, failures: list[NodeOutcome[Any]], deadline: Deadline
) -> QuorumError:
    raise_if_closed(failures)
    may_confirm = found + sum(not is_incurable(outcome) for outcome in failures)
    if setup.operation == REGISTER_PASSKEY:
        problem = f"{found} nodes can register the passkey"
        hint = "Register another passkey when the other nodes are back"
    else:
        problem = f"{found} nodes confirmed {setup.operation}"
        hint = "Repeating the call is safe: a node that has made the change says so again"
        if may_confirm < needed:
            hint = (
                "Repeating the call does not help: too many nodes refuse the change, or do not hold the key"
            )
    error = QuorumError(
        f"{problem}, at least {needed} must",
        hint=hint,
        threshold=needed,
        outcomes=failures,
        phase=setup.operation,
        request_id=setup.request_id,
        retryable=may_confirm >= needed,
    )
    return out_of_time(error, deadline, "waiting for the nodes to confirm", phase=setup.operation)
