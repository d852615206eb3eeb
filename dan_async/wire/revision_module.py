"""What every revision's module has: ``revisions.module_for`` finds the one to ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from dan_async.models.authentication import AuthMethod, UserAuthentication
from dan_async.models.claim import EphemeralClaim
from dan_async.models.setup import EphemeralKeySetup, KeygenSetup, SigngenSetup
from dan_async.models.threshold import Threshold
from dan_async.types import KeyAlgorithm
from dan_async.wire.results import KeygenResult, SigngenResult
from dan_async.wire.sign_request import SignRequest

__all__ = ["EphemeralKeyModule", "RevisionModule"]


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
