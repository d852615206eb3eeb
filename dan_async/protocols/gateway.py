"""
The gateway's protocol, both directions of every frame in one class, so that client and server cannot drift apart.

``GatewayProtocol`` holds all that the revisions share, and the frames of those before 1, which take one setup at a time and
name nothing. ``gateway_0_3`` (0.3, and 0.1 over it) and ``gateway_1`` override it. Decoders raise ``ProtocolError``
if a text is not JSON and ``InvalidFieldError`` if a member is missing, unknown or wrong.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeAlias, TypeGuard, get_args

from dan_async._json import dump, quote
from dan_async._values import check_text, from_hex, member_of, shown
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.eip712 import TypedDataForm
from dan_async.errors import ChallengeError, InvalidFieldError
from dan_async.protocols import results
from dan_async.protocols.fields import decode_base64, encode_base64, load_text, members, only
from dan_async.protocols.results import KeygenResult, SigngenResult
from dan_async.protocols.setups import (
    MOST_SETUP,
    AuthMethod,
    EphemeralClaim,
    EphemeralKeySetup,
    KeygenSetup,
    Setup,
    SigngenSetup,
    UserAuthentication,
    decode_keygen_setup,
    decode_passkey_setup,
    decode_signgen_setup,
    encode_keygen_setup,
    encode_passkey_setup,
    encode_signgen_setup,
    ephemeral_key_metadata,
    keygen_metadata,
    shown_keygen_setup,
)
from dan_async.protocols.sign_request import SignRequest
from dan_async.types import Json, KeyAlgorithm


class Revision(StrEnum):
    """A revision of the gateway's protocol."""

    V0_1 = "0.1"
    V0_3 = "0.3"
    V1 = "1"


class Operation(StrEnum):
    """The purpose of a connection; the last segment of the URL's path."""

    KEYGEN = "keygen"
    SIGNGEN = "signgen"
    ADD_EPHEMERAL_KEY = "addEphemeralKey"
    REVOKE_EPHEMERAL_KEY = "revokeEphemeralKey"
    REGISTER_PASSKEY = "registerPasskey"


#: ``v1`` is challenge and response, ``v2`` one-shot; the version segment of the URL's path.
ApiVersion: TypeAlias = Literal["v1", "v2"]

#: The slot of an operation that has one setup and no algorithm.
MAIN = "main"

# --- challenges: 64 hex digits without 0x -----------------------------------------------------------------------------


_CHALLENGE = re.compile(r"[0-9a-fA-F]{64}\Z")


def is_challenge(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _CHALLENGE.match(value) is not None


def check_challenge(value: object) -> str:
    """Check a challenge that we are about to send or sign."""
    if not is_challenge(value):
        raise InvalidFieldError("challenge", "must be 64 hex digits without 0x")
    return value


def decode_challenge(frame: object) -> str:
    """Read a challenge frame that is the challenge itself. Anything else is refused before a wallet is asked to sign it."""
    if not is_challenge(frame):
        raise ChallengeError(
            f"the challenge is not 64 hex digits: the gateway sent {shown(frame)}",
            hint="Check the gateway's URL and revision; nothing was signed",
        )
    return frame


# --- the typed data that an owner's wallet signs ----------------------------------------------------------------------


def _struct(**kinds: str) -> tuple[dict[str, str], ...]:
    return tuple({"name": member, "type": kind} for member, kind in kinds.items())


# Domain without chain id and contract; EIP712Domain is spelled out so that every eth_signTypedData_v4 wallet accepts it.
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
    Build the typed data; each call returns fresh lists, since wallets may change them.

    Members of *setup* that the type does not name are shown but not hashed.
    """
    return _form(setup_type).fill({"setup": dict(setup), "challenge": check_challenge(challenge)})


# --- the authentication object: the name of the asker, and the signature ----------------------------------------------


def write_authentication(auth: UserAuthentication) -> str:
    named = f'"credentials":{quote(auth.credentials)},"method":{quote(auth.method)},"id":{quote(auth.id)}'
    return f'{{"credentials":{{{named}}},"signature":{quote(auth.signature)}}}'


def read_authentication(value: Json) -> UserAuthentication:
    """Read the object. The signature is not checked here: that is for the nodes."""
    outer = members(value, "authentication", ("credentials", "signature"))
    inner = members(outer["credentials"], "credentials", ("credentials", "method", "id"))
    method, methods = inner["method"], get_args(AuthMethod)
    if method not in methods:
        raise InvalidFieldError("method", f"must be one of {', '.join(methods)}")
    if method == "eoa":
        parse_address("id", inner["id"])
    return UserAuthentication(
        method=method, id=inner["id"], credentials=inner["credentials"], signature=outer["signature"]
    )


# --- the protocol -----------------------------------------------------------------------------------------------------


class GatewayProtocol(ABC):
    """
    One revision. Stateless: there is one instance of each, ``exchange.protocol_for`` finds it.

    A *slot* names a setup of an exchange: the distributed key's algorithm, or ``main``. It stands on the wire where there
    can be several, in revision 1.
    """

    revision: ClassVar[Revision]
    #: The operations there are, and the ways to authorise each.
    methods: ClassVar[Mapping[str, tuple[AuthMethod, ...]]]
    api_versions: ClassVar[tuple[ApiVersion, ...]] = ("v1",)
    #: Algorithms of ephemeral keys, and of distributed keys; the usual one first.
    ephemeral_algorithms: ClassVar[tuple[KeyAlgorithm, ...]] = ("ed25519",)
    sign_algorithms: ClassVar[tuple[KeyAlgorithm, ...]] = ("secp256k1",)
    #: Whether algorithms and messages are named on the wire, so that one exchange can hold several.
    has_names: ClassVar[bool] = False
    #: The EIP-712 type of a change of ephemeral keys.
    change_type: ClassVar[str]

    def __repr__(self) -> str:
        return f"<gateway protocol, revision {self.revision}>"

    def check_operation(self, operation: str, api_version: str = "v1") -> None:
        """Check that the revision has an operation in this form."""
        if not isinstance(operation, str) or operation not in self.methods:
            known = member_of(Operation, "operation", operation)
            raise InvalidFieldError("operation", f"{known} does not exist in revision {self.revision}")
        if api_version not in self.api_versions:
            raise InvalidFieldError(
                "api_version", f"must be {' or '.join(self.api_versions)} in revision {self.revision}"
            )

    def check_method(self, operation: str, method: str) -> None:
        """Check that a method may authorise an operation."""
        if not isinstance(operation, str) or operation not in self.methods:
            self.check_operation(operation)
        allowed = self.methods[operation]
        if method not in allowed:
            raise InvalidFieldError(
                "method", f"must be {' or '.join(allowed)} for {operation} in revision {self.revision}"
            )

    # --- claims -------------------------------------------------------------------------------------------------------

    def encode_claim(self, claim: EphemeralClaim) -> str:
        """Write the ephemeral claim: tag 2 of a setup."""
        if claim.sign_alg not in self.ephemeral_algorithms:
            self.check_claim(claim)
        algorithm = f',"signAlg":"{claim.sign_alg}"' if self.has_names else ""
        key = f'"ephId":{quote(claim.eph_id)},"ephPK":"0x{claim.eph_pk.hex()}"'
        return f'{{{key},"expiry":{claim.expiry}{algorithm}}}'

    def decode_claim(self, text: str) -> EphemeralClaim:
        algorithm = ("signAlg",) if self.has_names else ()
        found = members(load_text(text), "claim", ("ephId", "ephPK", "expiry", *algorithm))
        return EphemeralClaim(
            eph_id=found["ephId"],
            eph_pk=from_hex(found["ephPK"], field="ephPK", prefix=True),
            expiry=found["expiry"],
            sign_alg=found.get("signAlg", "ed25519"),
        )

    def encode_credentials(self, claim: EphemeralClaim, owner_id: str) -> str:
        """Write the credentials text of an authentication: the claim. The owner is named beside it."""
        del owner_id
        return self.encode_claim(claim)

    def decode_credentials(self, text: str, owner_id: str) -> EphemeralClaim:
        del owner_id
        return self.decode_claim(text)

    def check_claim(self, claim: EphemeralClaim) -> None:
        """Check that the revision takes the ephemeral key's algorithm."""
        if claim.sign_alg not in self.ephemeral_algorithms:
            raise InvalidFieldError(
                "eph_alg",
                f"must be {' or '.join(self.ephemeral_algorithms)} in revision {self.revision}",
                hint="An ed25519 key works with every revision",
            )

    # --- setups -------------------------------------------------------------------------------------------------------

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
        if permissions is not None:
            check_text("permissions", permissions, least=0, most=256 * 1024)
        if key_label is not None:
            check_text("key_label", key_label, most=256)
        return KeygenSetup(
            t=threshold.t,
            n=threshold.n,
            metadata=keygen_metadata(self.encode_claim(claim), permissions),
            key_label=key_label,
            sign_alg=sign_alg,
        )

    def signgen_setup(
        self, *, t: int, key_id: str, message: str, sign_alg: KeyAlgorithm = "secp256k1"
    ) -> SigngenSetup:
        """Make the setup of a signature; the message is Base64-encoded here, once."""
        return SigngenSetup(t=t, key_id=key_id, message=encode_base64("message", message), sign_alg=sign_alg)

    def ephemeral_key_setup(
        self, *, claim: EphemeralClaim, key_id: str, n: int | None = None
    ) -> EphemeralKeySetup:
        """Make the setup that adds an ephemeral key to a key of n parties, or revokes it."""
        del n
        self.check_operation(Operation.ADD_EPHEMERAL_KEY)
        return EphemeralKeySetup(metadata=ephemeral_key_metadata(self.encode_claim(claim), key_id))

    def encode_setup(self, setup: Setup) -> str:
        if isinstance(setup, KeygenSetup):
            return encode_keygen_setup(setup, has_names=self.has_names)
        if isinstance(setup, SigngenSetup):
            return encode_signgen_setup(setup, has_names=self.has_names)
        if isinstance(setup, EphemeralKeySetup):
            self.check_operation(Operation.ADD_EPHEMERAL_KEY)
            return dump(self._change_members(setup))
        self.check_operation(Operation.REGISTER_PASSKEY)
        return encode_passkey_setup(setup)

    def decode_setup(self, operation: str, text: str) -> Setup:
        """Read one setup. Members may stand in any order; metadata values are kept exactly."""
        self.check_operation(operation)
        if operation == Operation.KEYGEN:
            return decode_keygen_setup(text, has_names=self.has_names)
        if operation == Operation.SIGNGEN:
            return decode_signgen_setup(text, has_names=self.has_names)
        if operation == Operation.REGISTER_PASSKEY:
            return decode_passkey_setup(text)
        return self._read_change(load_text(text))

    @abstractmethod
    def _change_members(self, setup: EphemeralKeySetup) -> dict[str, Any]:
        """Return the setup that adds or revokes an ephemeral key as JSON values; the wallet is shown the same."""

    @abstractmethod
    def _read_change(self, value: Json) -> EphemeralKeySetup: ...

    # --- messages to sign ---------------------------------------------------------------------------------------------

    @abstractmethod
    def encode_message(self, requests: Sequence[SignRequest]) -> str:
        """Write the message of a signgen setup, before Base64."""

    @abstractmethod
    def decode_message(self, text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]: ...

    def sign_requests(self, setup: SigngenSetup) -> tuple[SignRequest, ...]:
        """Return the messages in a signgen setup."""
        return self.decode_message(decode_base64("message", setup.message), setup.sign_alg)

    # --- signed data and signers --------------------------------------------------------------------------------------

    def typed_data(self, operation: str, setup: Setup, challenge: str) -> dict[str, Any]:
        """Build the typed data that the owner's wallet signs: metadata exactly as it is, but for the permissions."""
        self.check_operation(operation)
        if isinstance(setup, KeygenSetup):
            shown_setup = shown_keygen_setup(setup, has_names=self.has_names)
            return owner_request("KeygenSetupOpts", shown_setup, challenge)
        if isinstance(setup, EphemeralKeySetup):
            return owner_request(self.change_type, self._change_members(setup), challenge)
        raise InvalidFieldError("operation", "is not one that a wallet authorises")

    def ephemeral_payload(self, setup_text: str, challenge: str) -> bytes:
        """Return the bytes that an ephemeral key signs. The setup's text is not parsed and written again."""
        check_text("setup", setup_text, most=MOST_SETUP)
        return f'{{"setup":{setup_text},"challenge":{quote(check_challenge(challenge))}}}'.encode()

    def owner_authentication(
        self, *, claim: EphemeralClaim | None, method: AuthMethod, owner_id: str, signature: str
    ) -> UserAuthentication:
        """Make the authentication of an owner. A passkey that is being registered vouches for no claim yet."""
        credentials = "" if claim is None else self.encode_credentials(claim, owner_id)
        return UserAuthentication(method=method, id=owner_id, credentials=credentials, signature=signature)

    def ephemeral_authentication(
        self, *, claim: EphemeralClaim, owner_id: str, message: str | None, signature: str
    ) -> UserAuthentication:
        """
        Make the authentication of an ephemeral key, from its signature over ``ephemeral_payload``.

        Revision 0.1 names the owner in it, and revision 1 repeats the message of the setup, if that has one.
        """
        del owner_id
        return UserAuthentication(
            method="ephemeral",
            id=claim.eph_id,
            credentials=self.encode_claim(claim),
            signature=self.encode_ephemeral_signature(signature, message),
        )

    def owner_claim(self, setup: Setup, auth: UserAuthentication) -> EphemeralClaim:
        """Return the ephemeral key that an owner vouches for, in the setup (which is signed) and in the credentials."""
        text = setup.claim_text if isinstance(setup, KeygenSetup | EphemeralKeySetup) else None
        if text is None:
            raise InvalidFieldError("setup", "has no ephemeral claim")
        signed, claim = self.decode_claim(text), self.decode_credentials(auth.credentials, auth.id)
        if not self._is_same_claim(signed, claim):
            raise InvalidFieldError("credentials", "hold another claim than the setup")
        return claim

    def ephemeral_proof(self, setup: Setup, auth: UserAuthentication) -> tuple[EphemeralClaim, str]:
        """Return the ephemeral key that authorised a request, and its signature over ``ephemeral_payload``."""
        claim = self.decode_credentials(auth.credentials, auth.id)
        self._check_ephemeral_id(claim, auth)
        return claim, self.read_ephemeral_signature(
            auth, setup.message if isinstance(setup, SigngenSetup) else None
        )

    def encode_ephemeral_signature(self, signature: str, message: str | None) -> str:
        del message
        return signature

    def read_ephemeral_signature(self, auth: UserAuthentication, message: str | None) -> str:
        del message
        return auth.signature

    def _is_same_claim(self, signed: EphemeralClaim, claim: EphemeralClaim) -> bool:
        return signed == claim

    def _check_ephemeral_id(self, claim: EphemeralClaim, auth: UserAuthentication) -> None:
        if claim.eph_id != auth.id:
            raise InvalidFieldError("id", "is not the ephId of the credentials")

    # --- frames -------------------------------------------------------------------------------------------------------

    def join_setups(self, operation: str, texts: Sequence[str]) -> str:
        """Write the setup frame."""
        return only(texts, f"setups of {operation}")

    def split_setups(self, operation: str, frame: str) -> tuple[str, ...]:
        """Return the setup texts of a setup frame, each exactly as it was sent."""
        return (check_text(f"setup of {operation}", frame, most=MOST_SETUP),)

    def encode_challenges(self, operation: str, challenges: Mapping[str, str]) -> str:
        return check_challenge(only(tuple(challenges.values()), f"challenges of {operation}"))

    def decode_challenges(self, operation: str, frame: str, slots: Collection[str]) -> dict[str, str]:
        """Read the challenge frame; a ``ChallengeError`` says that nothing was signed."""
        return {only(tuple(slots), f"setups of {operation}"): decode_challenge(frame)}

    def encode_authentications(self, operation: str, found: Mapping[str, UserAuthentication]) -> str:
        return write_authentication(only(tuple(found.values()), f"authentications of {operation}"))

    def decode_authentications(
        self, operation: str, frame: str, slots: Collection[str]
    ) -> dict[str, UserAuthentication]:
        return {only(tuple(slots), f"setups of {operation}"): read_authentication(load_text(frame))}

    def encode_keygen_results(self, found: Sequence[KeygenResult]) -> str:
        if not self.has_names:
            only(found, "results")
        return results.encode_keygen_results(found, has_names=self.has_names)

    def decode_keygen_results(self, frame: str) -> tuple[KeygenResult, ...]:
        return results.decode_keygen_results(frame, has_names=self.has_names)

    def encode_signgen_results(self, found: Sequence[SigngenResult]) -> str:
        if not self.has_names:
            only(found, "results")
        return results.encode_signgen_results(found)

    def decode_signgen_results(self, frame: str) -> tuple[SigngenResult, ...]:
        return results.decode_signgen_results(frame, has_names=self.has_names)
