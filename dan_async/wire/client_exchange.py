"""
The client's side of one operation: what to send, and how to read what comes back. Nothing here waits or connects.

A caller does, for challenge and response: send ``setup_frame``; ``read_challenges``; have each slot's challenge signed;
send ``authentication_frame``; ``read_result``. One-shot: ``own_challenges`` takes the place of the first two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from attrs import frozen

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.models.authentication import AuthMethod, UserAuthentication
from dan_async.models.claim import EphemeralClaim
from dan_async.models.setup import SigngenSetup
from dan_async.wire import revision_1
from dan_async.wire.passkey import decode_credential_id
from dan_async.wire.results import KeygenResult, SigngenResult, decode_status
from dan_async.wire.revisions import (
    ApiVersion,
    Operation,
    Revision,
    Setup,
    check_method,
    ephemeral_payload,
    module_for,
    oneshot_challenge,
    owner_typed_data,
    path_for,
)

__all__ = [
    "EphemeralKeyExchange",
    "Exchange",
    "KeygenExchange",
    "PasskeyExchange",
    "SigngenExchange",
]

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
