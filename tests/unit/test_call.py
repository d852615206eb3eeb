"""Calls of a user's own: encoded by eth-abi, whatever the types."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from eth_abi import encode
from eth_utils.abi import function_signature_to_4byte_selector

from dan_async.crypto.abi import encode_call
from dan_async.errors import InvalidFieldError, MissingExtraError
from dan_async.user_operation import Call

AT = "0x9c5754De1443984659E1b3a8d1931D83475ba29C"


@pytest.mark.parametrize(
    ("signature", "types", "arguments"),
    [
        ("pause()", [], ()),
        ("transfer(address,uint256)", ["address", "uint256"], (AT, 5)),
        ("f(int8,string,bytes4)", ["int8", "string", "bytes4"], (-1, "é", b"abcd")),
        ("f((address,uint24)[2],bool)", ["(address,uint24)[2]", "bool"], ([(AT, 1), (AT, 2)], True)),
        (
            "f((uint8,(string,bytes[])[])[3][])",
            ["(uint8,(string,bytes[])[])[3][]"],
            ([[(1, [("a", [b"b"])])] * 3],),
        ),
    ],
)
def test_every_type_is_encoded(signature: str, types: list[str], arguments: tuple[Any, ...]) -> None:
    """Tuples, fixed arrays, nested ones, and what the canonical encoder does not know."""
    call = Call.of(AT, signature, *arguments, value=3)
    assert (call.target, call.value) == (AT, 3)
    assert call.data == function_signature_to_4byte_selector(signature) + encode(types, arguments)


def test_short_names_of_types_are_the_long_ones() -> None:
    """The selector of transfer(address,uint) would be another function's, that no contract has."""
    assert Call.of(AT, "transfer(address,uint)", AT, 1).data == encode_call(
        "transfer(address,uint256)", AT, 1
    )


@pytest.mark.parametrize(
    ("signature", "arguments", "said"),
    [
        ("transfer", (), "signature must be a function's"),
        (5, (), "signature must be a function's"),
        ("f(uint257)", (1,), "signature has a type that is not one of the ABI"),
        ("f(money)", (1,), "signature has a type that is not one of the ABI"),
        ("f(uint8,)", (1,), "signature has a type that is not one of the ABI"),
        ("f(uint8)", (), "arguments must be 1, not 0"),
        ("f(uint8)", (1, 2), "arguments must be 1, not 2"),
        ("f(bool,uint8)", (True, 256), r"arguments must fit f\(bool,uint8\): number 2 is not a valid uint8"),
        ("f(address)", ("0x12",), r"number 1 is not a valid address"),
        ("f((uint8,bool)[2])", ([(1, True)],), r"number 1 is not a valid \(uint8,bool\)\[2\]"),
    ],
)
def test_what_does_not_fit_is_named(signature: Any, arguments: tuple[Any, ...], said: str) -> None:
    """By its place and its type; its value is not repeated."""
    with pytest.raises(InvalidFieldError, match=said):
        Call.of(AT, signature, *arguments)


def test_without_eth_abi_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls whose data are there already need no extra."""
    monkeypatch.setitem(sys.modules, "eth_abi", None)
    with pytest.raises(MissingExtraError, match=r'pip install "dan-async\[eth-account\]"'):
        Call.of(AT, "pause()")
    assert Call(AT, 0, "0x8456cb59").selector == bytes.fromhex("8456cb59")
