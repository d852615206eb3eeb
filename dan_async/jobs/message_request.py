"""What callers give to be signed, as the request that goes over the wire."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, TypeAlias

from dan_async._hex import from_hex, to_hex
from dan_async.errors import InvalidFieldError
from dan_async.models.user_operation import PackedUserOperation, UserOperationV06, UserOperationV07
from dan_async.types import TypedData
from dan_async.wire.json_text import dump, load
from dan_async.wire.sign_request import RequestType, SignRequest

__all__ = ["Message", "chain_of", "message_request"]

#: What ``sign_message`` takes.
Message: TypeAlias = str | bytes | bytearray | memoryview | TypedData

_LARGEST = 2**53 - 1
_DEEPEST = 60
_DIGEST_LENGTH = 32
_OPERATIONS = (UserOperationV06, UserOperationV07, PackedUserOperation)


def message_request(message: Message, request_type: str | None = None) -> SignRequest:
    """
    Make the request that a message stands for.

    Args:
        message: Text or bytes; typed data or a user operation with its entry point, as a mapping or JSON text.
        request_type: One of the wire's names; told by the message's form if None.

    Raises:
        InvalidFieldError: The message does not have the form of its type, or cannot be signed by a session key.
    """
    kind = _kind_of(message, request_type)
    if kind is RequestType.EDDSA:
        raise InvalidFieldError(
            "request_type", "must not be eddsa: session keys are secp256k1 keys", hint="Sign it as EIP191"
        )
    if kind is RequestType.EIP191:
        text = to_hex(_plain_bytes(message))
    elif kind is RequestType.RAW_BYTES:
        text = to_hex(_digest(message))
    else:
        text = _json_text(message, kind)
    return SignRequest(request_type=kind, message=text, transaction_id=secrets.token_hex(16))


def chain_of(request: SignRequest) -> int | None:
    """Give the chain that a user operation is for; None for other messages."""
    if request.request_type is not RequestType.USER_OPERATION:
        return None
    found: int = load(request.message)["chainId"]
    return found


def _kind_of(message: object, request_type: object) -> RequestType:
    if request_type is not None:
        try:
            return RequestType(request_type)  # type: ignore[arg-type]  # StrEnum refuses what is not one of its values
        except ValueError:
            raise InvalidFieldError(
                "request_type", f"must be one of {', '.join(RequestType)}", hint="Or leave it out"
            ) from None
    if isinstance(message, str | bytes | bytearray | memoryview):
        return RequestType.EIP191
    if isinstance(message, _OPERATIONS):
        raise InvalidFieldError(
            "message",
            "is a user operation without its entry point and chain",
            hint="Use sign_user_operation(), or give a mapping with userOperation, entryPointVersion, entryPointAddress "
            "and chainId",
        )
    if isinstance(message, Mapping):
        return RequestType.USER_OPERATION if "userOperation" in message else RequestType.EIP712
    raise InvalidFieldError(
        "message", f"must be text, bytes, typed data or a user operation, not {type(message).__name__}"
    )


def _plain_bytes(message: object) -> bytes:
    if isinstance(message, str):
        try:
            return message.encode()
        except UnicodeEncodeError:
            raise InvalidFieldError(
                "message", "has a lone surrogate, which UTF-8 cannot carry", hint="Give it as bytes"
            ) from None
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    raise InvalidFieldError("message", f"must be text or bytes, not {type(message).__name__}")


def _digest(message: object) -> bytes:
    raw = from_hex(message, field="message") if isinstance(message, str) else _plain_bytes(message)
    if len(raw) != _DIGEST_LENGTH:
        raise InvalidFieldError("message", f"must hold {_DIGEST_LENGTH} bytes, not {len(raw)}")
    return raw


def _json_text(message: object, kind: RequestType) -> str:
    if isinstance(message, str):
        return message
    if not isinstance(message, Mapping):
        raise InvalidFieldError(
            "message", f"must be a mapping or JSON text for {kind}, not {type(message).__name__}"
        )
    return dump(_json_ready(message, 0))


def _json_ready(value: Any, depth: int) -> Any:
    """Give the value as the wire's JSON carries it: bytes as 0x hex, large numbers as decimal text."""
    if depth > _DEEPEST:
        raise InvalidFieldError("message", "is nested too deeply")
    if isinstance(value, _OPERATIONS):
        return value.to_dict()
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise InvalidFieldError("message", "has a member whose name is no text")
        return {name: _json_ready(entry, depth + 1) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(entry, depth + 1) for entry in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return to_hex(bytes(value))
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -_LARGEST <= value <= _LARGEST else str(value)
    raise InvalidFieldError("message", f"has a value of type {type(value).__name__}, which cannot be signed")
