"""Acknowledgements that are lies, each of its own kind. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from attrs import evolve

from dan_async.crypto.point import ORDER, base_multiply, encode
from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.mpc.field import Polynomial
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.wire.node_hashes import acknowledgement_digest, compute_key_id

__all__ = ["forge_shares", "forge_signature", "substitute_key"]

Sign = Callable[[bytes], bytes]


def _signed(ack: Acknowledgement, sign: Sign) -> Acknowledgement:
    return evolve(ack, signature=sign(acknowledgement_digest(ack)))


def forge_signature(ack: Acknowledgement) -> Acknowledgement:
    """Have a stranger sign it."""
    return _signed(ack, NodeIdentity.generate().sign)


def forge_shares(ack: Acknowledgement, sign: Sign) -> Acknowledgement:
    """List public shares that do not make the public key."""
    forged = (encode(base_multiply(1 + secrets.randbelow(ORDER - 1))) for _ in ack.public_shares)
    return _signed(evolve(ack, public_shares=tuple(forged)), sign)


def substitute_key(ack: Acknowledgement, sign: Sign, owner_id: str) -> Acknowledgement:
    """
    Speak of another key, of which everything is right: the shares make it, and its id is the hash of it.

    Args:
        ack: The true acknowledgement.
        sign: The operator's signature.
        owner_id: The owner, who goes into the key id.
    """
    polynomial = Polynomial.random(ack.threshold.t - 1, secrets.token_bytes)
    public_key = encode(base_multiply(polynomial.coefficients[0]))
    shares = (encode(base_multiply(polynomial.evaluate(i + 1))) for i in range(ack.threshold.n))
    key_id = compute_key_id(
        public_key=public_key,
        t=ack.threshold.t,
        participants=ack.participants,
        owner_id=owner_id,
        request_id=ack.request_id,
    )
    return _signed(evolve(ack, key_id=key_id, public_key=public_key, public_shares=tuple(shares)), sign)
