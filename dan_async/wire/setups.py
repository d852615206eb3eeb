"""Keygen and signgen setups: alike in all revisions, but that only revision 1 names the distributed key's algorithm."""

from __future__ import annotations

from typing import Any

from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_text
from dan_async.models.setup import TAG_CLAIM, TAG_PERMISSIONS, KeygenSetup, SigngenSetup
from dan_async.types import Json
from dan_async.wire.ephemeral import decode_base64
from dan_async.wire.json_text import quote
from dan_async.wire.members import members
from dan_async.wire.metadata import decode_metadata, metadata_text, signed_metadata

__all__ = ["keygen_text", "read_keygen", "read_signgen", "signgen_members", "wallet_members"]


def keygen_text(setup: KeygenSetup, *, names_algorithm: bool) -> str:
    """
    Write a keygen setup.

    Args:
        setup: The setup.
        names_algorithm: Whether the revision has ``signAlg``; one that has not does secp256k1 only.
    """
    _check_algorithm(setup.sign_alg, names_algorithm=names_algorithm)
    label = "" if setup.key_label is None else f'"key_label":{quote(setup.key_label)},'
    algorithm = f',"signAlg":{quote(setup.sign_alg)}' if names_algorithm else ""
    return f'{{"t":{setup.t},"n":{setup.n},{label}"metadata":{metadata_text(setup.metadata)}{algorithm}}}'


def wallet_members(setup: KeygenSetup, *, names_algorithm: bool) -> dict[str, Any]:
    """Give a keygen setup as the values that the wallet is shown, in the wire's order and without the permissions."""
    _check_algorithm(setup.sign_alg, names_algorithm=names_algorithm)
    found: dict[str, Any] = {"t": setup.t, "n": setup.n}
    if setup.key_label is not None:
        found["key_label"] = setup.key_label
    found["metadata"] = signed_metadata(setup.metadata)
    if names_algorithm:
        found["signAlg"] = setup.sign_alg
    return found


def read_keygen(value: Json, *, names_algorithm: bool) -> KeygenSetup:
    """
    Read a keygen setup. Members may stand in any order; metadata values are kept exactly.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    algorithm = ("signAlg",) if names_algorithm else ()
    found = members(value, "setup", ("t", "n", "metadata", *algorithm), ("key_label",))
    if "key_label" in found:
        check_text("key_label", found["key_label"], most=256)
    return KeygenSetup(
        t=found["t"],
        n=found["n"],
        metadata=decode_metadata(found["metadata"], required=(TAG_CLAIM,), optional=(TAG_PERMISSIONS,)),
        key_label=found.get("key_label"),
        sign_alg=found.get("signAlg", "secp256k1"),
    )


def signgen_members(setup: SigngenSetup, *, names_algorithm: bool) -> dict[str, Any]:
    """Give a signgen setup as JSON values, in the wire's order."""
    _check_algorithm(setup.sign_alg, names_algorithm=names_algorithm)
    found: dict[str, Any] = {"t": setup.t, "key_id": setup.key_id, "message": setup.message}
    return found | {"signAlg": setup.sign_alg} if names_algorithm else found


def read_signgen(value: Json, *, names_algorithm: bool) -> SigngenSetup:
    """
    Read a signgen setup.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong, or the message is not Base64 of UTF-8.
    """
    algorithm = ("signAlg",) if names_algorithm else ()
    found = members(value, "setup", ("t", "key_id", "message", *algorithm))
    decode_base64("message", found["message"])
    return SigngenSetup(
        t=found["t"],
        key_id=found["key_id"],
        message=found["message"],
        sign_alg=found.get("signAlg", "secp256k1"),
    )


def _check_algorithm(sign_alg: str, *, names_algorithm: bool) -> None:
    if not names_algorithm and sign_alg != "secp256k1":
        raise InvalidFieldError("sign_alg", "must be secp256k1 in this revision")
