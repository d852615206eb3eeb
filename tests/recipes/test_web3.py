"""web3.py acts as a session: a real AsyncWeb3, a real chain, a real network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from web3 import AsyncHTTPProvider, AsyncWeb3, Web3
from web3.exceptions import Web3Exception, Web3RPCError
from web3.providers import HTTPProvider, WebSocketProvider

from dan_async import DanClient, DanSessionKeyPayload, InvalidFieldError, LocalWallet
from dan_async.errors import ConfigurationError, DanError, EphemeralKeyRefusedError, NotPermittedError
from dan_async.web3 import session_middleware
from tests.recipes.conftest import ANVIL_CHAIN_ID, OWNER_KEY, run_sample

pytestmark = pytest.mark.recipes

ETHER = 10**18

#: Keeps a number: called with an argument it stores it, without one it returns what is stored.
STORE_CODE = "601a600c600039601a6000f3" + "6004361160125760005460005260206000f35b60043560005500"
STORE_ABI: list[dict[str, Any]] = [
    {"type": "constructor", "inputs": [], "stateMutability": "nonpayable"},
    {
        "type": "function",
        "name": "set",
        "inputs": [{"name": "number", "type": "uint256"}],
        "outputs": [],
        "stateMutability": "nonpayable",
    },
    {
        "type": "function",
        "name": "get",
        "inputs": [],
        "outputs": [{"name": "", "type": "uint256"}],
        "stateMutability": "view",
    },
]
ORDER = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
        "Order": [{"name": "amount", "type": "uint256"}],
    },
    "domain": {"name": "Exchange", "chainId": ANVIL_CHAIN_ID},
    "primaryType": "Order",
    "message": {"amount": 5},
}


@pytest.fixture
async def w3(anvil_url: str, dan: DanClient, session: DanSessionKeyPayload) -> AsyncIterator[AsyncWeb3]:
    """An AsyncWeb3 that acts as the session, which has one ether."""
    made = AsyncWeb3(AsyncHTTPProvider(anvil_url))
    rich = (await made.eth.accounts)[0]
    made.middleware_onion.inject(session_middleware(dan, session), layer=0)
    made.eth.default_account = session.session_key_eoa
    await made.eth.wait_for_transaction_receipt(
        await made.eth.send_transaction({"from": rich, "to": session.session_key_eoa, "value": ETHER})
    )
    yield made
    await made.provider.disconnect()


async def test_the_pages_sample_runs(
    anvil_url: str,
    dan: DanClient,
    w3: AsyncWeb3,
    session: DanSessionKeyPayload,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it is printed in docs/how-to/web3.md, but for the node's port."""
    usual = AsyncHTTPProvider.__init__
    monkeypatch.setattr(AsyncHTTPProvider, "__init__", lambda self, _: usual(self, anvil_url))
    names: dict[str, Any] = {"dan": dan, "session": session, "to": Account.create().address}
    await run_sample("web3", names)
    assert names["receipt"]["status"] == 1
    await names["w3"].provider.disconnect()


async def test_a_contract_is_deployed_and_called(w3: AsyncWeb3, session: DanSessionKeyPayload) -> None:
    """As with any account of web3.py: everything is filled in, signed by two nodes, sent raw, and in a block."""
    sent = await w3.eth.contract(abi=STORE_ABI, bytecode=STORE_CODE).constructor().transact()
    deployed = await w3.eth.wait_for_transaction_receipt(sent)
    assert (deployed["status"], deployed["from"]) == (1, session.session_key_eoa)
    store = w3.eth.contract(address=deployed["contractAddress"], abi=STORE_ABI)
    receipt = await w3.eth.wait_for_transaction_receipt(await store.functions.set(4337).transact())
    assert receipt["status"] == 1
    assert await store.functions.get().call() == 4337
    transaction = await w3.eth.get_transaction(sent)
    assert transaction["type"] == 2
    assert transaction["chainId"] == ANVIL_CHAIN_ID


async def test_many_at_once_have_nonces_of_their_own(w3: AsyncWeb3, session: DanSessionKeyPayload) -> None:
    """Side by side, none takes the place of another, and all arrive."""
    to = Account.create().address
    sent = await asyncio.gather(*(w3.eth.send_transaction({"to": to, "value": 1}) for _ in range(5)))
    receipts = [await w3.eth.wait_for_transaction_receipt(one) for one in sent]
    assert {receipt["status"] for receipt in receipts} == {1}
    assert await w3.eth.get_balance(to) == 5
    assert await w3.eth.get_transaction_count(session.session_key_eoa) == 5


async def test_a_nonce_of_the_callers_own_holds_up_no_other_transaction(w3: AsyncWeb3) -> None:
    """One that is far ahead waits by itself."""
    to = Account.create().address
    await w3.eth.send_transaction({"to": to, "value": 1, "gas": 21_000, "nonce": 9})
    for _ in range(2):
        sent = await w3.eth.send_transaction({"to": to, "value": 2})
        await w3.eth.wait_for_transaction_receipt(sent, timeout=30)
    assert await w3.eth.get_balance(to) == 4


async def test_what_the_caller_says_is_kept(w3: AsyncWeb3) -> None:
    """Type, price, gas and nonce; a legacy transaction is one."""
    to = Account.create().address
    price = 2 * await w3.eth.gas_price
    sent = await w3.eth.send_transaction({"to": to, "value": 7, "gasPrice": price, "gas": 50_000, "nonce": 0})
    found = await w3.eth.get_transaction(sent)
    assert (found["type"], found["gasPrice"], found["gas"], found["nonce"]) == (0, price, 50_000, 0)
    with pytest.raises(Web3RPCError, match="nonce"):
        await w3.eth.send_transaction({"to": to, "value": 7, "gas": 50_000, "nonce": 0})
    await w3.eth.wait_for_transaction_receipt(await w3.eth.send_transaction({"to": to, "value": 1}))
    assert await w3.eth.get_balance(to) == 8


async def test_messages_and_typed_data_are_signed(w3: AsyncWeb3, session: DanSessionKeyPayload) -> None:
    """By each of the methods, and the signatures recover to the session's address."""
    address = session.session_key_eoa
    for signature in (
        await w3.manager.coro_request("personal_sign", ["0x68656c6c6f", address]),
        await w3.eth.sign(address, text="hello"),
    ):
        assert Account.recover_message(encode_defunct(text="hello"), signature=signature) == address
    for signature in (
        await w3.eth.sign_typed_data(address, json.dumps(ORDER)),
        await w3.manager.coro_request("eth_signTypedData_v4", [address, json.dumps(ORDER)]),
        await w3.manager.coro_request("eth_signTypedData_v4", [address, ORDER]),
    ):
        signable = encode_typed_data(full_message=ORDER)
        assert Account.recover_message(signable, signature=signature) == address


async def test_the_sessions_account_stands_first(w3: AsyncWeb3, session: DanSessionKeyPayload) -> None:
    """And the node's own accounts go on working."""
    first, rich, *_ = await w3.eth.accounts
    assert first == session.session_key_eoa
    sent = await w3.eth.send_transaction({"from": rich, "to": first, "value": 1})
    assert (await w3.eth.wait_for_transaction_receipt(sent))["from"] == rich


async def refused(awaitable: Any, kind: type[DanError], session: DanSessionKeyPayload) -> Web3RPCError:
    """Check that a call fails with web3.py's error, which has ours as its cause and no secret in it."""
    with pytest.raises(Web3Exception) as caught:
        await awaitable
    error = caught.value
    assert isinstance(error, Web3RPCError)
    assert isinstance(error.__cause__, kind), repr(error.__cause__)
    assert error.rpc_response is not None
    assert error.rpc_response["error"]["data"]["error"] == type(error.__cause__).__name__
    for text in (str(error), repr(error), repr(error.rpc_response), repr(vars(error))):
        assert session.hex_eph_sk_without_0x not in text
    return error


async def test_another_chain_is_refused(
    anvil_url: str, dan: DanClient, w3: AsyncWeb3, session: DanSessionKeyPayload
) -> None:
    """The transaction's, which web3.py itself finds, and the node's; unless it is named."""
    transaction = {"to": session.session_key_eoa, "value": 1}
    with pytest.raises(Web3Exception, match="chain ID"):
        await w3.eth.send_transaction({**transaction, "chainId": 1})
    elsewhere = await dan.generate_session_key(wallet=LocalWallet(OWNER_KEY), chain_id=137)
    other = AsyncWeb3(AsyncHTTPProvider(anvil_url))
    other.middleware_onion.inject(session_middleware(dan, elsewhere), layer=0, name="session")
    transaction["from"] = elsewhere.session_key_eoa
    error = await refused(other.eth.send_transaction(transaction), InvalidFieldError, elsewhere)
    assert "chainId" in str(error)
    named = session_middleware(dan, elsewhere, chain_id=ANVIL_CHAIN_ID)
    other.middleware_onion.replace("session", named)
    await other.provider.make_request("anvil_setBalance", [elsewhere.session_key_eoa, hex(ETHER)])
    assert await other.eth.wait_for_transaction_receipt(await other.eth.send_transaction(transaction))
    await other.provider.disconnect()


async def test_gas_has_a_ceiling(w3: AsyncWeb3, session: DanSessionKeyPayload) -> None:
    """A price that a node or a caller got wrong is signed by nobody."""
    transaction = {
        "to": session.session_key_eoa,
        "value": 1,
        "maxFeePerGas": 10**16,
        "maxPriorityFeePerGas": 1,
    }
    error = await refused(w3.eth.send_transaction(transaction), InvalidFieldError, session)
    assert "cost_limit" in str(error)
    assert await w3.eth.get_transaction_count(session.session_key_eoa, "pending") == 0


async def test_a_session_that_may_not_sign_is_refused(
    anvil_url: str, dan: DanClient, w3: AsyncWeb3, session: DanSessionKeyPayload
) -> None:
    """Revoked, or with permissions: the code says that it was not authorised, and nothing was sent."""
    limited = await dan.generate_session_key(
        wallet=LocalWallet(OWNER_KEY),
        chain_id=ANVIL_CHAIN_ID,
        permissions=[{"type": "call", "to": session.session_key_eoa, "selectors": ["0x"]}],
    )
    w3.middleware_onion.inject(session_middleware(dan, limited), layer=0)
    transaction = {"from": limited.session_key_eoa, "to": limited.session_key_eoa, "gas": 21_000}
    error = await refused(w3.eth.send_transaction(transaction), NotPermittedError, limited)
    assert error.rpc_response is not None
    assert error.rpc_response["error"]["code"] == 4100
    await dan.revoke_ephemeral_key(session, wallet=LocalWallet(OWNER_KEY))
    await refused(
        w3.eth.send_transaction({"to": session.session_key_eoa, "value": 1}),
        EphemeralKeyRefusedError,
        session,
    )
    await refused(w3.eth.sign(session.session_key_eoa, text="hi"), EphemeralKeyRefusedError, session)
    assert await w3.eth.get_transaction_count(session.session_key_eoa, "pending") == 0


class Forgetful(AsyncHTTPProvider):
    """Loses the node's first answer to a transaction."""

    has_lost = False

    async def make_request(self, method: Any, params: Any) -> Any:
        answer = await super().make_request(method, params)
        if method == "eth_sendRawTransaction" and not self.has_lost:
            self.has_lost = True
            raise ConnectionResetError
        return answer


async def test_a_lost_answer_names_the_transaction(w3: AsyncWeb3, anvil_url: str) -> None:
    """It was sent, so the caller must be able to look for it; the next one takes the next nonce."""
    own = w3.provider
    w3.provider = Forgetful(anvil_url)
    to = Account.create().address
    with pytest.raises(Web3RPCError) as caught:
        await w3.eth.send_transaction({"to": to, "value": 1})
    assert caught.value.rpc_response is not None
    name = caught.value.rpc_response["error"]["data"]["transactionHash"]
    await w3.eth.wait_for_transaction_receipt(await w3.eth.send_transaction({"to": to, "value": 1}))
    assert (await w3.eth.wait_for_transaction_receipt(name))["status"] == 1
    assert await w3.eth.get_balance(to) == 2
    await w3.provider.disconnect()
    w3.provider = own


async def test_a_lasting_connection_is_refused_and_a_batch_passes(
    anvil_url: str, dan: DanClient, w3: AsyncWeb3, session: DanSessionKeyPayload
) -> None:
    """Where a middleware cannot answer, the session's requests are refused, and all others pass."""
    transaction = {"from": session.session_key_eoa, "to": session.session_key_eoa, "value": 1}
    async with w3.batch_requests() as batch:
        batch.add(w3.eth.get_block("latest"))
        assert len(await batch.async_execute()) == 1
    async with AsyncWeb3(WebSocketProvider(anvil_url.replace("http", "ws"))) as lasting:
        lasting.middleware_onion.inject(session_middleware(dan, session), layer=0)
        assert await lasting.eth.chain_id == ANVIL_CHAIN_ID
        await refused(lasting.eth.send_transaction(transaction), ConfigurationError, session)
    sync = Web3(HTTPProvider(anvil_url))
    sync.middleware_onion.inject(session_middleware(dan, session), layer=0)
    with pytest.raises(Web3RPCError, match="AsyncWeb3"):
        _ = sync.eth.chain_id


async def test_wrong_parameters_are_named(
    dan: DanClient, w3: AsyncWeb3, session: DanSessionKeyPayload
) -> None:
    """When the middleware is made, and when it is asked."""
    with pytest.raises(InvalidFieldError, match="cost_limit"):
        session_middleware(dan, session, cost_limit=0)
    with pytest.raises(InvalidFieldError, match="chain_id"):
        session_middleware(dan, session, chain_id=0)
    assert session.hex_eph_sk_without_0x not in repr(session_middleware(dan, session))
    address = session.session_key_eoa
    for method, params in (
        ("personal_sign", ["no hex", address]),
        ("eth_signTypedData_v4", [address, "{"]),
        ("eth_signTypedData_v4", [address, "[" * 200_000]),  # Python's parser alone would break the process
        ("eth_signTypedData_v4", [address, {**ORDER, "domain": {"name": "x", "chainId": 1}}]),
    ):
        await refused(w3.manager.coro_request(method, params), InvalidFieldError, session)
