"""
How two nodes come to share a link's keys: signed ephemeral Diffie-Hellman. Pure; docs/reference/devnet.md has the bytes.

This is the SIGMA pattern (Krawczyk, "SIGMA: the SIGn-and-MAc approach to authenticated Diffie-Hellman", CRYPTO 2003,
section 5) without its identity protection, which nodes that publish their operators do not need: each side signs the
whole transcript, its role and both identities with its identity key, and shows that it holds the derived keys by sealing
that signature with AES-GCM under them. The keys come from fresh key pairs, so that a stolen identity key opens no
recorded link.
"""

from __future__ import annotations

import secrets

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dan_async.crypto.curve import ORDER, Point, base_multiply, decode, encode, multiply
from dan_async.crypto.hashes import tagged_hash
from dan_async.crypto.signature import recover_address
from dan_async.devnet.context import NodeIdentity
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.types import OperatorAddress

VERSION = b"dan-devnet-link/1"
#: version, dialler's operator, listener's operator, dialler's ephemeral public key
HELLO_LENGTH = len(VERSION) + 20 + 20 + 33
_SIGNATURE_LENGTH = 65
_TAG_LENGTH = 16
_LAST_COUNTER = 2**64 - 1


class SealingKey:
    """AES-256-GCM for one direction of one link; the nonce is the number of the frame, so none is used twice."""

    __slots__ = ("_cipher", "_counter")

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0

    def seal(self, frame: bytes) -> bytes:
        return self._cipher.encrypt(self._next(), frame, None)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt the next frame; raise ProtocolError if it was changed, left out, repeated or reordered."""
        try:
            return self._cipher.decrypt(self._next(), sealed, None)
        except InvalidTag:
            raise ProtocolError("a frame from the peer does not decrypt") from None

    def _next(self) -> bytes:
        if self._counter > _LAST_COUNTER:
            raise ProtocolError("the link has carried as many frames as its keys allow")
        nonce = self._counter.to_bytes(12, "big")
        self._counter += 1
        return nonce


@frozen
class LinkKeys:
    """The two keys of a link, one for each direction."""

    sending: SealingKey = field(repr=False)
    receiving: SealingKey = field(repr=False)


@frozen
class _Transcript:
    dialler: OperatorAddress
    listener: OperatorAddress
    dialler_key: bytes
    listener_key: bytes

    def digest(self, role: str) -> bytes:
        """Return H("dan-devnet link", version, role, both operators, both ephemeral keys), which that role signs."""
        return tagged_hash(
            "dan-devnet link",
            VERSION,
            role.encode(),
            bytes.fromhex(self.dialler[2:]),
            bytes.fromhex(self.listener[2:]),
            self.dialler_key,
            self.listener_key,
        )

    def keys(self, own_secret: int, peer_key: bytes, *, is_dialler: bool) -> LinkKeys:
        shared = encode(multiply(_ephemeral(peer_key), own_secret))
        derived = HKDF(SHA256(), 64, salt=self.digest("keys"), info=VERSION).derive(shared)
        from_dialler, from_listener = SealingKey(derived[:32]), SealingKey(derived[32:])
        return LinkKeys(from_dialler, from_listener) if is_dialler else LinkKeys(from_listener, from_dialler)


def _ephemeral(key: bytes) -> Point:
    try:
        return decode(key)
    except InvalidFieldError:
        raise ProtocolError("the peer's ephemeral key is not a point of the curve") from None


def _fresh_key() -> tuple[int, bytes]:
    secret = 1 + secrets.randbelow(ORDER - 1)
    return secret, encode(base_multiply(secret))


def _check_signature(digest: bytes, signature: bytes, operator: OperatorAddress) -> None:
    try:
        is_theirs = OperatorAddress(recover_address(digest, signature)) == operator
    except InvalidFieldError:
        is_theirs = False
    if not is_theirs:
        raise ProtocolError(f"the peer could not prove that it is operator {operator}")


class Dialler:
    """The side that opens a link: to one operator, and no other."""

    def __init__(self, identity: NodeIdentity, listener: OperatorAddress) -> None:
        self._identity = identity
        self._listener = listener
        self._secret, self._key = _fresh_key()

    def hello(self) -> bytes:
        """Return the first message: version, both operators, own ephemeral key."""
        operators = bytes.fromhex(self._identity.operator[2:] + self._listener[2:])
        return VERSION + operators + self._key

    def finish(self, answer: bytes) -> tuple[bytes, LinkKeys]:
        """Check the listener's answer, its ephemeral key and its sealed signature; return the own one, and the keys."""
        if len(answer) != 33 + _SIGNATURE_LENGTH + _TAG_LENGTH:
            raise ProtocolError("the peer's answer to the handshake has the wrong length")
        transcript = _Transcript(self._identity.operator, self._listener, self._key, answer[:33])
        keys = transcript.keys(self._secret, answer[:33], is_dialler=True)
        _check_signature(transcript.digest("listener"), keys.receiving.open(answer[33:]), self._listener)
        return keys.sending.seal(self._identity.sign(transcript.digest("dialler"))), keys


@frozen
class Accepted:
    """The listener's half-finished handshake: the alleged dialler, and the digest that its last message must sign."""

    dialler: OperatorAddress
    keys: LinkKeys
    expected_digest: bytes


def accept_hello(
    identity: NodeIdentity, hello: bytes, roster: frozenset[OperatorAddress]
) -> tuple[bytes, Accepted]:
    """Answer the first message of a dialler on the roster; return the answer, and the state for ``check_finish``."""
    if len(hello) != HELLO_LENGTH or not hello.startswith(VERSION):
        raise ProtocolError("the peer's first message is not a handshake of this version")
    at = len(VERSION)
    raw_dialler, raw_listener, key = hello[at : at + 20], hello[at + 20 : at + 40], hello[at + 40 :]
    if raw_listener != bytes.fromhex(identity.operator[2:]):
        raise ProtocolError("the peer wants to reach another operator")
    dialler = next((peer for peer in roster if bytes.fromhex(peer[2:]) == raw_dialler), None)
    if dialler is None or dialler == identity.operator:
        raise ProtocolError("the peer is not on the roster")
    secret, own_key = _fresh_key()
    transcript = _Transcript(dialler, identity.operator, key, own_key)
    keys = transcript.keys(secret, key, is_dialler=False)
    answer = own_key + keys.sending.seal(identity.sign(transcript.digest("listener")))
    return answer, Accepted(dialler, keys, transcript.digest("dialler"))


def check_finish(accepted: Accepted, finish: bytes) -> None:
    _check_signature(accepted.expected_digest, accepted.keys.receiving.open(finish), accepted.dialler)
