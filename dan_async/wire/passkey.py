"""
Passkeys on the wire: the signature member of method ``passkey``, and the setup of registerPasskey.

WebAuthn's own bytes are not looked into here: the credential is a JSON text whose binary members are base64url, as a
browser gives it, and verifying it is for whoever relies on it.
"""

from __future__ import annotations

import re

from attrs import field, frozen

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.models._fields import check_text, optional, required
from dan_async.wire.json_text import dump
from dan_async.wire.members import load_text, members
from dan_async.wire.shown import shown

__all__ = [
    "PasskeySetup",
    "PasskeySignature",
    "decode_credential_id",
    "decode_passkey_setup",
    "decode_passkey_signature",
    "encode_passkey_setup",
    "encode_passkey_signature",
]

_CREDENTIAL_ID = re.compile(r"[A-Za-z0-9_-]{1,1024}\Z")


@frozen(kw_only=True)
class PasskeySignature:
    """
    What a browser gave for a challenge: a new credential, or an assertion with an old one.

    Args:
        raw_credential: JSON text of the credential, binary members in base64url.
        origin: Where it was made, as the client says.
        rp_id: The relying party's id: a domain.

    Raises:
        InvalidFieldError: A field is wrong.
    """

    raw_credential: str = field(repr=False, validator=required(check_text, most=256 * 1024))
    origin: str = field(validator=required(check_text))
    rp_id: str = field(validator=required(check_text, most=255))


@frozen(kw_only=True)
class PasskeySetup:
    """The setup of registerPasskey: nothing but an optional text of options."""

    options: str | None = field(default=None, validator=optional(check_text, most=16 * 1024))


def encode_passkey_signature(signature: PasskeySignature) -> str:
    """Write the ``signature`` member of an authentication by passkey."""
    return dump(
        {"rawCredential": signature.raw_credential, "origin": signature.origin, "rpId": signature.rp_id}
    )


def decode_passkey_signature(text: str) -> PasskeySignature:
    """
    Read the ``signature`` member of an authentication by passkey.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(text), "signature", ("rawCredential", "origin", "rpId"))
    signature = PasskeySignature(
        raw_credential=found["rawCredential"], origin=found["origin"], rp_id=found["rpId"]
    )
    if not isinstance(load_text(signature.raw_credential), dict):
        raise InvalidFieldError("rawCredential", "must be the JSON text of an object")
    return signature


def encode_passkey_setup(setup: PasskeySetup) -> str:
    """Write the setup of registerPasskey."""
    return dump({} if setup.options is None else {"options": setup.options})


def decode_passkey_setup(text: str) -> PasskeySetup:
    """
    Read the setup of registerPasskey.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is unknown or wrong.
    """
    found = members(load_text(text), "setup", (), ("options",))
    if "options" in found:
        check_text("options", found["options"], most=16 * 1024)
    return PasskeySetup(options=found.get("options"))


def decode_credential_id(frame: object) -> str:
    """
    Read the result of registerPasskey: the credential id, in base64url.

    Raises:
        ProtocolError: It is anything else.
    """
    if not isinstance(frame, str) or _CREDENTIAL_ID.match(frame) is None:
        raise ProtocolError(
            f"the passkey result is not a credential id: the gateway sent {shown(frame)}",
            hint="The passkey may not have been registered",
        )
    return frame
