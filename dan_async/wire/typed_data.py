"""
The EIP-712 request that an owner's wallet signs, alike in all revisions but for the setup's type.

The domain has neither chain id nor contract; ``EIP712Domain`` is spelled out so that every
``eth_signTypedData_v4`` wallet accepts it. Each call gives fresh lists: wallets may change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dan_async.crypto.eip712 import TypedDataForm
from dan_async.wire.challenge import check_challenge

__all__ = ["owner_request"]


def _struct(**kinds: str) -> tuple[dict[str, str], ...]:
    return tuple({"name": field, "type": kind} for field, kind in kinds.items())


_TYPES = {
    "EIP712Domain": _struct(name="string", version="string"),
    "KeygenSetupOpts": _struct(t="uint32", n="uint32", metadata="TaggedValue[]"),
    "AddEphemeralKeyOpts": _struct(n="uint32", metadata="TaggedValue[]"),
    "MetadataSetupOpts": _struct(metadata="TaggedValue[]"),
    "TaggedValue": _struct(tag="uint16", value="string"),
}


@lru_cache(maxsize=len(_TYPES))
def _form(setup_type: str) -> TypedDataForm:
    types = {
        "EIP712Domain": _TYPES["EIP712Domain"],
        "Request": _struct(setup=setup_type, challenge="string"),
        setup_type: _TYPES[setup_type],
        "TaggedValue": _TYPES["TaggedValue"],
    }
    return TypedDataForm(types, {"name": "SilentShard authentication", "version": "0.1.0"}, "Request")


def owner_request(setup_type: str, setup: Mapping[str, Any], challenge: str) -> dict[str, Any]:
    """
    Build the typed data.

    Args:
        setup_type: ``KeygenSetupOpts``, ``AddEphemeralKeyOpts`` or ``MetadataSetupOpts``.
        setup: The setup as the message shows it. Members that the type does not name are
            shown but not hashed.
        challenge: 64 hex digits without 0x.

    Raises:
        InvalidFieldError: The challenge has another form.
    """
    return _form(setup_type).fill({"setup": dict(setup), "challenge": check_challenge(challenge)})
