"""
Gateway revision 0.3 (walletprovider-sdk 0.3.0, used by the published DAN clients): what goes over the wire, both ways.

Operations: keygen, signgen and addEphemeralKey. The ephemeral key is ed25519; its claim, with id and expiry, is tag 2
of a setup and the credentials of every authentication.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dan_async._json import dump, quote
from dan_async._values import check_int, check_text, from_hex
from dan_async.config import Threshold
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
    TAG_CLAIM,
    TAG_KEY_ID,
    AuthMethod,
    EphemeralClaim,
    EphemeralKeySetup,
    KeygenSetup,
    SigngenSetup,
    UserAuthentication,
    decode_metadata,
    encode_metadata,
    ephemeral_key_metadata,
    keygen_metadata,
    keygen_text,
    read_keygen,
    read_signgen,
    signgen_members,
    wallet_members,
)
from dan_async.protocols.sign_request import SignRequest, decode_wrapped, encode_wrapped
from dan_async.types import KeyAlgorithm

OPERATIONS: tuple[str, ...] = ("keygen", "signgen", "addEphemeralKey")

API_VERSIONS: tuple[str, ...] = ("v1",)

EPHEMERAL_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("ed25519",)

SIGN_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("secp256k1",)


# --- claim and credentials --------------------------------------------------------------------------------------
def encode_claim(claim: EphemeralClaim) -> str:
    """Write an ephemeral claim: tag 2 of a setup."""
    _check_algorithm(claim)
    # Spelled out like all that is written for every request: dump() takes three times as long.
    return f'{{"ephId":{quote(claim.eph_id)},"ephPK":"0x{claim.eph_pk.hex()}","expiry":{claim.expiry}}}'


def decode_claim(text: str) -> EphemeralClaim:
    """
    Read an ephemeral claim; its members may stand in any order.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(text), "claim", ("ephId", "ephPK", "expiry"))
    return EphemeralClaim(
        eph_id=found["ephId"],
        eph_pk=from_hex(found["ephPK"], field="ephPK", prefix=True),
        expiry=found["expiry"],
        sign_alg="ed25519",
    )


def encode_credentials(claim: EphemeralClaim, owner_id: str) -> str:
    """Write the credentials text: the claim. The owner is named beside it only."""
    del owner_id
    return encode_claim(claim)


def decode_credentials(text: str, owner_id: str) -> EphemeralClaim:
    """
    Read the credentials text: the claim.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    del owner_id
    return decode_claim(text)


def _check_algorithm(claim: EphemeralClaim) -> None:
    if claim.sign_alg != "ed25519":
        raise InvalidFieldError("eph_alg", "must be ed25519 in revision 0.3")


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


def ephemeral_key_setup(*, claim: EphemeralClaim, key_id: str, n: int) -> EphemeralKeySetup:
    """
    Make the setup that adds an ephemeral key to a key.

    Args:
        claim: The ephemeral key that the owner vouches for.
        key_id: The key.
        n: How many parties hold it.
    """
    return EphemeralKeySetup(n=n, key_id=key_id, metadata=ephemeral_key_metadata(encode_claim(claim), key_id))


def _ephemeral_key_members(setup: EphemeralKeySetup) -> dict[str, Any]:
    if setup.n is None or setup.key_id is None:
        raise InvalidFieldError("n" if setup.n is None else "key_id", "is needed in revision 0.3")
    return {"n": setup.n, "key_id": setup.key_id, "metadata": encode_metadata(setup.metadata)}


def encode_ephemeral_key_setup(setup: EphemeralKeySetup) -> str:
    """Write the setup of addEphemeralKey."""
    return dump(_ephemeral_key_members(setup))


def decode_ephemeral_key_setup(text: str) -> EphemeralKeySetup:
    """
    Read the setup of addEphemeralKey. The key id stands in it twice and must be the same.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(text), "setup", ("n", "key_id", "metadata"))
    setup = EphemeralKeySetup(
        n=check_int("n", found["n"], least=1, most=2**32 - 1),
        key_id=check_text("key_id", found["key_id"], most=256),
        metadata=decode_metadata(found["metadata"], required=(TAG_KEY_ID, TAG_CLAIM)),
    )
    if setup.key_id != setup.tagged_key_id:
        # The wallet signs the tagged one only.
        raise InvalidFieldError("key_id", "is not the key id of the metadata")
    return setup


def ephemeral_key_typed_data(setup: EphemeralKeySetup, challenge: str) -> dict[str, Any]:
    """Build what the owner's wallet signs to add an ephemeral key."""
    return owner_request("AddEphemeralKeyOpts", _ephemeral_key_members(setup), challenge)


def encode_message(requests: Sequence[SignRequest]) -> str:
    """Write the message text of a signgen setup: one JSON object."""
    return encode_wrapped(only(requests, "requests"))


def decode_message(text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]:
    """Read the message text of a signgen setup."""
    del sign_alg
    return (decode_wrapped(text),)


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
    Make the authentication object of an ephemeral key: its id and its claim.

    Args:
        claim: The ephemeral key.
        owner_id: The owner; not named in this revision.
        message: The setup's message; not repeated in this revision.
        signature: The signature over ``ephemeral_payload``, in 0x hex.
    """
    del message, owner_id
    return UserAuthentication(
        method="ephemeral", id=claim.eph_id, credentials=encode_claim(claim), signature=signature
    )
