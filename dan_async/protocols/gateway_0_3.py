"""
Revision 0.3 (walletprovider-sdk 0.3.0, used by the published DAN clients): how it differs from ``gateway``.

The texts of its setups for key generation and signing are written in ``setups`` (``has_names=False``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve

from dan_async._values import check_int, check_text
from dan_async.errors import InvalidFieldError
from dan_async.protocols.fields import members, only
from dan_async.protocols.gateway import GatewayProtocol, Operation, Revision
from dan_async.protocols.setups import (
    TAG_CLAIM,
    TAG_KEY_ID,
    EphemeralClaim,
    EphemeralKeySetup,
    decode_metadata,
    metadata_members,
)
from dan_async.protocols.sign_request import SignRequest, decode_wrapped, encode_wrapped
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
            "metadata": metadata_members(setup.metadata, is_shown=True),
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
