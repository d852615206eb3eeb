"""Keccak-256 against known hashes and another implementation."""

from typing import NoReturn

import pytest
from Crypto.Hash import keccak as pycryptodome
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.hashes import keccak256, takes_long


def test_the_hash_of_nothing():
    """The empty string has the hash that Ethereum uses for empty code: Keccak's, not SHA3-256's."""
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@given(st.binary(max_size=300))
def test_it_agrees_with_another_implementation(data):
    """pycryptodome gives the same hash, below and above the block size."""
    assert keccak256(data) == pycryptodome.new(data=data, digest_bits=256).digest()


def test_text_is_refused():
    """Only bytes can be hashed: text has no one encoding."""
    with pytest.raises(TypeError):
        keccak256("text")


def test_a_large_message_is_told_by_its_size() -> None:
    """None of the values of a mapping with many is looked at: that alone would take a while."""

    class Many(dict[str, int]):
        def values(self) -> NoReturn:
            raise AssertionError("looked at")

    assert takes_long(Many({str(number): number for number in range(60_000)}))
