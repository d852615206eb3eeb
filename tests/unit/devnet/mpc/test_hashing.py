"""Domain-separated hashes."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto import hashes
from dan_async.crypto.curve import ORDER
from dan_async.crypto.hashes import tagged_hash
from dan_async.devnet.mpc.field import hash_to_scalar


def test_every_part_is_preceded_by_its_length():
    """The bytes that are hashed, written out."""
    expected = hashlib.sha256(b"\0\0\0\x03tag" + b"\0\0\0\x02ab" + b"\0\0\0\0" + b"\0\0\0\x01c").digest()
    assert tagged_hash("tag", b"ab", b"", b"c") == expected


@given(st.text(max_size=20), st.lists(st.binary(max_size=50), max_size=5))
def test_the_hash_is_the_one_of_the_wire(tag, parts):
    """One construction serves the whole protocol: a stranger has to write it once."""
    assert tagged_hash(tag, *parts) == hashes.tagged_hash(tag, *parts)


def test_moving_a_boundary_changes_the_hash():
    """Concatenation would confuse these."""
    assert tagged_hash("t", b"ab", b"c") != tagged_hash("t", b"a", b"bc") != tagged_hash("ta", b"b", b"c")


def test_a_hashed_scalar_is_the_hash_modulo_the_order():
    """Reduced, not truncated."""
    assert hash_to_scalar("t", b"x") == int.from_bytes(tagged_hash("t", b"x"), "big") % ORDER


def test_a_number_has_32_bits():
    """Big-endian, as on the wire."""
    assert tagged_hash("t", 258) == tagged_hash("t", b"\0\0\1\2")


def test_an_address_or_a_request_id_stands_for_its_bytes():
    """Its checksum's capitals and its 0x do not count."""
    assert tagged_hash("t", "0xAb01") == tagged_hash("t", b"\xab\x01")
