"""Proofs of possession."""

import secrets

import pytest
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER, add, base_multiply, encode, multiply, negate
from dan_async.devnet.mpc.field import hash_to_scalar, is_valid_proof, prove, scalar_to_bytes

SECRET = 0x1234567890ABCDEF
PUBLIC = base_multiply(SECRET)


def proof(context=b"context"):
    return prove(SECRET, PUBLIC, context=context, entropy=secrets.token_bytes)


@settings(max_examples=30)
@given(st.integers(1, ORDER - 1), st.binary(max_size=40))
def test_whoever_knows_the_logarithm_can_prove_it(secret, context):
    """For every secret and context."""
    public = base_multiply(secret)
    made = prove(secret, public, context=context, entropy=secrets.token_bytes)
    assert is_valid_proof(made, public, context=context)


def test_a_proof_holds_in_its_own_context_only():
    """Another session, party or vector makes another challenge."""
    assert not is_valid_proof(proof(b"one"), PUBLIC, context=b"two")


def test_a_proof_holds_for_its_own_point_only():
    """Neither for another point nor for the opposite one."""
    made = proof()
    assert not is_valid_proof(made, base_multiply(SECRET + 1), context=b"context")
    assert not is_valid_proof(made, negate(PUBLIC), context=b"context")


def test_two_proofs_of_one_secret_use_two_nonces():
    """One nonce in two proofs would show the secret."""
    assert proof()[:33] != proof()[:33]


def test_a_point_computed_from_others_cannot_be_proved():
    """The rogue key X - Y: its maker knows x, not the logarithm of the difference."""
    rogue = add([base_multiply(7), negate(PUBLIC)])
    made = prove(7, rogue, context=b"context", entropy=secrets.token_bytes)
    assert not is_valid_proof(made, rogue, context=b"context")


def test_the_challenge_covers_the_point():
    """Otherwise: choose nonce point and response, then compute the point that they are a proof for."""
    nonce_point = base_multiply(99)
    weak = hash_to_scalar("dan-dkg/1 proof of possession", b"context", encode(nonce_point))
    made_up = multiply(add([base_multiply(77), negate(nonce_point)]), pow(weak, -1, ORDER))
    assert not is_valid_proof(encode(nonce_point) + scalar_to_bytes(77), made_up, context=b"context")


def test_the_challenge_covers_the_nonce_point():
    """Otherwise: choose the response, then compute the nonce point that goes with it."""
    stranger = PrivateKey().public_key
    weak = hash_to_scalar("dan-dkg/1 proof of possession", b"context", encode(stranger))
    nonce_point = add([base_multiply(77), negate(multiply(stranger, weak))])
    assert not is_valid_proof(encode(nonce_point) + scalar_to_bytes(77), stranger, context=b"context")


@settings(max_examples=60)
@given(st.integers(0, 65 * 8 - 1))
def test_a_proof_with_one_bit_changed_does_not_hold(bit):
    """Each bit of nonce point and response counts."""
    changed = bytearray(proof())
    changed[bit // 8] ^= 1 << bit % 8
    assert not is_valid_proof(bytes(changed), PUBLIC, context=b"context")


@pytest.mark.parametrize("length", [0, 32, 33, 64, 66])
def test_a_proof_of_another_length_does_not_hold(length):
    """No exception escapes."""
    assert not is_valid_proof((proof() + b"\0")[:length], PUBLIC, context=b"context")


def test_response_zero_does_not_hold():
    """Zero times G is infinity; no exception escapes."""
    assert not is_valid_proof(encode(PUBLIC) + bytes(32), PUBLIC, context=b"context")
