"""An authenticator in software: ES256, attestation "none". It does what a browser and a key would do together."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

ORIGIN = "https://wallet.example"
RP_ID = "wallet.example"

USER_PRESENT, USER_VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Authenticator:
    """
    One passkey. Its methods are the callbacks of ``PasskeyRegister`` and ``PasskeyAuth``.

    Every attribute can be set wrong before it is asked.
    """

    def __init__(
        self, *, origin: str = ORIGIN, rp_id: str = RP_ID, credential_id: bytes | None = None
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.origin = origin
        self.rp_id = rp_id
        self.credential_id = credential_id or secrets.token_bytes(32)
        self.sign_count = 0
        self.flags = USER_PRESENT | USER_VERIFIED
        self.asked: list[dict[str, Any]] = []

    @property
    def id(self) -> str:
        return b64(self.credential_id)

    async def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """Make the passkey."""
        self.asked.append(options)
        numbers = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = (
            bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + cbor2.dumps(cose)
        )
        attestation = {"fmt": "none", "attStmt": {}, "authData": self._data(self.flags | ATTESTED) + attested}
        return self._credential(
            clientDataJSON=b64(self._client_data("webauthn.create", options)),
            attestationObject=b64(cbor2.dumps(attestation)),
        )

    async def get(self, options: dict[str, Any]) -> dict[str, Any]:
        """Sign with it."""
        self.asked.append(options)
        self.sign_count += 1
        client_data = self._client_data("webauthn.get", options)
        data = self._data(self.flags)
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        return self._credential(
            clientDataJSON=b64(client_data), authenticatorData=b64(data), signature=b64(signature)
        )

    def _client_data(self, ceremony: str, options: dict[str, Any]) -> bytes:
        found = {
            "type": ceremony,
            "challenge": options["challenge"],
            "origin": self.origin,
            "crossOrigin": False,
        }
        return json.dumps(found).encode()

    def _data(self, flags: int) -> bytes:
        return (
            hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + self.sign_count.to_bytes(4, "big")
        )

    def _credential(self, **response: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "rawId": self.id,
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {},
        }
