"""
dan-node/1: ``dan_settle_keygen`` (docs/node-protocol.md): what came of a key generation whose client was cut off.

The ephemeral key asks. The node answers with what it acknowledged, if anything, and will from then on begin nothing under
that request for that ephemeral key: so the answer stays true.
"""

from __future__ import annotations

from attrs import frozen

from dan_async._hex import from_hex, to_hex
from dan_async.crypto.ephemeral_signature import is_signed_by
from dan_async.errors import InvalidFieldError, NodeProtocolError
from dan_async.models._fields import check_algorithm, check_text
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.types import Json, KeyAlgorithm, OperatorAddress, RequestId
from dan_async.wire.json_text import dump
from dan_async.wire.members import members
from dan_async.wire.node_1 import decode_acknowledgement, decode_request_id, encode_acknowledgement
from dan_async.wire.node_hashes import restarted_request_id, tagged_hash

__all__ = [
    "METHOD",
    "MOST_RESTARTS",
    "SettleParams",
    "decode_settle",
    "decode_settle_result",
    "encode_settle",
    "encode_settle_result",
    "request_ids",
    "settle_digest",
]

METHOD = "dan_settle_keygen"

#: How many new starts of a key generation a node looks for. A client starts anew far less often.
MOST_RESTARTS = 32


@frozen(kw_only=True)
class SettleParams:
    """
    Parameters of ``dan_settle_keygen``.

    Args:
        request_id: The first id of the key generation; its new starts are meant as well.
        eph_pk: The ephemeral key that the request was for: 65 bytes for secp256k1, 32 for ed25519.
        sign_alg: Its algorithm.
        signature: Its own, over ``settle_digest``, in 0x hex.
    """

    request_id: RequestId
    eph_pk: bytes
    sign_alg: KeyAlgorithm
    signature: str

    def is_signed_for(self, operator: OperatorAddress) -> bool:
        """Whether the ephemeral key signed it, for this node."""
        digest = settle_digest(request_id=self.request_id, operator=operator, eph_pk=self.eph_pk)
        try:
            return is_signed_by(self.eph_pk, self.sign_alg, digest, self.signature)
        except InvalidFieldError:
            return False


def settle_digest(*, request_id: RequestId, operator: OperatorAddress, eph_pk: bytes) -> bytes:
    """H("dan-node/1 settle", request id, operator, ephemeral public key): what the ephemeral key signs."""
    return tagged_hash(
        "dan-node/1 settle", bytes.fromhex(request_id[2:]), bytes.fromhex(operator[2:]), eph_pk
    )


def request_ids(first: RequestId) -> tuple[RequestId, ...]:
    """Give the ids that are meant: the first one, and those of its new starts."""
    return (first, *(restarted_request_id(first, restart) for restart in range(1, MOST_RESTARTS + 1)))


def encode_settle(params: SettleParams) -> str:
    """Parameters of ``dan_settle_keygen`` as JSON text."""
    return dump(
        {
            "requestId": params.request_id,
            "ephPK": to_hex(params.eph_pk),
            "signAlg": params.sign_alg,
            "signature": params.signature,
        }
    )


def decode_settle(value: Json) -> SettleParams:
    """
    Read the parameters of ``dan_settle_keygen``.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(value, "params", ("requestId", "ephPK", "signAlg", "signature"))
    algorithm: KeyAlgorithm = (
        "ed25519" if check_algorithm("signAlg", found["signAlg"]) == "ed25519" else "secp256k1"
    )
    length = 32 if algorithm == "ed25519" else 65
    return SettleParams(
        request_id=decode_request_id(found["requestId"]),
        eph_pk=from_hex(found["ephPK"], field="ephPK", length=length, prefix=True),
        sign_alg=algorithm,
        signature=check_text("signature", found["signature"], most=132),
    )


def encode_settle_result(acknowledgements: tuple[Acknowledgement, ...]) -> Json:
    """Result of ``dan_settle_keygen``."""
    return {"acknowledgements": [encode_acknowledgement(entry) for entry in acknowledgements]}


def decode_settle_result(value: Json) -> tuple[Acknowledgement, ...]:
    """
    Read the result of ``dan_settle_keygen``: at most one acknowledgement for each id. None of them is believed yet.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(value, "result", ("acknowledgements",))["acknowledgements"]
        if not isinstance(found, list) or len(found) > MOST_RESTARTS + 1:
            raise InvalidFieldError("acknowledgements", "must be a list, not longer than there are ids")
    except InvalidFieldError as error:
        raise NodeProtocolError(
            f"the result of {METHOD} is malformed: {error.message}", hint="The node does not speak dan-node/1"
        ) from error
    return tuple(decode_acknowledgement(entry) for entry in found)
