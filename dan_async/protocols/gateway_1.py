"""
The frames of revision 1: every frame names what it holds, one slot per setup.

A slot is the algorithm of the distributed key for keygen and signgen, and ``main`` for the other operations.

Gateway revision 1, the 1.x line of the TypeScript clients: what goes over the wire, in both directions.

The ephemeral key is secp256k1 or ed25519, and its claim says which. Keygen takes several setups at once, one per
algorithm of the distributed key. Besides challenge and response ("v1") there is a one-shot form ("v2").
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dan_async._json import dump, quote
from dan_async._values import check_text, from_hex
from dan_async.config import Threshold
from dan_async.errors import InvalidFieldError
from dan_async.protocols import results
from dan_async.protocols.fields import encode_base64, load_text, members, only
from dan_async.protocols.gateway import (
    check_challenge,
    decode_challenge_object,
    decode_plain_challenge,
    double_sha256,
    encode_authentication,
    owner_request,
    read_authentication,
)
from dan_async.protocols.results import KeygenResult, SigngenResult
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
from dan_async.protocols.setups import decode_passkey_setup as decode_passkey_setup
from dan_async.protocols.setups import encode_passkey_setup as encode_passkey_setup
from dan_async.protocols.sign_request import SignRequest, decode_keyed, encode_keyed
from dan_async.types import Json, KeyAlgorithm

#: Longest setup frame, in characters.
_MOST_FRAME = 4 * 1024 * 1024

#: Most setups in one frame: one for each algorithm of the distributed key.
_MOST_SETUPS = 2

_GAP = re.compile(r"[ \t\n\r,]*")

_SCANNER = json.JSONDecoder()


def join_setups(operation: str, setups: Sequence[str]) -> str:
    """Give the setup frame: an array of setups for keygen, else the one setup."""
    if operation == "keygen":
        return f"[{','.join(setups)}]"
    return only(setups, f"setups of {operation}")


def split_setups(operation: str, frame: str) -> tuple[str, ...]:
    """
    Give the setup texts of a setup frame, each exactly as it was sent.

    Raises:
        ProtocolError: The frame is not JSON.
        InvalidFieldError: It is not an array of one setup per algorithm.
    """
    check_text(f"setup of {operation}", frame, most=_MOST_FRAME)
    if operation != "keygen":
        return (frame,)
    values = load_text(frame)
    if not isinstance(values, list) or not 1 <= len(values) <= _MOST_SETUPS:
        raise InvalidFieldError("setup of keygen", "must be an array of one setup for each algorithm")
    # The frame is good JSON now: find where each setup begins and ends in it.
    texts, end = [], frame.index("[") + 1
    for _ in values:
        gap = _GAP.match(frame, end)
        begin = gap.end() if gap else end
        _, end = _SCANNER.raw_decode(frame, begin)
        texts.append(frame[begin:end])
    return tuple(texts)


def encode_challenges(operation: str, challenges: Mapping[str, str]) -> str:
    """Write the challenge frame: an object of algorithm and challenge for keygen, else 64 hex digits."""
    if operation == "keygen":
        return dump({name: check_challenge(challenge) for name, challenge in challenges.items()})
    return check_challenge(only(tuple(challenges.values()), f"challenges of {operation}"))


def decode_challenges(operation: str, frame: str, slots: Collection[str]) -> dict[str, str]:
    """
    Read the challenge frame.

    Raises:
        ChallengeError: It is not one challenge for each slot.
    """
    if operation == "keygen":
        return decode_challenge_object(frame, slots)
    return {only(tuple(slots), f"setups of {operation}"): decode_plain_challenge(frame)}


def encode_authentications(operation: str, authentications: Mapping[str, UserAuthentication]) -> str:
    """Write the authentication frame: slot and authentication object."""
    del operation
    members_of = [f"{quote(slot)}:{encode_authentication(auth)}" for slot, auth in authentications.items()]
    return f"{{{','.join(members_of)}}}"


def decode_authentications(
    operation: str, frame: str, slots: Collection[str]
) -> dict[str, UserAuthentication]:
    """
    Read the authentication frame.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return read_authentications(operation, load_text(frame), slots)


def read_authentications(
    operation: str, value: Json, slots: Collection[str]
) -> dict[str, UserAuthentication]:
    """
    Read the decoded value of an authentication frame.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(value, f"authentications of {operation}", slots)
    return {slot: read_authentication(found[slot]) for slot in slots}


def oneshot_challenge(setup: str) -> str:
    """Give the challenge of a one-shot request: the double SHA-256 of the setup's exact text, in hex."""
    return double_sha256(setup)


def encode_oneshot(
    operation: str, setups: Sequence[str], authentications: Mapping[str, UserAuthentication]
) -> str:
    """Write the one frame of a one-shot request: the setup frame as a string, and the authentication frame."""
    setup_frame = join_setups(operation, setups)
    return f'{{"setupOpts":{quote(setup_frame)},"userSigs":{encode_authentications(operation, authentications)}}}'


def decode_oneshot(frame: str) -> tuple[str, Json]:
    """
    Read the one frame of a one-shot request.

    Returns:
        The setup frame, for ``split_setups``, and the authentications, for ``read_authentications``.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load_text(frame), "request", ("setupOpts", "userSigs"))
    return check_text("setupOpts", found["setupOpts"], most=_MOST_FRAME), found["userSigs"]


def read_ephemeral_signature(auth: UserAuthentication, message: str | None) -> str:
    """
    Give the ephemeral key's signature out of the JSON text it stands in.

    Args:
        auth: The authentication object.
        message: The setup's message, which must be the one repeated there; None for a setup without one.

    Raises:
        ProtocolError: The member is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong, or the message is another.
    """
    repeated = () if message is None else ("base64Message",)
    found = members(load_text(auth.signature), "signature", (*repeated, "signature"))
    if message is not None and found["base64Message"] != message:
        raise InvalidFieldError("base64Message", "is not the setup's message")
    return check_text("signature", found["signature"])


def encode_keygen_results(found: Sequence[KeygenResult]) -> str:
    """Write the keygen result frame."""
    return results.encode_keygen_results(found, with_algorithm=True)


def decode_keygen_results(frame: str) -> tuple[KeygenResult, ...]:
    """
    Read the keygen result frame.

    Raises:
        ProtocolError: It breaks the grammar, or a public key is not on the curve.
    """
    return results.decode_keygen_results(frame, with_algorithm=True)


def encode_signgen_results(found: Sequence[SigngenResult]) -> str:
    """Write the signgen result frame."""
    return results.encode_signgen_results(found)


def decode_signgen_results(frame: str) -> tuple[SigngenResult, ...]:
    """
    Read the signgen result frame.

    Raises:
        ProtocolError: It breaks the grammar.
    """
    return results.decode_signgen_results(frame, with_transaction_id=True)


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
