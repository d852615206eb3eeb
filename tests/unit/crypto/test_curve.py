"""Points of secp256k1, against plain integer arithmetic; Lagrange interpolation, plain and in the exponent."""

import secrets
from itertools import combinations

import pytest
from coincurve import PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto import curve
from dan_async.crypto.curve import (
    FIELD_PRIME,
    ORDER,
    add,
    base_multiply,
    lagrange_coefficients,
    points_fit_degree,
)
from dan_async.errors import InvalidFieldError
from tests.interpolation import interpolate_point, interpolate_scalar

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
    assert curve.encode(curve.base_multiply(1)).hex() == G


@given(SCALARS)
def test_base_multiply_is_repeated_addition(scalar):
    """scalar·G is what the group law gives."""
    g = coordinates(curve.decode(bytes.fromhex(G)))
    assert coordinates(curve.base_multiply(scalar)) == plain_multiply(g, scalar)


@given(SCALARS, SCALARS)
def test_multiply_is_multiplication_of_scalars(a, b):
    """a·(b·G) = (a·b)·G."""
    assert curve.multiply(curve.base_multiply(b), a) == curve.base_multiply(a * b)


@given(SCALARS)
def test_scalars_are_reduced(scalar):
    """Negative scalars and those beyond q are taken mod q."""
    base = curve.base_multiply(7)
    assert (
        curve.multiply(base, scalar - ORDER)
        == curve.multiply(base, scalar)
        == curve.multiply(base, scalar + ORDER)
    )
    assert curve.base_multiply(scalar + ORDER) == curve.base_multiply(scalar)


@pytest.mark.parametrize("scalar", [0, ORDER, -ORDER])
def test_zero_is_refused(scalar):
    """Infinity is no point, so 0 is no scalar."""
    with pytest.raises(ValueError, match="0 mod q"):
        curve.base_multiply(scalar)
    with pytest.raises(ValueError, match="0 mod q"):
        curve.multiply(curve.base_multiply(1), scalar)


@given(st.lists(SCALARS, max_size=6))
def test_add_is_addition_of_scalars(scalars):
    """Σ (s·G) = (Σ s)·G, and infinity is None."""
    total = sum(scalars) % ORDER
    result = curve.add([curve.base_multiply(scalar) for scalar in scalars])
    assert result == (curve.base_multiply(total) if total else None)


def test_a_sum_of_infinity_is_none():
    """A point and its negative make infinity; so does adding nothing."""
    p = curve.base_multiply(5)
    assert curve.add([p, curve.negate(p)]) is None
    assert curve.add([]) is None


def test_a_point_can_be_added_to_itself():
    """Doubling is no special case."""
    p = curve.base_multiply(5)
    assert curve.add([p, p]) == curve.base_multiply(10)


@given(SCALARS)
def test_negate_is_the_negative_scalar(scalar):
    """−(s·G) = (−s)·G."""
    assert curve.negate(curve.base_multiply(scalar)) == curve.base_multiply(-scalar)


@given(SCALARS)
def test_decode_reads_what_encode_writes(scalar):
    """A point survives its encoding, which has 33 bytes."""
    p = curve.base_multiply(scalar)
    assert len(curve.encode(p)) == 33
    assert curve.decode(curve.encode(p)) == p


@given(SCALARS)
def test_compress_takes_both_forms(scalar):
    """Both forms of a key turn into the compressed one, which is still the same point."""
    p = curve.base_multiply(scalar)
    short, long = p.format(), p.format(compressed=False)
    assert curve.compress(long) == curve.compress(short) == short
    assert curve.decode(short).format(compressed=False) == long


LONG = PublicKey(bytes.fromhex(G)).format(compressed=False)


@pytest.mark.parametrize(
    "raw", [LONG, b"", b"\x02" + bytes(31), b"\x02" + bytes(33), bytes(33), G, None, bytearray(33)]
)
def test_decode_takes_compressed_points_only(raw):
    """At the edges a point has one encoding."""
    with pytest.raises(InvalidFieldError):
        curve.decode(raw)


def test_decode_refuses_what_is_not_on_the_curve():
    """An x without a y is no point; the error names the field."""
    with pytest.raises(InvalidFieldError, match="public_share is not a point of secp256k1"):
        curve.decode(b"\x02" + b"\xff" * 32, field="public_share")


@pytest.mark.parametrize(
    "raw", [bytes([6 + LONG[64] % 2]) + LONG[1:], b"\x04" + b"\x01" * 64, LONG[1:], b"", b"\x00", G, None]
)
def test_compress_refuses_what_is_no_sec1_key(raw):
    """The hybrid form, points off the curve, other lengths and other types are refused."""
    with pytest.raises(InvalidFieldError) as caught:
        curve.compress(raw)
    assert caught.value.field == "public_key"


# --- Lagrange interpolation, plain and in the exponent ----------------------------------------------------------------

COEFFICIENTS = st.integers(0, ORDER - 1)
INDICES = st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True)


def evaluate(polynomial, x):
    """f(x) mod q; the constant coefficient first."""
    return sum(c * pow(x, e, ORDER) for e, c in enumerate(polynomial)) % ORDER


def points_of(polynomial, indices):
    """f(i)·G by index."""
    return {i: base_multiply(evaluate(polynomial, i)) for i in indices}


@given(st.lists(COEFFICIENTS, min_size=1, max_size=6), st.data())
def test_as_many_shares_as_coefficients_give_the_polynomial(polynomial, data):
    """Any set of t shares gives f anywhere."""
    t = len(polynomial)
    indices = data.draw(st.lists(st.integers(0, ORDER - 1), min_size=t, max_size=t, unique=True))
    at = data.draw(st.integers(0, ORDER - 1))
    assert interpolate_scalar({i: evaluate(polynomial, i) for i in indices}, at) == evaluate(polynomial, at)


@given(st.lists(COEFFICIENTS, min_size=2, max_size=6), st.data())
def test_one_share_less_does_not(polynomial, data):
    """t - 1 shares give another value, as long as the leading coefficient is not 0."""
    if polynomial[-1]:
        t = len(polynomial)
        indices = data.draw(st.lists(st.integers(1, 40), min_size=t - 1, max_size=t - 1, unique=True))
        assert interpolate_scalar({i: evaluate(polynomial, i) for i in indices}) != polynomial[0]


@given(INDICES, st.integers(0, 40))
def test_coefficients_add_up_to_one(indices, at):
    """The constant polynomial 1 is interpolated to 1."""
    assert sum(lagrange_coefficients(indices, at)) % ORDER == 1


def test_coefficients_known_by_hand():
    """For 1 and 2 at 0 they are 2 and -1."""
    assert lagrange_coefficients([1, 2]) == [2, ORDER - 1]


def test_coefficients_follow_the_order_of_the_indices():
    """The result belongs to the indices as they were given."""
    assert lagrange_coefficients([2, 1]) == [ORDER - 1, 2]


def test_at_an_index_the_value_is_the_share_itself():
    """Where f is known nothing is mixed in."""
    assert lagrange_coefficients([3, 5, 9], at=5) == [0, 1, 0]
    shares = {i: base_multiply(i + 1) for i in (3, 5, 9)}
    assert interpolate_point(shares, at=5) == shares[5]


def test_the_result_is_the_callers_own():
    """Changing a result does not change the next one."""
    lagrange_coefficients([1, 2])[0] = 0
    assert lagrange_coefficients([1, 2]) == [2, ORDER - 1]


@pytest.mark.parametrize("indices", [[], [1, 1], [-1, 2], [ORDER], [0, ORDER]])
def test_wrong_indices_are_refused(indices):
    """No indices, an index twice, and indices out of range are refused."""
    with pytest.raises(ValueError, match=r"index|indices"):
        lagrange_coefficients(indices)


def test_no_shares_are_refused():
    """There is no polynomial through nothing."""
    with pytest.raises(ValueError, match="no indices"):
        interpolate_scalar({})
    with pytest.raises(ValueError, match="no indices"):
        interpolate_point({})


@settings(max_examples=40)
@given(st.lists(st.integers(1, ORDER - 1), min_size=1, max_size=5), st.integers(0, 9))
def test_points_interpolate_as_scalars_do(polynomial, at):
    """In the exponent the same polynomial comes out."""
    indices = range(10, 10 + len(polynomial))
    expected = evaluate(polynomial, at)
    assert interpolate_point(points_of(polynomial, indices), at) == (
        base_multiply(expected) if expected else None
    )


def test_a_result_of_infinity_is_none():
    """A polynomial through (1, 1) and (2, 2) is 0 at 0."""
    assert interpolate_point({1: base_multiply(1), 2: base_multiply(2)}) is None


SIZES = [(2, 2), (2, 3), (3, 5), (5, 7), (2, 8), (4, 10), (11, 20), (20, 20)]


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_shares_of_one_polynomial_fit(t, n):
    """The public key and all shares of a t-of-n key lie on a polynomial of degree t - 1."""
    polynomial = [secrets.randbelow(ORDER - 1) + 1 for _ in range(t)]
    assert points_fit_degree(points_of(polynomial, range(n + 1)), t - 1)


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_one_wrong_point_anywhere_does_not_fit(t, n):
    """Whichever point is changed, the public key included, the test says no."""
    polynomial = [secrets.randbelow(ORDER - 1) + 1 for _ in range(t)]
    points = points_of(polynomial, range(n + 1))
    for index in points if n < 10 else (0, 1, n // 2, n):
        changed = points | {index: add([points[index], base_multiply(1)])}
        assert not points_fit_degree(changed, t - 1)


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_a_polynomial_of_higher_degree_does_not_fit(t, n):
    """Shares of a (t + 1)-of-n key are no shares of a t-of-n key."""
    polynomial = [secrets.randbelow(ORDER - 1) + 1 for _ in range(t + 1)]
    assert not points_fit_degree(points_of(polynomial, range(n + 1)), t - 1)


def test_a_polynomial_of_lower_degree_fits():
    """The degree is an upper bound."""
    assert points_fit_degree(points_of([5, 7], range(6)), 2)


def test_any_subset_of_shares_fits():
    """Shares may be missing, and come in any order."""
    points = points_of([5, 7, 11], [9, 4, 0, 20, 13, 1])
    for size in range(3, 7):
        for chosen in combinations(points, size):
            assert points_fit_degree({i: points[i] for i in chosen}, 2)


@pytest.mark.parametrize("wrong", [0, 4, 20])
def test_a_wrong_point_among_scattered_shares_does_not_fit(wrong):
    """Scattered indices hide nothing."""
    points = points_of([5, 7, 11], [9, 4, 0, 20])
    assert not points_fit_degree(points | {wrong: base_multiply(123)}, 2)


def test_two_wrong_points_that_cancel_for_equal_weights_do_not_fit():
    """Errors that add up to nothing are found all the same, whichever way is taken."""
    for t, n in ((3, 5), (11, 20)):
        points = points_of([secrets.randbelow(ORDER - 1) + 1 for _ in range(t)], range(n + 1))
        wrong = points | {1: add([points[1], base_multiply(1)]), 2: add([points[2], base_multiply(-1)])}
        assert not points_fit_degree(wrong, t - 1)


def test_with_nothing_to_spare_there_is_nothing_to_test():
    """Any degree + 1 points lie on a polynomial of that degree."""
    assert points_fit_degree({0: base_multiply(3), 1: base_multiply(99), 2: base_multiply(1)}, 2)


@pytest.mark.parametrize(("count", "degree"), [(2, 2), (0, 0), (3, -1)])
def test_too_few_points_or_a_negative_degree_are_refused(count, degree):
    """A question without an answer is the caller's mistake."""
    with pytest.raises(ValueError, match="say nothing"):
        points_fit_degree(points_of([1], range(count)), degree)


@pytest.mark.parametrize("index", [-1, ORDER])
def test_an_index_out_of_range_is_refused(index):
    """q + 1 would be the same index as 1."""
    with pytest.raises(ValueError, match="index"):
        points_fit_degree({0: base_multiply(1), 1: base_multiply(1), index: base_multiply(1)}, 1)


def test_many_points_draw_fresh_randomness():
    """One scalar for each point to spare, with bytes enough that reducing them leaves no bias."""
    drawn = []

    def entropy(length):
        drawn.append(length)
        return secrets.token_bytes(length)

    points_fit_degree(points_of([1, 2, 3], range(21)), 2, entropy=entropy)
    assert drawn == [48] * 18


def test_a_known_mask_can_be_cheated():
    """With a constant mask, errors that cancel under it pass: this is what the randomness is for."""
    points = points_of([5, 7, 11], range(21))
    # m = x**17, from the bytes 1, 0, 0, ...: index 0 then has weight 0, and any public key passes.
    bytes_of = iter([(1).to_bytes(48, "big")] + [bytes(48)] * 17)
    assert points_fit_degree(points | {0: base_multiply(99)}, 2, entropy=lambda _: next(bytes_of))
    assert not points_fit_degree(points | {0: base_multiply(99)}, 2)
