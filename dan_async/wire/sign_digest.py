"""Which 32 bytes get signed for a request: the same on every node, and worked out again by whoever asked."""

from __future__ import annotations

from dan_async._hex import from_hex
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.signature import personal_message_digest
from dan_async.crypto.user_operation_hash import user_operation_hash
from dan_async.errors import InvalidFieldError
from dan_async.models.user_operation import user_operation_from_dict
from dan_async.wire.members import load_text
from dan_async.wire.sign_request import RequestType, SignRequest

__all__ = ["sign_request_digest", "user_operation_digest"]


def sign_request_digest(request: SignRequest) -> bytes:
    """
    Give the digest of a request (WIRE, "What a signgen message is").

    Args:
        request: What is to be signed.

    Returns:
        32 bytes: for ``accountAbstractionTx`` the digest of the personal message over the user operation's hash, for
        ``EIP191`` that over the bytes, for ``rawBytes`` the bytes themselves, for ``EIP712`` the typed data's digest.

    Raises:
        InvalidFieldError: The message is not what its type says, or the type is ``eddsa``, which no secp256k1 key signs.
    """
    if request.request_type is RequestType.RAW_BYTES:
        return from_hex(request.message, field="message", length=32)
    if request.request_type is RequestType.EIP191:
        return personal_message_digest(from_hex(request.message, field="message"))
    if request.request_type is RequestType.EIP712:
        return typed_data_digest(load_text(request.message))
    if request.request_type is RequestType.USER_OPERATION:
        return personal_message_digest(user_operation_digest(request))
    raise InvalidFieldError("requestType", "must not be eddsa: the key is a secp256k1 key")


def user_operation_digest(request: SignRequest) -> bytes:
    """
    Give the hash of the user operation that an ``accountAbstractionTx`` is about: 32 bytes.

    Raises:
        InvalidFieldError: It is not a user operation of its version, or the entry point is no address.
    """
    found = load_text(request.message)
    version = found["entryPointVersion"]
    return user_operation_hash(
        user_operation_from_dict(found["userOperation"], version=version),
        entry_point=found["entryPointAddress"],
        chain_id=found["chainId"],
        version=version,
    )
