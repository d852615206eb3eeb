"""
The messages of threshold signing, as bytes.

Every message begins with 35 bytes: its kind, the session's context (32 bytes), the sender's index and the recipient's, which
is 0 where the message goes to all. All lengths are fixed, so that each message has one encoding::

    commit     header, set-up id of the pair (32), commitment (32), vector OLE receiver's message
    multiply   header, hash of all commitments (32), nonce (32), points R, A, Γu, Γv (33 each), ψ (32), vector OLE reply
    sign       header, digest (32), u (32), w (32)

The first two go to one party each; the last is the same for all.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from dan_async.devnet.mpc.hashing import DIGEST_BYTES
from dan_async.devnet.mpc.ot_extension import EXTENSION_BYTES
from dan_async.devnet.mpc.schnorr import POINT_BYTES
from dan_async.devnet.mpc.signing_abort import SigningAbort, SigningReason
from dan_async.devnet.mpc.vole import REPLY_BYTES

NONCE_BYTES = 32
_SCALAR = 32


class _Kind(IntEnum):
    COMMIT = 17
    MULTIPLY = 18
    SIGN = 19


_LAYOUT = {
    _Kind.COMMIT: (DIGEST_BYTES, DIGEST_BYTES, EXTENSION_BYTES),
    _Kind.MULTIPLY: (DIGEST_BYTES, NONCE_BYTES, *4 * (POINT_BYTES,), _SCALAR, REPLY_BYTES),
    _Kind.SIGN: (DIGEST_BYTES, _SCALAR, _SCALAR),
}


#: As recipient: all other signers.
ALL = 0


@frozen
class Envelope:
    """
    What a message's header says.

    Args:
        context: The session's context, 32 bytes.
        sender: The sender's index.
        recipient: The recipient's index, or ``ALL``.
    """

    context: bytes
    sender: int
    recipient: int = ALL

    def seal(self, kind: _Kind, *parts: bytes) -> bytes:
        """Give a message's bytes."""
        return b"".join((bytes((kind,)), self.context, bytes((self.sender, self.recipient)), *parts))

    def open(self, kind: _Kind, message: bytes) -> list[bytes]:
        """
        Take a message apart.

        Raises:
            SigningAbort: It is malformed, or has another header. A message that is not even meant for this session and
                recipient must not get as far as the checks whose failure bans.
        """
        header = self.seal(kind)
        layout = _LAYOUT[kind]
        length = len(header) + sum(layout)
        if not isinstance(message, bytes) or len(message) != length or not message.startswith(header):
            raise SigningAbort(SigningReason.MALFORMED_MESSAGE, (self.sender,))
        parts, at = [], len(header)
        for size in layout:
            parts.append(message[at : at + size])
            at += size
        return parts


@frozen(kw_only=True)
class CommitMessage:
    """Round 1: a commitment to R and A, and the start of the multiplication in which the sender receives."""

    setup_id: bytes
    commitment: bytes
    vole: bytes

    def encode(self, envelope: Envelope) -> bytes:
        """Give the message's bytes."""
        return envelope.seal(_Kind.COMMIT, self.setup_id, self.commitment, self.vole)

    @classmethod
    def decode(cls, message: bytes, envelope: Envelope) -> CommitMessage:
        """
        Read the message.

        Raises:
            SigningAbort: It is malformed, or of another session, sender or recipient.
        """
        setup_id, commitment, vole = envelope.open(_Kind.COMMIT, message)
        return cls(setup_id=setup_id, commitment=commitment, vole=vole)


@frozen(kw_only=True, repr=False)
class MultiplyMessage:
    """Round 2: opening, the sender's half of a multiplication, and what lets the recipient check it. Its repr is empty."""

    echo: bytes
    nonce: bytes
    nonce_point: bytes
    key_point: bytes
    gamma_u: bytes
    gamma_v: bytes
    psi: bytes
    vole: bytes

    def __repr__(self) -> str:
        return "MultiplyMessage(***)"

    def encode(self, envelope: Envelope) -> bytes:
        """Give the message's bytes."""
        points = (self.nonce_point, self.key_point, self.gamma_u, self.gamma_v)
        return envelope.seal(_Kind.MULTIPLY, self.echo, self.nonce, *points, self.psi, self.vole)

    @classmethod
    def decode(cls, message: bytes, envelope: Envelope) -> MultiplyMessage:
        """
        Read the message.

        Raises:
            SigningAbort: It is malformed, or of another session, sender or recipient.
        """
        echo, nonce, nonce_point, key_point, gamma_u, gamma_v, psi, vole = envelope.open(
            _Kind.MULTIPLY, message
        )
        return cls(
            echo=echo,
            nonce=nonce,
            nonce_point=nonce_point,
            key_point=key_point,
            gamma_u=gamma_u,
            gamma_v=gamma_v,
            psi=psi,
            vole=vole,
        )


@frozen(kw_only=True)
class SignMessage:
    """Round 3: the sender's shares of numerator and denominator of s."""

    digest: bytes
    u: bytes
    w: bytes

    def encode(self, envelope: Envelope) -> bytes:
        """Give the message's bytes."""
        return envelope.seal(_Kind.SIGN, self.digest, self.u, self.w)

    @classmethod
    def decode(cls, message: bytes, envelope: Envelope) -> SignMessage:
        """
        Read the message.

        Raises:
            SigningAbort: It is malformed, or of another session, sender or recipient.
        """
        digest, u, w = envelope.open(_Kind.SIGN, message)
        return cls(digest=digest, u=u, w=w)
