"""
The protocol of each revision, and the client's side of one operation. Nothing here waits or connects.

A client does, for challenge and response: send ``setup_frame``; ``read_challenges``; have each slot's challenge signed;
send ``authentication_frame``; ``read_result``. One-shot: ``own_challenges`` takes the place of the first two. The server's
side is ``devnet.gateway``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import frozen

from dan_async._values import member_of
from dan_async.config import Threshold
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.gateway import MAIN, ApiVersion, GatewayProtocol, Operation, Revision
from dan_async.protocols.gateway_0_3 import REVISION_0_1, REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.results import KeygenResult, SigngenResult, decode_status
from dan_async.protocols.setups import (
    EphemeralClaim,
    PasskeySetup,
    SigngenSetup,
    UserAuthentication,
    WrittenSetup,
    decode_credential_id,
)
from dan_async.protocols.sign_request import SignRequest
from dan_async.types import KeyAlgorithm

R = TypeVar("R")

_PROTOCOLS: Mapping[Revision, GatewayProtocol] = {
    protocol.revision: protocol for protocol in (REVISION_0_1, REVISION_0_3, REVISION_1)
}


def protocol_for(revision: Revision | str) -> GatewayProtocol:
    """Return the protocol of a revision; an ``InvalidFieldError`` lists those there are."""
    return _PROTOCOLS[member_of(Revision, "revision", revision)]


@frozen(kw_only=True, eq=False, repr=False)
class Exchange(ABC, Generic[R]):
    """One operation, as a client carries it out. The texts of its setups are built once, signed and sent."""

    protocol: GatewayProtocol
    operation: Operation
    #: In ``v2`` there is no challenge from the gateway, and one frame carries everything.
    api_version: ApiVersion
    #: By slot, in their order on the wire.
    setups: Mapping[str, WrittenSetup]

    @property
    def setup_frame(self) -> str:
        """The first frame of challenge and response."""
        return self.protocol.join_setups(self.operation, [part.text for part in self.setups.values()])

    def read_challenges(self, frame: str) -> dict[str, str]:
        return self.protocol.decode_challenges(self.operation, frame, self.setups)

    def own_challenges(self) -> dict[str, str]:
        """Return the challenges of a one-shot request: for each slot a hash of its setup."""
        return {slot: REVISION_1.oneshot_challenge(part.text) for slot, part in self.setups.items()}

    def typed_data(self, slot: str, challenge: str) -> dict[str, Any]:
        """Build the typed data that the owner's wallet signs for one slot."""
        return self.protocol.typed_data(self.operation, self._of(slot).setup, challenge)

    def ephemeral_payload(self, slot: str, challenge: str) -> bytes:
        """Return the bytes that the ephemeral key signs for one slot."""
        return self.protocol.ephemeral_payload(self._of(slot).text, challenge)

    def ephemeral_authentication(
        self, slot: str, *, claim: EphemeralClaim, owner_id: str, signature: str
    ) -> UserAuthentication:
        setup = self._of(slot).setup
        message = setup.message if isinstance(setup, SigngenSetup) else None
        return self.protocol.ephemeral_authentication(
            claim=claim, owner_id=owner_id, message=message, signature=signature
        )

    def authentication_frame(self, found: Mapping[str, UserAuthentication]) -> str:
        """Write the frame that follows the signatures: the second of challenge and response, the only one of one-shot."""
        if found.keys() != self.setups.keys():
            raise InvalidFieldError("authentications", f"must be one for each of {', '.join(self.setups)}")
        ordered = {}
        for slot in self.setups:
            auth = ordered[slot] = found[slot]
            self.protocol.check_method(self.operation, auth.method)
        if self.api_version == "v2":
            return REVISION_1.encode_oneshot(
                self.operation, [part.text for part in self.setups.values()], ordered
            )
        return self.protocol.encode_authentications(self.operation, ordered)

    @abstractmethod
    def read_result(self, frame: str) -> R:
        """Read the result frame; an answer to something else than was asked is a ``ProtocolError``, too."""

    def _of(self, slot: str) -> WrittenSetup:
        if slot not in self.setups:
            raise InvalidFieldError("slot", f"must be one of {', '.join(self.setups)}")
        return self.setups[slot]


class KeygenExchange(Exchange[tuple[KeygenResult, ...]]):
    """Make keys: one for each slot."""

    def read_result(self, frame: str) -> tuple[KeygenResult, ...]:
        """Return the keys in the order of the slots; public keys are compressed."""
        found: dict[str, KeygenResult] = {
            key.sign_alg: key for key in self.protocol.decode_keygen_results(frame)
        }
        if found.keys() != self.setups.keys():
            raise ProtocolError(
                f"the gateway gave keys for {', '.join(found)} where {', '.join(self.setups)} was asked for",
                hint="Check the gateway's revision",
            )
        return tuple(map(found.__getitem__, self.setups))


@frozen(kw_only=True, eq=False, repr=False)
class SigngenExchange(Exchange[tuple[SigngenResult, ...]]):
    """Sign messages with one key: ``transaction_ids`` names them, or is a single None in the revisions without names."""

    transaction_ids: tuple[str | None, ...]

    def read_result(self, frame: str) -> tuple[SigngenResult, ...]:
        """Return the signatures in the order of the messages. Whether they hold is for the caller to check."""
        found = {result.transaction_id: result for result in self.protocol.decode_signgen_results(frame)}
        if set(found) != set(self.transaction_ids):
            raise ProtocolError("the gateway signed messages other than the requested ones")
        return tuple(map(found.__getitem__, self.transaction_ids))


class EphemeralKeyExchange(Exchange[None]):
    """Add or revoke an ephemeral key."""

    def read_result(self, frame: str) -> None:
        decode_status(frame)


class PasskeyExchange(Exchange[str]):
    """Register a passkey; the result is its credential id."""

    def read_result(self, frame: str) -> str:
        return decode_credential_id(frame)


# --- beginning an operation; an InvalidFieldError names the field that the revision cannot carry ----------------------


def keygen_exchange(
    protocol: GatewayProtocol,
    *,
    threshold: Threshold,
    claim: EphemeralClaim,
    permissions: str | None = None,
    key_label: str | None = None,
    sign_algs: Sequence[KeyAlgorithm] = ("secp256k1",),
    api_version: ApiVersion = "v1",
) -> KeygenExchange:
    """Begin a key generation: a key for each algorithm. No challenge protects ``v2`` against replay."""
    protocol.check_operation(Operation.KEYGEN, api_version)
    algorithms, known = tuple(sign_algs), protocol.sign_algorithms
    if not algorithms or len(set(algorithms)) != len(algorithms) or not set(algorithms) <= set(known):
        raise InvalidFieldError(
            "sign_algs", f"must be {' or '.join(known)}, each once, in revision {protocol.revision}"
        )
    setups: dict[str, WrittenSetup] = {}
    for algorithm in algorithms:
        setup = protocol.keygen_setup(
            threshold=threshold, claim=claim, permissions=permissions, key_label=key_label, sign_alg=algorithm
        )
        setups[algorithm] = WrittenSetup(setup=setup, text=protocol.encode_setup(setup))
    return KeygenExchange(
        protocol=protocol, operation=Operation.KEYGEN, api_version=api_version, setups=setups
    )


def signgen_exchange(
    protocol: GatewayProtocol,
    *,
    t: int,
    key_id: str,
    requests: Sequence[SignRequest],
    sign_alg: KeyAlgorithm = "secp256k1",
    api_version: ApiVersion = "v1",
) -> SigngenExchange:
    """Begin a signature by t parties: of one message before revision 1."""
    protocol.check_operation(Operation.SIGNGEN, api_version)
    setup = protocol.signgen_setup(
        t=t, key_id=key_id, message=protocol.encode_message(requests), sign_alg=sign_alg
    )
    return SigngenExchange(
        protocol=protocol,
        operation=Operation.SIGNGEN,
        api_version=api_version,
        setups={sign_alg: WrittenSetup(setup=setup, text=protocol.encode_setup(setup))},
        transaction_ids=tuple(
            [request.transaction_id if protocol.has_names else None for request in requests]
        ),
    )


def ephemeral_key_exchange(
    protocol: GatewayProtocol,
    operation: Operation,
    *,
    claim: EphemeralClaim,
    key_id: str,
    n: int,
    api_version: ApiVersion = "v1",
) -> EphemeralKeyExchange:
    """Begin to add an ephemeral key to a key of n parties, or to revoke it; n is on the wire in revision 0.3."""
    protocol.check_operation(operation, api_version)
    if operation not in (Operation.ADD_EPHEMERAL_KEY, Operation.REVOKE_EPHEMERAL_KEY):
        raise InvalidFieldError("operation", "must be addEphemeralKey or revokeEphemeralKey")
    setup = protocol.ephemeral_key_setup(claim=claim, key_id=key_id, n=n)
    return EphemeralKeyExchange(
        protocol=protocol,
        operation=operation,
        api_version=api_version,
        setups={MAIN: WrittenSetup(setup=setup, text=protocol.encode_setup(setup))},
    )


def passkey_exchange(
    protocol: GatewayProtocol, *, options: str | None = None, api_version: ApiVersion = "v1"
) -> PasskeyExchange:
    """Begin to register a passkey; the network may keep the text of *options* with it."""
    protocol.check_operation(Operation.REGISTER_PASSKEY, api_version)
    setup = PasskeySetup(options=options)
    return PasskeyExchange(
        protocol=protocol,
        operation=Operation.REGISTER_PASSKEY,
        api_version=api_version,
        setups={MAIN: WrittenSetup(setup=setup, text=protocol.encode_setup(setup))},
    )
