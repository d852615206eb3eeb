"""
Keygen and signgen setups: alike in all revisions, but that only revision 1 names the distributed key's algorithm.

Who asked for it, and the signature that shows it.

What the owner vouches for: this ephemeral key, until that time.

What an operation is about, as it stands on the wire: the setup objects of WIRE revisions 0.1, 0.3 and 1.

Signatures cover the exact text of a setup, so these models keep every string as it was (a claim is a JSON text inside
``TaggedValue.value``), and the codecs in ``wire`` turn them into text exactly once.

The metadata list of every setup: tagged values, alike in all revisions.

Passkeys on the wire: the signature member of method ``passkey``, and the setup of registerPasskey.

WebAuthn's own bytes are not looked into here: the credential is a JSON text whose binary members are base64url, as a
browser gives it, and verifying it is for whoever relies on it.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from dan_async._json import dump, quote
from dan_async._values import check_algorithm, check_int, check_text, optional, required, shown
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import decode_base64, load_text, members
from dan_async.types import Json, KeyAlgorithm

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


_KEY_LENGTHS = {"ed25519": (32,), "secp256k1": (65,)}


@frozen(kw_only=True)
class EphemeralClaim:
    """
    The ephemeral claim: metadata tag 2 of every setup, and the credentials of every authentication.

    Args:
        eph_id: The name under which the nodes register the ephemeral key.
        eph_pk: The public key: 32 bytes for ed25519, 65 bytes uncompressed for secp256k1.
        expiry: When it ends, in Unix seconds.
        sign_alg: Its algorithm. Only revision 1 puts it on the wire; before, it is ed25519.

    Raises:
        InvalidFieldError: A field is out of range.
    """

    eph_id: str = field(validator=required(check_text, most=256))
    eph_pk: bytes = field()
    expiry: int = field(validator=required(check_int, least=0, most=2**53 - 1))
    sign_alg: KeyAlgorithm = field(validator=required(check_algorithm))

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.eph_pk, bytes) or len(self.eph_pk) not in _KEY_LENGTHS[self.sign_alg]:
            raise InvalidFieldError("eph_pk", f"is not a public key for {self.sign_alg}")
        if self.sign_alg == "secp256k1" and self.eph_pk[0] != 4:
            raise InvalidFieldError("eph_pk", "must be uncompressed: 65 bytes that begin with 04")


#: Metadata tags.
TAG_PERMISSIONS = 1

TAG_CLAIM = 2

TAG_KEY_ID = 3


@frozen
class TaggedValue:
    """One entry of a setup's metadata: permissions (tag 1), ephemeral claim (tag 2) or key id (tag 3)."""

    tag: int = field(validator=required(check_int, least=0, most=0xFFFF))
    value: str = field(validator=required(check_text, least=0, most=256 * 1024))


def find_tag(metadata: tuple[TaggedValue, ...], tag: int) -> str | None:
    """Give the value of the first entry with that tag."""
    return next((entry.value for entry in metadata if entry.tag == tag), None)


@frozen(kw_only=True)
class KeygenSetup:
    """
    Make a key: t of n, for this ephemeral key, under these permissions.

    ``sign_alg`` is the algorithm of the distributed key; it is on the wire in revision 1 only.
    """

    t: int = field(validator=required(check_int, least=1, most=2**32 - 1))
    n: int = field(validator=required(check_int, least=1, most=2**32 - 1))
    metadata: tuple[TaggedValue, ...]
    key_label: str | None = field(default=None, validator=optional(check_text, most=256))
    sign_alg: KeyAlgorithm = field(default="secp256k1", validator=required(check_algorithm))

    @property
    def permissions(self) -> str | None:
        """The permissions text (tag 1), which the owner's wallet does not sign."""
        return find_tag(self.metadata, TAG_PERMISSIONS)

    @property
    def claim_text(self) -> str | None:
        """The ephemeral claim's exact text (tag 2); in revision 0.1 the bare public key."""
        return find_tag(self.metadata, TAG_CLAIM)


@frozen(kw_only=True)
class EphemeralKeySetup:
    """Add an ephemeral key to a key, or revoke it. Revision 0.3 also carries ``n`` and ``key_id`` in the setup."""

    metadata: tuple[TaggedValue, ...]
    n: int | None = field(default=None, validator=optional(check_int, least=1, most=2**32 - 1))
    key_id: str | None = field(default=None, validator=optional(check_text, most=256))

    @property
    def claim_text(self) -> str | None:
        """The ephemeral claim's exact text (tag 2)."""
        return find_tag(self.metadata, TAG_CLAIM)

    @property
    def tagged_key_id(self) -> str | None:
        """The key's id (tag 3)."""
        return find_tag(self.metadata, TAG_KEY_ID)


@frozen(kw_only=True)
class SigngenSetup:
    """Sign a message with a key. ``message`` is standard Base64 of the UTF-8 message, encoded exactly once."""

    t: int = field(validator=required(check_int, least=1, most=2**32 - 1))
    key_id: str = field(validator=required(check_text, most=256))
    message: str = field(validator=required(check_text, least=0, most=1024 * 1024))
    sign_alg: KeyAlgorithm = field(default="secp256k1", validator=required(check_algorithm))


def keygen_metadata(claim_text: str, permissions: str | None) -> tuple[TaggedValue, ...]:
    """Permissions, if there are any, then the claim."""
    claim = TaggedValue(TAG_CLAIM, claim_text)
    return (claim,) if permissions is None else (TaggedValue(TAG_PERMISSIONS, permissions), claim)


def ephemeral_key_metadata(claim_text: str, key_id: str) -> tuple[TaggedValue, ...]:
    """Key id, then the claim: this operation's order."""
    return (TaggedValue(TAG_KEY_ID, key_id), TaggedValue(TAG_CLAIM, claim_text))


def encode_metadata(metadata: tuple[TaggedValue, ...]) -> Json:
    """Give the list as JSON values."""
    return [{"tag": entry.tag, "value": entry.value} for entry in metadata]


def metadata_text(metadata: tuple[TaggedValue, ...]) -> str:
    """Write the list."""
    entries = [f'{{"tag":{entry.tag},"value":{quote(entry.value)}}}' for entry in metadata]
    return f"[{','.join(entries)}]"


def signed_metadata(metadata: tuple[TaggedValue, ...]) -> Json:
    """Give the entries that the wallet signs: all but the permissions (tag 1)."""
    return [{"tag": entry.tag, "value": entry.value} for entry in metadata if entry.tag != TAG_PERMISSIONS]


def decode_metadata(
    value: Json, *, required: tuple[int, ...], optional: tuple[int, ...] = ()
) -> tuple[TaggedValue, ...]:
    """
    Read a metadata list; values and their order are kept exactly, since the owner's signature covers them.

    Args:
        value: The decoded JSON value.
        required: Tags that must be there, once each.
        optional: Tags that may be there, once each.

    Raises:
        InvalidFieldError: It is not such a list. A repeated tag is refused, so that no two readers can take
            different entries for the one that counts.
    """
    if not isinstance(value, list) or len(value) > len(required) + len(optional):
        raise InvalidFieldError("metadata", "must be a list with one entry per tag")
    entries = tuple(
        TaggedValue(entry["tag"], entry["value"])
        for entry in (members(entry, "metadata", ("tag", "value")) for entry in value)
    )
    tags = [entry.tag for entry in entries]
    if len(set(tags)) != len(tags):
        raise InvalidFieldError("metadata", "has a repeated tag")
    for tag in required:
        if tag not in tags:
            raise InvalidFieldError("metadata", f"has no entry with tag {tag}")
    if not set(tags) <= {*required, *optional}:
        raise InvalidFieldError("metadata", "has a tag that this operation does not take")
    return entries


def claim_is_bare_key(value: Json) -> bool:
    """Tell whether the claim in a metadata list is a bare public key, as in revision 0.1. The list is not checked."""
    entries = value if isinstance(value, list) else []
    return any(
        isinstance(entry, dict)
        and entry.get("tag") == TAG_CLAIM
        and isinstance(entry.get("value"), str)
        and entry["value"].startswith("0x")
        for entry in entries
    )


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
