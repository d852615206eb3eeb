"""Calls of a smart account, and receipts of user operations."""

from __future__ import annotations

from typing import Any

import pytest

from dan_async.errors import InvalidFieldError
from dan_async.user_operation import Call, UserOperationReceipt

A = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
RECEIPT: dict[str, Any] = {
    "userOpHash": "0x" + "11" * 32,
    "success": True,
    "actualGasCost": "0x10",
    "actualGasUsed": 5,
    "receipt": {"transactionHash": "0x" + "22" * 32, "blockNumber": "0x9"},
    "logs": [],
}


def test_a_call_is_normalised() -> None:
    """Addresses get their checksum; values and data may be texts."""
    assert Call(A.lower(), "0x5", "0xabcd01020304") == Call(A, 5, bytes.fromhex("abcd01020304"))
    assert Call(A, 5, "0xabcd01020304").selector.hex() == "abcd0102"
    assert Call(A).selector == b""


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(("0x1",), "target"), ((A, -1), "value"), ((A, 2**256), "value"), ((A, 0, "0x1"), "data")],
)
def test_a_wrong_call_is_named(arguments: Any, field: str) -> None:
    """Each field is checked."""
    with pytest.raises(InvalidFieldError) as caught:
        Call(*arguments)
    assert caught.value.field == field


def test_a_receipt_is_read() -> None:
    """What is needed is read, whatever else is there; the whole stays at hand."""
    found = UserOperationReceipt.from_dict(RECEIPT)
    assert (found.block_number, found.actual_gas_cost, found.actual_gas_used, found.reason) == (9, 16, 5, "")
    assert found.raw["logs"] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"userOpHash": "0x11"}, "userOpHash"),
        ({"success": 1}, "success"),
        ({"actualGasCost": None}, "actualGasCost"),
        ({"actualGasUsed": "x"}, "actualGasUsed"),
        ({"receipt": None}, "receipt"),
        ({"receipt": {"transactionHash": "0x1", "blockNumber": 1}}, "transactionHash"),
        ({"receipt": {"transactionHash": "0x" + "22" * 32}}, "blockNumber"),
    ],
)
def test_a_wrong_receipt_is_named(changes: dict[str, Any], field: str) -> None:
    """A receipt that does not say what happened is none."""
    with pytest.raises(InvalidFieldError) as caught:
        UserOperationReceipt.from_dict(RECEIPT | changes)
    assert caught.value.field == field


@pytest.mark.parametrize("found", [None, [], "0x"])
def test_only_an_object_is_a_receipt(found: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidFieldError):
        UserOperationReceipt.from_dict(found)
