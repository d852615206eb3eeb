"""
Messages to sign: their types, their form in a signgen of each revision, and the 32 bytes that get signed.

Revision 0.1 sends the inner message itself; 0.3 one JSON object ``{"message","requestType"}``; 1 an object that maps
transaction ids to the JSON texts of such objects, or to the bare message for ``eddsa``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from dan_async._json import dump, quote
from dan_async._values import MAX_SAFE_INT, check_int, check_text, from_hex, member_of, required
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.signature import personal_message_digest
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import check_token, load_text, members

#: Longest inner message, in characters.
_MOST_MESSAGE = 256 * 1024

#: Most messages in one request.
MOST_REQUESTS = 64


class RequestType(StrEnum):
    """The kind of an inner message, and with it the digest that gets signed."""

    #: JSON of a user operation, entry point and chain; signed: a personal message over its hash.
    USER_OPERATION = "accountAbstractionTx"
    #: Hex of bytes; signed: an EIP-191 personal message over them.
    EIP191 = "EIP191"
    #: Hex of a 32-byte digest; signed: the digest itself.
    RAW_BYTES = "rawBytes"
    #: JSON typed data; signed: its EIP-712 digest.
    EIP712 = "EIP712"
    #: Any text, for an ed25519 key.
    EDDSA = "eddsa"


def _request_type(value: object) -> RequestType:
    return member_of(RequestType, "requestType", value)


@frozen(kw_only=True)
class SignRequest:
    """One message to sign; its form is checked against its type. ``transaction_id`` is its name in revision 1."""

    request_type: RequestType = field(converter=_request_type)
    message: str = field(repr=False, validator=required(check_text, most=_MOST_MESSAGE))
    transaction_id: str | None = None
    #: The message, read once: bytes, the object of a JSON text, which nobody may change, or for ``eddsa`` the text.
    content: Any = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.transaction_id is not None:
            check_token("transaction_id", self.transaction_id)
        object.__setattr__(self, "content", _read(self.request_type, self.message))


def _read(kind: RequestType, message: str) -> Any:
    if kind is RequestType.RAW_BYTES:
        return from_hex(message, field="message", length=32)
    if kind is RequestType.EIP191:
        return from_hex(message, field="message")
    if kind is RequestType.EDDSA:
        return message
    value = _json_object(message)
    if kind is RequestType.USER_OPERATION:
        _check_user_operation(value)
    else:
        members(value, "message", ("types", "domain", "primaryType", "message"))
    return value


def _json_object(message: str) -> dict[str, Any]:
    try:
        value = load_text(message)
    except ProtocolError:
        raise InvalidFieldError("message", "must be JSON text") from None
    if not isinstance(value, dict):
        raise InvalidFieldError("message", "must be a JSON object")
    return value


def _check_user_operation(value: dict[str, Any]) -> None:
    found = members(value, "message", ("userOperation", "entryPointVersion", "entryPointAddress", "chainId"))
    if not isinstance(found["userOperation"], dict):
        raise InvalidFieldError("userOperation", "must be a JSON object")
    if found["entryPointVersion"] not in ("v0.6.0", "v0.7.0"):
        raise InvalidFieldError("entryPointVersion", "must be v0.6.0 or v0.7.0")
    check_text("entryPointAddress", found["entryPointAddress"], most=64)
    check_int("chainId", found["chainId"], least=1, most=MAX_SAFE_INT)


# --- the message of a signgen, in the form of each revision -----------------------------------------------------------


def encode_bare(request: SignRequest) -> str:
    """Write the message of revision 0.1: the inner message of a user operation."""
    if request.request_type is not RequestType.USER_OPERATION:
        raise InvalidFieldError(
            "request_type", "must be accountAbstractionTx in revision 0.1, which has no other"
        )
    return request.message


def decode_bare(text: str) -> SignRequest:
    return SignRequest(request_type=RequestType.USER_OPERATION, message=text)


def encode_wrapped(request: SignRequest) -> str:
    """Write the message of revision 0.3, or one entry of revision 1."""
    return f'{{"message":{quote(request.message)},"requestType":"{request.request_type.value}"}}'


def decode_wrapped(text: str, *, transaction_id: str | None = None) -> SignRequest:
    found = members(load_text(text), "message", ("message", "requestType"))
    return SignRequest(
        request_type=found["requestType"], message=found["message"], transaction_id=transaction_id
    )


def encode_keyed(requests: Sequence[SignRequest]) -> str:
    """Write the message of revision 1: transaction ids, and the message of each."""
    if not 1 <= len(requests) <= MOST_REQUESTS:
        raise InvalidFieldError("requests", f"must be 1 to {MOST_REQUESTS}")
    names = {request.transaction_id for request in requests}
    if None in names:
        check_token("transaction_id", None)
    if len(names) != len(requests):
        raise InvalidFieldError("transaction_id", "is the same for two requests")
    if len(names) > 1 and len({request.request_type is RequestType.EDDSA for request in requests}) > 1:
        raise InvalidFieldError("request_type", "mixes eddsa with others, which need another key")
    return dump(
        {
            str(request.transaction_id): request.message
            if request.request_type is RequestType.EDDSA
            else encode_wrapped(request)
            for request in requests
        }
    )


def decode_keyed(text: str, *, sign_alg: str) -> tuple[SignRequest, ...]:
    """Read the message of revision 1. An ed25519 key signs bare messages."""
    found = load_text(text)
    if not isinstance(found, dict) or not 1 <= len(found) <= MOST_REQUESTS:
        raise InvalidFieldError("message", f"must be a JSON object with 1 to {MOST_REQUESTS} entries")
    if sign_alg == "ed25519":
        return tuple(
            SignRequest(request_type=RequestType.EDDSA, message=value, transaction_id=key)
            for key, value in found.items()
        )
    requests = tuple(
        decode_wrapped(check_text("message", value, most=4 * _MOST_MESSAGE), transaction_id=key)
        for key, value in found.items()
    )
    if any(request.request_type is RequestType.EDDSA for request in requests):
        raise InvalidFieldError("requestType", "must not be eddsa for a secp256k1 key")
    return requests


# --- the digest: the same on every node, and worked out again by the client -------------------------------------------


def sign_request_digest(request: SignRequest) -> bytes:
    """Return the 32 bytes that get signed (see ``RequestType``); no secp256k1 key signs ``eddsa``."""
    if request.request_type is RequestType.RAW_BYTES:
        digest: bytes = request.content
        return digest
    if request.request_type is RequestType.EIP191:
        return personal_message_digest(request.content)
    if request.request_type is RequestType.EIP712:
        return typed_data_digest(request.content)
    if request.request_type is RequestType.USER_OPERATION:
        return personal_message_digest(user_operation_digest(request))
    raise InvalidFieldError("requestType", "must not be eddsa: the key is a secp256k1 key")


def user_operation_digest(request: SignRequest) -> bytes:
    """Return the hash of the user operation in an ``accountAbstractionTx``."""
    from dan_async.user_operation import user_operation_from_dict, user_operation_hash

    found = request.content
    version = found["entryPointVersion"]
    return user_operation_hash(
        user_operation_from_dict(found["userOperation"], version=version),
        entry_point=found["entryPointAddress"],
        chain_id=found["chainId"],
        version=version,
    )
