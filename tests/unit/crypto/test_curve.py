"""Points of secp256k1, against plain integer arithmetic."""

import pytest
from coincurve import PublicKey
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto import curve as point
from dan_async.crypto.curve import FIELD_PRIME, ORDER
from dan_async.errors import InvalidFieldError

SCALARS = st.integers(1, ORDER - 1)
G = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


def coordinates(key):
    """x and y."""
    return key.point()


def plain_add(a, b):
    """The group law, written out; None is infinity."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % FIELD_PRIME == 0:
        return None
    rise, run = (3 * a[0] * a[0], 2 * a[1]) if a == b else (b[1] - a[1], b[0] - a[0])
    slope = rise * pow(run, -1, FIELD_PRIME)
    x = (slope * slope - a[0] - b[0]) % FIELD_PRIME
    return x, (slope * (a[0] - x) - a[1]) % FIELD_PRIME


def plain_multiply(a, scalar):
    """Double and add."""
    result = None
    for bit in f"{scalar:b}":
        result = plain_add(result, result)
        if bit == "1":
            result = plain_add(result, a)
    return result


def test_the_base_point():
    """1·G is the G of SEC 2."""
    assert point.encode(point.base_multiply(1)).hex() == G


@given(SCALARS)
def test_base_multiply_is_repeated_addition(scalar):
    """scalar·G is what the group law gives."""
    g = coordinates(point.decode(bytes.fromhex(G)))
    assert coordinates(point.base_multiply(scalar)) == plain_multiply(g, scalar)


@given(SCALARS, SCALARS)
def test_multiply_is_multiplication_of_scalars(a, b):
    """a·(b·G) = (a·b)·G."""
    assert point.multiply(point.base_multiply(b), a) == point.base_multiply(a * b)


@given(SCALARS)
def test_scalars_are_reduced(scalar):
    """Negative scalars and those beyond q are taken mod q."""
    base = point.base_multiply(7)
    assert (
        point.multiply(base, scalar - ORDER)
        == point.multiply(base, scalar)
        == point.multiply(base, scalar + ORDER)
    )
    assert point.base_multiply(scalar + ORDER) == point.base_multiply(scalar)


@pytest.mark.parametrize("scalar", [0, ORDER, -ORDER])
def test_zero_is_refused(scalar):
    """Infinity is no point, so 0 is no scalar."""
    with pytest.raises(ValueError, match="0 mod q"):
        point.base_multiply(scalar)
    with pytest.raises(ValueError, match="0 mod q"):
        point.multiply(point.base_multiply(1), scalar)


@given(st.lists(SCALARS, max_size=6))
def test_add_is_addition_of_scalars(scalars):
    """Σ (s·G) = (Σ s)·G, and infinity is None."""
    total = sum(scalars) % ORDER
    result = point.add([point.base_multiply(scalar) for scalar in scalars])
    assert result == (point.base_multiply(total) if total else None)


def test_a_sum_of_infinity_is_none():
    """A point and its negative make infinity; so does adding nothing."""
    p = point.base_multiply(5)
    assert point.add([p, point.negate(p)]) is None
    assert point.add([]) is None


def test_a_point_can_be_added_to_itself():
    """Doubling is no special case."""
    p = point.base_multiply(5)
    assert point.add([p, p]) == point.base_multiply(10)


@given(SCALARS)
def test_negate_is_the_negative_scalar(scalar):
    """−(s·G) = (−s)·G."""
    assert point.negate(point.base_multiply(scalar)) == point.base_multiply(-scalar)


@given(SCALARS)
def test_decode_reads_what_encode_writes(scalar):
    """A point survives its encoding, which has 33 bytes."""
    p = point.base_multiply(scalar)
    assert len(point.encode(p)) == 33
    assert point.decode(point.encode(p)) == p


@given(SCALARS)
def test_compress_takes_both_forms(scalar):
    """Both forms of a key turn into the compressed one, which is still the same point."""
    p = point.base_multiply(scalar)
    short, long = p.format(), p.format(compressed=False)
    assert point.compress(long) == point.compress(short) == short
    assert point.decode(short).format(compressed=False) == long


LONG = PublicKey(bytes.fromhex(G)).format(compressed=False)


@pytest.mark.parametrize(
    "raw", [LONG, b"", b"\x02" + bytes(31), b"\x02" + bytes(33), bytes(33), G, None, bytearray(33)]
)
def test_decode_takes_compressed_points_only(raw):
    """At the edges a point has one encoding."""
    with pytest.raises(InvalidFieldError):
        point.decode(raw)


def test_decode_refuses_what_is_not_on_the_curve():
    """An x without a y is no point; the error names the field."""
    with pytest.raises(InvalidFieldError, match="public_share is not a point of secp256k1"):
        point.decode(b"\x02" + b"\xff" * 32, field="public_share")


@pytest.mark.parametrize(
    "raw", [bytes([6 + LONG[64] % 2]) + LONG[1:], b"\x04" + b"\x01" * 64, LONG[1:], b"", b"\x00", G, None]
)
def test_compress_refuses_what_is_no_sec1_key(raw):
    """The hybrid form, points off the curve, other lengths and other types are refused."""
    with pytest.raises(InvalidFieldError) as caught:
        point.compress(raw)
    assert caught.value.field == "public_key"
