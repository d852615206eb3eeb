"""
Revision 0.3 (walletprovider-sdk 0.3.0, used by the published DAN clients), and 0.1 (walletprovider-sdk 0.1.0) before it.

Here stands how 0.3 differs from other revisions, and 0.1 from 0.3: the ephemeral key has no id, tag 2 of a setup is the bare
public key, so its text names the key; its expiry stands in the credentials only, which no signature of the owner covers. The
text of a setup is made by ``GatewayProtocol.encode_setup`` in ``gateway``, with the members that ``setups`` lays out
(``has_names=False``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve

from dan_async._json import dump
from dan_async._values import check_int, check_text, from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.protocols.fields import load_text, members, only
from dan_async.protocols.gateway import GatewayProtocol, Operation, Revision
from dan_async.protocols.setups import (
    TAG_CLAIM,
    TAG_KEY_ID,
    EphemeralClaim,
    EphemeralKeySetup,
    UserAuthentication,
    decode_metadata,
    metadata_members,
)
from dan_async.protocols.sign_request import (
    SignRequest,
    decode_bare,
    decode_wrapped,
    encode_bare,
    encode_wrapped,
)
from dan_async.types import Json, KeyAlgorithm


class Gateway0_3(GatewayProtocol):  # noqa: N801 - the revision's number
    """A setup that adds an ephemeral key also names the key and its n; a message is one JSON object."""

    revision = Revision.V0_3
    methods = {  # noqa: RUF012 - a ClassVar of the base
        Operation.KEYGEN: ("eoa", "passkey"),
        Operation.SIGNGEN: ("ephemeral",),
        Operation.ADD_EPHEMERAL_KEY: ("eoa", "passkey", "ephemeral"),
    }
    change_type = "AddEphemeralKeyOpts"

    def ephemeral_key_setup(
        self, *, claim: EphemeralClaim, key_id: str, n: int | None = None
    ) -> EphemeralKeySetup:
        return evolve(super().ephemeral_key_setup(claim=claim, key_id=key_id), n=n, key_id=key_id)

    def _change_members(self, setup: EphemeralKeySetup) -> dict[str, Any]:
        if setup.n is None or setup.key_id is None:
            raise InvalidFieldError("n" if setup.n is None else "key_id", "is needed in revision 0.3")
        return {
            "n": setup.n,
            "key_id": setup.key_id,
            "metadata": metadata_members(setup.metadata),
        }

    def _read_change(self, value: Json) -> EphemeralKeySetup:
        found = members(value, "setup", ("n", "key_id", "metadata"))
        setup = EphemeralKeySetup(
            n=check_int("n", found["n"], least=1, most=2**32 - 1),
            key_id=check_text("key_id", found["key_id"], most=256),
            metadata=decode_metadata(found["metadata"], required=(TAG_KEY_ID, TAG_CLAIM)),
        )
        if setup.key_id != setup.tagged_key_id:
            # The wallet signs the tagged one only.
            raise InvalidFieldError("key_id", "is not the key id of the metadata")
        return setup

    def encode_message(self, requests: Sequence[SignRequest]) -> str:
        return encode_wrapped(only(requests, "requests"))

    def decode_message(self, text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]:
        del sign_alg
        return (decode_wrapped(text),)


REVISION_0_3 = Gateway0_3()


class Gateway0_1(Gateway0_3):  # noqa: N801 - the revision's number
    """Key generation and user operations only, without passkeys; credentials name the owner."""

    revision = Revision.V0_1
    methods = {  # noqa: RUF012 - a ClassVar of the base
        Operation.KEYGEN: ("eoa",),
        Operation.SIGNGEN: ("ephemeral",),
    }

    def encode_claim(self, claim: EphemeralClaim) -> str:
        self.check_claim(claim)
        return to_hex(claim.eph_pk)

    def decode_claim(self, text: str) -> EphemeralClaim:
        """Read tag 2 of a setup: the key's id is its text, and the expiry, not known here, is 0."""
        return _claim(text, 0)

    def encode_credentials(self, claim: EphemeralClaim, owner_id: str) -> str:
        public_key = self.encode_claim(claim)
        return dump({"eoa": check_text("owner_id", owner_id), "ephPK": public_key, "expiry": claim.expiry})

    def decode_credentials(self, text: str, owner_id: str) -> EphemeralClaim:
        found = members(load_text(text), "credentials", ("eoa", "ephPK", "expiry"))
        if parse_address("eoa", found["eoa"]) != parse_address("id", owner_id):
            raise InvalidFieldError("eoa", "is not the address that the authentication names")
        return _claim(found["ephPK"], found["expiry"])

    def encode_message(self, requests: Sequence[SignRequest]) -> str:
        return encode_bare(only(requests, "requests"))

    def decode_message(self, text: str, sign_alg: KeyAlgorithm = "secp256k1") -> tuple[SignRequest, ...]:
        del sign_alg
        return (decode_bare(text),)

    def ephemeral_authentication(
        self, *, claim: EphemeralClaim, owner_id: str, message: str | None, signature: str
    ) -> UserAuthentication:
        del message
        credentials = self.encode_credentials(evolve(claim, expiry=0), owner_id)
        return UserAuthentication(
            method="ephemeral", id=owner_id, credentials=credentials, signature=signature
        )

    def _is_same_claim(self, signed: EphemeralClaim, claim: EphemeralClaim) -> bool:
        return signed.eph_pk == claim.eph_pk

    def _check_ephemeral_id(self, claim: EphemeralClaim, auth: UserAuthentication) -> None:
        """Check nothing more: the id is the owner's, and ``decode_credentials`` has compared it."""


def _claim(public_key: object, expiry: int) -> EphemeralClaim:
    raw = from_hex(public_key, field="ephPK", length=32, prefix=True)
    return EphemeralClaim(eph_id=to_hex(raw), eph_pk=raw, expiry=expiry, sign_alg="ed25519")


REVISION_0_1 = Gateway0_1()
