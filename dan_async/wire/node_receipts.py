"""
dan-node/1: a node's receipt for adding or revoking an ephemeral key (docs/node-protocol.md, "Receipt").

The requests themselves have the form of ``dan_keygen``: the same members, authorised the same way.
"""

from __future__ import annotations

from dan_async._hex import from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError, NodeProtocolError
from dan_async.models._fields import check_text
from dan_async.models.ephemeral_key_change import ChangeReceipt
from dan_async.models.threshold import Threshold
from dan_async.types import Json, OperatorAddress
from dan_async.wire.members import members
from dan_async.wire.node_1 import decode_key_id, decode_request_id
from dan_async.wire.node_hashes import tagged_hash, u32

__all__ = ["METHODS", "decode_receipt", "encode_receipt", "receipt_digest"]

#: The operation, as the owner signs it, and the JSON-RPC method that carries it out.
METHODS = {"addEphemeralKey": "dan_add_ephemeral_key", "revokeEphemeralKey": "dan_revoke_ephemeral_key"}

_MEMBERS = ("requestId", "operation", "operator", "keyId", "ephId", "t", "n", "signature")


def receipt_digest(receipt: ChangeReceipt) -> bytes:
    """
    What the operator signs.

    H("dan-node/1 receipt", operation, request id, operator, key id, ephemeral id, t, n).
    """
    return tagged_hash(
        "dan-node/1 receipt",
        receipt.operation.encode(),
        bytes.fromhex(receipt.request_id[2:]),
        bytes.fromhex(receipt.operator[2:]),
        bytes.fromhex(receipt.key_id),
        receipt.eph_id.encode(),
        u32(receipt.threshold.t),
        u32(receipt.threshold.n),
    )


def encode_receipt(receipt: ChangeReceipt) -> Json:
    """Result of the two methods."""
    return {
        "requestId": receipt.request_id,
        "operation": receipt.operation,
        "operator": receipt.operator,
        "keyId": receipt.key_id,
        "ephId": receipt.eph_id,
        "t": receipt.threshold.t,
        "n": receipt.threshold.n,
        "signature": to_hex(receipt.signature),
    }


def decode_receipt(value: Json) -> ChangeReceipt:
    """
    Read the result of the two methods. Nothing in it is believed before its signature was checked.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(value, "result", _MEMBERS)
        return ChangeReceipt(
            request_id=decode_request_id(found["requestId"]),
            operation=check_text("operation", found["operation"], most=32),
            operator=OperatorAddress(parse_address("operator", found["operator"])),
            key_id=decode_key_id(found["keyId"]),
            eph_id=check_text("ephId", found["ephId"], most=256),
            threshold=Threshold(found["t"], found["n"]),
            signature=from_hex(found["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise NodeProtocolError(
            f"the receipt is malformed: {error.message}", hint="The node does not speak dan-node/1"
        ) from error
