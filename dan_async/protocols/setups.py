"""
The contents of an exchange with a gateway: claim, setups and their members in every revision, metadata, passkeys' texts.

*has_names* is true for revision 1 and false for 0.3 and 0.1. A setup's text is made of these members by
``GatewayProtocol.encode_setup`` in ``gateway``.

Signatures cover the exact text of a setup, so every string is kept as it came (a claim is a JSON text inside a
``TaggedValue``), and each text is made once. WebAuthn's own bytes are not looked into: a credential is a JSON text whose
binary members are base64url, as a browser returns it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from dan_async._json import dump, quote
from dan_async._values import MAX_SAFE_INT, check_algorithm, check_int, check_text, optional, required, shown
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import Message, decode_base64, load_text, members
from dan_async.types import Json, KeyAlgorithm

#: Longest setup, and longest frame that holds one, in characters.
MOST_SETUP = 4 * 1024 * 1024

#: Longest answer of a passkey as text: with certificates it takes some ten thousand characters, and nodes read it at once.
_MOST_PASSKEY = 128 * 1024

TAG_PERMISSIONS = 1
TAG_CLAIM = 2
TAG_KEY_ID = 3

AuthMethod: TypeAlias = Literal["eoa", "ephemeral", "passkey"]

_KEY_LENGTHS = {"ed25519": (32,), "secp256k1": (65,)}
_CREDENTIAL_ID = re.compile(r"[A-Za-z0-9_-]{1,1024}\Z")


# --- claim and authentication -----------------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False)
class EphemeralClaim(Message):
    """
    The ephemeral key that an owner vouches for: metadata tag 2 of a setup, and the credentials of an authentication.

    ``eph_id`` is the name under which the nodes register it, ``expiry`` is in Unix seconds. Only revision 1 puts the
    algorithm on the wire; before, it is ed25519.
    """

    eph_id: str = field(validator=required(check_text, most=256))
    eph_pk: bytes = field()
    expiry: int = field(validator=required(check_int, least=0, most=MAX_SAFE_INT))
    sign_alg: KeyAlgorithm

    def __attrs_post_init__(self) -> None:
        check_algorithm("sign_alg", self.sign_alg)
        if not isinstance(self.eph_pk, bytes) or len(self.eph_pk) not in _KEY_LENGTHS[self.sign_alg]:
            raise InvalidFieldError("eph_pk", f"is not a public key for {self.sign_alg}")
        if self.sign_alg == "secp256k1" and self.eph_pk[0] != 4:
            raise InvalidFieldError("eph_pk", "must be uncompressed: 65 bytes that begin with 04")


@frozen(kw_only=True, eq=False, repr=False)
class UserAuthentication(Message):
    """
    The authorisation of a request: by the owner's wallet, the ephemeral key, or a passkey.

    ``id`` is the EOA's address, the ephemeral id, or the passkey's credential id; ``credentials`` the claim's exact text,
    empty for a passkey that is being registered; ``signature`` 0x hex, or the JSON text of method and revision.
    """

    method: AuthMethod
    id: str = field(validator=required(check_text, most=1024))
    credentials: str = field(validator=required(check_text, least=0, most=16 * 1024))
    signature: str = field(validator=required(check_text, most=1024 * 1024))


# --- metadata ---------------------------------------------------------------------------------------------------------


@frozen(eq=False, repr=False)
class TaggedValue(Message):
    """One entry of a setup's metadata: permissions (tag 1), ephemeral claim (tag 2) or key id (tag 3)."""

    tag: int
    value: str


def find_tag(metadata: tuple[TaggedValue, ...], tag: int) -> str | None:
    return next((entry.value for entry in metadata if entry.tag == tag), None)


def keygen_metadata(claim_text: str, permissions: str | None) -> tuple[TaggedValue, ...]:
    claim = TaggedValue(TAG_CLAIM, claim_text)
    return (claim,) if permissions is None else (TaggedValue(TAG_PERMISSIONS, permissions), claim)


def ephemeral_key_metadata(claim_text: str, key_id: str) -> tuple[TaggedValue, ...]:
    return (TaggedValue(TAG_KEY_ID, key_id), TaggedValue(TAG_CLAIM, claim_text))


def metadata_members(metadata: tuple[TaggedValue, ...]) -> list[Json]:
    """Return the entries that the owner's wallet is shown, and signs, as JSON values: all but the permissions."""
    return [{"tag": entry.tag, "value": entry.value} for entry in metadata if entry.tag != TAG_PERMISSIONS]


def decode_metadata(
    value: Json, *, required: tuple[int, ...], optional: tuple[int, ...] = ()
) -> tuple[TaggedValue, ...]:
    """
    Read a metadata list; values and their order are kept exactly, since the owner's signature covers them.

    A repeated tag is refused, so that no two readers can take different entries for the one that counts.
    """
    if not isinstance(value, list) or len(value) > len(required) + len(optional):
        raise InvalidFieldError("metadata", "must be a list with one entry per tag")
    entries = tuple(
        TaggedValue(
            check_int("tag", entry["tag"], least=0, most=0xFFFF),
            check_text("value", entry["value"], least=0, most=256 * 1024),
        )
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
    """Whether the claim in a metadata list is a bare public key, as in revision 0.1. The list is not checked."""
    entries = value if isinstance(value, list) else []
    return any(
        isinstance(entry, dict)
        and entry.get("tag") == TAG_CLAIM
        and isinstance(entry.get("value"), str)
        and entry["value"].startswith("0x")
        for entry in entries
    )


# --- setups -----------------------------------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False, repr=False)
class KeygenSetup(Message):
    """
    Make a key: t of n, for this ephemeral key, under these permissions. The numbers are checked where they come from.

    ``sign_alg`` is the algorithm of the distributed key; it is on the wire in revision 1 only.
    """

    t: int
    n: int
    metadata: tuple[TaggedValue, ...]
    key_label: str | None = None
    sign_alg: KeyAlgorithm = "secp256k1"

    @property
    def permissions(self) -> str | None:
        """The permissions text (tag 1), which the owner's wallet does not sign."""
        return find_tag(self.metadata, TAG_PERMISSIONS)

    @property
    def claim_text(self) -> str | None:
        """The ephemeral claim's exact text (tag 2); in revision 0.1 the bare public key."""
        return find_tag(self.metadata, TAG_CLAIM)


@frozen(kw_only=True, eq=False, repr=False)
class EphemeralKeySetup(Message):
    """Add an ephemeral key to a key, or revoke it. Revision 0.3 also carries ``n`` and ``key_id`` in the setup."""

    metadata: tuple[TaggedValue, ...]
    n: int | None = field(default=None, validator=optional(check_int, least=1, most=2**32 - 1))
    key_id: str | None = field(default=None, validator=optional(check_text, most=256))

    @property
    def claim_text(self) -> str | None:
        return find_tag(self.metadata, TAG_CLAIM)

    @property
    def tagged_key_id(self) -> str | None:
        return find_tag(self.metadata, TAG_KEY_ID)


@frozen(kw_only=True, eq=False, repr=False)
class SigngenSetup(Message):
    """Sign a message with a key. ``message`` is standard Base64 of the UTF-8 message, encoded exactly once."""

    t: int = field(validator=required(check_int, least=1, most=2**32 - 1))
    key_id: str
    message: str = field(validator=required(check_text, least=0, most=1024 * 1024))
    sign_alg: KeyAlgorithm = "secp256k1"


@frozen(kw_only=True, eq=False, repr=False)
class PasskeySetup(Message):
    """The setup of registerPasskey: nothing but an optional text of options."""

    options: str | None = field(default=None, validator=optional(check_text, most=16 * 1024))


#: A decoded setup of any operation.
Setup: TypeAlias = KeygenSetup | SigngenSetup | EphemeralKeySetup | PasskeySetup


@frozen(kw_only=True, eq=False, repr=False)
class WrittenSetup(Message):
    """A setup, and its text exactly as it is sent."""

    setup: Setup
    text: str


# --- their texts: revisions with names say the distributed key's algorithm --------------------------------------------


def encode_keygen_setup(setup: KeygenSetup, *, has_names: bool) -> str:
    """Write the text at once, as ``json`` would: that makes an encoder of its own for each text."""
    label = "" if setup.key_label is None else f'"key_label":{quote(setup.key_label)},'
    entries = [f'{{"tag":{entry.tag},"value":{quote(entry.value)}}}' for entry in setup.metadata]
    algorithm = _algorithm_text(setup.sign_alg, has_names=has_names)
    return f'{{"t":{setup.t},"n":{setup.n},{label}"metadata":[{",".join(entries)}]{algorithm}}}'


def shown_keygen_setup(setup: KeygenSetup, *, has_names: bool) -> dict[str, Any]:
    """Return the same as the owner's wallet is shown it; its type has neither label nor algorithm."""
    label = {} if setup.key_label is None else {"key_label": setup.key_label}
    algorithm = {"signAlg": setup.sign_alg} if _algorithm_text(setup.sign_alg, has_names=has_names) else {}
    metadata = metadata_members(setup.metadata)
    return {"t": setup.t, "n": setup.n, **label, "metadata": metadata, **algorithm}


def decode_keygen_setup(text: str, *, has_names: bool) -> KeygenSetup:
    algorithm = ("signAlg",) if has_names else ()
    found = members(load_text(text), "setup", ("t", "n", "metadata", *algorithm), ("key_label",))
    if "key_label" in found:
        check_text("key_label", found["key_label"], most=256)
    return KeygenSetup(
        t=_check_count("t", found["t"]),
        n=_check_count("n", found["n"]),
        metadata=decode_metadata(found["metadata"], required=(TAG_CLAIM,), optional=(TAG_PERMISSIONS,)),
        key_label=found.get("key_label"),
        sign_alg=_read_algorithm(found),
    )


def encode_signgen_setup(setup: SigngenSetup, *, has_names: bool) -> str:
    algorithm = _algorithm_text(setup.sign_alg, has_names=has_names)
    key_id, message = quote(setup.key_id), quote(setup.message)
    return f'{{"t":{setup.t},"key_id":{key_id},"message":{message}{algorithm}}}'


def decode_signgen_setup(text: str, *, has_names: bool) -> SigngenSetup:
    algorithm = ("signAlg",) if has_names else ()
    found = members(load_text(text), "setup", ("t", "key_id", "message", *algorithm))
    decode_base64("message", found["message"])
    return SigngenSetup(
        t=found["t"],
        key_id=check_text("key_id", found["key_id"], most=256),
        message=found["message"],
        sign_alg=_read_algorithm(found),
    )


def _check_count(name: str, value: object) -> int:
    return check_int(name, value, least=1, most=2**32 - 1)


def _read_algorithm(found: Mapping[str, Any]) -> KeyAlgorithm:
    algorithm: KeyAlgorithm = found.get("signAlg", "secp256k1")
    check_algorithm("sign_alg", algorithm)
    return algorithm


def _algorithm_text(sign_alg: str, *, has_names: bool) -> str:
    """Return the member that ends a setup in a revision with names, which others must not need."""
    if has_names:
        return f',"signAlg":{quote(sign_alg)}'
    if sign_alg != "secp256k1":
        raise InvalidFieldError("sign_alg", "must be secp256k1 in this revision")
    return ""


def encode_passkey_setup(setup: PasskeySetup) -> str:
    return dump({} if setup.options is None else {"options": setup.options})


def decode_passkey_setup(text: str) -> PasskeySetup:
    found = members(load_text(text), "setup", (), ("options",))
    if "options" in found:
        check_text("options", found["options"], most=16 * 1024)
    return PasskeySetup(options=found.get("options"))


# --- passkeys ---------------------------------------------------------------------------------------------------------


@frozen(kw_only=True, eq=False, repr=False)
class PasskeySignature(Message):
    """
    The answer of a browser to a challenge: a new credential, or an assertion with an old one.

    ``raw_credential`` is the credential's JSON text, ``rp_id`` the relying party's domain; the client names both that and
    the origin.
    """

    raw_credential: str = field(repr=False, validator=required(check_text, most=64 * 1024))
    origin: str = field(validator=required(check_text))
    rp_id: str = field(validator=required(check_text, most=255))


def encode_passkey_signature(signature: PasskeySignature) -> str:
    """Write the ``signature`` member of an authentication by passkey."""
    return dump(
        {"rawCredential": signature.raw_credential, "origin": signature.origin, "rpId": signature.rp_id}
    )


def decode_passkey_signature(text: str) -> PasskeySignature:
    checked = check_text("signature", text, most=_MOST_PASSKEY)
    found = members(load_text(checked), "signature", ("rawCredential", "origin", "rpId"))
    signature = PasskeySignature(
        raw_credential=found["rawCredential"], origin=found["origin"], rp_id=found["rpId"]
    )
    if not isinstance(load_text(signature.raw_credential), dict):
        raise InvalidFieldError("rawCredential", "must be the JSON text of an object")
    return signature


def decode_credential_id(frame: object) -> str:
    """Read the result of registerPasskey: the credential id, in base64url."""
    if not isinstance(frame, str) or _CREDENTIAL_ID.match(frame) is None:
        raise ProtocolError(
            f"the passkey result is not a credential id: the gateway sent {shown(frame)}",
            hint="The passkey may not have been registered",
        )
    return frame
