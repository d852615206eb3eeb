"""
dan-node/1: the messages between client and node.

docs/reference/node-protocol.md is the specification. Each message is one class, which both sides use; before them stand the
hashes that both sides compute: H(tag, part, …) of crypto.hashes, with addresses as 20 bytes and points as 33.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Generic, Self, TypeVar, cast

from attrs import evolve, field, frozen

from dan_async._values import MAX_SAFE_INT, to_hex
from dan_async.config import MAX_PARTIES, Threshold
from dan_async.crypto.curve import ORDER, Point, add, base_multiply
from dan_async.crypto.curve import decode as decode_point
from dan_async.crypto.curve import encode as encode_point
from dan_async.crypto.ephemeral_key import is_signed_by
from dan_async.crypto.hashes import tagged_hash
from dan_async.crypto.signature import signer_of
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError
from dan_async.protocols.fields import (
    ADDRESS,
    CHECKED_BY_CLASS,
    HASH,
    KEY_ID,
    POINT,
    REQUEST_ID,
    SIGNATURE,
    Form,
    Message,
    decode_canonical,
    encode,
    form_of,
    hex_bytes,
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
from dan_async.protocols.setups import UserAuthentication
from dan_async.protocols.sign_request import MOST_REQUESTS
from dan_async.types import Json, KeyAlgorithm, MpcKeyId, OperatorAddress, RequestId

PROTOCOL = "dan-node/1"

#: Revisions in which an owner may have signed a setup; the node checks the typed data of that revision.
REVISIONS = ("0.1", "0.3", "1")

#: Operations of an owner, as the owner signs them, and the JSON-RPC method that carries each out.
CHANGES = {"addEphemeralKey": "dan_add_ephemeral_key", "revokeEphemeralKey": "dan_revoke_ephemeral_key"}

REGISTER_PASSKEY = "registerPasskey"

METHODS = {"keygen": "dan_keygen", REGISTER_PASSKEY: "dan_register_passkey", **CHANGES}

SETTLE_KEYGEN, CERTIFY_KEYGEN = "dan_settle_keygen", "dan_certify_keygen"

#: Several key generations in one, and how many these are at most.
KEYGEN_BATCH, MOST_IN_BATCH = "dan_keygen_batch", 16

_MOST_CERTIFICATE = 4096

#: The operation of a signing request's setup.
SIGNGEN = "signgen"

PRESIGN = "dan_presign"

SIGN = "dan_sign"

#: How many new starts of a key generation a node looks for. A client starts anew far less often.
MOST_RESTARTS = 32

#: Longest text of claims, in characters.
_MOST_CLAIMS = 256 * 1024

#: Bytes of commitments: three points, two for each other signer, and a proof.
_MOST_COMMITMENTS = 33 * (3 + 2 * (MAX_PARTIES - 1)) + 64

#: Latest time that fits the hash's 32 bits.
_LATEST = 2**32 - 1


# --- hashes -----------------------------------------------------------------------------------------------------------


def identity_digest(*, operator: OperatorAddress, nonce: bytes, time_ms: int) -> bytes:
    """H("dan-node/1 identity", operator, nonce, time): signed by a node to prove its identity."""
    return tagged_hash("dan-node/1 identity", operator, nonce, time_ms.to_bytes(8, "big"))


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
    pairs: list[OperatorAddress | bytes] = []
    for pair in zip(participants, nonces, strict=True):
        pairs += pair
    return tagged_hash(
        "dan-node/1 challenge",
        operation.encode(),
        request_id,
        setup_digest,
        len(participants),
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
            t,
            len(participants),
            *participants,
            owner_id.lower().encode(),
            request_id,
        ).hex()
    )


def restarted_request_id(request_id: RequestId, restart: int) -> RequestId:
    """
    The id of the request that follows when a key generation has to be started again with other participants.

    H("dan-node/1 restart", first request id, number of the restart): whoever knows the first id can ask after all of them.
    """
    return RequestId(to_hex(tagged_hash("dan-node/1 restart", request_id, restart)))


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
    return tagged_hash("dan-node/1 settle", request_id, operator, eph_pk)


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
        request_id,
        bytes.fromhex(key_id),
        eph_id.encode(),
        len(signers),
        *signers,
        expires_at,
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
        "dan-node/1 nonce shift", presignature_id, public_key, digest, len(signers), *signers
    )
    return int.from_bytes(hashed, "big") % ORDER


def shift_nonce(nonce_point: bytes, shift: int) -> bytes | None:
    """Return R'; None in the case, which does not occur, that no signature can have it."""
    shifted = add([decode_point(nonce_point), *([base_multiply(shift)] if shift else [])])
    if shifted is None:
        return None
    encoded = encode_point(shifted)
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
        *map(encode_point, announcements),
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
        request_id,
        setup_digest,
        len(signers),
        *signers,
        *presignature_ids,
    )


# --- requests ---------------------------------------------------------------------------------------------------------


AUTHENTICATION: Form[UserAuthentication] = nested(
    UserAuthentication,
    wire("method", one_of("eoa", "ephemeral", "passkey")),
    wire("id", CHECKED_BY_CLASS),
    wire("credentials", CHECKED_BY_CLASS),
    wire("signature", CHECKED_BY_CLASS),
)


@frozen(kw_only=True, eq=False, repr=False)
class IdentifyParams(Message):
    """Parameters of ``dan_identify``: 32 bytes, fresh from the client."""

    nonce: Annotated[bytes, wire("nonce", HASH)]


@frozen(kw_only=True, eq=False, repr=False)
class ChallengeParams(Message):
    """Parameters of ``dan_challenge``."""

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]
    operation: Annotated[str, wire("operation", string(32))]
    setup_hash: Annotated[bytes, wire("setupHash", HASH)]
    #: The key of an operation on one: a node that does not hold it says so at once.
    key_id: Annotated[MpcKeyId | None, wire("keyId", KEY_ID, optional=True)] = None


@frozen(kw_only=True, eq=False, repr=False)
class KeygenParams(Message):
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


@frozen(kw_only=True, eq=False, repr=False)
class KeygenBatchParams(Message):
    """Parameters of ``dan_keygen_batch``: requests of ``dan_keygen`` with the same participants and t."""

    keygens: Annotated[
        tuple[KeygenParams, ...], wire("keygens", list_of(nested(KeygenParams), 2, MOST_IN_BATCH))
    ]


@frozen(kw_only=True, eq=False, repr=False)
class SettleParams(Message):
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


#: By which participants convince each other that all of them agree on a key. Clients do not look into it.
CERTIFICATE = hex_up_to(_MOST_CERTIFICATE)


@frozen(kw_only=True, eq=False, repr=False)
class CertifyParams(Message):
    """Parameters of ``dan_certify_keygen``, by which a node gets a certificate that it lacks."""

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]
    certificate: Annotated[bytes, wire("certificate", CERTIFICATE)]


# --- results ----------------------------------------------------------------------------------------------------------


class Result(Message):
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


@frozen(kw_only=True, eq=False, repr=False)
class Identity(Result):
    """Result of ``dan_identify``: operator, time in Unix milliseconds, and the signature over ``identity_digest``."""

    TITLE = "the node's identity"

    protocol: Annotated[str, wire("protocol", one_of(PROTOCOL))] = PROTOCOL
    operator: Annotated[OperatorAddress, wire("operator", ADDRESS)]
    time_ms: Annotated[int, wire("time", number(0, MAX_SAFE_INT))]
    signature: Annotated[bytes, wire("signature", SIGNATURE)]


@frozen(kw_only=True, eq=False, repr=False)
class ChallengeResult(Result):
    """Result of ``dan_challenge``: a single-use nonce (32 bytes) and when it ends, in Unix seconds."""

    TITLE = "the node's challenge"

    nonce: Annotated[bytes, wire("nonce", HASH)]
    expires_at: Annotated[int, wire("expiresAt", number(0, MAX_SAFE_INT))]


# --- signed claims ----------------------------------------------------------------------------------------------------
#
# A node writes its claims as one text and signs that very text. Nodes that agree write the same text, so a client compares
# texts, reads one of them, and believes nothing else.


@frozen(kw_only=True, eq=False, repr=False)
class Claims(Message):
    """The statement of a node; nodes that agree write the same text of it."""

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]


C = TypeVar("C", bound=Claims)


@frozen(kw_only=True, eq=False, repr=False)
class SignedClaims(Result, Generic[C]):
    """
    Claims as their one text, signed by a node's operator.

    Its signature is over the text as it came, so it can be checked before the text is read, and texts can be compared.
    """

    #: The class of the claims, C.
    CLAIMS: ClassVar[type[Claims]]
    #: Names the kind of claims, in the hash that the operator signs.
    TAG: ClassVar[str]

    text: Annotated[str, wire("claims", string(_MOST_CLAIMS))] = field(repr=False)
    operator: Annotated[OperatorAddress, wire("operator", ADDRESS)]
    #: The node's place among the participants of the request, 1 to n; of the key, for signatures.
    party_index: Annotated[int, wire("partyIndex", number(1, MAX_PARTIES))]
    #: 65 bytes over ``digest``.
    signature: Annotated[bytes, wire("signature", SIGNATURE)]

    @cached_property
    def claims(self) -> C:
        """The claims, read when they are first asked for; ``NodeProtocolError`` if they are malformed."""
        try:
            return cast("C", decode_canonical(self.CLAIMS, self.text, "claims"))
        except InvalidFieldError as error:
            raise malformed(self.TITLE, error) from error

    @classmethod
    def read_whole(cls, value: Json) -> Self:
        """Read it together with its claims; see ``read``."""
        found = cls.read(value)
        _ = found.claims  # raises if they are malformed
        return found

    @classmethod
    def make(
        cls,
        claims: Claims,
        *,
        operator: OperatorAddress,
        party_index: int,
        sign: Callable[[bytes], bytes],
    ) -> Self:
        """Write claims and have the operator sign them."""
        unsigned = cls(text=encode(claims), operator=operator, party_index=party_index, signature=b"")
        return evolve(unsigned, signature=sign(unsigned.digest(claims.request_id)))

    def share_claims(self, other: Self) -> None:
        """Spare this one reading and keeping its text: *other* has the very same, and has read it."""
        assert self.text == other.text
        object.__setattr__(self, "text", other.text)
        object.__setattr__(self, "claims", other.claims)  # as cached_property does

    def digest(self, request_id: RequestId) -> bytes:
        """H(tag, request id, operator, party index, the claims' text): signed by the operator."""
        return tagged_hash(self.TAG, request_id, self.operator, self.party_index, self.text.encode())

    def signer(self, request_id: RequestId) -> str | None:
        """Return the address that signed this for a request; None if the signature is malformed."""
        return signer_of(self.digest(request_id), self.signature)

    def problem(self, *, request_id: RequestId, operator: OperatorAddress, party_index: int | None) -> str:
        """Return why this is not that node's word on that request; empty if it is."""
        if self.operator != operator:
            return f"it speaks for another operator, {self.operator}"
        if self.party_index != party_index:
            return f"it claims index {self.party_index}, which is not the node's"
        signer = self.signer(request_id)
        if signer is None:
            return "its signature is malformed"
        return "" if signer == operator else "it is not signed by the node's operator"


@frozen(kw_only=True, eq=False, repr=False)
class KeyClaims(Claims):
    """Claims about a key that t of n nodes hold."""

    key_id: Annotated[MpcKeyId, wire("keyId", KEY_ID)]
    t: Annotated[int, wire("t", number(2, MAX_PARTIES))]
    n: Annotated[int, wire("n", number(2, MAX_PARTIES))]

    def __attrs_post_init__(self) -> None:
        _ = self.threshold  # raises if t is more than n

    @cached_property
    def threshold(self) -> Threshold:
        return Threshold(self.t, self.n)


@frozen(kw_only=True, eq=False)
class KeygenClaims(KeyClaims):
    """A key as the nodes that made it describe it."""

    public_key: Annotated[bytes, wire("publicKey", POINT)]
    #: Every participant's public share, in the order of the participants.
    public_shares: Annotated[tuple[bytes, ...], wire("publicShares", list_of(POINT, 1, MAX_PARTIES))]
    participants: Annotated[tuple[OperatorAddress, ...], wire("participants", operators(1, MAX_PARTIES))]
    #: Hash over the whole key generation, equal on every honest node.
    transcript_hash: Annotated[bytes, wire("transcriptHash", HASH)]

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if len(self.public_shares) != len(self.participants):
            raise InvalidFieldError("publicShares", "must be one for each participant")


@frozen(kw_only=True, eq=False)
class Acknowledgement(SignedClaims[KeygenClaims]):
    """
    A node's signed statement that it holds a share of a key: the result of ``dan_keygen``.

    The properties of the key read the claims, and raise ``NodeProtocolError`` if those are malformed. An acknowledgement
    that a key generation reports was checked.
    """

    TITLE = "the acknowledgement"
    TAG = "dan-node/1 acknowledgement"
    CLAIMS = KeygenClaims

    #: Proves to the other participants that all of them agree: for those that have none.
    certificate: Annotated[bytes, wire("certificate", CERTIFICATE)] = field(default=b"", repr=False)

    @property
    def summary(self) -> str:
        """Its statement, in a few words."""
        return f"acknowledged key {self.claims.key_id[:8]}…"

    @property
    def request_id(self) -> RequestId:
        return self.claims.request_id

    @property
    def key_id(self) -> MpcKeyId:
        """The key's id, a hash that the client computes again."""
        return self.claims.key_id

    @property
    def public_key(self) -> bytes:
        """The distributed public key, 33 bytes."""
        return self.claims.public_key

    @property
    def public_shares(self) -> tuple[bytes, ...]:
        return self.claims.public_shares

    @property
    def public_share(self) -> bytes:
        """The node's own public share."""
        if self.party_index > len(self.public_shares):
            raise malformed(self.TITLE, InvalidFieldError("partyIndex", "is more than n"))
        return self.claims.public_shares[self.party_index - 1]

    @property
    def threshold(self) -> Threshold:
        return self.claims.threshold

    @property
    def participants(self) -> tuple[OperatorAddress, ...]:
        return self.claims.participants

    @property
    def transcript_hash(self) -> bytes:
        return self.claims.transcript_hash


@frozen(kw_only=True, eq=False, repr=False)
class KeygenBatchResult(Result):
    """Result of ``dan_keygen_batch``: an acknowledgement for each request, in their order, as ``dan_keygen`` returns it."""

    TITLE = f"the result of {KEYGEN_BATCH}"

    acknowledgements: Annotated[
        tuple[Acknowledgement, ...],
        wire("acknowledgements", list_of(nested(Acknowledgement), 2, MOST_IN_BATCH)),
    ]


@frozen(kw_only=True, eq=False)
class Settlement(Result):
    """Result of ``dan_settle_keygen``: at most one acknowledgement for each id."""

    TITLE = f"the result of {SETTLE_KEYGEN}"

    acknowledgements: Annotated[
        tuple[Acknowledgement, ...],
        wire("acknowledgements", list_of(nested(Acknowledgement), 0, MOST_RESTARTS + 1)),
    ]

    @classmethod
    def read(cls, value: Json) -> Self:
        """Read it, and the claims of each acknowledgement; see ``Result.read``."""
        found = super().read(value)
        for acknowledgement in found.acknowledgements:
            _ = acknowledgement.claims  # raises if they are malformed
        return found


@frozen(kw_only=True, eq=False, repr=False)
class ChangeClaims(KeyClaims):
    """An ephemeral key that was added to a key, or revoked. The key's id is the hash of what it says of the key."""

    public_key: Annotated[bytes, wire("publicKey", POINT)]
    #: The key's, in its order; the request may be for some of them.
    participants: Annotated[tuple[OperatorAddress, ...], wire("participants", operators(1, MAX_PARTIES))]
    #: The request that made the key.
    keygen_id: Annotated[RequestId, wire("keygenId", REQUEST_ID)]
    operation: Annotated[str, wire("operation", string(32))]
    eph_id: Annotated[str, wire("ephId", string(256))]

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if len(self.participants) != self.n:
            raise InvalidFieldError("participants", "must be n")

    def is_of_key(self, owner_id: str) -> bool:
        """Whether t, n and participants are those of this owner's key, which no node can lie about."""
        return self.key_id == compute_key_id(
            public_key=self.public_key,
            t=self.t,
            participants=self.participants,
            owner_id=owner_id,
            request_id=self.keygen_id,
        )


class ChangeReceipt(SignedClaims[ChangeClaims]):
    """A node's signed statement that it has added or revoked an ephemeral key."""

    __slots__ = ()

    TITLE = "the receipt"
    TAG = "dan-node/1 receipt"
    CLAIMS = ChangeClaims


@frozen(kw_only=True, eq=False, repr=False)
class PasskeyClaims(Claims):
    """A passkey that was registered (docs/how-to/passkeys.md, "On the nodes")."""

    credential_id: Annotated[str, wire("credentialId", string(1400))]


class PasskeyReceipt(SignedClaims[PasskeyClaims]):
    """A node's signed statement that it knows a passkey from now on."""

    __slots__ = ()

    TITLE = "the receipt"
    TAG = "dan-node/1 passkey receipt"
    CLAIMS = PasskeyClaims


# --- signing: dan_presign has t nodes prepare one signature, dan_sign makes shares of one over a message ----------------


@frozen(kw_only=True, eq=False, repr=False)
class PresignParams(Message):
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


@frozen(kw_only=True, eq=False, repr=False)
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


@frozen(kw_only=True, eq=False, repr=False)
class SignParams(Message):
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


@frozen(kw_only=True, eq=False, repr=False)
class SignatureShare(Message):
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


@frozen(kw_only=True, eq=False, repr=False)
class SignatureClaims(Claims):
    """A signer's shares of the signatures that a request asks for."""

    key_id: Annotated[MpcKeyId, wire("keyId", KEY_ID)]
    public_key: Annotated[bytes, wire("publicKey", POINT)]
    #: One for each message, in their order.
    shares: Annotated[
        tuple[SignatureShare, ...], wire("shares", list_of(nested(SignatureShare), 1, MOST_REQUESTS))
    ]


class SignatureShares(SignedClaims[SignatureClaims]):
    """A node's signed answer to a signing request. Its index is its place among the key's participants."""

    __slots__ = ()

    TITLE = "the signature share"
    TAG = "dan-node/1 signature shares"
    CLAIMS = SignatureClaims
