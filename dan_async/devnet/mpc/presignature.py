"""
The last round of threshold signing: a presignature, a digest, one message from each signer, the signature.

DKLs23 (ePrint 2023/765), Protocol 3.6, the steps that need the digest. A presignature fixes the nonce before the digest is
known. That costs ECDSA some security margin, which matters for signers of a great many presignatures at a time (Groth and
Shoup, EUROCRYPT 2022, section 6): keep few in stock. Used for two digests, one presignature gives the key away. So it signs
once, and has no form in which it could be stored: it does not outlive the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from dan_async.crypto.point import ORDER
from dan_async.crypto.signature import recover_public_key
from dan_async.devnet.mpc.abort import ProtocolStateError
from dan_async.devnet.mpc.field import scalar_from_bytes, scalar_to_bytes
from dan_async.devnet.mpc.hashing import DIGEST_BYTES
from dan_async.devnet.mpc.pair_state import PairState, refuse_banned
from dan_async.devnet.mpc.signing_abort import SigningAbort, SigningReason
from dan_async.devnet.mpc.signing_messages import Envelope, SignMessage
from dan_async.errors import InvalidFieldError

_HALF_ORDER = ORDER // 2


def assemble(
    *,
    public_key: bytes,
    nonce_point: bytes,
    digest: bytes,
    shares: Mapping[int, tuple[int, int]],
    suspects: Sequence[int] = (),
) -> bytes:
    """
    Put the signers' shares together: s = Σw / Σu, made low.

    Args:
        public_key: The key, 33 bytes.
        nonce_point: R, 33 bytes; its x coordinate is below the group order.
        digest: What is signed.
        shares: u and w of each signer.
        suspects: Whom to blame if it does not work out.

    Returns:
        65 bytes r, s, v, with low s and v 27 or 28, of which it has been checked that they recover to the key.

    Raises:
        SigningAbort: They do not. The protocol cannot tell whose share is wrong.
    """
    denominator = sum(u for u, _ in shares.values()) % ORDER
    numerator = sum(w for _, w in shares.values()) % ORDER
    if not denominator:
        raise SigningAbort(SigningReason.INVALID_SIGNATURE, suspects)
    s = numerator * pow(denominator, -1, ORDER) % ORDER
    odd = nonce_point[0] & 1
    if s > _HALF_ORDER:  # -s belongs to -R, whose y has the other parity
        s, odd = ORDER - s, odd ^ 1
    signature = nonce_point[1:] + scalar_to_bytes(s) + bytes((27 + odd,))
    try:
        recovered = recover_public_key(digest, signature)
    except InvalidFieldError:
        raise SigningAbort(SigningReason.INVALID_SIGNATURE, suspects) from None
    if recovered != public_key:
        raise SigningAbort(SigningReason.INVALID_SIGNATURE, suspects)
    return signature


class Presignature:
    """
    One signer's half-made signature.

    Args:
        context: 32 bytes that name the session.
        index: This signer's index.
        signers: The indices of all signers.
        public_key: The key, 33 bytes.
        nonce_point: R, 33 bytes.
        mask: φ, this signer's share of the mask.
        u: This signer's share of r·φ.
        v: This signer's share of (key)·φ.
        pairs: The set-up with each other signer: none may have been banned when it signs.
    """

    def __init__(
        self,
        *,
        context: bytes,
        index: int,
        signers: tuple[int, ...],
        public_key: bytes,
        nonce_point: bytes,
        mask: int,
        u: int,
        v: int,
        pairs: Mapping[int, PairState],
    ) -> None:
        self._context, self._index, self._signers = context, index, signers
        self._public_key, self._nonce_point = public_key, nonce_point
        self._secrets = [(mask, u, v)]
        self._pairs = pairs
        self._digest = b""
        self._own: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"Presignature(id={self._context.hex()[:16]}, index={self._index}, spent={self.is_spent})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a presignature signs once, so it can be neither copied nor pickled")

    @property
    def id(self) -> bytes:
        """32 bytes that all of its signers know it by."""
        return self._context

    @property
    def signers(self) -> tuple[int, ...]:
        """The indices of all signers."""
        return self._signers

    @property
    def nonce_point(self) -> bytes:
        """R, 33 bytes."""
        return self._nonce_point

    @property
    def public_key(self) -> bytes:
        """The key that it is for, 33 bytes."""
        return self._public_key

    @property
    def is_spent(self) -> bool:
        """Whether it has signed, or was thrown away."""
        return not self._secrets

    def discard(self) -> None:
        """Throw it away unused."""
        self._secrets.clear()

    def sign(self, digest: bytes) -> bytes:
        """
        Round 3: give the message for every other signer. Works once, for one digest.

        Args:
            digest: 32 bytes. The caller has made sure that it may be signed.

        Raises:
            InvalidFieldError: The digest is not 32 bytes.
            SigningAbort: Another signer was banned in the meantime.
            ProtocolStateError: The presignature is spent.
        """
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise InvalidFieldError("digest", f"must be {DIGEST_BYTES} bytes")
        refuse_banned(self._pairs)
        try:
            mask, u, v = self._secrets.pop()  # one atomic step: of two threads, one gets them
        except IndexError:
            raise ProtocolStateError(
                "This presignature is spent", hint="Make a new one for each signature"
            ) from None
        r = int.from_bytes(self._nonce_point[1:], "big")
        w = (int.from_bytes(digest, "big") * mask + r * v) % ORDER
        self._digest, self._own = digest, (u, w)
        message = SignMessage(digest=digest, u=scalar_to_bytes(u), w=scalar_to_bytes(w))
        return message.encode(Envelope(self._context, self._index))

    def combine(self, messages: Mapping[int, bytes]) -> bytes:
        """
        Put the signature together and check it.

        Args:
            messages: What each other signer's ``sign`` gave.

        Returns:
            65 bytes r, s, v, with low s and v 27 or 28.

        Raises:
            SigningAbort: A message is missing or malformed or for another digest, or the signature does not verify.
            InvalidFieldError: The mapping has a key that is no other signer's index.
            ProtocolStateError: ``sign`` was not called before.
        """
        if self._own is None:
            raise ProtocolStateError("This presignature has not signed yet", hint="Call sign() first")
        shares = {self._index: self._own}
        for sender, message in from_all_others(self._index, self._signers, messages).items():
            part = SignMessage.decode(message, Envelope(self._context, sender))
            if part.digest != self._digest:
                raise SigningAbort(SigningReason.DIGEST_MISMATCH, (sender,))
            try:
                shares[sender] = scalar_from_bytes("u", part.u), scalar_from_bytes("w", part.w)
            except InvalidFieldError:
                raise SigningAbort(SigningReason.MALFORMED_MESSAGE, (sender,)) from None
        others = tuple(signer for signer in self._signers if signer != self._index)
        return assemble(
            public_key=self._public_key,
            nonce_point=self._nonce_point,
            digest=self._digest,
            shares=shares,
            suspects=others if len(others) == 1 else (),
        )


def from_all_others(index: int, signers: tuple[int, ...], messages: Mapping[int, bytes]) -> dict[int, bytes]:
    """
    Take one message of every other signer.

    Raises:
        SigningAbort: Some are missing; it names who.
        InvalidFieldError: The mapping has a key that is no other signer's index.
    """
    others = [signer for signer in signers if signer != index]
    if any(sender not in others for sender in messages):
        raise InvalidFieldError("messages", "must be keyed by the other signers' indices")
    missing = [signer for signer in others if signer not in messages]
    if missing:
        raise SigningAbort(SigningReason.MISSING_MESSAGE, missing)
    return {signer: messages[signer] for signer in others}
