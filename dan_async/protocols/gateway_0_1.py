"""
Gateway revision 0.1 (walletprovider-sdk 0.1.0): what goes over the wire, in both directions.

Operations: keygen and signgen. The ephemeral key is ed25519 and has no id: tag 2 of a setup is the bare public key, so
its text names the key. Its expiry stands in the credentials only, which no signature of the owner covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dan_async._json import dump
from dan_async._values import check_text, from_hex, to_hex
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.protocols.fields import encode_base64, load_text, members, only
from dan_async.protocols.gateway import decode_authentications as decode_authentications
from dan_async.protocols.gateway import decode_challenges as decode_challenges
from dan_async.protocols.gateway import decode_keygen_results as decode_keygen_results
from dan_async.protocols.gateway import decode_signgen_results as decode_signgen_results
from dan_async.protocols.gateway import encode_authentications as encode_authentications
from dan_async.protocols.gateway import encode_challenges as encode_challenges
from dan_async.protocols.gateway import encode_keygen_results as encode_keygen_results
from dan_async.protocols.gateway import encode_signgen_results as encode_signgen_results
from dan_async.protocols.gateway import join_setups as join_setups
from dan_async.protocols.gateway import owner_request
from dan_async.protocols.gateway import read_ephemeral_signature as read_ephemeral_signature
from dan_async.protocols.gateway import split_setups as split_setups
from dan_async.protocols.setups import (
    AuthMethod,
    EphemeralClaim,
    KeygenSetup,
    SigngenSetup,
    UserAuthentication,
    keygen_metadata,
    keygen_text,
    read_keygen,
    read_signgen,
    signgen_members,
    wallet_members,
)
from dan_async.protocols.sign_request import SignRequest, decode_bare, encode_bare
from dan_async.types import KeyAlgorithm

OPERATIONS: tuple[str, ...] = ("keygen", "signgen")

API_VERSIONS: tuple[str, ...] = ("v1",)

EPHEMERAL_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("ed25519",)

SIGN_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("secp256k1",)


# --- claim and credentials --------------------------------------------------------------------------------------
def encode_claim(claim: EphemeralClaim) -> str:
    """Write tag 2 of a setup: the public key in 0x hex. Neither id nor expiry is in it."""
    _check_algorithm(claim)
    return to_hex(claim.eph_pk)


def decode_claim(text: str) -> EphemeralClaim:
    """
    Read tag 2 of a setup: the key's id is its text, and the expiry, not known here, is 0.

    Raises:
        InvalidFieldError: It is not a public key.
    """
    return _claim(from_hex(text, field="ephPK", length=32, prefix=True), 0)


def encode_credentials(claim: EphemeralClaim, owner_id: str) -> str:
    """Write the credentials text: owner, public key and expiry."""
    _check_algorithm(claim)
    eoa = check_text("owner_id", owner_id)
    return dump({"eoa": eoa, "ephPK": to_hex(claim.eph_pk), "expiry": claim.expiry})


def decode_credentials(text: str, owner_id: str) -> EphemeralClaim:
    """
    Read the credentials text.

    Args:
        text: The text.
        owner_id: The id of the authentication object; the credentials must name the same owner.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(text), "credentials", ("eoa", "ephPK", "expiry"))
    if parse_address("eoa", found["eoa"]) != parse_address("id", owner_id):
        raise InvalidFieldError("eoa", "is not the address that the authentication names")
    return _claim(from_hex(found["ephPK"], field="ephPK", length=32, prefix=True), found["expiry"])


def _claim(public_key: bytes, expiry: int) -> EphemeralClaim:
    return EphemeralClaim(eph_id=to_hex(public_key), eph_pk=public_key, expiry=expiry, sign_alg="ed25519")


def _check_algorithm(claim: EphemeralClaim) -> None:
    if claim.sign_alg != "ed25519":
        raise InvalidFieldError("eph_alg", "must be ed25519 in revision 0.1")


# --- setups -----------------------------------------------------------------------------------------------------
def keygen_setup(
    *,
    threshold: Threshold,
    claim: EphemeralClaim,
    permissions: str | None = None,
    key_label: str | None = None,
    sign_alg: KeyAlgorithm = "secp256k1",
) -> KeygenSetup:
    """
    Make the setup of one key.

    Args:
        threshold: t and n.
        claim: The ephemeral key that the owner vouches for.
        permissions: JSON text that limits what the key may sign. The wallet does not sign it.
        key_label: A label kept with the key.
        sign_alg: The distributed key's algorithm.

    Raises:
        InvalidFieldError: A value cannot go over the wire.
    """
    return KeygenSetup(
        t=threshold.t,
        n=threshold.n,
        metadata=keygen_metadata(encode_claim(claim), permissions),
        key_label=key_label,
        sign_alg=sign_alg,
    )


def encode_keygen_setup(setup: KeygenSetup) -> str:
    """Write a keygen setup, which is the setup frame."""
    return keygen_text(setup, names_algorithm=False)


def decode_keygen_setup(text: str) -> KeygenSetup:
    """
    Read a keygen setup. Members may stand in any order; metadata values are kept exactly.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return read_keygen(load_text(text), names_algorithm=False)


def keygen_typed_data(setup: KeygenSetup, challenge: str) -> dict[str, Any]:
    """Build what the owner's wallet signs: the setup without permissions, and the challenge."""
    message = wallet_members(setup, names_algorithm=False)
    return owner_request("KeygenSetupOpts", message, challenge)


def signgen_setup(*, t: int, key_id: str, message: str, sign_alg: KeyAlgorithm = "secp256k1") -> SigngenSetup:
    """Make the setup of a signature; the message text is Base64-encoded here, once."""
    return SigngenSetup(t=t, key_id=key_id, message=encode_base64("message", message), sign_alg=sign_alg)


def encode_signgen_setup(setup: SigngenSetup) -> str:
    """Write a signgen setup, which is the setup frame."""
    return dump(signgen_members(setup, names_algorithm=False))


def decode_signgen_setup(text: str) -> SigngenSetup:
    """
    Read a signgen setup.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return read_signgen(load_text(text), names_algorithm=False)


def encode_message(requests: Sequence[SignRequest]) -> str:
    """Write the message text of a signgen setup: the inner message itself."""
    return encode_bare(only(requests, "requests"))


def decode_message(text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]:
    """Read the message text of a signgen setup."""
    del sign_alg
    return (decode_bare(text),)


# --- authentication ---------------------------------------------------------------------------------------------
def owner_authentication(
    *, claim: EphemeralClaim, method: AuthMethod, owner_id: str, signature: str
) -> UserAuthentication:
    """Make the authentication object of an owner, from what the wallet gave."""
    return UserAuthentication(
        method=method, id=owner_id, credentials=encode_credentials(claim, owner_id), signature=signature
    )


def ephemeral_authentication(
    *, claim: EphemeralClaim, owner_id: str, message: str | None, signature: str
) -> UserAuthentication:
    """
    Make the authentication object of an ephemeral key; the owner stands as its id, and the expiry is 0.

    Args:
        claim: The ephemeral key.
        owner_id: The owner's address.
        message: The setup's message; not repeated in this revision.
        signature: The signature over ``ephemeral_payload``, in 0x hex.
    """
    del message
    _check_algorithm(claim)
    credentials = encode_credentials(_claim(claim.eph_pk, 0), owner_id)
    return UserAuthentication(method="ephemeral", id=owner_id, credentials=credentials, signature=signature)
