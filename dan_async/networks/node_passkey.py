"""
Registering a passkey over the nodes themselves (docs/passkeys.md, "On the nodes").

Every node of the pool that answers is told. A key takes n nodes that know its owner's passkey, so that many must confirm.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dan_async._tasks import Deadline
from dan_async.crypto.signature import recover_address
from dan_async.errors import AcknowledgementError, DanError, NodeOutcome, QuorumError
from dan_async.models.threshold import MAX_PARTIES
from dan_async.networks.emit import tell_verdict
from dan_async.networks.node import Node
from dan_async.networks.node_key_change import Authenticate, ask_all
from dan_async.networks.node_round import NodeRound, SetupText
from dan_async.networks.pool import rank
from dan_async.types import Json, OperatorAddress
from dan_async.wire import node_passkeys
from dan_async.wire.node_passkeys import PasskeyReceipt

__all__ = ["register_passkey"]


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
        raise _too_few(setup, len(nonces), needed, failures)
    opened = NodeRound.of(setup, nonces)
    authentication = await authenticate(opened.challenge)
    params = opened.params(authentication)
    by_operator = {node.operator: node for node in nodes}
    started = time.monotonic()
    receipts, refused = await ask_all(
        [by_operator[operator] for operator in opened.participants],
        lambda node: _tell(node, params, setup, authentication.id, deadline),
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
        raise _too_few(setup, len(receipts), needed, failures + refused)
    return authentication.id


async def _tell(
    node: Node, params: str, setup: SetupText, credential_id: str, deadline: Deadline
) -> PasskeyReceipt:
    def decode(value: Json) -> PasskeyReceipt:
        receipt = node_passkeys.decode_passkey_receipt(value)
        _check(receipt, node.operator, setup, credential_id)
        return receipt

    result = await node.call(
        node_passkeys.METHOD, params, decode, deadline=deadline, request_id=setup.request_id
    )
    return result.value


def _check(receipt: PasskeyReceipt, operator: OperatorAddress, setup: SetupText, credential_id: str) -> None:
    asked = (setup.request_id, operator, credential_id)
    try:
        signer: str = recover_address(node_passkeys.passkey_receipt_digest(receipt), receipt.signature)
    except DanError:
        signer = ""
    if (receipt.request_id, receipt.operator, receipt.credential_id) != asked or signer != operator:
        raise AcknowledgementError(
            "the receipt does not count: it is for something else, or not signed by the node's operator",
            hint="The node is faulty or dishonest; tell its operator",
        )


def _too_few(setup: SetupText, found: int, needed: int, failures: list[NodeOutcome[Any]]) -> QuorumError:
    return QuorumError(
        f"{found} nodes can register the passkey, at least {needed} must",
        hint="Register another passkey when the other nodes are back",
        threshold=needed,
        outcomes=failures,
        phase=setup.operation,
        request_id=setup.request_id,
    )
