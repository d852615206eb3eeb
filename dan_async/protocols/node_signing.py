"""
dan-node/1: presignatures and signatures (docs/node-protocol.md, "Signing").

``dan_presign`` has t nodes prepare one signature, authorised by the ephemeral key; ``dan_sign`` turns it into shares of a
signature over one message. A client puts the shares together itself, and can check each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from attrs import field, frozen

from dan_async.config import MAX_PARTIES
from dan_async.crypto.curve import ORDER, Point, add, base_multiply, encode
from dan_async.crypto.curve import decode as decode_point
from dan_async.crypto.hashes import tagged_hash, u32
from dan_async.errors import InvalidFieldError
from dan_async.protocols.fields import (
    HASH,
    KEY_ID,
    POINT,
    REQUEST_ID,
    hex_text,
    hex_up_to,
    list_of,
    nested,
    number,
    one_of,
    operators,
    scalar,
    set_of,
    string,
    wire,
)
from dan_async.protocols.node import AUTHENTICATION, REVISIONS, Result, raw
from dan_async.protocols.node_claims import Claims, SignedClaims
from dan_async.protocols.setups import UserAuthentication
from dan_async.protocols.sign_request import MOST_REQUESTS
from dan_async.types import MpcKeyId, OperatorAddress, RequestId

#: The methods, and the operation of the setup and of ``dan_challenge``.
PRESIGN = "dan_presign"

SIGN = "dan_sign"

OPERATION = "signgen"

#: Bytes of commitments: three points, two for each other signer, and a proof.
_MOST_COMMITMENTS = 33 * (3 + 2 * (MAX_PARTIES - 1)) + 64

#: Latest time that fits the hash's 32 bits.
_LATEST = 2**32 - 1


# --- hashes -----------------------------------------------------------------------------------------------------------


def presign_digest(
    *,
    request_id: RequestId,
    key_id: MpcKeyId,
    eph_id: str,
    signers: Sequence[OperatorAddress],
    expires_at: int,
) -> bytes:
    """
    The hash that the ephemeral key signs to have a presignature made.

    H("dan-node/1 presign", request id, key id, ephemeral id, number of signers, each signer, when it expires).
    """
    return tagged_hash(
        "dan-node/1 presign",
        raw(request_id),
        bytes.fromhex(key_id),
        eph_id.encode(),
        u32(len(signers)),
        *map(raw, signers),
        u32(expires_at),
    )


def presignature_id(session: bytes, nonce_point: bytes) -> bytes:
    """
    The id of a presignature, of which R is a part.

    H("dan-node/1 presignature", session, R); the session's 32 bytes are the nodes' own affair.
    """
    return tagged_hash("dan-node/1 presignature", session, nonce_point)


def nonce_shift(
    *, presignature_id: bytes, public_key: bytes, digest: bytes, signers: Sequence[OperatorAddress]
) -> int:
    """
    Return δ, which moves the nonce of a presignature when its message is known: R' = R + δ·G.

    H("dan-node/1 nonce shift", presignature id, public key, digest, number of signers, each signer), modulo q. Without it,
    whoever knows R before the message could choose the message by it (Groth and Shoup, EUROCRYPT 2022, section 6).
    """
    hashed = tagged_hash(
        "dan-node/1 nonce shift", presignature_id, public_key, digest, u32(len(signers)), *map(raw, signers)
    )
    return int.from_bytes(hashed, "big") % ORDER


def shift_nonce(nonce_point: bytes, shift: int) -> bytes | None:
    """Return R'; None in the case, which does not occur, that no signature can have it."""
    shifted = add([decode_point(nonce_point), *([base_multiply(shift)] if shift else [])])
    if shifted is None:
        return None
    encoded = encode(shifted)
    return encoded if 0 < int.from_bytes(encoded[1:], "big") < ORDER else None


def commitments_hash(presignature_id: bytes, commitments: bytes) -> bytes:
    """H("dan-node/1 commitments", presignature id, commitments)."""
    return tagged_hash("dan-node/1 commitments", presignature_id, commitments)


def proof_challenge(
    *,
    presignature_id: bytes,
    public_key: bytes,
    nonce_point: bytes,
    points: bytes,
    announcements: Sequence[Point],
) -> bytes:
    """
    The challenge c of the proof in a signer's commitments.

    H("dan-node/1 commitments proof", presignature id, public key, R, the points, k·G, k·R, k·Y).
    """
    return tagged_hash(
        "dan-node/1 commitments proof",
        presignature_id,
        public_key,
        nonce_point,
        points,
        *map(encode, announcements),
    )


def sign_challenge(
    *,
    request_id: RequestId,
    setup_digest: bytes,
    signers: Sequence[OperatorAddress],
    presignature_ids: Sequence[bytes],
) -> bytes:
    """
    The 32 bytes that the ephemeral key signs, in hex, as the challenge of a signature from presignatures.

    H("dan-node/1 sign", request id, setup hash, number of signers, each signer, each presignature id).
    """
    return tagged_hash(
        "dan-node/1 sign",
        raw(request_id),
        setup_digest,
        u32(len(signers)),
        *map(raw, signers),
        *presignature_ids,
    )


# --- dan_presign ------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class PresignParams:
    """Parameters of ``dan_presign``: the same for every signer."""

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]
    key_id: Annotated[MpcKeyId, wire("keyId", KEY_ID)]
    eph_id: Annotated[str, wire("ephId", string(256))]
    #: Exactly t operators, ascending, all of them holders of the key.
    signers: Annotated[tuple[OperatorAddress, ...], wire("signers", operators(2, MAX_PARTIES))]
    #: When the request ends, and with it at the latest the presignature, in Unix seconds.
    expires_at: Annotated[int, wire("expiresAt", number(0, _LATEST))]
    #: The ephemeral key's, for ed25519 over ``presign_digest``, for secp256k1 over the personal message of it.
    signature: Annotated[str, wire("signature", hex_text(64, 65))]


@frozen(kw_only=True)
class PresignatureOffer(Result):
    """Result of ``dan_presign``. Honest signers say the same, but for the commitment and when it expires."""

    TITLE = "the presignature"

    #: The id by which its signers know it, bound to the nonce point.
    presignature_id: Annotated[bytes, wire("presignatureId", HASH)]
    #: R.
    nonce_point: Annotated[bytes, wire("noncePoint", POINT)]
    public_key: Annotated[bytes, wire("publicKey", POINT)]
    #: ``commitments_hash`` of this signer's commitments, which come with its share.
    commitment: Annotated[bytes, wire("commitment", HASH)]
    #: When the nodes throw it away, in Unix seconds.
    expires_at: Annotated[int, wire("expiresAt", number(0, _LATEST))]


# --- dan_sign ---------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class SignParams:
    """
    Parameters of ``dan_sign``: the same for every signer.

    With presignature ids it spends presignatures of ``dan_presign``. With participants and their nonces
    (``dan_challenge``), the nodes make presignatures first; that is for a gateway, which has no ephemeral key to ask with.
    With neither it is a one-shot request, whose challenge is a hash of the setup alone.
    """

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]
    #: The gateway revision in whose form the ephemeral key signed.
    revision: Annotated[str, wire("revision", one_of(*REVISIONS))]
    setup: Annotated[str, wire("setup", string(4 * 1024 * 1024))]
    #: Exactly t operators, ascending.
    signers: Annotated[tuple[OperatorAddress, ...], wire("signers", operators(2, MAX_PARTIES))]
    #: One for each message, in their order; or none.
    presignature_ids: Annotated[
        tuple[bytes, ...], wire("presignatureIds", set_of(HASH, 0, MOST_REQUESTS))
    ] = ()
    #: The operators that gave nonces, ascending: any t of them may sign; or none.
    participants: Annotated[tuple[OperatorAddress, ...], wire("participants", operators(0, MAX_PARTIES))] = ()
    #: One from each participant, in their order; or none.
    nonces: Annotated[tuple[bytes, ...], wire("nonces", list_of(HASH, 0, MAX_PARTIES))] = ()
    user_authentication: Annotated[UserAuthentication, wire("userAuthentication", AUTHENTICATION)]

    def __attrs_post_init__(self) -> None:
        if self.presignature_ids and self.participants:
            raise InvalidFieldError("participants", "must be none where presignatures are named")
        if self.participants and not set(self.signers) <= set(self.participants):
            raise InvalidFieldError("signers", "must be among the participants")
        if len(self.nonces) != len(self.participants):
            raise InvalidFieldError("nonces", "must be one for each participant")


@frozen(kw_only=True)
class SignatureShare:
    """One signer's part of one signature, whose nonce is R' = R + δ·G: s = Σw / Σu over all signers."""

    presignature_id: Annotated[bytes, wire("presignatureId", HASH)]
    #: R.
    nonce_point: Annotated[bytes, wire("noncePoint", POINT)]
    #: The signer's numbers in the presignature as points, by which the share can be checked, and a proof of 64 bytes:
    #: φ·G, u·G, v·G; for each other signer, ascending, P and Q, what the two have exchanged; challenge and response.
    commitments: Annotated[bytes, wire("commitments", hex_up_to(_MOST_COMMITMENTS))]
    #: The hash that it signed.
    digest: Annotated[bytes, wire("digest", HASH)]
    #: Its share of the denominator.
    u: Annotated[int, wire("u", scalar(ORDER))] = field(repr=False)
    #: Its share of the numerator.
    w: Annotated[int, wire("w", scalar(ORDER))] = field(repr=False)


@frozen(kw_only=True)
class SignatureClaims(Claims):
    """A signer's shares of the signatures that a request asks for."""

    key_id: Annotated[MpcKeyId, wire("keyId", KEY_ID)]
    public_key: Annotated[bytes, wire("publicKey", POINT)]
    #: One for each message, in their order.
    shares: Annotated[
        tuple[SignatureShare, ...], wire("shares", list_of(nested(SignatureShare), 1, MOST_REQUESTS))
    ]


@frozen(kw_only=True)
class SignatureShares(SignedClaims[SignatureClaims]):
    """A node's signed answer to a signing request. Its index is its place among the key's participants."""

    TITLE = "the signature share"
    TAG = "dan-node/1 signature shares"
    CLAIMS = SignatureClaims
