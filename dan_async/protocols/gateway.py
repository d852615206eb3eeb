"""
The authentication object: who asked, and the signature that shows it. Alike in all revisions.

The form of a challenge: 64 hex digits without 0x, alike in all revisions.

The gateway's protocol in every revision: the one module that networks and servers need.

A client begins with ``keygen_exchange`` and its siblings, a gateway with ``accept``; nodes check what an owner signed with
``owner_typed_data`` and ``owner_claim``, and what an ephemeral key signed with ``ephemeral_payload`` and
``read_ephemeral_proof``.

What an ephemeral key signs, and the setup of a signature: alike in all revisions but for the algorithm's name.

What every revision's module has: ``revisions.module_for`` finds the one to ask.

The frames of revisions 0.1 and 0.3, which take one setup at a time: every frame is one thing, without a name.

``slots`` are the names under which revision 1 would send it; here there is one and it stays off the wire.

The EIP-712 request that an owner's wallet signs, alike in all revisions but for the setup's type.

The domain has neither chain id nor contract; ``EIP712Domain`` is spelled out so that every
``eth_signTypedData_v4`` wallet accepts it. Each call gives fresh lists: wallets may change them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from dan_async._json import load, quote
from dan_async._values import check_text, shown
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.eip712 import TypedDataForm
from dan_async.errors import ChallengeError, InvalidFieldError, ProtocolError
from dan_async.protocols import results
from dan_async.protocols.fields import _LONGEST_SETUP, load_text, members, only
from dan_async.protocols.results import KeygenResult, SigngenResult
from dan_async.protocols.setups import (
    AuthMethod,
    EphemeralClaim,
    EphemeralKeySetup,
    KeygenSetup,
    SigngenSetup,
    UserAuthentication,
)
from dan_async.protocols.sign_request import SignRequest
from dan_async.types import Json, KeyAlgorithm

#: How a request can be authorised: the owner's wallet, the ephemeral key, a passkey.
METHODS = ("eoa", "ephemeral", "passkey")


def encode_authentication(auth: UserAuthentication) -> str:
    """Write the object, members in the wire's order."""
    return (
        f'{{"credentials":{{"credentials":{quote(auth.credentials)},"method":{quote(auth.method)},"id":{quote(auth.id)}}},'
        f'"signature":{quote(auth.signature)}}}'
    )


def read_authentication(value: Json) -> UserAuthentication:
    """
    Read the object. The signature is not checked here: that is for the nodes.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    outer = members(value, "authentication", ("credentials", "signature"))
    inner = members(outer["credentials"], "credentials", ("credentials", "method", "id"))
    method = inner["method"]
    if method not in METHODS:
        raise InvalidFieldError("method", f"must be one of {', '.join(METHODS)}")
    if method == "eoa":
        parse_address("id", inner["id"])
    return UserAuthentication(
        method=method, id=inner["id"], credentials=inner["credentials"], signature=outer["signature"]
    )


_CHALLENGE = re.compile(r"[0-9a-fA-F]{64}\Z")


def check_challenge(value: object) -> str:
    """
    Check a challenge that we are about to send or sign.

    Raises:
        InvalidFieldError: It is not 64 hex digits without 0x.
    """
    if not isinstance(value, str) or _CHALLENGE.match(value) is None:
        raise InvalidFieldError("challenge", "must be 64 hex digits without 0x")
    return value


def decode_plain_challenge(frame: object) -> str:
    """
    Read a challenge frame that is the challenge itself.

    Raises:
        ChallengeError: It is anything else, so that no wallet is asked to sign it.
    """
    if not isinstance(frame, str) or _CHALLENGE.match(frame) is None:
        raise ChallengeError(
            f"the challenge is not 64 hex digits: the gateway sent {shown(frame)}",
            hint="Check the gateway's URL and revision; nothing was signed",
        )
    return frame


def decode_challenge_object(frame: object, names: Collection[str]) -> dict[str, str]:
    """
    Read a challenge frame that is a JSON object with one challenge for each name.

    Args:
        frame: What the gateway sent.
        names: The names that must be in it, and no others.

    Raises:
        ChallengeError: It is anything else, or two challenges in it are equal.
    """
    try:
        found = load(frame) if isinstance(frame, str) else None
    except ProtocolError:
        found = None
    if (
        not isinstance(found, dict)
        or set(found) != set(names)
        or not all(isinstance(value, str) and _CHALLENGE.match(value) for value in found.values())
    ):
        raise ChallengeError(
            f"the challenge is not a JSON object with 64 hex digits for each of {', '.join(names)}: "
            f"the gateway sent {shown(frame)}",
            hint="Check the gateway's URL and revision; nothing was signed",
        )
    if len({value.lower() for value in found.values()}) != len(found):
        raise ChallengeError("the gateway gave two algorithms the same challenge", hint="Nothing was signed")
    return {name: found[name] for name in names}


def double_sha256(setup: str) -> str:
    """
    Give the challenge of a one-shot request: SHA-256 of the SHA-256 of the setup's text, in hex without 0x.

    Raises:
        InvalidFieldError: UTF-8 cannot carry the text.
    """
    text = check_text("setup", setup, most=4 * 1024 * 1024).encode()
    return hashlib.sha256(hashlib.sha256(text).digest()).hexdigest()


def ephemeral_payload(setup: str, challenge: str) -> bytes:
    """
    Give the bytes that an ephemeral key signs: the JSON of setup and challenge.

    Args:
        setup: The setup's text exactly as it is sent; it is not parsed and written again.
        challenge: 64 hex digits without 0x.

    Raises:
        InvalidFieldError: The challenge has another form, or UTF-8 cannot carry the setup.
    """
    check_text("setup", setup, most=_LONGEST_SETUP)
    return f'{{"setup":{setup},"challenge":{quote(check_challenge(challenge))}}}'.encode()


class RevisionModule(Protocol):
    """What every revision's module has."""

    @property
    def OPERATIONS(self) -> tuple[str, ...]:  # noqa: N802  # a constant of the module
        """The operations of the revision."""
        ...

    @property
    def API_VERSIONS(self) -> tuple[str, ...]:  # noqa: N802  # a constant of the module
        """The forms of an exchange: ``v1``, ``v2``."""
        ...

    @property
    def EPHEMERAL_ALGORITHMS(self) -> tuple[KeyAlgorithm, ...]:  # noqa: N802  # a constant of the module
        """What an ephemeral key may be, the usual one first."""
        ...

    @property
    def SIGN_ALGORITHMS(self) -> tuple[KeyAlgorithm, ...]:  # noqa: N802  # a constant of the module
        """What a distributed key may be, the usual one first."""
        ...

    def encode_claim(self, claim: EphemeralClaim) -> str:
        """Write tag 2 of a setup."""
        ...

    def decode_claim(self, text: str) -> EphemeralClaim:
        """Read tag 2 of a setup."""
        ...

    def encode_credentials(self, claim: EphemeralClaim, owner_id: str) -> str:
        """Write the credentials text of an authentication."""
        ...

    def decode_credentials(self, text: str, owner_id: str) -> EphemeralClaim:
        """Read the credentials text of an authentication."""
        ...

    def keygen_setup(
        self,
        *,
        threshold: Threshold,
        claim: EphemeralClaim,
        permissions: str | None = None,
        key_label: str | None = None,
        sign_alg: KeyAlgorithm = "secp256k1",
    ) -> KeygenSetup:
        """Make the setup of one key."""
        ...

    def encode_keygen_setup(self, setup: KeygenSetup) -> str:
        """Write one keygen setup."""
        ...

    def decode_keygen_setup(self, text: str) -> KeygenSetup:
        """Read one keygen setup."""
        ...

    def keygen_typed_data(self, setup: KeygenSetup, challenge: str) -> dict[str, Any]:
        """Build what the owner's wallet signs for one keygen setup."""
        ...

    def signgen_setup(
        self, *, t: int, key_id: str, message: str, sign_alg: KeyAlgorithm = "secp256k1"
    ) -> SigngenSetup:
        """Make the setup of a signature."""
        ...

    def encode_signgen_setup(self, setup: SigngenSetup) -> str:
        """Write a signgen setup."""
        ...

    def decode_signgen_setup(self, text: str) -> SigngenSetup:
        """Read a signgen setup."""
        ...

    def encode_message(self, requests: Sequence[SignRequest]) -> str:
        """Write the message text of a signgen setup."""
        ...

    def decode_message(self, text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]:
        """Read the message text of a signgen setup."""
        ...

    def owner_authentication(
        self, *, claim: EphemeralClaim, method: AuthMethod, owner_id: str, signature: str
    ) -> UserAuthentication:
        """Make the authentication object of an owner."""
        ...

    def ephemeral_authentication(
        self, *, claim: EphemeralClaim, owner_id: str, message: str | None, signature: str
    ) -> UserAuthentication:
        """Make the authentication object of an ephemeral key."""
        ...

    def read_ephemeral_signature(self, auth: UserAuthentication, message: str | None) -> str:
        """Give an ephemeral key's signature."""
        ...

    def join_setups(self, operation: str, setups: Sequence[str]) -> str:
        """Write the setup frame."""
        ...

    def split_setups(self, operation: str, frame: str) -> tuple[str, ...]:
        """Give the setup texts of a setup frame, as they were sent."""
        ...

    def encode_challenges(self, operation: str, challenges: Mapping[str, str]) -> str:
        """Write the challenge frame."""
        ...

    def decode_challenges(self, operation: str, frame: str, slots: Collection[str]) -> dict[str, str]:
        """Read the challenge frame."""
        ...

    def encode_authentications(
        self, operation: str, authentications: Mapping[str, UserAuthentication]
    ) -> str:
        """Write the authentication frame."""
        ...

    def decode_authentications(
        self, operation: str, frame: str, slots: Collection[str]
    ) -> dict[str, UserAuthentication]:
        """Read the authentication frame."""
        ...

    def encode_keygen_results(self, found: Sequence[KeygenResult]) -> str:
        """Write the keygen result frame."""
        ...

    def decode_keygen_results(self, frame: str) -> tuple[KeygenResult, ...]:
        """Read the keygen result frame."""
        ...

    def encode_signgen_results(self, found: Sequence[SigngenResult]) -> str:
        """Write the signgen result frame."""
        ...

    def decode_signgen_results(self, frame: str) -> tuple[SigngenResult, ...]:
        """Read the signgen result frame."""
        ...


class EphemeralKeyModule(Protocol):
    """What the module of a revision with addEphemeralKey has besides."""

    def encode_ephemeral_key_setup(self, setup: EphemeralKeySetup) -> str:
        """Write the setup of addEphemeralKey or revokeEphemeralKey."""
        ...

    def decode_ephemeral_key_setup(self, text: str) -> EphemeralKeySetup:
        """Read the setup of addEphemeralKey or revokeEphemeralKey."""
        ...

    def ephemeral_key_setup(self, *, claim: EphemeralClaim, key_id: str, n: int) -> EphemeralKeySetup:
        """Make the setup of addEphemeralKey or revokeEphemeralKey."""
        ...

    def ephemeral_key_typed_data(self, setup: EphemeralKeySetup, challenge: str) -> dict[str, Any]:
        """Build what the owner's wallet signs to add or revoke an ephemeral key."""
        ...


#: Longest setup frame.
_LONGEST_FRAME = 4 * 1024 * 1024


def join_setups(operation: str, setups: Sequence[str]) -> str:
    """Give the setup frame: the one setup."""
    return only(setups, f"setups of {operation}")


def split_setups(operation: str, frame: str) -> tuple[str, ...]:
    """Give the setup texts of a setup frame: the frame itself, which is not looked into here."""
    return (check_text(f"setup of {operation}", frame, most=_LONGEST_FRAME),)


def encode_challenges(operation: str, challenges: Mapping[str, str]) -> str:
    """Write the challenge frame: 64 hex digits."""
    return check_challenge(only(tuple(challenges.values()), f"challenges of {operation}"))


def decode_challenges(operation: str, frame: str, slots: Collection[str]) -> dict[str, str]:
    """
    Read the challenge frame.

    Raises:
        ChallengeError: It is not 64 hex digits.
    """
    return {only(tuple(slots), f"setups of {operation}"): decode_plain_challenge(frame)}


def encode_authentications(operation: str, authentications: Mapping[str, UserAuthentication]) -> str:
    """Write the authentication frame: the one object."""
    return encode_authentication(only(tuple(authentications.values()), f"authentications of {operation}"))


def decode_authentications(
    operation: str, frame: str, slots: Collection[str]
) -> dict[str, UserAuthentication]:
    """
    Read the authentication frame.

    Raises:
        ProtocolError: It is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    return {only(tuple(slots), f"setups of {operation}"): read_authentication(load_text(frame))}


def read_ephemeral_signature(auth: UserAuthentication, message: str | None) -> str:
    """Give the ephemeral key's signature, which is the member itself: the message is not repeated."""
    del message
    return auth.signature


def encode_keygen_results(found: Sequence[KeygenResult]) -> str:
    """Write the keygen result frame."""
    return results.encode_keygen_results((only(found, "results"),), with_algorithm=False)


def decode_keygen_results(frame: str) -> tuple[KeygenResult, ...]:
    """
    Read the keygen result frame.

    Raises:
        ProtocolError: It breaks the grammar, or the public key is not on the curve.
    """
    return results.decode_keygen_results(frame, with_algorithm=False)


def encode_signgen_results(found: Sequence[SigngenResult]) -> str:
    """Write the signgen result frame."""
    return results.encode_signgen_results((only(found, "results"),))


def decode_signgen_results(frame: str) -> tuple[SigngenResult, ...]:
    """
    Read the signgen result frame.

    Raises:
        ProtocolError: It breaks the grammar.
    """
    return results.decode_signgen_results(frame, with_transaction_id=False)


def _struct(**kinds: str) -> tuple[dict[str, str], ...]:
    return tuple({"name": field, "type": kind} for field, kind in kinds.items())


_TYPES = {
    "EIP712Domain": _struct(name="string", version="string"),
    "KeygenSetupOpts": _struct(t="uint32", n="uint32", metadata="TaggedValue[]"),
    "AddEphemeralKeyOpts": _struct(n="uint32", metadata="TaggedValue[]"),
    "MetadataSetupOpts": _struct(metadata="TaggedValue[]"),
    "TaggedValue": _struct(tag="uint16", value="string"),
}


@lru_cache(maxsize=len(_TYPES))
def _form(setup_type: str) -> TypedDataForm:
    types = {
        "EIP712Domain": _TYPES["EIP712Domain"],
        "Request": _struct(setup=setup_type, challenge="string"),
        setup_type: _TYPES[setup_type],
        "TaggedValue": _TYPES["TaggedValue"],
    }
    return TypedDataForm(types, {"name": "SilentShard authentication", "version": "0.1.0"}, "Request")


def owner_request(setup_type: str, setup: Mapping[str, Any], challenge: str) -> dict[str, Any]:
    """
    Build the typed data.

    Args:
        setup_type: ``KeygenSetupOpts``, ``AddEphemeralKeyOpts`` or ``MetadataSetupOpts``.
        setup: The setup as the message shows it. Members that the type does not name are
            shown but not hashed.
        challenge: 64 hex digits without 0x.

    Raises:
        InvalidFieldError: The challenge has another form.
    """
    return _form(setup_type).fill({"setup": dict(setup), "challenge": check_challenge(challenge)})
