"""What gets signed for each request type, against other people's code."""

from __future__ import annotations

import json

import pytest
from eth_account.messages import _hash_eip191_message, encode_defunct, encode_typed_data

from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.protocols.sign_request import SignRequest, sign_request_digest, user_operation_digest

ENTRY_POINT = "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"
OPERATION = {
    "sender": "0x9c5754De1443984659E1b3a8d1931D83475ba29C",
    "nonce": "0x1",
    "initCode": "0x",
    "callData": "0xb61d27f6",
    "callGasLimit": "0x186a0",
    "verificationGasLimit": "0x186a0",
    "preVerificationGas": "0xc350",
    "maxFeePerGas": "0x3b9aca00",
    "maxPriorityFeePerGas": "0x3b9aca00",
    "paymasterAndData": "0x",
    "signature": "0x",
}
TYPED_DATA = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
        "Order": [{"name": "amount", "type": "uint256"}, {"name": "note", "type": "string"}],
    },
    "domain": {"name": "é", "chainId": 80002},
    "primaryType": "Order",
    "message": {"amount": "340282366920938463463374607431768211456", "note": "für Ада"},
}


def operation_text(operation=OPERATION, **changes):
    whole = {
        "userOperation": operation,
        "entryPointVersion": "v0.6.0",
        "entryPointAddress": ENTRY_POINT,
        "chainId": 80002,
    }
    return json.dumps({**whole, **changes})


def digest(request_type, message):
    return sign_request_digest(SignRequest(request_type=request_type, message=message))


@pytest.mark.parametrize("message", ["0x", "0x00", "d09fd180", "0x" + "ab" * 300])
def test_a_personal_message_is_that_of_eip_191(message):
    """The same digest as eth-account's."""
    expected = _hash_eip191_message(encode_defunct(bytes.fromhex(message.removeprefix("0x"))))
    assert digest("EIP191", message) == bytes(expected)


def test_raw_bytes_are_signed_as_they_are():
    """With or without 0x."""
    assert digest("rawBytes", "0x" + "ab" * 32) == digest("rawBytes", "ab" * 32) == b"\xab" * 32


def test_typed_data_has_its_eip_712_digest():
    """The same as eth-account's."""
    signable = encode_typed_data(
        full_message={**TYPED_DATA, "message": {"amount": 2**128, "note": "für Ада"}}
    )
    expected = keccak256(b"\x19\x01" + signable.header + signable.body)
    assert digest("EIP712", json.dumps(TYPED_DATA)) == expected


def test_a_user_operation_is_signed_as_a_personal_message_over_its_hash():
    """Smart accounts check it that way."""
    request = SignRequest(request_type="accountAbstractionTx", message=operation_text())
    expected = _hash_eip191_message(encode_defunct(user_operation_digest(request)))
    assert sign_request_digest(request) == bytes(expected)


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"operation": {**OPERATION, name: "0x02"}}
            for name in OPERATION
            if name[-3:] not in {"der", "ure"}
        ),
        {"operation": {**OPERATION, "sender": ENTRY_POINT}},
        {"chainId": 80003},
        {"entryPointAddress": OPERATION["sender"]},
    ],
    ids=str,
)
def test_every_field_of_a_user_operation_is_covered(changes):
    """But for the signature, which comes later."""
    if changes.get("operation", {}).get("initCode") == "0x02":
        changes = {"operation": {**OPERATION, "initCode": ENTRY_POINT + "02"}}
    if changes.get("operation", {}).get("paymasterAndData") == "0x02":
        changes = {"operation": {**OPERATION, "paymasterAndData": ENTRY_POINT + "02"}}
    assert digest("accountAbstractionTx", operation_text(**changes)) != digest(
        "accountAbstractionTx", operation_text()
    )


def test_the_form_of_the_earliest_clients_means_the_same():
    """Bytes without 0x, numbers as decimal texts."""
    old = {**OPERATION, "callData": "b61d27f6", "initCode": "", "nonce": "1", "callGasLimit": "100000"}
    assert digest("accountAbstractionTx", operation_text(old)) == digest(
        "accountAbstractionTx", operation_text()
    )


def test_a_v07_operation_may_come_packed_or_not():
    """Both have the same hash."""
    unpacked = {
        **{name: OPERATION[name] for name in OPERATION if name not in {"initCode", "paymasterAndData"}},
        "factory": ENTRY_POINT,
        "factoryData": "0x1234",
    }
    packed = {
        **{name: OPERATION[name] for name in ("sender", "nonce", "callData", "preVerificationGas")},
        "initCode": ENTRY_POINT + "1234",
        "accountGasLimits": "0x" + f"{100000:032x}" * 2,
        "gasFees": "0x" + f"{10**9:032x}" * 2,
        "paymasterAndData": "0x",
        "signature": "0x",
    }
    version = {"entryPointVersion": "v0.7.0"}
    assert digest("accountAbstractionTx", operation_text(unpacked, **version)) == digest(
        "accountAbstractionTx", operation_text(packed, **version)
    )


def test_eddsa_is_refused():
    """No secp256k1 key can sign it."""
    with pytest.raises(InvalidFieldError, match="eddsa"):
        digest("eddsa", "hello")


@pytest.mark.parametrize(
    ("request_type", "message"),
    [
        ("accountAbstractionTx", operation_text({})),
        ("accountAbstractionTx", operation_text(entryPointVersion="v0.7.0")),
        ("accountAbstractionTx", operation_text(entryPointAddress="0x12")),
        ("accountAbstractionTx", operation_text({**OPERATION, "nonce": "x"})),
        ("EIP712", json.dumps({**TYPED_DATA, "types": {}})),
        ("EIP712", json.dumps({**TYPED_DATA, "primaryType": 1})),
    ],
)
def test_what_has_no_digest_is_refused_by_name(request_type, message):
    """An error of ours, with a field."""
    with pytest.raises(InvalidFieldError) as caught:
        digest(request_type, message)
    assert caught.value.field
