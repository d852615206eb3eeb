"""
Gateway revision 1, the 1.x line of the TypeScript clients: what goes over the wire, in both directions.

The ephemeral key is secp256k1 or ed25519, and its claim says which. Keygen takes several setups at once, one per
algorithm of the distributed key. Besides challenge and response ("v1") there is a one-shot form ("v2").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dan_async._hex import from_hex
from dan_async.errors import InvalidFieldError
from dan_async.models.authentication import AuthMethod, UserAuthentication
from dan_async.models.claim import EphemeralClaim
from dan_async.models.setup import TAG_CLAIM, TAG_KEY_ID, EphemeralKeySetup, KeygenSetup, SigngenSetup
from dan_async.models.threshold import Threshold
from dan_async.types import KeyAlgorithm
from dan_async.wire.ephemeral import encode_base64
from dan_async.wire.json_text import dump, quote
from dan_async.wire.members import load_text, members
from dan_async.wire.metadata import (
    decode_metadata,
    encode_metadata,
    ephemeral_key_metadata,
    keygen_metadata,
)
from dan_async.wire.named_frames import (
    decode_authentications,
    decode_challenges,
    decode_keygen_results,
    decode_oneshot,
    decode_signgen_results,
    encode_authentications,
    encode_challenges,
    encode_keygen_results,
    encode_oneshot,
    encode_signgen_results,
    join_setups,
    oneshot_challenge,
    read_authentications,
    read_ephemeral_signature,
    split_setups,
)
from dan_async.wire.passkey import decode_passkey_setup, encode_passkey_setup
from dan_async.wire.setups import keygen_text, read_keygen, read_signgen, signgen_members, wallet_members
from dan_async.wire.sign_request import SignRequest, decode_keyed, encode_keyed
from dan_async.wire.typed_data import owner_request

__all__ = [
    "API_VERSIONS",
    "EPHEMERAL_ALGORITHMS",
    "OPERATIONS",
    "SIGN_ALGORITHMS",
    "decode_authentications",
    "decode_challenges",
    "decode_claim",
    "decode_credentials",
    "decode_ephemeral_key_setup",
    "decode_keygen_results",
    "decode_keygen_setup",
    "decode_message",
    "decode_oneshot",
    "decode_passkey_setup",
    "decode_signgen_results",
    "decode_signgen_setup",
    "encode_authentications",
    "encode_challenges",
    "encode_claim",
    "encode_credentials",
    "encode_ephemeral_key_setup",
    "encode_keygen_results",
    "encode_keygen_setup",
    "encode_message",
    "encode_oneshot",
    "encode_passkey_setup",
    "encode_signgen_results",
    "encode_signgen_setup",
    "ephemeral_authentication",
    "ephemeral_key_setup",
    "ephemeral_key_typed_data",
    "join_setups",
    "keygen_setup",
    "keygen_typed_data",
    "oneshot_challenge",
    "owner_authentication",
    "read_authentications",
    "read_ephemeral_signature",
    "signgen_setup",
    "split_setups",
]

OPERATIONS: tuple[str, ...] = (
    "keygen",
    "signgen",
    "addEphemeralKey",
    "revokeEphemeralKey",
    "registerPasskey",
)
API_VERSIONS: tuple[str, ...] = ("v1", "v2")
EPHEMERAL_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("secp256k1", "ed25519")
SIGN_ALGORITHMS: tuple[KeyAlgorithm, ...] = ("secp256k1", "ed25519")


# --- claim and credentials --------------------------------------------------------------------------------------


def encode_claim(claim: EphemeralClaim) -> str:
    """Write an ephemeral claim: tag 2 of a setup, and the credentials of every authentication."""
    return (
        f'{{"ephId":{quote(claim.eph_id)},"ephPK":"0x{claim.eph_pk.hex()}",'
        f'"expiry":{claim.expiry},"signAlg":"{claim.sign_alg}"}}'
    )


def decode_claim(text: str) -> EphemeralClaim:
    """
    Read an ephemeral claim; its members may stand in any order.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(text), "claim", ("ephId", "ephPK", "expiry", "signAlg"))
    return EphemeralClaim(
        eph_id=found["ephId"],
        eph_pk=from_hex(found["ephPK"], field="ephPK", prefix=True),
        expiry=found["expiry"],
        sign_alg=found["signAlg"],
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
    """Write ONE keygen setup; the setup frame is an array of these."""
    return keygen_text(setup, names_algorithm=True)


def decode_keygen_setup(text: str) -> KeygenSetup:
    """
    Read ONE keygen setup. Members may stand in any order; metadata values are kept exactly.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return read_keygen(load_text(text), names_algorithm=True)


def keygen_typed_data(setup: KeygenSetup, challenge: str) -> dict[str, Any]:
    """
    Build what the owner's wallet signs for one setup: the setup without permissions, and the challenge.

    The message shows ``signAlg`` and ``key_label`` too, but the EIP-712 type does not name them, so that no
    signature covers them.
    """
    message = wallet_members(setup, names_algorithm=True)
    return owner_request("KeygenSetupOpts", message, challenge)


def signgen_setup(*, t: int, key_id: str, message: str, sign_alg: KeyAlgorithm = "secp256k1") -> SigngenSetup:
    """Make the setup of a signature; the message text is Base64-encoded here, once."""
    return SigngenSetup(t=t, key_id=key_id, message=encode_base64("message", message), sign_alg=sign_alg)


def encode_signgen_setup(setup: SigngenSetup) -> str:
    """Write a signgen setup, which is the setup frame."""
    return dump(signgen_members(setup, names_algorithm=True))


def decode_signgen_setup(text: str) -> SigngenSetup:
    """
    Read a signgen setup.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return read_signgen(load_text(text), names_algorithm=True)


def ephemeral_key_setup(*, claim: EphemeralClaim, key_id: str, n: int | None = None) -> EphemeralKeySetup:
    """
    Make the setup that adds an ephemeral key to a key, or revokes it.

    Args:
        claim: The ephemeral key.
        key_id: The key.
        n: Not on the wire in this revision.
    """
    del n
    return EphemeralKeySetup(metadata=ephemeral_key_metadata(encode_claim(claim), key_id))


def _ephemeral_key_members(setup: EphemeralKeySetup) -> dict[str, Any]:
    if setup.n is not None or setup.key_id is not None:
        raise InvalidFieldError("key_id" if setup.n is None else "n", "is not on the wire in revision 1")
    return {"metadata": encode_metadata(setup.metadata)}


def encode_ephemeral_key_setup(setup: EphemeralKeySetup) -> str:
    """Write the setup of addEphemeralKey or revokeEphemeralKey."""
    return dump(_ephemeral_key_members(setup))


def decode_ephemeral_key_setup(text: str) -> EphemeralKeySetup:
    """
    Read the setup of addEphemeralKey or revokeEphemeralKey.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(text), "setup", ("metadata",))
    return EphemeralKeySetup(metadata=decode_metadata(found["metadata"], required=(TAG_KEY_ID, TAG_CLAIM)))


def ephemeral_key_typed_data(setup: EphemeralKeySetup, challenge: str) -> dict[str, Any]:
    """
    Build what the owner's wallet signs to add or revoke an ephemeral key.

    The two differ in nothing but the challenge, so a challenge must be good for one operation only.
    """
    return owner_request("MetadataSetupOpts", _ephemeral_key_members(setup), challenge)


def encode_message(requests: Sequence[SignRequest]) -> str:
    """Write the message text of a signgen setup: transaction ids and what each stands for."""
    return encode_keyed(requests)


def decode_message(text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]:
    """Read the message text of a signgen setup; the messages of an ed25519 key are bare."""
    return decode_keyed(text, sign_alg=sign_alg)


# --- authentication ---------------------------------------------------------------------------------------------


def owner_authentication(
    *, claim: EphemeralClaim, method: AuthMethod, owner_id: str, signature: str
) -> UserAuthentication:
    """Make the authentication object of an owner, from what the wallet or the passkey gave."""
    return UserAuthentication(
        method=method, id=owner_id, credentials=encode_claim(claim), signature=signature
    )


def ephemeral_authentication(
    *, claim: EphemeralClaim, owner_id: str, message: str | None, signature: str
) -> UserAuthentication:
    """
    Make the authentication object of an ephemeral key: its id, its claim, and the message with the signature.

    Args:
        claim: The ephemeral key.
        owner_id: The owner; not named in this revision.
        message: The setup's message, which is Base64 already; None for a setup without one.
        signature: The signature over ``ephemeral_payload``, in 0x hex.
    """
    del owner_id
    repeated = {} if message is None else {"base64Message": message}
    return UserAuthentication(
        method="ephemeral",
        id=claim.eph_id,
        credentials=encode_claim(claim),
        signature=dump({**repeated, "signature": signature}),
    )
