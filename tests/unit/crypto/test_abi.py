"""The contract ABI: the same bytes as eth-abi, and one reading only."""

from __future__ import annotations

import contextlib
from typing import Any

import eth_abi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.abi import decode_arguments, encode_arguments, encode_call, function_selector
from dan_async.errors import InvalidFieldError
from tests.strategies import addresses

A = "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"
WORD = 32

#: Types and values of them: everything that the package encodes or reads.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "(address,uint256,bytes)": st.tuples(addresses(), st.integers(0, 2**256 - 1), st.binary(max_size=70)),
    "(address[],bytes[])": st.tuples(
        st.lists(addresses(), max_size=3).map(tuple), st.lists(st.binary(max_size=40), max_size=3).map(tuple)
    ),
    "((address,uint256,bytes)[])": st.tuples(
        st.lists(st.tuples(addresses(), st.integers(0, 2**256 - 1), st.binary(max_size=40)), max_size=3).map(
            tuple
        )
    ),
    "(bytes32,bytes)": st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=99)),
    "(bool,uint192,bytes4,(uint8,bool)[])": st.tuples(
        st.booleans(),
        st.integers(0, 2**192 - 1),
        st.binary(min_size=4, max_size=4),
        st.lists(st.tuples(st.integers(0, 255), st.booleans()), max_size=3).map(tuple),
    ),
}

typed_values = st.sampled_from(sorted(VALUES)).flatmap(lambda types: st.tuples(st.just(types), VALUES[types]))


def _split(types: str) -> list[str]:
    parts, depth, start = [], 0, 1
    for position, character in enumerate(types[:-1]):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 1:
            parts.append(types[start:position])
            start = position + 1
    return [*parts, types[start:-1]]


@given(typed_values)
def test_bytes_are_those_of_eth_abi(typed: tuple[str, Any]) -> None:
    """An independent encoder writes the same."""
    types, values = typed
    assert encode_arguments(types, values) == eth_abi.encode(_split(types), values)


@given(typed_values)
def test_what_was_encoded_is_decoded(typed: tuple[str, Any]) -> None:
    """decode(encode(x)) == x."""
    types, values = typed
    assert decode_arguments(types, encode_arguments(types, values)) == values


@given(typed_values, st.data())
def test_whatever_is_decoded_has_one_encoding(typed: tuple[str, Any], data: st.DataObject) -> None:
    """Any change of the bytes is refused, or read as values whose encoding is the changed bytes."""
    types, values = typed
    encoded = bytearray(encode_arguments(types, values))
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["flip", "cut", "grow", "word"]))
        at = data.draw(st.integers(0, max(len(encoded) - 1, 0)))
        if kind == "flip" and encoded:
            encoded[at] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del encoded[at:]
        elif kind == "grow":
            encoded += data.draw(st.binary(min_size=1, max_size=64))
        else:
            start = at // WORD * WORD
            number = data.draw(st.integers(0, 200).map(lambda n: n * WORD) | st.integers(0, 2**256 - 1))
            encoded[start : start + WORD] = number.to_bytes(WORD)
    try:
        found = decode_arguments(types, bytes(encoded))
    except InvalidFieldError:
        return
    assert encode_arguments(types, found) == bytes(encoded)


@given(st.sampled_from(sorted(VALUES)), st.binary(max_size=400))
def test_foreign_bytes_never_crash(types: str, data: bytes) -> None:
    """Anything is decoded or refused with our error."""
    with contextlib.suppress(InvalidFieldError):
        decode_arguments(types, data)


@pytest.mark.parametrize(
    ("signature", "selector"),
    [
        ("transfer(address,uint256)", "a9059cbb"),
        ("approve(address,uint256)", "095ea7b3"),
        ("execute_ncC(address,uint256,bytes)", "0000189a"),
        ("executeBatch_y6U(address[],uint256[],bytes[])", "00004680"),
        ("execute(bytes32,bytes)", "e9ae5c53"),
    ],
)
def test_known_selectors(signature: str, selector: str) -> None:
    """Selectors are those seen on chains."""
    assert function_selector(signature).hex() == selector


def test_a_call_is_selector_and_arguments() -> None:
    """A whole call, as any token contract reads it."""
    expected = "a9059cbb" + "00" * 12 + A[2:].lower() + f"{7:064x}"
    assert encode_call("transfer(address,uint256)", A, 7).hex() == expected


@pytest.mark.parametrize("signature", ["transfer", "transfer(address, uint256)", "(address)", "f(address", 7])
def test_what_is_no_signature_is_refused(signature: Any) -> None:
    """A selector of a mistyped signature would be some other function's."""
    with pytest.raises(InvalidFieldError, match="signature"):
        function_selector(signature)


@pytest.mark.parametrize(
    "types", ["address", "(uint7)", "(uint264)", "(bytes33)", "(string)", "(address,)", "(,)", "(()[])", "(x"]
)
def test_unknown_types_are_refused(types: str) -> None:
    """Types that are not known here are no types."""
    with pytest.raises(InvalidFieldError, match="types"):
        encode_arguments(types, ())


@pytest.mark.parametrize(
    ("types", "values"),
    [
        ("(address)", ("0x12",)),
        ("(uint8)", (256,)),
        ("(uint8)", (-1,)),
        ("(uint8)", (True,)),
        ("(bool)", (1,)),
        ("(bytes4)", (b"abc",)),
        ("(bytes)", ("0x",)),
        ("(bytes[])", (b"ab",)),
        ("(uint8,uint8)", (1,)),
    ],
)
def test_values_of_other_types_are_refused(types: str, values: tuple[Any, ...]) -> None:
    """Nothing is converted on the way into call data."""
    with pytest.raises(InvalidFieldError):
        encode_arguments(types, values)


@pytest.mark.parametrize("length", [2**255, 2**64, 1000])
def test_a_huge_list_takes_no_memory(length: int) -> None:
    """A length that the bytes cannot hold is refused before anything is made of it."""
    with pytest.raises(InvalidFieldError, match="cut short"):
        decode_arguments("(address[])", (32).to_bytes(32) + length.to_bytes(32))
