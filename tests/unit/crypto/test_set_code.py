"""EIP-7702 against eth-account and the rlp package: RLP, authorisations, transactions of type 4."""

from __future__ import annotations

from typing import Any

import pytest
import rlp
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async import LocalWallet
from dan_async.crypto.hashes import keccak256
from dan_async.crypto.set_code import Authorisation, SetCodeTransaction, authorisation_digest, encode_rlp
from dan_async.errors import InvalidFieldError
from tests.strategies import addresses

KEY = b"\x07" * 32
CODE = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
FIELDS: dict[str, Any] = {"chain_id": 80002, "address": CODE, "nonce": 9}

items = st.recursive(
    st.binary(max_size=70) | st.integers(0, 2**256 - 1),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=30,
)


@given(items)
def test_rlp_is_the_packages(item: Any) -> None:
    """Short and long texts and lists, and numbers without leading zeros."""
    assert encode_rlp(item) == rlp.encode(item)


@pytest.mark.parametrize("size", [0, 1, 55, 56, 255, 256, 65536])
def test_rlp_of_long_texts(size: int) -> None:
    """The length is in the first byte up to 55, and has bytes of its own beyond."""
    for item in (b"\x7f" * size, b"\x80" * size, [b""] * size):
        assert encode_rlp(item) == rlp.encode(item)


@settings(max_examples=20)
@given(st.integers(0, 2**256 - 1), addresses(), st.integers(0, 2**64 - 2))
def test_an_authorisation_is_eth_accounts(chain_id: int, address: Any, nonce: int) -> None:
    """The same digest, and the same signature, whose signer is found."""
    signed = Account.from_key(KEY).sign_authorization(
        {"chainId": chain_id, "address": address, "nonce": nonce}
    )
    digest = authorisation_digest(chain_id=chain_id, address=address, nonce=nonce)
    assert digest == bytes(signed.authorization_hash)
    made = Authorisation(
        chain_id=chain_id, address=address, nonce=nonce, signature=LocalWallet(KEY).sign_digest(digest)
    )
    found = made.to_dict()
    assert [int(found[name], 16) for name in ("yParity", "r", "s")] == [signed.y_parity, signed.r, signed.s]
    assert made.authority == LocalWallet(KEY).address


async def test_a_transaction_is_eth_accounts() -> None:
    """Byte for byte, with its authorisation."""
    wallet = LocalWallet(KEY)
    one = Authorisation(**FIELDS, signature=await wallet.sign_authorisation(**FIELDS))
    ours = SetCodeTransaction(
        chain_id=80002,
        nonce=8,
        max_priority_fee_per_gas=2,
        max_fee_per_gas=10**10,
        gas_limit=90_000,
        to=wallet.address,
        data=b"\x01" * 100,
        authorisations=(one,),
    )
    theirs = Account.from_key(KEY).sign_transaction(
        {
            "type": 4,
            "chainId": 80002,
            "nonce": 8,
            "maxPriorityFeePerGas": 2,
            "maxFeePerGas": 10**10,
            "gas": 90_000,
            "to": wallet.address,
            "value": 0,
            "data": "0x" + "01" * 100,
            "accessList": [],
            "authorizationList": [
                Account.from_key(KEY).sign_authorization({"chainId": 80002, "address": CODE, "nonce": 9})
            ],
        }
    )
    raw = ours.signed(wallet.sign_digest(ours.digest())).encode()
    assert raw == bytes(theirs.raw_transaction)
    assert keccak256(raw) == bytes(theirs.hash)
    with pytest.raises(InvalidFieldError, match="signature is missing"):
        ours.encode()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"chain_id": -1}, "chain_id"),
        ({"chain_id": True}, "chain_id"),
        ({"nonce": 2**64 - 1}, "nonce"),
        ({"address": "0x1"}, "address"),
        ({"signature": bytes(65)}, "signature"),
    ],
)
def test_wrong_authorisations_are_named(change: Any, field: str) -> None:
    """The wrong field is named when it is made."""
    signature = LocalWallet(KEY).sign_digest(authorisation_digest(**FIELDS))
    with pytest.raises(InvalidFieldError) as caught:
        Authorisation(**{**FIELDS, "signature": signature, **change})
    assert caught.value.field == field


def test_the_signature_is_not_shown() -> None:
    """Whoever has it can have the EOA run that code."""
    made = Authorisation(**FIELDS, signature=LocalWallet(KEY).sign_digest(authorisation_digest(**FIELDS)))
    assert made.to_dict()["r"][2:] not in repr(made)
