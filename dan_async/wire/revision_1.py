"""
Gateway revision 1, the 1.x line of the TypeScript clients: what goes over the wire, in both directions.

The ephemeral key is secp256k1 or ed25519, and its claim says which. Keygen takes several setups at once, one
per algorithm of the distributed key.
"""

from __future__ import annotations

from typing import Any

from dan_async._hex import from_hex, to_hex
from dan_async.models._fields import check_text
from dan_async.models.claim import EphemeralClaim
from dan_async.models.setup import TAG_CLAIM, TAG_PERMISSIONS, KeygenSetup
from dan_async.models.threshold import Threshold
from dan_async.types import Json, KeyAlgorithm
from dan_async.wire.json_text import dump, load
from dan_async.wire.members import members
from dan_async.wire.metadata import decode_metadata, encode_metadata, keygen_metadata
from dan_async.wire.typed_data import owner_request, signed_metadata

__all__ = [
    "decode_claim",
    "decode_keygen_setup",
    "encode_claim",
    "encode_keygen_setup",
    "keygen_setup",
    "keygen_typed_data",
]


def encode_claim(claim: EphemeralClaim) -> str:
    """Write an ephemeral claim: tag 2 of a setup, and the credentials of every authentication."""
    return dump(
        {
            "ephId": claim.eph_id,
            "ephPK": to_hex(claim.eph_pk),
            "expiry": claim.expiry,
            "signAlg": claim.sign_alg,
        }
    )


def decode_claim(text: str) -> EphemeralClaim:
    """
    Read an ephemeral claim; its members may stand in any order.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(load(text), "claim", ("ephId", "ephPK", "expiry", "signAlg"))
    return EphemeralClaim(
        eph_id=found["ephId"],
        eph_pk=from_hex(found["ephPK"], field="ephPK", prefix=True),
        expiry=found["expiry"],
        sign_alg=found["signAlg"],
    )


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


def _keygen_value(setup: KeygenSetup, metadata: Json) -> dict[str, Any]:
    label = {} if setup.key_label is None else {"key_label": setup.key_label}
    return {"t": setup.t, "n": setup.n, **label, "metadata": metadata, "signAlg": setup.sign_alg}


def _read_keygen(value: Json) -> KeygenSetup:
    found = members(value, "setup", ("t", "n", "metadata", "signAlg"), ("key_label",))
    if "key_label" in found:
        check_text("key_label", found["key_label"], most=256)
    return KeygenSetup(
        t=found["t"],
        n=found["n"],
        metadata=decode_metadata(found["metadata"], required=(TAG_CLAIM,), optional=(TAG_PERMISSIONS,)),
        key_label=found.get("key_label"),
        sign_alg=found["signAlg"],
    )


def encode_keygen_setup(setup: KeygenSetup) -> str:
    """Write ONE keygen setup; the setup frame is an array of these."""
    return dump(_keygen_value(setup, encode_metadata(setup.metadata)))


def decode_keygen_setup(text: str) -> KeygenSetup:
    """
    Read one keygen setup. Members may stand in any order; metadata values are kept exactly.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return _read_keygen(load(text))


def keygen_typed_data(setup: KeygenSetup, challenge: str) -> dict[str, Any]:
    """
    Build what the owner's wallet signs for a keygen setup: the setup without permissions, and the challenge.

    The message shows ``signAlg`` and ``key_label`` too, but the EIP-712 type does not name them, so that no
    signature covers them.
    """
    return owner_request("KeygenSetupOpts", _keygen_value(setup, signed_metadata(setup.metadata)), challenge)
