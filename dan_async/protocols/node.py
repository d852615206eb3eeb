"""
dan-node/1: the messages between client and node. Those that nodes sign are in node_claims, those of signing in node_signing.

docs/node-protocol.md is the specification. Each message is one class, which both sides use; beside them stand the hashes
that both sides compute: H(tag, part, …) of crypto.hashes, with addresses as 20 bytes and points as 33.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from attrs import frozen

from dan_async._values import MAX_SAFE_INT, to_hex
from dan_async.config import MAX_PARTIES
from dan_async.crypto.ephemeral_key import is_signed_by
from dan_async.crypto.hashes import tagged_hash, u32
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError
from dan_async.protocols.fields import (
    ADDRESS,
    CHECKED_BY_CLASS,
    HASH,
    KEY_ID,
    REQUEST_ID,
    SIGNATURE,
    Form,
    form_of,
    hex_bytes,
    list_of,
    nested,
    number,
    one_of,
    operators,
    string,
    wire,
)
from dan_async.protocols.setups import UserAuthentication
from dan_async.types import Json, KeyAlgorithm, MpcKeyId, OperatorAddress, RequestId

PROTOCOL = "dan-node/1"

#: Revisions in which an owner may have signed a setup; the node checks the typed data of that revision.
REVISIONS = ("0.1", "0.3", "1")

#: Operations of an owner, as the owner signs them, and the JSON-RPC method that carries each out.
CHANGES = {"addEphemeralKey": "dan_add_ephemeral_key", "revokeEphemeralKey": "dan_revoke_ephemeral_key"}

REGISTER_PASSKEY = "registerPasskey"

METHODS = {"keygen": "dan_keygen", REGISTER_PASSKEY: "dan_register_passkey", **CHANGES}

SETTLE_KEYGEN = "dan_settle_keygen"

#: How many new starts of a key generation a node looks for. A client starts anew far less often.
MOST_RESTARTS = 32


# --- hashes -----------------------------------------------------------------------------------------------------------


def raw(text: str) -> bytes:
    """Return the bytes of 0x and hex digits that were checked before: an address, a request id."""
    return bytes.fromhex(text[2:])


def identity_digest(*, operator: OperatorAddress, nonce: bytes, time_ms: int) -> bytes:
    """H("dan-node/1 identity", operator, nonce, time): signed by a node to prove its identity."""
    return tagged_hash("dan-node/1 identity", raw(operator), nonce, time_ms.to_bytes(8, "big"))


def setup_hash(*, operation: str, revision: str, setup: str) -> bytes:
    """H("dan-node/1 setup", operation, revision, the setup's exact text)."""
    return tagged_hash("dan-node/1 setup", operation.encode(), revision.encode(), setup.encode())


def final_challenge(
    *,
    operation: str,
    request_id: RequestId,
    setup_digest: bytes,
    participants: Sequence[OperatorAddress],
    nonces: Sequence[bytes],
) -> bytes:
    """
    The 32 bytes that the owner signs, in hex, as the typed data's challenge.

    H("dan-node/1 challenge", operation, request id, setup hash, number of participants, then operator and nonce of each).
    """
    pairs = [
        part for operator, nonce in zip(participants, nonces, strict=True) for part in (raw(operator), nonce)
    ]
    return tagged_hash(
        "dan-node/1 challenge",
        operation.encode(),
        raw(request_id),
        setup_digest,
        u32(len(participants)),
        *pairs,
    )


def compute_key_id(
    *,
    public_key: bytes,
    t: int,
    participants: Sequence[OperatorAddress],
    owner_id: str,
    request_id: RequestId,
) -> MpcKeyId:
    """H("dan-node/1 key", public key, t, n, each participant, owner id in lower case, request id) as 64 hex digits."""
    return MpcKeyId(
        tagged_hash(
            "dan-node/1 key",
            public_key,
            u32(t),
            u32(len(participants)),
            *map(raw, participants),
            owner_id.lower().encode(),
            raw(request_id),
        ).hex()
    )


def restarted_request_id(request_id: RequestId, restart: int) -> RequestId:
    """
    The id of the request that follows when a key generation has to be started again with other participants.

    H("dan-node/1 restart", first request id, number of the restart): whoever knows the first id can ask after all of them.
    """
    return RequestId(to_hex(tagged_hash("dan-node/1 restart", raw(request_id), u32(restart))))


def request_ids(first: RequestId) -> tuple[RequestId, ...]:
    """Return the first id of a key generation and those of its new starts."""
    return (first, *(restarted_request_id(first, restart) for restart in range(1, MOST_RESTARTS + 1)))


def oneshot_request_id(setup_digest: bytes) -> RequestId:
    """
    The only id that a one-shot request may have.

    H("dan-node/1 one-shot", setup hash): no node gave a nonce for it, so it is its own guard against replay.
    """
    return RequestId(to_hex(tagged_hash("dan-node/1 one-shot", setup_digest)))


def settle_digest(*, request_id: RequestId, operator: OperatorAddress, eph_pk: bytes) -> bytes:
    """H("dan-node/1 settle", request id, operator, ephemeral public key): signed by the ephemeral key."""
    return tagged_hash("dan-node/1 settle", raw(request_id), raw(operator), eph_pk)


# --- requests ---------------------------------------------------------------------------------------------------------


AUTHENTICATION: Form[UserAuthentication] = nested(
    UserAuthentication,
    wire("method", one_of("eoa", "ephemeral", "passkey")),
    wire("id", CHECKED_BY_CLASS),
    wire("credentials", CHECKED_BY_CLASS),
    wire("signature", CHECKED_BY_CLASS),
)


@frozen(kw_only=True)
class IdentifyParams:
    """Parameters of ``dan_identify``: 32 bytes, fresh from the client."""

    nonce: Annotated[bytes, wire("nonce", HASH)]


@frozen(kw_only=True)
class ChallengeParams:
    """Parameters of ``dan_challenge``."""

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]
    operation: Annotated[str, wire("operation", string(32))]
    setup_hash: Annotated[bytes, wire("setupHash", HASH)]
    #: The key of an operation on one: a node that does not hold it says so at once.
    key_id: Annotated[MpcKeyId | None, wire("keyId", KEY_ID, optional=True)] = None


@frozen(kw_only=True)
class KeygenParams:
    """
    Parameters of ``dan_keygen``, of the two methods that change ephemeral keys, and of ``dan_register_passkey``.

    Without nonces it is a one-shot request, whose challenge is a hash of the setup alone.
    """

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]
    revision: Annotated[str, wire("revision", one_of(*REVISIONS))]
    setup: Annotated[str, wire("setup", string(256 * 1024))]
    participants: Annotated[tuple[OperatorAddress, ...], wire("participants", operators(1, MAX_PARTIES))]
    nonces: Annotated[tuple[bytes, ...], wire("nonces", list_of(HASH, 0, MAX_PARTIES))]
    user_authentication: Annotated[UserAuthentication, wire("userAuthentication", AUTHENTICATION)]

    def __attrs_post_init__(self) -> None:
        if len(self.nonces) not in {0, len(self.participants)}:
            raise InvalidFieldError(
                "nonces", "must be one for each participant, or none for a one-shot request"
            )


@frozen(kw_only=True)
class SettleParams:
    """Parameters of ``dan_settle_keygen``, by which the ephemeral key of a key generation asks after its outcome."""

    #: The first id of the key generation; its new starts are meant as well.
    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]
    eph_pk: Annotated[bytes, wire("ephPK", hex_bytes(32, 65))]
    sign_alg: Annotated[KeyAlgorithm, wire("signAlg", one_of("secp256k1", "ed25519"))]
    signature: Annotated[str, wire("signature", string(132))]

    def __attrs_post_init__(self) -> None:
        length = 32 if self.sign_alg == "ed25519" else 65
        if len(self.eph_pk) != length:
            raise InvalidFieldError("ephPK", f"must hold {length} bytes, not {len(self.eph_pk)}")

    def is_signed_for(self, operator: OperatorAddress) -> bool:
        """Whether the ephemeral key signed it, for this node."""
        digest = settle_digest(request_id=self.request_id, operator=operator, eph_pk=self.eph_pk)
        try:
            return is_signed_by(self.eph_pk, self.sign_alg, digest, self.signature)
        except InvalidFieldError:
            return False


# --- results ----------------------------------------------------------------------------------------------------------


class Result:
    """A node's answer, as far as it is the same for all methods."""

    __slots__ = ()

    #: Its name at the beginning of an error.
    TITLE: ClassVar[str]

    @classmethod
    def read(cls, value: Json) -> Self:
        """Read a node's answer, as a client; ``NodeProtocolError`` if it is malformed. Nothing in it is believed yet."""
        try:
            return form_of(cls).read("result", value)
        except InvalidFieldError as error:
            raise malformed(cls.TITLE, error) from error


def malformed(title: str, error: DanError) -> NodeProtocolError:
    return NodeProtocolError(
        f"{title} is malformed: {error.message}", hint="The node does not speak dan-node/1"
    )


@frozen(kw_only=True)
class Identity(Result):
    """Result of ``dan_identify``: operator, time in Unix milliseconds, and the signature over ``identity_digest``."""

    TITLE = "the node's identity"

    protocol: Annotated[str, wire("protocol", one_of(PROTOCOL))] = PROTOCOL
    operator: Annotated[OperatorAddress, wire("operator", ADDRESS)]
    time_ms: Annotated[int, wire("time", number(0, MAX_SAFE_INT))]
    signature: Annotated[bytes, wire("signature", SIGNATURE)]


@frozen(kw_only=True)
class ChallengeResult(Result):
    """Result of ``dan_challenge``: a single-use nonce (32 bytes) and when it ends, in Unix seconds."""

    TITLE = "the node's challenge"

    nonce: Annotated[bytes, wire("nonce", HASH)]
    expires_at: Annotated[int, wire("expiresAt", number(0, MAX_SAFE_INT))]
