"""
What a browser gives for a passkey, looked at before it is sent (Web Authentication Level 3, sections 5.1 and 5.8.1).

Only what is readable without cryptography is checked here, so that a mistake in a page is found where it is made. The
signature is for the nodes to verify.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from dan_async.errors import (
    ConfigurationError,
    DanError,
    InvalidFieldError,
    WalletSignatureError,
    WrongSignerError,
)
from dan_async.models._fields import check_text
from dan_async.wire.challenge import check_challenge
from dan_async.wire.json_text import dump, load
from dan_async.wire.members import load_text
from dan_async.wire.passkey import PasskeySignature, encode_passkey_signature

__all__ = [
    "Ceremony",
    "check_credential_id",
    "check_relying_party",
    "decode_base64url",
    "encode_base64url",
    "encode_challenge",
    "read_credential",
]

#: ``type`` of the client data: a new credential, or an assertion with one.
Ceremony = Literal["webauthn.create", "webauthn.get"]

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")
_RP_ID = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\Z")

#: What a credential has besides its id, for each ceremony.
_RESPONSES: Mapping[Ceremony, tuple[str, ...]] = {
    "webauthn.create": ("clientDataJSON", "attestationObject"),
    "webauthn.get": ("clientDataJSON", "authenticatorData", "signature"),
}


def encode_base64url(data: bytes) -> str:
    """Write bytes in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(field: str, value: object) -> bytes:
    """
    Read base64url without padding, in its one form.

    Raises:
        InvalidFieldError: It is not that.
    """
    if isinstance(value, str) and _BASE64URL.match(value):
        try:
            data = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        except binascii.Error:
            pass
        else:
            if encode_base64url(data) == value:
                return data
    raise InvalidFieldError(field, "must be base64url without padding")


def check_credential_id(field: str, value: object) -> str:
    """Check a credential id: base64url of 16 to 1023 bytes, the lengths that WebAuthn allows."""
    if not 16 <= len(decode_base64url(field, value)) <= 1023:
        raise InvalidFieldError(field, "must stand for 16 to 1023 bytes")
    return str(value)


def check_relying_party(rp_id: object, origin: object) -> tuple[str, str]:
    """
    Check that a page of *origin* may use passkeys of *rp_id*.

    Args:
        rp_id: A domain in lower case, or ``localhost``.
        origin: ``https://host``, with a port if it is not 443; ``http://`` for localhost only.

    Raises:
        InvalidFieldError: It may not; the field is named.
    """
    domain = check_text("rp_id", rp_id, most=253)
    if _RP_ID.match(domain) is None:
        raise InvalidFieldError("rp_id", "must be a domain in lower case", hint="For example wallet.example")
    text = check_text("origin", origin)
    try:
        parts = urlsplit(text)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # brackets without an address, a port that is no number
        host = None
    secure = host and (parts.scheme == "https" or (parts.scheme == "http" and _is_within(host, "localhost")))
    if (
        host is None
        or not secure
        or text != f"{parts.scheme}://{parts.netloc}"
        or "@" in text
        or text != text.lower()
    ):
        raise InvalidFieldError(
            "origin",
            "must be https://, or http:// of localhost, and a host, with nothing after it",
            hint="It is what location.origin says in the page",
        )
    if not _is_within(host, domain):
        raise InvalidFieldError(
            "rp_id",
            "must be the origin's host or a domain above it",
            hint="The browser insists on it as well",
        )
    return domain, text


def _is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def encode_challenge(challenge: str) -> str:
    """
    Give the 32 bytes of a challenge as WebAuthn takes them.

    Raises:
        InvalidFieldError: It is not 64 hex digits without 0x.
    """
    return encode_base64url(bytes.fromhex(check_challenge(challenge)))


def read_credential(
    answer: object,
    *,
    ceremony: Ceremony,
    challenge: str,
    origin: str,
    rp_id: str,
    credential_id: str | None = None,
) -> tuple[str, str]:
    """
    Check what came back from the browser, and write it for the wire.

    Args:
        answer: The credential as ``PublicKeyCredential.toJSON()`` gives it: an object, or its JSON text.
        ceremony: What was asked for.
        challenge: The challenge that it was asked for: 64 hex digits.
        origin: Where the page is.
        rp_id: The relying party.
        credential_id: The credential that was asked for; None for a new one.

    Returns:
        The credential's id, and the ``signature`` member of the authentication.

    Raises:
        WalletSignatureError: It is not such a credential, or one for another challenge, page or purpose.
        WrongSignerError: It is another credential's.
    """
    try:
        text = answer if isinstance(answer, str) else _write(answer)
        signature = PasskeySignature(raw_credential=text, origin=origin, rp_id=rp_id)
        found = load_text(text)
        if not isinstance(found, dict):
            raise InvalidFieldError("credential", "must be an object")
        made = check_credential_id("id", found.get("id"))
        _check_members(found, ceremony, made)
        _check_client_data(found["response"]["clientDataJSON"], ceremony, challenge, origin)
    except DanError as error:
        raise WalletSignatureError(
            f"what the page returned is not the passkey credential that was asked for: {error.message}",
            hint="Return what the credential's toJSON() gives, made with the very options that were passed",
            phase="wallet",
        ) from error
    if credential_id is not None and made != credential_id:
        raise WrongSignerError(
            "another passkey signed than the owner's",
            hint="Pass allowCredentials to the browser as it stands in the options",
            phase="wallet",
        )
    return made, encode_passkey_signature(signature)


def _write(answer: object) -> str:
    if not isinstance(answer, Mapping):
        raise ConfigurationError("it must be an object or its JSON text")
    try:
        return dump(dict(answer))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError("it holds what JSON cannot carry") from error


def _check_members(found: Mapping[str, Any], ceremony: Ceremony, made: str) -> None:
    if found.get("type") != "public-key":
        raise InvalidFieldError("type", "must be public-key")
    if found.get("rawId") != made:
        raise InvalidFieldError("rawId", "must be the same as id")
    response = found.get("response")
    if not isinstance(response, dict):
        raise InvalidFieldError("response", "must be an object")
    for name in _RESPONSES[ceremony]:
        decode_base64url(f"response.{name}", response.get(name))


def _check_client_data(encoded: str, ceremony: Ceremony, challenge: str, origin: str) -> None:
    client_data = load(decode_base64url("response.clientDataJSON", encoded))
    expected = {"type": ceremony, "challenge": encode_challenge(challenge), "origin": origin}
    for name, value in expected.items():
        if not isinstance(client_data, dict) or client_data.get(name) != value:
            raise InvalidFieldError(f"clientDataJSON: {name}", "is not the one that was asked for")
