"""User operations: every form that clients send is read, one form is written, nothing is guessed; calls, receipts."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.errors import InvalidFieldError
from dan_async.user_operation import (
    Call,
    PackedUserOperation,
    UserOperationReceipt,
    UserOperationV06,
    UserOperationV07,
    user_operation_from_dict,
)
from tests.strategies import addresses

SENDER = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
PAYMASTER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
V06: dict[str, Any] = {
    "sender": SENDER,
    "nonce": "0x7",
    "initCode": "0x",
    "callData": "0x0000189a",
    "callGasLimit": "0x18473",
    "verificationGasLimit": "0x18473",
    "preVerificationGas": "0x104d0",
    "maxFeePerGas": "0x1",
    "maxPriorityFeePerGas": "0x1",
    "paymasterAndData": "0x",
    "signature": "0x",
}
V07: dict[str, Any] = {
    "sender": SENDER,
    "nonce": "0x7",
    "factory": PAYMASTER,
    "factoryData": "0x5fbfb9cf",
    "callData": "0x0000189a",
    "callGasLimit": "0x1",
    "verificationGasLimit": "0x2",
    "preVerificationGas": "0x3",
    "maxFeePerGas": "0x4",
    "maxPriorityFeePerGas": "0x5",
    "paymaster": PAYMASTER,
    "paymasterVerificationGasLimit": "0x6",
    "paymasterPostOpGasLimit": "0x7",
    "paymasterData": "0xabcd",
    "signature": "0x11",
}
BARE_V07 = {
    name: value for name, value in V07.items() if not name.startswith(("factory", "paymaster", "signature"))
}


def v07_operations() -> st.SearchStrategy[UserOperationV07]:
    """Unpacked operations with every optional part there or not."""
    half, whole, data = st.integers(0, 2**128 - 1), st.integers(0, 2**256 - 1), st.binary(max_size=40)
    required = {
        "sender": addresses(),
        "nonce": whole,
        "call_data": data,
        "call_gas_limit": half,
        "verification_gas_limit": half,
        "pre_verification_gas": whole,
        "max_fee_per_gas": half,
        "max_priority_fee_per_gas": half,
        "signature": data,
    }
    factory = st.just({}) | st.fixed_dictionaries({"factory": addresses(), "factory_data": data})
    paymaster = st.just({}) | st.fixed_dictionaries(
        {
            "paymaster": addresses(),
            "paymaster_verification_gas_limit": half,
            "paymaster_post_op_gas_limit": half,
            "paymaster_data": data,
        }
    )
    return st.tuples(st.fixed_dictionaries(required), factory, paymaster).map(
        lambda parts: UserOperationV07(**(parts[0] | parts[1] | parts[2]))
    )


def test_v06_there_and_back() -> None:
    """The JSON-RPC form of v0.6 is read and written alike."""
    assert UserOperationV06.from_dict(V06).to_dict() == V06


def test_v07_there_and_back() -> None:
    """The JSON-RPC form of v0.7 is read and written alike."""
    assert UserOperationV07.from_dict(V07).to_dict() == V07


def test_what_there_is_not_is_left_out() -> None:
    """Factory and paymaster do not appear in the form of an operation that has none."""
    assert UserOperationV07.from_dict(BARE_V07).to_dict() == BARE_V07 | {"signature": "0x"}


def test_the_earliest_clients_form() -> None:
    """Bytes without 0x, numbers in decimal, empty text for nothing: the form of walletprovider-sdk 0.1.0."""
    early = V06 | {
        "initCode": "",
        "callData": "0000189a",
        "callGasLimit": "99443",
        "verificationGasLimit": 99443,
        "preVerificationGas": "66768",
        "paymasterAndData": "",
    }
    del early["signature"]
    assert UserOperationV06.from_dict(early) == UserOperationV06.from_dict(V06)


def test_an_empty_number_is_zero() -> None:
    """The earliest client's own example leaves the prices empty."""
    found = UserOperationV06.from_dict(V06 | {"maxFeePerGas": "", "maxPriorityFeePerGas": ""})
    assert (found.max_fee_per_gas, found.max_priority_fee_per_gas) == (0, 0)


def test_the_public_clients_form_of_v07() -> None:
    """Unpacked gas fields beside an empty paymasterAndData, and a factoryData without factory that holds nothing."""
    sent = BARE_V07 | {"nonce": "7", "paymasterAndData": "", "factoryData": ""}
    assert UserOperationV07.from_dict(sent) == UserOperationV07.from_dict(BARE_V07)


def test_packed_paymaster_in_an_unpacked_operation() -> None:
    """A paymasterAndData is the same as the four members."""
    operation = UserOperationV07.from_dict(V07)
    sent = {name: value for name, value in V07.items() if not name.startswith("paymaster")}
    sent["paymasterAndData"] = "0x" + operation.paymaster_and_data.hex()
    assert UserOperationV07.from_dict(sent) == operation


@pytest.mark.parametrize("beside", [{"paymasterAndData": "0x" + "11" * 52}, {"paymasterAndData": "0x1122"}])
def test_a_paymaster_is_not_given_twice_nor_cut(beside: dict[str, str]) -> None:
    """paymasterAndData is refused beside a paymaster, and when it is too short for its head."""
    with pytest.raises(InvalidFieldError) as caught:
        UserOperationV07.from_dict(V07 | beside)
    assert caught.value.field == "paymasterAndData"


@pytest.mark.parametrize("name", sorted(set(V06) - {"initCode", "paymasterAndData", "signature"}))
@pytest.mark.parametrize("absent", [False, True])
def test_a_missing_member_is_named(name: str, absent: bool) -> None:
    """What the hash covers must be there; null is not there."""
    found = {key: value for key, value in V06.items() if key != name} | ({} if absent else {name: None})
    with pytest.raises(InvalidFieldError) as caught:
        UserOperationV06.from_dict(found)
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sender", "0x12"),
        ("sender", SENDER.replace("c", "C", 1)),
        ("nonce", -1),
        ("nonce", True),
        ("nonce", 1.0),
        ("nonce", "0x"),
        ("nonce", " 7"),
        ("nonce", "7_0"),
        ("nonce", "ff"),
        ("nonce", 2**256),
        ("callData", "0x0"),
        ("callData", "0xzz"),
        ("callData", 7),
        ("callData", "0x" + "00" * (128 * 1024 + 1)),
        ("initCode", "0x" + "11" * 19),
        ("paymasterAndData", "0x11"),
    ],
)
def test_a_wrong_member_is_named(name: str, value: object) -> None:
    """Nothing is repaired or guessed."""
    with pytest.raises(InvalidFieldError) as caught:
        UserOperationV06.from_dict(V06 | {name: value})
    assert caught.value.field == name


@pytest.mark.parametrize("form", [UserOperationV06, UserOperationV07, PackedUserOperation])
def test_an_unknown_member_is_refused_and_not_repeated(form: Any) -> None:
    """A member that the hash would not cover is not passed over, and its foreign name is not shown."""
    full = {
        UserOperationV06: V06,
        UserOperationV07: V07,
        PackedUserOperation: UserOperationV07.from_dict(V07).pack().to_dict(),
    }[form]
    with pytest.raises(InvalidFieldError) as caught:
        form.from_dict(full | {"hexEphSK": "5ec7e7"})
    assert "hexEphSK" not in str(caught.value)


@pytest.mark.parametrize("found", [None, [], "x", 7])
@pytest.mark.parametrize("form", [UserOperationV06, UserOperationV07, PackedUserOperation])
def test_only_an_object_is_read(form: Any, found: object) -> None:
    """Anything but an object is refused by name."""
    with pytest.raises(InvalidFieldError, match="userOperation"):
        form.from_dict(found)


@pytest.mark.parametrize(
    "name", ["callGasLimit", "maxFeePerGas", "maxPriorityFeePerGas", "paymasterPostOpGasLimit"]
)
def test_v07_packs_into_halves_of_a_word(name: str) -> None:
    """Gas limits and prices of v0.7 have 128 bits."""
    UserOperationV07.from_dict(V07 | {name: 2**128 - 1})
    with pytest.raises(InvalidFieldError) as caught:
        UserOperationV07.from_dict(V07 | {name: 2**128})
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("factoryData", "0x11"),
        ("paymasterData", "0x11"),
        ("paymasterVerificationGasLimit", 1),
        ("paymasterPostOpGasLimit", 1),
    ],
)
def test_belongings_need_their_owner(name: str, value: object) -> None:
    """What belongs to a factory or paymaster would be lost from the hash without one."""
    with pytest.raises(InvalidFieldError) as caught:
        UserOperationV07.from_dict(BARE_V07 | {name: value})
    assert caught.value.field == name


def test_the_constructor_normalises_too() -> None:
    """Hex given to the constructor becomes numbers and bytes, and a wrong one is named as it was given."""
    operation = UserOperationV06.from_dict(V06)
    assert attrs.evolve(operation, nonce="0x8", call_data="0xff").call_data == b"\xff"
    with pytest.raises(InvalidFieldError) as caught:
        attrs.evolve(operation, call_data="ff0")
    assert caught.value.field == "call_data"


@given(v07_operations())
def test_packing_loses_nothing(operation: UserOperationV07) -> None:
    """Packed and unpacked again it is the same operation."""
    assert UserOperationV07.from_packed(operation.pack()) == operation


@given(v07_operations())
def test_every_v07_operation_survives_json(operation: UserOperationV07) -> None:
    """Both forms of v0.7 come back from their JSON form as they were, and are told apart by their members."""
    assert user_operation_from_dict(operation.to_dict(), version="v0.7.0") == operation
    packed = operation.pack()
    assert user_operation_from_dict(packed.to_dict(), version="v0.7.0") == packed


def test_the_version_chooses_the_form() -> None:
    """A v0.6 operation is not read as v0.7, nor the other way round."""
    assert isinstance(user_operation_from_dict(V06, version="v0.6.0"), UserOperationV06)
    assert isinstance(user_operation_from_dict(V07, version="v0.7.0"), UserOperationV07)
    with pytest.raises(InvalidFieldError):
        user_operation_from_dict(V07, version="v0.6.0")
    with pytest.raises(InvalidFieldError, match="entryPointVersion"):
        user_operation_from_dict(V06, version="v0.8.0")


def test_a_repr_is_short() -> None:
    """Long bytes are cut in a repr."""
    operation = attrs.evolve(UserOperationV06.from_dict(V06), call_data=bytes(5000))
    assert len(repr(operation)) < 600
    assert "(5000 bytes)" in repr(operation)


# --- calls of a smart account, and receipts ---------------------------------------------------------------------------

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
