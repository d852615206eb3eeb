"""Who asked for it, and the signature that shows it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen

from dan_async.models._fields import check_text, required

AuthMethod: TypeAlias = Literal["eoa", "ephemeral", "passkey"]


@frozen(kw_only=True)
class UserAuthentication:
    """
    The authentication object of WIRE.

    Args:
        method: How it was authorised: the owner's wallet, the ephemeral key, or a passkey.
        id: Who: the EOA's address, the ephemeral id, or the passkey's credential id.
        credentials: The claim's exact text; empty for a passkey that is being registered.
        signature: 0x hex, or the JSON text that the method and revision ask for.
    """

    method: AuthMethod
    id: str = field(validator=required(check_text, most=1024))
    credentials: str = field(validator=required(check_text, least=0, most=16 * 1024))
    signature: str = field(validator=required(check_text, most=1024 * 1024))
