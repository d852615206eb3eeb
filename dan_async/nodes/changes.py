"""
Adding or revoking an ephemeral key over the nodes themselves (docs/node-protocol.md, "Ephemeral keys").

Every node of the pool that holds the key is told. An added key can be used as soon as t nodes know it; a revoked one cannot
be used any more as soon as fewer than t nodes are left that do not know: n - t + 1 must confirm.

Registering a passkey over the nodes themselves (docs/passkeys.md, "On the nodes").

Every node of the pool that answers is told. A key takes n nodes that know its owner's passkey, so that many must confirm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from attrs import evolve

from dan_async.config import MAX_PARTIES, Threshold
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.errors import (
    AcknowledgementError,
    DanError,
    NodeCode,
    NodeOutcome,
    NodeRefusedError,
    QuorumError,
)
from dan_async.events import tell_verdict
from dan_async.network import EphemeralKeyReport
from dan_async.nodes.health import rank
from dan_async.nodes.node import Node
from dan_async.nodes.round import NodeRound, SetupText
from dan_async.protocols.node import METHODS, REGISTER_PASSKEY
from dan_async.protocols.node_claims import ChangeReceipt, PasskeyReceipt
from dan_async.protocols.setups import UserAuthentication
from dan_async.types import Json, OperatorAddress

T = TypeVar("T")

#: Has the owner sign a challenge of 64 hex digits.
Authenticate = Callable[[str], Awaitable[UserAuthentication]]


async def change_ephemeral_key(
    nodes: Sequence[Node],
    setup: SetupText,
    authenticate: Authenticate,
    *,
    eph_id: str,
    threshold: Threshold | None,
    deadline: Deadline,
    is_oneshot: bool = False,
) -> EphemeralKeyReport:
    """
    Carry out one change.

    Args:
        nodes: The pool.
        setup: What the owner signs; it names the key.
        authenticate: Has the owner sign.
        eph_id: The ephemeral key that the setup is about.
        threshold: t and n of the key; what the nodes say, if None.
        deadline: The job's deadline.
        is_oneshot: Whether the owner signed without a challenge from the nodes.

    Returns:
        Who confirmed, and what the others said.

    Raises:
        WalletError: The owner did not authorise it; nothing was changed.
        QuorumError: Too few nodes confirmed.
    """
    asking = setup.challenge_params
    nonces, silent = await ask_all(rank(nodes), lambda node: setup.ask_nonce(node, asking, deadline))
    failures = [outcome for outcome in silent if not _holds_no_share(outcome.error)]
    if not nonces:
        raise _too_few(setup, 0, 1, failures)
    opened = NodeRound.of(setup, dict(list(nonces.items())[:MAX_PARTIES]))
    if is_oneshot:  # the nonces only showed who holds the key
        opened = evolve(opened, nonces=())
    params = opened.params(await authenticate(opened.challenge))
    by_operator = {node.operator: node for node in nodes}
    started = time.monotonic()
    receipts, refused = await ask_all(
        [by_operator[operator] for operator in opened.participants],
        lambda node: _tell(node, params, opened, eph_id, deadline),
    )
    failures += refused
    agreed = threshold or _claimed_threshold(receipts.values())
    if agreed is None:
        raise _too_few(setup, 0, 1, failures)
    needed = agreed.t if setup.operation == "addEphemeralKey" else agreed.n - agreed.t + 1
    tell_verdict(
        nodes[0].events,
        setup.request_id,
        setup.operation,
        is_won=len(receipts) >= needed,
        needed=needed,
        agreed=receipts,
        outcomes=failures,
        elapsed_s=time.monotonic() - started,
        key_id=setup.key_id,
    )
    if len(receipts) < needed:
        raise _too_few(setup, len(receipts), needed, failures)
    return EphemeralKeyReport(
        request_id=setup.request_id,
        confirmed_by=tuple(receipts),
        failures=tuple(outcome.describe() for outcome in failures),
    )


async def ask_all(
    nodes: Sequence[Node], ask: Callable[[Node], Awaitable[T]]
) -> tuple[dict[OperatorAddress, T], list[NodeOutcome[Any]]]:
    """Ask every node at once; give the answers and what the others said."""
    answers: dict[OperatorAddress, T] = {}
    failures: list[NodeOutcome[Any]] = []

    async def one(node: Node) -> None:
        try:
            answers[node.operator] = await ask(node)
        except DanError as error:
            failures.append(
                NodeOutcome(
                    operator=node.operator,
                    error=error,
                    attempts=error.attempts or 1,
                    elapsed_s=error.elapsed_s or 0.0,
                )
            )

    tasks = [asyncio.create_task(one(node)) for node in nodes]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(tasks)
    return answers, failures


def _holds_no_share(error: BaseException | None) -> bool:
    return isinstance(error, NodeRefusedError) and error.code == NodeCode.UNKNOWN_KEY


async def _tell(node: Node, params: str, opened: NodeRound, eph_id: str, deadline: Deadline) -> ChangeReceipt:
    setup = opened.setup

    def decode(value: Json) -> ChangeReceipt:
        receipt = ChangeReceipt.read_whole(value)
        _check(receipt, node.operator, opened, eph_id)
        return receipt

    method = METHODS[setup.operation]
    result = await node.call(method, params, decode, deadline=deadline, request_id=setup.request_id)
    return result.value


def _check(receipt: ChangeReceipt, operator: OperatorAddress, opened: NodeRound, eph_id: str) -> None:
    setup, claims = opened.setup, receipt.claims
    asked = (setup.request_id, setup.operation, setup.key_id, eph_id)
    index = opened.participants.index(operator) + 1
    if ((claims.request_id, claims.operation, claims.key_id, claims.eph_id) != asked) or receipt.problem(
        request_id=setup.request_id, operator=operator, party_index=index
    ):
        raise AcknowledgementError(
            "the receipt does not count: it is for something else, or not signed by the node's operator",
            hint="The node is faulty or dishonest; tell its operator",
        )


def _claimed_threshold(receipts: Collection[ChangeReceipt]) -> Threshold | None:
    """Take t and n from the nodes when the session does not say: the claim that asks for most wins."""
    return max(
        (receipt.claims.threshold for receipt in receipts),
        key=lambda claim: (claim.n, claim.t),
        default=None,
    )


def _too_few(setup: SetupText, confirmed: int, needed: int, failures: list[NodeOutcome[Any]]) -> QuorumError:
    return QuorumError(
        f"{confirmed} nodes confirmed {setup.operation}, at least {needed} must",
        hint="Repeating the call is safe: a node that has made the change says so again",
        threshold=needed,
        outcomes=failures,
        phase=setup.operation,
        request_id=setup.request_id,
    )


async def register_passkey(
    nodes: Sequence[Node],
    setup: SetupText,
    authenticate: Authenticate,
    *,
    needed: int,
    deadline: Deadline,
) -> str:
    """
    Register one passkey.

    Args:
        nodes: The pool.
        setup: The setup of registerPasskey.
        authenticate: Has the passkey made.
        needed: How many nodes must confirm.
        deadline: The job's deadline.

    Returns:
        Its credential id.

    Raises:
        WalletError: No passkey was made; nothing was registered.
        QuorumError: Too few nodes confirmed.
    """
    asking = setup.challenge_params
    nonces, failures = await ask_all(
        rank(nodes)[:MAX_PARTIES], lambda node: setup.ask_nonce(node, asking, deadline)
    )
    if len(nonces) < needed:
        raise _too_few_registered(setup, len(nonces), needed, failures)
    opened = NodeRound.of(setup, nonces)
    authentication = await authenticate(opened.challenge)
    params = opened.params(authentication)
    by_operator = {node.operator: node for node in nodes}
    started = time.monotonic()
    receipts, refused = await ask_all(
        [by_operator[operator] for operator in opened.participants],
        lambda node: _ask_to_register(node, params, opened, authentication.id, deadline),
    )
    tell_verdict(
        nodes[0].events,
        setup.request_id,
        setup.operation,
        is_won=len(receipts) >= needed,
        needed=needed,
        agreed=receipts,
        outcomes=failures + refused,
        elapsed_s=time.monotonic() - started,
    )
    if len(receipts) < needed:
        raise _too_few_registered(setup, len(receipts), needed, failures + refused)
    return authentication.id


async def _ask_to_register(
    node: Node, params: str, opened: NodeRound, credential_id: str, deadline: Deadline
) -> PasskeyReceipt:
    def decode(value: Json) -> PasskeyReceipt:
        receipt = PasskeyReceipt.read_whole(value)
        _check_receipt(receipt, node.operator, opened, credential_id)
        return receipt

    result = await node.call(
        METHODS[REGISTER_PASSKEY], params, decode, deadline=deadline, request_id=opened.setup.request_id
    )
    return result.value


def _check_receipt(
    receipt: PasskeyReceipt, operator: OperatorAddress, opened: NodeRound, credential_id: str
) -> None:
    request_id, claims = opened.setup.request_id, receipt.claims
    index = opened.participants.index(operator) + 1
    if (claims.request_id, claims.credential_id) != (request_id, credential_id) or receipt.problem(
        request_id=request_id, operator=operator, party_index=index
    ):
        raise AcknowledgementError(
            "the receipt does not count: it is for something else, or not signed by the node's operator",
            hint="The node is faulty or dishonest; tell its operator",
        )


def _too_few_registered(
    setup: SetupText, found: int, needed: int, failures: list[NodeOutcome[Any]]
) -> QuorumError:
    return QuorumError(
        f"{found} nodes can register the passkey, at least {needed} must",
        hint="Register another passkey when the other nodes are back",
        threshold=needed,
        outcomes=failures,
        phase=setup.operation,
        request_id=setup.request_id,
    )
