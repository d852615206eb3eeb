"""
dan-node/1: registering a passkey, and a node's receipt for it (docs/passkeys.md, "On the nodes").

The request has the form of ``dan_keygen``: the same members, with the setup of registerPasskey, and the new credential as
the signature.
"""

from __future__ import annotations

from attrs import field, frozen

from dan_async._hex import from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError, NodeProtocolError
from dan_async.models._fields import check_text, required
from dan_async.types import Json, OperatorAddress, RequestId
from dan_async.wire.members import members
from dan_async.wire.node_1 import decode_request_id
from dan_async.wire.node_hashes import tagged_hash

__all__ = [
    "METHOD",
    "OPERATION",
    "PasskeyReceipt",
    "decode_passkey_receipt",
    "encode_passkey_receipt",
    "passkey_receipt_digest",
]

METHOD = "dan_register_passkey"
OPERATION = "registerPasskey"

_MEMBERS = ("requestId", "operator", "credentialId", "signature")


@frozen(kw_only=True)
class PasskeyReceipt:
    """
    A node's word, signed by its operator, that it knows a passkey from now on.

    Args:
        request_id: The request that it answers.
        operator: The node.
        credential_id: The passkey, base64url.
        signature: 65 bytes over ``passkey_receipt_digest``.
    """

    request_id: RequestId
    operator: OperatorAddress
    credential_id: str = field(validator=required(check_text, most=1400))
    signature: bytes


def passkey_receipt_digest(receipt: PasskeyReceipt) -> bytes:
    """
    What the operator signs.

    H("dan-node/1 passkey receipt", request id, operator, credential id).
    """
    return tagged_hash(
        "dan-node/1 passkey receipt",
        bytes.fromhex(receipt.request_id[2:]),
        bytes.fromhex(receipt.operator[2:]),
        receipt.credential_id.encode(),
    )


def encode_passkey_receipt(receipt: PasskeyReceipt) -> Json:
    """Result of ``dan_register_passkey``."""
    return {
        "requestId": receipt.request_id,
        "operator": receipt.operator,
        "credentialId": receipt.credential_id,
        "signature": to_hex(receipt.signature),
    }


def decode_passkey_receipt(value: Json) -> PasskeyReceipt:
    """
    Read the result of ``dan_register_passkey``. Nothing in it is believed before its signature was checked.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(value, "result", _MEMBERS)
        return PasskeyReceipt(
            request_id=decode_request_id(found["requestId"]),
            operator=OperatorAddress(parse_address("operator", found["operator"])),
            credential_id=found["credentialId"],
            signature=from_hex(found["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise NodeProtocolError(
            f"the receipt is malformed: {error.message}", hint="The node does not speak dan-node/1"
        ) from error
