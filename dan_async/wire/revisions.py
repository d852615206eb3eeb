"""
Which revisions and operations there are, and one way to each: what does not depend on who is client and who is server.

Every function takes a revision and finds the module that speaks it; nothing here knows a revision's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, TypeAlias, TypeVar

from dan_async.errors import InvalidFieldError
from dan_async.models.authentication import AuthMethod, UserAuthentication
from dan_async.models.claim import EphemeralClaim
from dan_async.models.setup import EphemeralKeySetup, KeygenSetup, SigngenSetup
from dan_async.wire import revision_0_1, revision_0_3, revision_1
from dan_async.wire.ephemeral import decode_base64
from dan_async.wire.ephemeral import ephemeral_payload as _payload
from dan_async.wire.passkey import PasskeySetup
from dan_async.wire.revision_module import EphemeralKeyModule, RevisionModule
from dan_async.wire.sign_request import SignRequest

__all__ = [
    "MAIN",
    "ApiVersion",
    "EphemeralKeyModule",
    "Operation",
    "Revision",
    "RevisionModule",
    "Setup",
    "check_method",
    "check_operation",
    "decode_setup",
    "encode_setup",
    "ephemeral_key_module_for",
    "ephemeral_payload",
    "module_for",
    "oneshot_challenge",
    "owner_claim",
    "owner_typed_data",
    "path_for",
    "read_ephemeral_proof",
    "sign_requests",
]


class Revision(StrEnum):
    """A revision of the gateway's protocol."""

    V0_1 = "0.1"
    V0_3 = "0.3"
    V1 = "1"


class Operation(StrEnum):
    """What a connection is for; the last segment of the URL's path."""

    KEYGEN = "keygen"
    SIGNGEN = "signgen"
    ADD_EPHEMERAL_KEY = "addEphemeralKey"
    REVOKE_EPHEMERAL_KEY = "revokeEphemeralKey"
    REGISTER_PASSKEY = "registerPasskey"


#: ``v1`` is challenge and response, ``v2`` one-shot; the version segment of the URL's path.
ApiVersion: TypeAlias = Literal["v1", "v2"]

#: A decoded setup of any operation.
Setup: TypeAlias = KeygenSetup | SigngenSetup | EphemeralKeySetup | PasskeySetup

#: The slot of an operation that has one setup and no algorithm.
MAIN = "main"

#: Who may authorise what.
_METHODS: Mapping[Operation, tuple[AuthMethod, ...]] = {
    Operation.KEYGEN: ("eoa", "passkey"),
    Operation.SIGNGEN: ("ephemeral",),
    Operation.ADD_EPHEMERAL_KEY: ("eoa", "passkey", "ephemeral"),
    Operation.REVOKE_EPHEMERAL_KEY: ("eoa", "passkey", "ephemeral"),
    Operation.REGISTER_PASSKEY: ("passkey",),
}


_T = TypeVar("_T", bound=StrEnum)


# A member of an enumeration is equal to its name, and found by either.
_REVISIONS = {str(revision): revision for revision in Revision}
_OPERATIONS = {str(operation): operation for operation in Operation}
_MODULES: Mapping[Revision, RevisionModule] = {
    Revision.V0_1: revision_0_1,
    Revision.V0_3: revision_0_3,
    Revision.V1: revision_1,
}


#: What there is, so that it is found in one step; what is not in here gets the error that says why.
_CHECKED = {
    (str(revision), name, api_version): (revision, _OPERATIONS[name])
    for revision, module in _MODULES.items()
    for name in module.OPERATIONS
    for api_version in module.API_VERSIONS
}


def _member(known: Mapping[str, _T], name: str, value: object) -> _T:
    found = known.get(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidFieldError(name, f"must be one of {', '.join(known)}")
    return found


def module_for(revision: Revision | str) -> RevisionModule:
    """
    Give the module that speaks a revision.

    Raises:
        InvalidFieldError: There is no such revision.
    """
    found = revision if type(revision) is Revision else _member(_REVISIONS, "revision", revision)
    return _MODULES[found]


def ephemeral_key_module_for(revision: Revision | str) -> EphemeralKeyModule:
    """
    Give the module that speaks a revision, for adding and revoking ephemeral keys.

    Raises:
        InvalidFieldError: There is no such revision, or it has no such operation.
    """
    found = _member(_REVISIONS, "revision", revision)
    if found is Revision.V0_1:
        raise InvalidFieldError("operation", "does not exist in revision 0.1", hint="Use revision 0.3 or 1")
    return revision_0_3 if found is Revision.V0_3 else revision_1


def check_operation(
    revision: Revision | str, operation: Operation | str, api_version: ApiVersion | str = "v1"
) -> tuple[Revision, Operation]:
    """
    Check that a revision has an operation in this form.

    Raises:
        InvalidFieldError: It has not; the error names revision, operation or api_version.
    """
    try:
        return _CHECKED[revision, operation, api_version]
    except (KeyError, TypeError):  # the latter for what cannot be a key
        pass
    known = _member(_REVISIONS, "revision", revision)
    module = _MODULES[known]
    found = _member(_OPERATIONS, "operation", operation)
    if found not in module.OPERATIONS:
        raise InvalidFieldError("operation", f"{found} does not exist in revision {revision}")
    if api_version not in module.API_VERSIONS:
        raise InvalidFieldError(
            "api_version", f"must be {' or '.join(module.API_VERSIONS)} in revision {revision}"
        )
    return known, found


def check_method(revision: Revision | str, operation: Operation | str, method: str) -> None:
    """
    Check that a method may authorise an operation.

    Raises:
        InvalidFieldError: It may not.
    """
    found, known = check_operation(revision, operation)
    if method not in _METHODS[known] or (method == "passkey" and found is Revision.V0_1):
        allowed = [name for name in _METHODS[known] if name != "passkey" or found is not Revision.V0_1]
        raise InvalidFieldError("method", f"must be {' or '.join(allowed)} for {known} in revision {found}")


def path_for(operation: Operation | str, api_version: ApiVersion = "v1") -> str:
    """Give the URL path of an operation: version segment and operation."""
    return f"/{api_version}/{_member(_OPERATIONS, 'operation', operation)}"


def encode_setup(revision: Revision | str, setup: Setup) -> str:
    """Write one setup of any operation."""
    if isinstance(setup, KeygenSetup):
        return module_for(revision).encode_keygen_setup(setup)
    if isinstance(setup, SigngenSetup):
        return module_for(revision).encode_signgen_setup(setup)
    if isinstance(setup, EphemeralKeySetup):
        return ephemeral_key_module_for(revision).encode_ephemeral_key_setup(setup)
    return revision_1.encode_passkey_setup(setup)


def decode_setup(revision: Revision | str, operation: Operation | str, text: str) -> Setup:
    """
    Read one setup.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong, or the revision has no such operation.
    """
    _, found = check_operation(revision, operation)
    if found is Operation.KEYGEN:
        return module_for(revision).decode_keygen_setup(text)
    if found is Operation.SIGNGEN:
        return module_for(revision).decode_signgen_setup(text)
    if found is Operation.REGISTER_PASSKEY:
        return revision_1.decode_passkey_setup(text)
    return ephemeral_key_module_for(revision).decode_ephemeral_key_setup(text)


def owner_typed_data(
    revision: Revision | str, operation: Operation | str, setup: Setup | str, challenge: str
) -> dict[str, Any]:
    """
    Build the typed data that an owner's wallet signs, or has signed.

    Args:
        revision: The revision in which it is signed.
        operation: The operation.
        setup: The setup, or its text as it was sent; metadata values go into the typed data exactly as they are.
        challenge: 64 hex digits without 0x.

    Raises:
        ProtocolError: The text is not JSON.
        InvalidFieldError: The setup is wrong, or the operation is not one that a wallet authorises.
    """
    check_operation(revision, operation)
    decoded = decode_setup(revision, operation, setup) if isinstance(setup, str) else setup
    if isinstance(decoded, KeygenSetup):
        return module_for(revision).keygen_typed_data(decoded, challenge)
    if isinstance(decoded, EphemeralKeySetup):
        return ephemeral_key_module_for(revision).ephemeral_key_typed_data(decoded, challenge)
    raise InvalidFieldError("operation", "is not one that a wallet authorises")


def ephemeral_payload(revision: Revision | str, setup: str, challenge: str) -> bytes:
    """
    Give the exact bytes that an ephemeral key signs. They are alike in all revisions.

    Args:
        revision: The revision in which it is signed.
        setup: The setup's text exactly as it is sent.
        challenge: 64 hex digits without 0x.

    Raises:
        InvalidFieldError: The challenge has another form, or there is no such revision.
    """
    module_for(revision)
    return _payload(setup, challenge)


def oneshot_challenge(setup: str) -> str:
    """Give the challenge of a one-shot request (revision 1, ``v2``) for one setup's exact text."""
    return revision_1.oneshot_challenge(setup)


def owner_claim(revision: Revision | str, setup: Setup, auth: UserAuthentication) -> EphemeralClaim:
    """
    Give the ephemeral key that an owner vouches for, from the setup (which is signed) and the credentials.

    In revision 0.1 the setup has the public key only: the expiry comes from the credentials, and is not signed.

    Raises:
        ProtocolError: The claim is not JSON.
        InvalidFieldError: It is wrong, or setup and credentials say different things.
    """
    module = module_for(revision)
    text = setup.claim_text if isinstance(setup, KeygenSetup | EphemeralKeySetup) else None
    if text is None:
        raise InvalidFieldError("setup", "has no ephemeral claim")
    signed = module.decode_claim(text)
    claim = module.decode_credentials(auth.credentials, auth.id)
    if signed.eph_pk != claim.eph_pk or (revision != Revision.V0_1 and signed != claim):
        raise InvalidFieldError("credentials", "hold another claim than the setup")
    return claim


def read_ephemeral_proof(
    revision: Revision | str, setup: Setup, auth: UserAuthentication
) -> tuple[EphemeralClaim, str]:
    """
    Give the ephemeral key that authorised a request, and its signature over ``ephemeral_payload``.

    Raises:
        ProtocolError: Claim or signature is not JSON.
        InvalidFieldError: They are wrong, or for another key or message.
    """
    module = module_for(revision)
    claim = module.decode_credentials(auth.credentials, auth.id)
    if revision != Revision.V0_1 and claim.eph_id != auth.id:
        raise InvalidFieldError("id", "is not the ephId of the credentials")
    message = setup.message if isinstance(setup, SigngenSetup) else None
    return claim, module.read_ephemeral_signature(auth, message)


def sign_requests(revision: Revision | str, setup: SigngenSetup) -> tuple[SignRequest, ...]:
    """
    Give what a signgen setup asks to be signed.

    Raises:
        ProtocolError: The message is not JSON.
        InvalidFieldError: It is not a message of this revision.
    """
    return module_for(revision).decode_message(decode_base64("message", setup.message), setup.sign_alg)
