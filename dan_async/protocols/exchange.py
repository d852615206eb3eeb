"""
The client's side of one operation: what to send, and how to read what comes back. Nothing here waits or connects.

A caller does, for challenge and response: send ``setup_frame``; ``read_challenges``; have each slot's challenge signed;
send ``authentication_frame``; ``read_result``. One-shot: ``own_challenges`` takes the place of the first two.

The client's beginning of each operation: checks that the revision can carry it, and builds its texts once.

Which revisions and operations there are, and one way to each: what does not depend on who is client and who is server.

Every function takes a revision and finds the module that speaks it; nothing here knows a revision's text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from attrs import frozen

from dan_async.config import Threshold
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols import gateway_0_1 as revision_0_1
from dan_async.protocols import gateway_0_3 as revision_0_3
from dan_async.protocols import gateway_1 as revision_1
from dan_async.protocols.fields import decode_base64
from dan_async.protocols.gateway import EphemeralKeyModule, RevisionModule
from dan_async.protocols.gateway import ephemeral_payload as _payload
from dan_async.protocols.results import KeygenResult, SigngenResult, decode_status
from dan_async.protocols.setups import (
    AuthMethod,
    EphemeralClaim,
    EphemeralKeySetup,
    KeygenSetup,
    PasskeySetup,
    SigngenSetup,
    UserAuthentication,
    decode_credential_id,
)
from dan_async.protocols.sign_request import SignRequest
from dan_async.types import KeyAlgorithm


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


R = TypeVar("R")


@frozen(kw_only=True)
class Exchange(ABC, Generic[R]):
    """
    One operation. Make one with the functions of ``client_requests``.

    Args:
        revision: The revision it is spoken in.
        operation: What it is for.
        api_version: ``v1`` (challenge and response) or ``v2`` (one-shot).
        slots: A name for each setup: the distributed key's algorithm, or ``main``.
        setups: The setups.
        setup_texts: Their texts, built once: what is signed is what is sent.
    """

    revision: Revision
    operation: Operation
    api_version: ApiVersion
    slots: tuple[str, ...]
    setups: tuple[Setup, ...]
    setup_texts: tuple[str, ...]

    @property
    def path(self) -> str:
        """The URL path, version segment included."""
        return path_for(self.operation, self.api_version)

    @property
    def is_one_shot(self) -> bool:
        """Whether there is no challenge from the gateway, and one frame carries everything."""
        return self.api_version == "v2"

    @property
    def setup_frame(self) -> str:
        """The first frame of challenge and response."""
        return module_for(self.revision).join_setups(self.operation, self.setup_texts)

    def read_challenges(self, frame: str) -> dict[str, str]:
        """
        Read the challenge frame.

        Returns:
            For each slot a challenge of 64 hex digits, without 0x.

        Raises:
            ChallengeError: It is not that.
        """
        return module_for(self.revision).decode_challenges(self.operation, frame, self.slots)

    def own_challenges(self) -> dict[str, str]:
        """Give the challenges of a one-shot request: for each slot a hash of its setup."""
        return {
            slot: oneshot_challenge(text) for slot, text in zip(self.slots, self.setup_texts, strict=True)
        }

    def typed_data(self, slot: str, challenge: str) -> dict[str, Any]:
        """
        Build what the owner's wallet signs for one slot.

        Raises:
            InvalidFieldError: A wallet does not authorise this operation, or the challenge has another form.
        """
        return owner_typed_data(self.revision, self.operation, self.setups[self._index(slot)], challenge)

    def ephemeral_payload(self, slot: str, challenge: str) -> bytes:
        """Give the bytes that the ephemeral key signs for one slot."""
        return ephemeral_payload(self.revision, self.setup_texts[self._index(slot)], challenge)

    def owner_authentication(
        self, *, claim: EphemeralClaim | None, method: AuthMethod, owner_id: str, signature: str
    ) -> UserAuthentication:
        """
        Make the authentication object from what a wallet or a passkey gave.

        Args:
            claim: The ephemeral key that stands in the setups; None where a passkey is registered.
            method: ``eoa`` or ``passkey``.
            owner_id: The EOA's address, or the passkey's credential id.
            signature: What ``AuthModule.authorise`` returned.
        """
        if claim is None:
            return UserAuthentication(method=method, id=owner_id, credentials="", signature=signature)
        return module_for(self.revision).owner_authentication(
            claim=claim, method=method, owner_id=owner_id, signature=signature
        )

    def ephemeral_authentication(
        self, slot: str, *, claim: EphemeralClaim, owner_id: str, signature: str
    ) -> UserAuthentication:
        """
        Make the authentication object from the ephemeral key's signature over ``ephemeral_payload``.

        Args:
            slot: The slot.
            claim: The ephemeral key.
            owner_id: The owner; revision 0.1 names it.
            signature: 0x hex.
        """
        setup = self.setups[self._index(slot)]
        return module_for(self.revision).ephemeral_authentication(
            claim=claim,
            owner_id=owner_id,
            message=setup.message if isinstance(setup, SigngenSetup) else None,
            signature=signature,
        )

    def authentication_frame(self, authentications: Mapping[str, UserAuthentication]) -> str:
        """
        Write the frame that follows the signatures: the second of challenge and response, the only one of one-shot.

        Args:
            authentications: An authentication object for each slot.

        Raises:
            InvalidFieldError: One is missing, or for something else.
        """
        if set(authentications) != set(self.slots):
            raise InvalidFieldError("authentications", f"must be one for each of {', '.join(self.slots)}")
        for auth in authentications.values():
            check_method(self.revision, self.operation, auth.method)
        ordered = {slot: authentications[slot] for slot in self.slots}
        if self.is_one_shot:
            return revision_1.encode_oneshot(self.operation, self.setup_texts, ordered)
        return module_for(self.revision).encode_authentications(self.operation, ordered)

    @abstractmethod
    def read_result(self, frame: str) -> R:
        """
        Read the result frame.

        Raises:
            ProtocolError: It breaks the grammar, or answers something else than was asked.
        """
        ...

    def _index(self, slot: str) -> int:
        if slot not in self.slots:
            raise InvalidFieldError("slot", f"must be one of {', '.join(self.slots)}")
        return self.slots.index(slot)


class KeygenExchange(Exchange[tuple[KeygenResult, ...]]):
    """Make keys: one for each slot."""

    def read_result(self, frame: str) -> tuple[KeygenResult, ...]:
        """
        Read the keys, in the order of the slots; public keys are compressed.

        Raises:
            ProtocolError: It breaks the grammar, a public key is not on the curve, or there are other keys than
                were asked for.
        """
        found = {key.sign_alg: key for key in module_for(self.revision).decode_keygen_results(frame)}
        if set(found) != set(self.slots):
            raise ProtocolError(
                f"the gateway gave keys for {', '.join(found)} where {', '.join(self.slots)} was asked for",
                hint="Check the gateway's revision",
            )
        return tuple(found[slot] for slot in self.slots)  # type: ignore[index]  # slots are algorithms here


@frozen(kw_only=True)
class SigngenExchange(Exchange[tuple[SigngenResult, ...]]):
    """
    Sign messages with one key.

    Args:
        transaction_ids: The names of the messages, in their order; a single None in the revisions without names.
    """

    transaction_ids: tuple[str | None, ...]

    def read_result(self, frame: str) -> tuple[SigngenResult, ...]:
        """
        Read the signatures, in the order of the messages. Whether they hold is for the caller to check.

        Raises:
            ProtocolError: It breaks the grammar, or there are other signatures than were asked for.
        """
        results = module_for(self.revision).decode_signgen_results(frame)
        found = {result.transaction_id: result for result in results}
        if set(found) != set(self.transaction_ids):
            raise ProtocolError("the gateway signed other messages than were asked for")
        return tuple(found[name] for name in self.transaction_ids)


class EphemeralKeyExchange(Exchange[None]):
    """Add or revoke an ephemeral key."""

    def read_result(self, frame: str) -> None:
        """
        Check that the gateway says it was done.

        Raises:
            ProtocolError: It says something else.
        """
        decode_status(frame)


class PasskeyExchange(Exchange[str]):
    """Register a passkey."""

    def read_result(self, frame: str) -> str:
        """
        Read the credential id, base64url.

        Raises:
            ProtocolError: It is not one.
        """
        return decode_credential_id(frame)


#: What every revision makes keys for.
_USUAL: tuple[KeyAlgorithm, ...] = ("secp256k1",)


def keygen_exchange(
    revision: Revision | str,
    *,
    threshold: Threshold,
    claim: EphemeralClaim,
    permissions: str | None = None,
    key_label: str | None = None,
    sign_algs: Sequence[KeyAlgorithm] = ("secp256k1",),
    api_version: ApiVersion = "v1",
) -> KeygenExchange:
    """
    Begin a key generation.

    Args:
        revision: The revision to speak.
        threshold: t and n.
        claim: The ephemeral key that the owner vouches for.
        permissions: JSON text that limits what the keys may sign.
        key_label: A label kept with the keys.
        sign_algs: The algorithms to make a key for, each once; only revision 1 does more than secp256k1.
        api_version: ``v2`` for one-shot, which only revision 1 has and which no challenge protects against replay.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, operation = check_operation(revision, Operation.KEYGEN, api_version)
    module = module_for(found)
    algorithms = tuple(sign_algs)
    if algorithms != _USUAL and (
        not algorithms
        or len(set(algorithms)) != len(algorithms)
        or not set(algorithms) <= set(module.SIGN_ALGORITHMS)
    ):
        raise InvalidFieldError(
            "sign_algs", f"must be {' or '.join(module.SIGN_ALGORITHMS)}, each once, in revision {found}"
        )
    setups = tuple(
        module.keygen_setup(
            threshold=threshold, claim=claim, permissions=permissions, key_label=key_label, sign_alg=algorithm
        )
        for algorithm in algorithms
    )
    return KeygenExchange(
        revision=found,
        operation=operation,
        api_version=api_version,
        slots=algorithms,
        setups=setups,
        setup_texts=tuple(module.encode_keygen_setup(setup) for setup in setups),
    )


def signgen_exchange(
    revision: Revision | str,
    *,
    t: int,
    key_id: str,
    requests: Sequence[SignRequest],
    sign_alg: KeyAlgorithm = "secp256k1",
    api_version: ApiVersion = "v1",
) -> SigngenExchange:
    """
    Begin a signature.

    Args:
        revision: The revision to speak.
        t: How many parties sign.
        key_id: The key.
        requests: What to sign: one message before revision 1.
        sign_alg: The key's algorithm.
        api_version: ``v2`` for one-shot.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, operation = check_operation(revision, Operation.SIGNGEN, api_version)
    module = module_for(found)
    setup = module.signgen_setup(
        t=t, key_id=key_id, message=module.encode_message(requests), sign_alg=sign_alg
    )
    names = tuple(request.transaction_id for request in requests)
    return SigngenExchange(
        revision=found,
        operation=operation,
        api_version=api_version,
        slots=(sign_alg,),
        setups=(setup,),
        setup_texts=(module.encode_signgen_setup(setup),),
        transaction_ids=names if found is Revision.V1 else (None,),
    )


def ephemeral_key_exchange(
    revision: Revision | str,
    operation: Operation | str,
    *,
    claim: EphemeralClaim,
    key_id: str,
    n: int,
    api_version: ApiVersion = "v1",
) -> EphemeralKeyExchange:
    """
    Begin to add an ephemeral key to a key, or to revoke it.

    Args:
        revision: The revision to speak: 0.3 or 1.
        operation: ``addEphemeralKey`` or ``revokeEphemeralKey``.
        claim: The ephemeral key.
        key_id: The key.
        n: How many parties hold it; revision 0.3 sends it.
        api_version: ``v2`` for one-shot.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, known = check_operation(revision, operation, api_version)
    if known not in (Operation.ADD_EPHEMERAL_KEY, Operation.REVOKE_EPHEMERAL_KEY):
        raise InvalidFieldError("operation", "must be addEphemeralKey or revokeEphemeralKey")
    setup = ephemeral_key_module_for(found).ephemeral_key_setup(claim=claim, key_id=key_id, n=n)
    return EphemeralKeyExchange(
        revision=found,
        operation=known,
        api_version=api_version,
        slots=(MAIN,),
        setups=(setup,),
        setup_texts=(encode_setup(found, setup),),
    )


def passkey_exchange(
    revision: Revision | str = Revision.V1, *, options: str | None = None, api_version: ApiVersion = "v1"
) -> PasskeyExchange:
    """
    Begin to register a passkey.

    Args:
        revision: The revision to speak: 1.
        options: A text that the network may keep with it.
        api_version: ``v2`` for one-shot.

    Raises:
        InvalidFieldError: The revision cannot carry it; the error names the field.
    """
    found, operation = check_operation(revision, Operation.REGISTER_PASSKEY, api_version)
    setup = PasskeySetup(options=options)
    return PasskeyExchange(
        revision=found,
        operation=operation,
        api_version=api_version,
        slots=(MAIN,),
        setups=(setup,),
        setup_texts=(encode_setup(found, setup),),
    )
