"""The authentication object: who asked, and the signature that shows it. Alike in all revisions."""

from __future__ import annotations

from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.models.authentication import UserAuthentication
from dan_async.types import Json
from dan_async.wire.json_text import quote
from dan_async.wire.members import members

__all__ = ["METHODS", "encode_authentication", "read_authentication"]

#: How a request can be authorised: the owner's wallet, the ephemeral key, a passkey.
METHODS = ("eoa", "ephemeral", "passkey")


def encode_authentication(auth: UserAuthentication) -> str:
    """Write the object, members in the wire's order."""
    return (
        f'{{"credentials":{{"credentials":{quote(auth.credentials)},"method":{quote(auth.method)},"id":{quote(auth.id)}}},'
        f'"signature":{quote(auth.signature)}}}'
    )


def read_authentication(value: Json) -> UserAuthentication:
    """
    Read the object. The signature is not checked here: that is for the nodes.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    outer = members(value, "authentication", ("credentials", "signature"))
    inner = members(outer["credentials"], "credentials", ("credentials", "method", "id"))
    method = inner["method"]
    if method not in METHODS:
        raise InvalidFieldError("method", f"must be one of {', '.join(METHODS)}")
    if method == "eoa":
        parse_address("id", inner["id"])
    return UserAuthentication(
        method=method, id=inner["id"], credentials=inner["credentials"], signature=outer["signature"]
    )
