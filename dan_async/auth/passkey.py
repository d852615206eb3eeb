"""
Authorisation by passkey (WIRE revision 1, method ``passkey``), and the registration of one.

Where the credential comes from is the caller's business: an async callback is given the options, JSON as WebAuthn's
``parseRequestOptionsFromJSON`` takes it, and brings back what the browser made. A web server passes the one to its page and
the other back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from dan_async.auth.passkey_credential import (
    Ceremony,
    check_credential_id,
    check_relying_party,
    encode_base64url,
    encode_challenge,
    read_credential,
)
from dan_async.errors import (
    DanError,
    InvalidFieldError,
    WalletError,
    WalletRefusedError,
    WalletTimeoutError,
)
from dan_async.models._fields import check_seconds, check_text
from dan_async.models.authentication import AuthMethod
from dan_async.types import TypedData

__all__ = ["PasskeyAuth", "PasskeyCallback", "PasskeyRegister"]

#: Takes the options to a browser and brings its credential back, as an object or JSON text; None if the person declined.
PasskeyCallback: TypeAlias = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any] | str | None]]

#: COSE algorithms: ES256, EdDSA, RS256.
_ALGORITHMS = (-7, -8, -257)


class _Passkey:
    """What an assertion and a registration have in common: the relying party, and asking."""

    def __init__(
        self,
        callback: PasskeyCallback,
        *,
        rp_id: str,
        origin: str,
        timeout_s: float | None,
    ) -> None:
        if not callable(callback):
            raise InvalidFieldError("callback", "must be an async function")
        self.rp_id, self.origin = check_relying_party(rp_id, origin)
        self._callback = callback
        self._timeout_s = None if timeout_s is None else check_seconds("timeout_s", timeout_s)

    @property
    def method(self) -> AuthMethod:
        """The scheme's name on the wire."""
        return "passkey"

    @property
    def interactive(self) -> bool:
        """Whether a person is asked: always."""
        return True

    async def _ask(
        self, options: dict[str, Any], *, ceremony: Ceremony, challenge: str, credential_id: str | None
    ) -> tuple[str, str]:
        if self._timeout_s is not None:
            options["timeout"] = int(self._timeout_s * 1000)
        answer = await self._call(options)
        if answer is None:
            raise WalletRefusedError(
                "the passkey was not given", hint="The person declined, or the browser did", phase="wallet"
            )
        return read_credential(
            answer,
            ceremony=ceremony,
            challenge=challenge,
            origin=self.origin,
            rp_id=self.rp_id,
            credential_id=credential_id,
        )

    async def _call(self, options: dict[str, Any]) -> object:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._callback(options)
        except DanError:
            raise
        except TimeoutError as error:
            limit = "" if self._timeout_s is None else f" within {self._timeout_s:g} s"
            raise WalletTimeoutError(
                f"the passkey was not given{limit}",
                hint="Look for an open prompt in the browser, or allow more time",
                phase="wallet",
            ) from error
        except Exception as error:
            # Its text is left out of ours: it may hold what the page would not want to be logged.
            raise WalletError(
                f"asking for the passkey failed with {type(error).__name__}",
                hint="Its own exception is the cause of this one",
                phase="wallet",
            ) from error


class PasskeyAuth(_Passkey):
    """
    Has a registered passkey sign, with the person verified by the authenticator.

    A passkey signs the challenge alone. The nodes bind the challenge to the request; a client that talks to the nodes
    itself, or one-shot (``v2``), works it out itself, but through a gateway in ``v1`` it is what the gateway says.

    Args:
        credential_id: The passkey's credential id, base64url, as ``DanClient.register_passkey`` gave it.
        get_assertion: Takes PublicKeyCredentialRequestOptions as JSON, and brings back the credential as its ``toJSON()``
            gives it, as an object or text; None if the person declined.
        rp_id: The relying party's id: the page's domain, or one above it.
        origin: The page's origin, as ``location.origin`` says.
        timeout_s: Seconds it may take; None for no limit but the job's.

    Attributes:
        id: The credential id.

    Raises:
        InvalidFieldError: An argument is wrong; it is named.
    """

    def __init__(
        self,
        credential_id: str,
        get_assertion: PasskeyCallback,
        *,
        rp_id: str,
        origin: str,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(get_assertion, rp_id=rp_id, origin=origin, timeout_s=timeout_s)
        self.id = check_credential_id("credential_id", credential_id)

    def __repr__(self) -> str:
        return f"PasskeyAuth(id={self.id!r}, rp_id={self.rp_id!r}, origin={self.origin!r})"

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:  # noqa: ARG002 - passkeys sign bytes only
        """
        Have the passkey sign the challenge.

        Args:
            challenge: The final challenge: 64 hex digits, whose 32 bytes are WebAuthn's challenge.
            typed_data: Not looked at: a passkey cannot show it.

        Returns:
            The ``signature`` member of the authentication.

        Raises:
            InvalidFieldError: The challenge has another form; nobody was asked.
            WalletRefusedError: The person declined.
            WalletTimeoutError: There was no answer in time.
            WalletSignatureError: The answer is not a credential for this challenge and page.
            WrongSignerError: Another passkey signed.
            WalletError: The callback failed in another way; its own exception is the cause.
        """
        options: dict[str, Any] = {
            "challenge": encode_challenge(challenge),
            "rpId": self.rp_id,
            "allowCredentials": [{"type": "public-key", "id": self.id}],
            "userVerification": "required",
        }
        _, signature = await self._ask(
            options, ceremony="webauthn.get", challenge=challenge, credential_id=self.id
        )
        return signature


class PasskeyRegister(_Passkey):
    """
    Has a browser make a passkey, for ``DanClient.register_passkey``. An object is good for one registration at a time.

    Args:
        user_name: The account's name, as the browser shows it.
        user_id: The account's id at the page, 1 to 64 bytes; no personal data, since authenticators may show it.
        create_credential: Takes PublicKeyCredentialCreationOptions as JSON, and brings back the credential as its
            ``toJSON()`` gives it, as an object or text; None if the person declined.
        rp_id: The relying party's id: the page's domain, or one above it.
        rp_name: Its name, as the browser may show it.
        origin: The page's origin, as ``location.origin`` says.
        display_name: The person's name, as the browser shows it; *user_name* if None.
        exclude: Credential ids that the account has already: an authenticator that holds one makes no other.
        timeout_s: Seconds it may take; None for no limit but the job's.

    Raises:
        InvalidFieldError: An argument is wrong; it is named.
    """

    def __init__(
        self,
        user_name: str,
        user_id: bytes,
        create_credential: PasskeyCallback,
        *,
        rp_id: str,
        rp_name: str,
        origin: str,
        display_name: str | None = None,
        exclude: tuple[str, ...] = (),
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(create_credential, rp_id=rp_id, origin=origin, timeout_s=timeout_s)
        if not isinstance(user_id, bytes) or not 1 <= len(user_id) <= 64:
            raise InvalidFieldError("user_id", "must be 1 to 64 bytes")
        self._user = {
            "id": encode_base64url(user_id),
            "name": check_text("user_name", user_name, most=256),
            "displayName": check_text("display_name", display_name or user_name, most=256),
        }
        self._rp_name = check_text("rp_name", rp_name, most=256)
        self._exclude = tuple(check_credential_id("exclude", entry) for entry in exclude)
        self._made = ""

    @property
    def id(self) -> str:
        """The new credential's id, base64url; empty until the browser has made it."""
        return self._made

    def __repr__(self) -> str:
        return f"PasskeyRegister(id={self.id!r}, rp_id={self.rp_id!r}, origin={self.origin!r})"

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:  # noqa: ARG002 - passkeys sign bytes only
        """
        Have the browser make a passkey for the challenge.

        Args:
            challenge: The final challenge: 64 hex digits, whose 32 bytes are WebAuthn's challenge.
            typed_data: Not looked at.

        Returns:
            The ``signature`` member of the authentication.

        Raises:
            InvalidFieldError: The challenge has another form; nobody was asked.
            WalletRefusedError: The person declined.
            WalletTimeoutError: There was no answer in time.
            WalletSignatureError: The answer is not a new credential for this challenge and page.
            WalletError: The callback failed in another way; its own exception is the cause.
        """
        options: dict[str, Any] = {
            "challenge": encode_challenge(challenge),
            "rp": {"id": self.rp_id, "name": self._rp_name},
            "user": dict(self._user),
            "pubKeyCredParams": [{"type": "public-key", "alg": algorithm} for algorithm in _ALGORITHMS],
            "excludeCredentials": [{"type": "public-key", "id": entry} for entry in self._exclude],
            "authenticatorSelection": {"residentKey": "preferred", "userVerification": "required"},
            "attestation": "none",
        }
        self._made, signature = await self._ask(
            options, ceremony="webauthn.create", challenge=challenge, credential_id=None
        )
        return signature
