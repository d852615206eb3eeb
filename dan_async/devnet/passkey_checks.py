"""
What a node checks of a passkey: real WebAuthn, verified by the package ``webauthn`` (extra *passkeys*).

Registration and assertion are verified as Web Authentication Level 3 says in sections 7.1 and 7.2: the challenge, the page's
origin, the relying party, that the person was verified, the signature, and that the counter went up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dan_async.devnet.passkey_registry import PasskeyRecord, PasskeyRegistry
from dan_async.devnet.rpc_errors import RefusalError, invalid_params
from dan_async.errors import DanError, InvalidFieldError, MissingExtraError, NodeCode, require_extra
from dan_async.models.authentication import UserAuthentication
from dan_async.wire.codec import PasskeySignature, decode_passkey_signature

__all__ = ["check_assertion", "load_webauthn", "verify_registration"]

T = TypeVar("T")

#: COSE algorithms that a passkey may have: ES256, EdDSA, RS256.
_ALGORITHMS = (-7, -8, -257)

#: Lengths of a credential id in bytes (WebAuthn 4 and 7.1 step 25).
_SHORTEST_ID, _LONGEST_ID = 16, 1023


def load_webauthn() -> Any:
    """
    Import the package. The first time takes a while: call it off the event loop.

    Raises:
        RefusalError: ``UNSUPPORTED``: it is not installed.
    """
    try:
        return require_extra("webauthn", extra="passkeys", purpose="Verifying a passkey")
    except MissingExtraError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, "this node does not do passkeys") from error


def verify_registration(
    authentication: UserAuthentication, challenge: str
) -> tuple[bytes, int, PasskeySignature]:
    """
    Check a new passkey.

    Args:
        authentication: The credential id, and the new credential as signature.
        challenge: The final challenge: 64 hex digits.

    Returns:
        Its public key in COSE form, its counter, and what was sent.

    Raises:
        RefusalError: ``INVALID_PARAMS`` if it is malformed, ``WRONG_OWNER`` if it does not verify.
    """
    webauthn = load_webauthn()
    if authentication.credentials:
        raise invalid_params(InvalidFieldError("credentials", "must be empty: a passkey vouches for nothing"))
    sent = _read(authentication)
    verified = _verify(
        webauthn.verify_registration_response,
        sent,
        challenge,
        supported_pub_key_algs=[
            webauthn.helpers.structs.COSEAlgorithmIdentifier(number) for number in _ALGORITHMS
        ],
    )
    if webauthn.helpers.bytes_to_base64url(verified.credential_id) != authentication.id:
        raise RefusalError(NodeCode.WRONG_OWNER, "the new passkey has another id")
    if not _SHORTEST_ID <= len(verified.credential_id) <= _LONGEST_ID:
        raise invalid_params(InvalidFieldError("id", f"must stand for {_SHORTEST_ID} to {_LONGEST_ID} bytes"))
    return bytes(verified.credential_public_key), int(verified.sign_count), sent


def check_assertion(authentication: UserAuthentication, challenge: str, passkeys: PasskeyRegistry) -> None:
    """
    Check that a registered passkey signed the challenge, and note its counter.

    Raises:
        RefusalError: ``INVALID_PARAMS`` if the assertion is malformed, ``WRONG_OWNER`` if the passkey is not registered
            here, or the assertion is not its own, over this challenge, on the page that registered it.
    """
    webauthn = load_webauthn()
    record = passkeys.find(authentication.id)
    if record is None:
        raise RefusalError(NodeCode.WRONG_OWNER, "no such passkey is registered with this node")
    sent = _read(authentication)
    _check_page(sent, record)
    verified = _verify(
        webauthn.verify_authentication_response,
        sent,
        challenge,
        credential_public_key=record.public_key,
        credential_current_sign_count=record.sign_count,
    )
    # The key already decides; but one that signs for an id of its own must not pass for another.
    if webauthn.helpers.bytes_to_base64url(verified.credential_id) != authentication.id:
        raise RefusalError(NodeCode.WRONG_OWNER, "the assertion is another passkey's")
    passkeys.count(record.credential_id, int(verified.new_sign_count))


def _check_page(sent: PasskeySignature, record: PasskeyRecord) -> None:
    if (sent.rp_id, sent.origin) != (record.rp_id, record.origin):
        raise RefusalError(NodeCode.WRONG_OWNER, "the passkey was registered by another page")


def _read(authentication: UserAuthentication) -> PasskeySignature:
    try:
        return decode_passkey_signature(authentication.signature)
    except DanError as error:
        raise RefusalError(
            NodeCode.INVALID_PARAMS, f"signature: {error.message}", data={"field": "signature"}
        ) from error


def _verify(verify: Callable[..., T], sent: PasskeySignature, challenge: str, **arguments: Any) -> T:
    """Run one of webauthn's two verifications; whatever it raises, the passkey does not count."""
    try:
        return verify(
            credential=sent.raw_credential,
            expected_challenge=bytes.fromhex(challenge),
            expected_rp_id=sent.rp_id,
            expected_origin=sent.origin,
            require_user_verification=True,
            **arguments,
        )
    except Exception as error:
        # Parsers beneath it (CBOR, ASN.1) have exceptions of their own for what a stranger sends. Their texts may quote it.
        raise RefusalError(
            NodeCode.WRONG_OWNER, f"the passkey does not verify ({type(error).__name__})"
        ) from error
