"""DanAccount beside eth-account's own account of the same key."""

from __future__ import annotations

import subprocess
import sys

import pytest
from eth_account import Account
from eth_account.messages import (
    SignableMessage,
    encode_defunct,
    encode_intended_validator,
    encode_typed_data,
)
from hexbytes import HexBytes

from dan_async import DanClient
from dan_async.account import DanAccount
from dan_async.errors import InvalidFieldError, SessionExpiredError
from dan_async.protocols.gateway_1 import REVISION_1
from tests.fake_signing import SigningNetwork

TO = "0x9c5754De1443984659E1b3a8d1931D83475ba29C"
LEGACY = {"nonce": 1, "gasPrice": 2, "gas": 3, "to": TO, "value": 4, "data": "0x05"}
FEES = {"maxFeePerGas": 7, "maxPriorityFeePerGas": 6}
TYPED = {key: value for key, value in LEGACY.items() if key != "gasPrice"} | {"chainId": 80002, "gas": 50000}
TRANSACTIONS = {
    "legacy without a chain": LEGACY,
    "legacy": {**LEGACY, "chainId": 80002},
    "access list": {**TYPED, "gasPrice": 9, "type": 1, "accessList": []},
    "1559": {**TYPED, **FEES},
    "1559 with its type": {**TYPED, **FEES, "type": "0x2", "accessList": []},
}
DOMAIN = {"name": "é", "chainId": 80002}
TYPES = {
    "Person": [{"name": "name", "type": "string"}],
    "Order": [{"name": "amount", "type": "uint256"}, {"name": "to", "type": "Person[]"}],
}
MESSAGE = {"amount": 2**200, "to": [{"name": "Ада"}]}


@pytest.fixture
def net():
    return SigningNetwork(2, 3)


@pytest.fixture
async def account(net):
    async with DanClient(net.network(), clock=lambda: net.now) as dan:
        yield DanAccount(dan, net.session())


@pytest.fixture
def local(net):
    """Eth-account's own account of the key that the nodes share."""
    return Account.from_key(net.secret.to_bytes(32, "big"))


def test_its_address_is_the_sessions(account, local):
    """With EIP-55 checksum."""
    assert account.address == local.address
    assert local.address in repr(account)


@pytest.mark.parametrize(
    "message",
    [
        encode_defunct(text="hello"),
        encode_defunct(b""),
        encode_intended_validator(TO, text="hello"),
        encode_typed_data(DOMAIN, TYPES, MESSAGE),
    ],
    ids=["personal", "empty", "validator", "typed data"],
)
async def test_messages(account, local, message):
    """Every version of EIP-191 that eth-account encodes."""
    signed = await account.sign_message(message)
    assert signed.message_hash == local.sign_message(message).message_hash
    assert Account.recover_message(message, signature=signed.signature) == local.address
    assert signed.signature == signed.r.to_bytes(32) + signed.s.to_bytes(32) + bytes([signed.v])


async def test_a_personal_message_reaches_the_nodes_as_one(net, account):
    """So that they see what it says, rather than a digest."""
    await account.sign_message(encode_defunct(text="hello"))
    (_, _, params) = next(call for call in net.calls if call[1] == "dan_sign")
    (request,) = REVISION_1.sign_requests(REVISION_1.decode_setup("signgen", params["setup"]))
    assert request.request_type == "EIP191"


async def test_typed_data_in_parts_or_whole(account, local):
    """The types' root is found as eth-account finds it."""
    expected = local.sign_typed_data(DOMAIN, TYPES, MESSAGE).message_hash
    parts = await account.sign_typed_data(DOMAIN, TYPES, MESSAGE)
    whole = await account.sign_typed_data(
        full_message={"types": TYPES, "primaryType": "Order", "domain": DOMAIN, "message": MESSAGE}
    )
    for signed in (parts, whole):
        assert signed.message_hash == expected
        assert Account._recover_hash(signed.message_hash, signature=signed.signature) == local.address


@pytest.mark.parametrize("given", [b"\xab" * 32, "0x" + "ab" * 32, HexBytes(b"\xab" * 32)])
async def test_a_hash(account, local, given):
    """As bytes or hex."""
    signed = await account.unsafe_sign_hash(given)
    assert Account._recover_hash(b"\xab" * 32, signature=signed.signature) == local.address


@pytest.mark.parametrize("name", TRANSACTIONS)
async def test_transactions(account, local, name):
    """Eth-account recovers the sender from the raw transaction, and would have signed the same but for the nonce."""
    transaction = TRANSACTIONS[name]
    named = {} if "chainId" in transaction else {"chain_id": 0}
    signed = await account.sign_transaction({**transaction, "from": local.address}, **named)
    assert Account.recover_transaction(signed.raw_transaction) == local.address
    theirs = local.sign_transaction(transaction)
    assert type(signed) is type(theirs)
    assert len(signed.raw_transaction) in range(
        len(theirs.raw_transaction) - 3, len(theirs.raw_transaction) + 4
    )
    assert abs(signed.v - theirs.v) <= 1


async def test_set_code_transactions(account, local):
    """EIP-7702: an authorisation by this account in a transaction of this account."""
    authorization = {"chainId": 80002, "address": TO, "nonce": 8}
    signed = await account.sign_authorization(authorization)
    theirs = local.sign_authorization(authorization)
    assert signed.authorization_hash == theirs.authorization_hash
    assert (signed.chain_id, signed.address, signed.nonce) == (theirs.chain_id, theirs.address, theirs.nonce)
    assert signed.authority == bytes.fromhex(local.address[2:])
    transaction = {**TYPED, **FEES, "authorizationList": [signed], "accessList": []}
    made = await account.sign_transaction(transaction)
    assert made.raw_transaction[0] == 4
    assert Account.recover_transaction(made.raw_transaction) == local.address


@pytest.mark.parametrize(
    "transaction",
    [
        None,
        {},
        {**LEGACY, "more": 1},
        {**LEGACY, "from": TO},
        {**LEGACY, "gas": "x"},
        {**TYPED, **FEES, "type": "0x9"},
        {**TYPED, **FEES, "to": "0x12"},
        {**TYPED, **FEES, "maxFeePerBlobGas": 8, "blobVersionedHashes": [b"\x01" + bytes(31)]},
    ],
)
async def test_wrong_transactions_are_refused_and_nothing_is_sent(net, account, transaction):
    """By an error of ours."""
    with pytest.raises(InvalidFieldError):
        await account.sign_transaction(transaction)
    assert not net.calls


@pytest.mark.parametrize(
    "call",
    [
        lambda account: account.sign_message("hello"),
        lambda account: account.sign_message(None),
        lambda account: account.sign_typed_data(),
        lambda account: account.sign_typed_data(DOMAIN, TYPES),
        lambda account: account.sign_typed_data(DOMAIN, TYPES, MESSAGE, {}),
        lambda account: account.sign_typed_data(DOMAIN, {"A": 5}, {}),
        lambda account: account.sign_typed_data(DOMAIN, {**TYPES, "Other": []}, MESSAGE),
        lambda account: account.unsafe_sign_hash(b"\xab" * 31),
        lambda account: account.unsafe_sign_hash("0xzz"),
        lambda account: account.unsafe_sign_hash(32),
        lambda account: account.sign_authorization(None),
        lambda account: account.sign_authorization({"chainId": 1, "address": TO}),
        lambda account: account.sign_authorization({"chainId": -1, "address": TO, "nonce": 0}),
        lambda account: account.sign_authorization({"chainId": "x", "address": TO, "nonce": 0}),
        lambda account: account.sign_authorization({"chainId": 1, "address": "0x12", "nonce": 0}),
        lambda account: account.sign_authorization({"chainId": 1, "address": 5, "nonce": 0}),
    ],
)
async def test_wrong_values_are_refused_and_nothing_is_sent(net, account, call):
    """In every other method."""
    with pytest.raises(InvalidFieldError):
        await call(account)
    assert not net.calls


@pytest.fixture
async def bound(net):
    """An account whose session says its chain."""
    async with DanClient(net.network(), clock=lambda: net.now) as dan:
        yield DanAccount(dan, net.session(chain_id=80002))


CHAINED = {"EIP712Domain": [{"name": "chainId", "type": "uint256"}], "A": [{"name": "b", "type": "uint256"}]}


def typed_data(chain):
    return {"types": CHAINED, "primaryType": "A", "domain": {"chainId": chain}, "message": {"b": 1}}


CALLS = {
    "legacy": lambda account, chain, **named: account.sign_transaction({**LEGACY, "chainId": chain}, **named),
    "1559": lambda account, chain, **named: account.sign_transaction(
        {**TYPED, **FEES, "chainId": chain}, **named
    ),
    "access list": lambda account, chain, **named: account.sign_transaction(
        {**TYPED, "gasPrice": 9, "accessList": [], "chainId": hex(chain)}, **named
    ),
    "authorisation": lambda account, chain, **named: account.sign_authorization(
        {"chainId": chain, "address": TO, "nonce": 0}, **named
    ),
    "typed data": lambda account, chain, **named: account.sign_typed_data(
        full_message=typed_data(chain), **named
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_another_chain_than_the_sessions_is_refused_unless_it_is_named(net, bound, name):
    """0, which is every chain, as well; and nothing is sent."""
    sign = CALLS[name]
    for chain, named in ((137, {}), (0, {}), (80002, {"chain_id": 137}), (0, {"chain_id": 137})):
        with pytest.raises(InvalidFieldError, match="chainId"):
            await sign(bound, chain, **named)
    assert not net.calls
    for chain, named in ((80002, {}), (137, {"chain_id": 137}), (0, {"chain_id": 0})):
        assert (await sign(bound, chain, **named)).r


async def test_a_legacy_transaction_without_a_chain_is_for_every_chain(net, bound, account):
    """It can be replayed anywhere: only by name, whether the session says its chain or not."""
    for each in (bound, account):
        with pytest.raises(InvalidFieldError, match="every chain"):
            await each.sign_transaction(LEGACY)
    assert not net.calls
    assert (await bound.sign_transaction(LEGACY, chain_id=0)).v in {27, 28}


async def test_an_authorisation_for_every_chain_is_asked_for_by_name(net, account):
    """Also where the session does not say its chain."""
    with pytest.raises(InvalidFieldError, match="every chain"):
        await account.sign_authorization({"chainId": 0, "address": TO, "nonce": 0})
    assert not net.calls


async def test_typed_data_as_hashes_is_refused_if_there_is_a_chain_to_compare(net, bound):
    """Nobody can read the chain out of a hash, however it is cut into parts; the data itself is signed."""
    message = encode_typed_data(DOMAIN, TYPES, MESSAGE)
    with pytest.raises(InvalidFieldError, match="sign_typed_data"):
        await bound.sign_message(message)
    for version, header in (
        (b"", message.version + message.header),
        (message.version + message.header, b""),
    ):
        with pytest.raises(InvalidFieldError, match="SignableMessage"):
            await bound.sign_message(SignableMessage(version, header, message.body))
    assert not net.calls
    assert (await bound.sign_typed_data(DOMAIN, TYPES, MESSAGE)).r


async def test_an_expired_session_signs_nothing(net):
    """As everywhere."""
    async with DanClient(net.network(), clock=lambda: net.now) as dan:
        account = DanAccount(dan, net.session(expires_at=int(net.now)).to_dict(extended=True))
        with pytest.raises(SessionExpiredError):
            await account.unsafe_sign_hash(b"\xab" * 32)


@pytest.mark.parametrize(("client", "session"), [(None, True), (True, None)])
async def test_it_is_made_of_a_client_and_a_session(net, client, session):
    """Anything else is refused by name."""
    dan = DanClient(net.network())
    with pytest.raises(InvalidFieldError):
        DanAccount(dan if client else None, net.session() if session else None)
    await dan.aclose()


def test_without_the_extra_it_says_what_to_install():
    """When it is made, not when it is imported."""
    code = (
        "import sys; sys.modules['eth_account'] = None; from dan_async.account import DanAccount\n"
        "try: DanAccount(None, None)\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert 'pip install "dan-async[eth-account]"' in done.stdout
