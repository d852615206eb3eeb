"""
Authorisation by passkey (method ``passkey`` of a gateway's revision 1, docs/reference/gateway.md), and its registration.

An async callback of the caller's is given the options, JSON as WebAuthn's ``parseRequestOptionsFromJSON`` takes it, and
returns the credential that the browser made: a web server passes the one to its page and the other back.

Of a credential, only what is readable without cryptography is checked here (Web Authentication Level 3, sections 5.1 and
5.8.1), so that a mistake in a page is found where it is made. The signature is for the nodes to verify.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

from dan_async._json import dump, load
from dan_async._values import check_list, check_seconds, check_text
from dan_async.errors import (
    ConfigurationError,
    DanError,
    InvalidFieldError,
    WalletRefusedError,
    WalletSignatureError,
    WrongSignerError,
)
from dan_async.protocols.fields import load_text
from dan_async.protocols.gateway import check_challenge
from dan_async.protocols.setups import AuthMethod, PasskeySignature, encode_passkey_signature
from dan_async.types import TimeSpan, TypedData
from dan_async.wallets.base import ask_owner

#: Takes the options to a browser and brings its credential back, as an object or JSON text; None if the person declined.
PasskeyCallback: TypeAlias = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any] | str | None]]

#: COSE algorithms: ES256, EdDSA, RS256.
_ALGORITHMS = (-7, -8, -257)


class _Passkey:
    """The common part of an assertion and a registration: the relying party, and the asking."""

    #: ``type`` of the client data, and the members of a credential's response.
    _ceremony: ClassVar[str]
    _members: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        callback: PasskeyCallback,
        *,
        rp_id: str,
        origin: str,
        timeout_s: TimeSpan | None,
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

    async def _ask(self, challenge: str, options: dict[str, Any]) -> tuple[str, str]:
        """Have the browser answer; return the credential's id and the ``signature`` member of the authentication."""
        options = {"challenge": encode_challenge(challenge), **options}
        if self._timeout_s is not None:
            options["timeout"] = int(self._timeout_s * 1000)
        answer = await ask_owner(
            lambda: self._callback(options),
            self._timeout_s,
            unanswered="no passkey credential was returned",
            failed="asking for the passkey failed",
            prompt="an open prompt in the browser",
        )
        if answer is None:
            raise WalletRefusedError(
                "no passkey credential was returned",
                hint="The person or the browser declined",
                phase="wallet",
            )
        try:
            text = answer if isinstance(answer, str) else _write(answer)
            signature = PasskeySignature(raw_credential=text, origin=self.origin, rp_id=self.rp_id)
            found = load_text(text)
            if not isinstance(found, dict):
                raise InvalidFieldError("credential", "must be an object")
            made = check_credential_id("id", found.get("id"))
            self._check(found, made, options["challenge"])
        except DanError as error:
            raise WalletSignatureError(
                f"the page's answer is not the requested passkey credential: {error.message}",
                hint="Return the credential's toJSON(), made with exactly the options that were passed",
                phase="wallet",
            ) from error
        return made, encode_passkey_signature(signature)

    def _check(self, found: Mapping[str, Any], made: str, challenge: str) -> None:
        """Check the browser's credential, which is ``PublicKeyCredential.toJSON()``."""
        if found.get("type") != "public-key":
            raise InvalidFieldError("type", "must be public-key")
        if found.get("rawId") != made:
            raise InvalidFieldError("rawId", "must be the same as id")
        response = found.get("response")
        if not isinstance(response, dict):
            raise InvalidFieldError("response", "must be an object")
        parts = {name: decode_base64url(f"response.{name}", response.get(name)) for name in self._members}
        client_data = load(parts["clientDataJSON"])
        expected = {"type": self._ceremony, "challenge": challenge, "origin": self.origin}
        for name, value in expected.items():
            if not isinstance(client_data, dict) or client_data.get(name) != value:
                raise InvalidFieldError(f"clientDataJSON: {name}", "is not the one that was asked for")


class PasskeyAuth(_Passkey):
    """
    Has a registered passkey sign, with the person verified by the authenticator.

    A passkey signs the challenge alone. The nodes bind the challenge to the request; a client that talks to the nodes
    itself, or one-shot (``v2``), computes it itself, but through a gateway in ``v1`` it is the gateway's word.

    Args:
        credential_id: The passkey's credential id, base64url, as ``DanClient.register_passkey`` returned it.
        get_assertion: Takes PublicKeyCredentialRequestOptions as JSON, and returns the credential's ``toJSON()``,
            as an object or text; None if the person declined.
        rp_id: The relying party's id: the page's domain, or one above it.
        origin: The page's origin, as ``location.origin`` says.
        timeout_s: Seconds it may take; None for no limit but the job's.

    Attributes:
        id: The credential id.

    Raises:
        InvalidFieldError: An argument is wrong; it is named.
    """

    _ceremony = "webauthn.get"
    _members = ("clientDataJSON", "authenticatorData", "signature")

    def __init__(
        self,
        credential_id: str,
        get_assertion: PasskeyCallback,
        *,
        rp_id: str,
        origin: str,
        timeout_s: TimeSpan | None = None,
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
        options = {
            "rpId": self.rp_id,
            "allowCredentials": [{"type": "public-key", "id": self.id}],
            "userVerification": "required",
        }
        made, signature = await self._ask(challenge, options)
        if made != self.id:
            raise WrongSignerError(
                "another passkey signed than the owner's",
                hint="Pass allowCredentials to the browser as it stands in the options",
                phase="wallet",
            )
        return signature


class PasskeyRegister(_Passkey):
    """
    Has a browser make a passkey, for ``DanClient.register_passkey``. An object is good for one registration at a time.

    Args:
        user_name: The account's name, as the browser shows it.
        user_id: The account's id at the page, 1 to 64 bytes; no personal data, since authenticators may show it.
        create_credential: Takes PublicKeyCredentialCreationOptions as JSON, and returns the credential's
            ``toJSON()``, as an object or text; None if the person declined.
        rp_id: The relying party's id: the page's domain, or one above it.
        rp_name: Its name, as the browser may show it.
        origin: The page's origin, as ``location.origin`` says.
        display_name: The person's name, as the browser shows it; *user_name* if None.
        exclude: Credential ids that the account has already: an authenticator that holds one makes no other.
        timeout_s: Seconds it may take; None for no limit but the job's.

    Raises:
        InvalidFieldError: An argument is wrong; it is named.
    """

    _ceremony = "webauthn.create"
    _members = ("clientDataJSON", "attestationObject")

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
        timeout_s: TimeSpan | None = None,
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
        self._exclude = tuple(
            check_credential_id("exclude", entry) for entry in check_list("exclude", exclude)
        )
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
        options = {
            "rp": {"id": self.rp_id, "name": self._rp_name},
            "user": dict(self._user),
            "pubKeyCredParams": [{"type": "public-key", "alg": algorithm} for algorithm in _ALGORITHMS],
            "excludeCredentials": [{"type": "public-key", "id": entry} for entry in self._exclude],
            "authenticatorSelection": {"residentKey": "preferred", "userVerification": "required"},
            "attestation": "none",
        }
        self._made, signature = await self._ask(challenge, options)
        return signature


def _write(answer: object) -> str:
    if not isinstance(answer, Mapping):
        raise ConfigurationError("it must be an object or its JSON text")
    try:
        return dump(dict(answer))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError("it holds what JSON cannot carry") from error


def encode_challenge(challenge: str) -> str:
    """Write a challenge of 64 hex digits as WebAuthn takes its 32 bytes."""
    return encode_base64url(bytes.fromhex(check_challenge(challenge)))


def check_credential_id(field: str, value: object) -> str:
    """Check a credential id: base64url of 16 to 1023 bytes, the lengths that WebAuthn allows."""
    if not 16 <= len(decode_base64url(field, value)) <= 1023:
        raise InvalidFieldError(field, "must encode 16 to 1023 bytes")
    return str(value)


_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")


def encode_base64url(data: bytes) -> str:
    """Write bytes in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(field: str, value: object) -> bytes:
    """Read base64url without padding, in its one form."""
    if isinstance(value, str) and _BASE64URL.match(value):
        try:
            data = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        except binascii.Error:
            pass
        else:
            if encode_base64url(data) == value:
                return data
    raise InvalidFieldError(field, "must be base64url without padding")


_RP_ID = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\Z")


def check_relying_party(rp_id: object, origin: object) -> tuple[str, str]:
    """Check that a page of *origin*, such as ``https://host``, may use passkeys of the domain *rp_id*."""
    domain = check_text("rp_id", rp_id, most=253)
    if _RP_ID.match(domain) is None:
        raise InvalidFieldError("rp_id", "must be a domain in lower case", hint="For example wallet.example")
    text = check_text("origin", origin)
    try:
        parts = urlsplit(text)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # brackets without an address, a port that is no number
        host = None
    secure = host and (parts.scheme == "https" or (parts.scheme == "http" and _is_within(host, "localhost")))
    if (
        host is None
        or not secure
        or text != f"{parts.scheme}://{parts.netloc}"
        or "@" in text
        or text != text.lower()
    ):
        raise InvalidFieldError(
            "origin",
            "must be https:// and a host, or http://localhost, with nothing after it",
            hint="It is the value of location.origin in the page",
        )
    if not _is_within(host, domain):
        raise InvalidFieldError(
            "rp_id",
            "must be the origin's host or a domain above it",
            hint="Browsers require this",
        )
    return domain, text


def _is_within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")
