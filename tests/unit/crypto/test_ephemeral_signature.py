"""Whether an ephemeral key signed something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.ephemeral_key import EphemeralKey, is_signed_by
from dan_async.errors import InvalidFieldError

KEYS = {name: EphemeralKey.from_hex("07" * 32, name) for name in ("secp256k1", "ed25519")}
OTHERS = {name: EphemeralKey.from_hex("08" * 32, name) for name in KEYS}
ALGORITHMS = st.sampled_from(sorted(KEYS))


def holds(key, data, signature, *, algorithm=None):
    return is_signed_by(key.public_key, algorithm or key.algorithm, data, signature)


@given(ALGORITHMS, st.binary(max_size=100))
def test_what_a_key_signs_is_signed_by_it(algorithm, data):
    """For both algorithms and any bytes; not by another key, and not other bytes."""
    signature = KEYS[algorithm].sign_message(data)
    assert holds(KEYS[algorithm], data, signature)
    assert not holds(OTHERS[algorithm], data, signature)
    assert not holds(KEYS[algorithm], data + b"x", signature)


@given(ALGORITHMS, st.data())
def test_a_changed_signature_does_not_hold(algorithm, data):
    """Whichever byte of r and s it is."""
    raw = bytearray.fromhex(KEYS[algorithm].sign_message(b"data")[2:])
    raw[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
    assert not holds(KEYS[algorithm], b"data", "0x" + raw.hex())


@pytest.mark.parametrize("algorithm", sorted(KEYS))
@pytest.mark.parametrize(
    "signature", ["", "0x", "0x" + "00" * 64, "0x" + "00" * 65, "0x" + "ff" * 65, "no hex"]
)
def test_what_is_no_signature_does_not_hold(algorithm, signature):
    """It is told apart from an error: whoever asks gets a no."""
    assert not holds(KEYS[algorithm], b"data", signature)


def test_a_key_on_no_curve_is_an_error():
    """It should never have been registered."""
    signature = KEYS["secp256k1"].sign_message(b"data")
    with pytest.raises(InvalidFieldError):
        is_signed_by(b"\4" + bytes(64), "secp256k1", b"data", signature)
