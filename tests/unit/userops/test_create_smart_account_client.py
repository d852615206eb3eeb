"""create_smart_account_client: which kind of account, which chain, which paymaster; and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dan_async import LocalWallet
from dan_async.crypto.abi import encode_arguments
from dan_async.errors import ConnectError, InsecureTransportError, InvalidFieldError, ProtocolError
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.types import Address
from dan_async.user_operation import ENTRY_POINTS
from dan_async.userops import AccountKind, BiconomyV2, Call, Nexus, SimpleAccount, create_smart_account_client
from tests.helpers import no_leaks
from tests.unit.userops.services import ACCOUNT, EAGER, World, account_at

OWNER = Address("0xFA66E705cf2582cF56528386Bb9dFCA119767262")
WALLET = LocalWallet(b"\x01" * 32)
BUNDLER = "https://bundler.example/api/v2/80002/some-key"


@pytest.mark.parametrize(
    ("url", "chain"),
    [
        (BUNDLER, 80002),
        ("https://bundler.example/api/v3/137/key", 137),
        ("https://bundler.example/api/v2/1", 1),
    ],
)
async def test_the_chain_may_stand_in_the_url(url: str, chain: int) -> None:
    """A URL of Biconomy's form is read, and nobody is asked."""
    async with await create_smart_account_client(signer=WALLET, bundler_url=url) as account:
        assert account.chain_id == chain


async def test_otherwise_the_bundler_is_asked() -> None:
    """Any other bundler says which chain it is."""
    world = World()
    account = await create_smart_account_client(signer=WALLET, bundler_url=InMemoryTransport(world.bundler))
    assert account.chain_id == world.bundler_chain_id
    assert account.bundler_url is None


async def test_a_bundler_that_cannot_be_reached_leaves_nothing_open() -> None:
    """The error is the transport's, and the connection is closed."""
    async with no_leaks():
        with pytest.raises(ConnectError):
            await create_smart_account_client(signer=WALLET, bundler_url="http://127.0.0.1:1", retry=EAGER)


async def test_defaults_are_v07_and_with_biconomys_key_its_account() -> None:
    """SimpleAccount v0.7, or Biconomy V2 on v0.6."""
    async with await create_smart_account_client(signer=WALLET, bundler_url=BUNDLER) as account:
        assert (account.version, account.entry_point) == ("v0.7.0", ENTRY_POINTS["v0.7.0"])
    async with await create_smart_account_client(
        signer=WALLET, bundler_url=BUNDLER, biconomy_paymaster_api_key="secret-key"
    ) as account:
        assert (account.version, account.entry_point) == ("v0.6.0", ENTRY_POINTS["v0.6.0"])
        assert "secret-key" not in repr(account)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"signer": None}, "signer"),
        ({"signer": WALLET, "owner": "0x1"}, "owner"),
        ({"salt": -1}, "salt"),
        ({"salt": 2**256}, "salt"),
        ({"address": "0x1"}, "address"),
        ({"entry_point": "0x1"}, "entry_point"),
        ({"entry_point": ENTRY_POINTS["v0.6.0"]}, "entry_point"),
        ({"cost_limit": 0}, "cost_limit"),
        ({"cost_limit": 0.1}, "cost_limit"),
        ({"chain_id": 0}, "chain_id"),
        ({"bundler_url": "ftp://x"}, "bundler_url"),
        ({"rpc_url": "nonsense"}, "rpc_url"),
        ({"rpc_url": 7}, "rpc_url"),
        ({"paymaster_url": ""}, "paymaster_url"),
        ({"paymaster_url": "https://a.example", "biconomy_paymaster_api_key": "k"}, "paymaster_url"),
        ({"biconomy_paymaster_api_key": ""}, "biconomy_paymaster_api_key"),
        ({"account": 7}, "account"),
        ({"account": SimpleNamespace(version="v0.7.0")}, "account"),  # written before kinds had nonce_key()
        ({"account": Nexus(is_delegated=True)}, "address"),  # a delegated EOA's is the owner's
    ],
)
async def test_wrong_arguments_are_named(arguments: dict[str, Any], field: str) -> None:
    """Each wrong argument is refused by name, before anything is opened."""
    right = {"signer": WALLET, "bundler_url": BUNDLER, "address": ACCOUNT}
    with pytest.raises(InvalidFieldError) as caught:
        await create_smart_account_client(**(right | arguments))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "kind", [SimpleAccount("v0.6.0"), SimpleAccount("v0.7.0"), BiconomyV2(), Nexus(proxy_code=b"\x60")]
)
async def test_the_address_that_a_node_names_is_worked_out_here_as_well(kind: AccountKind) -> None:
    """A node that names its own account gets neither money nor operations."""
    world = World(kind.version)
    async with account_at(world, account=kind, owner=OWNER) as account:
        with pytest.raises(ProtocolError, match="the node says that the account's address is") as caught:
            await account.get_address()
        with pytest.raises(ProtocolError):
            await account.send_user_operation(Call(ACCOUNT, 1))
    deployment = kind.deployment(OWNER, 0)
    assert deployment is not None
    assert deployment.address is not None
    assert deployment.address in caught.value.message
    assert "eth_estimateUserOperationGas" not in world.methods()

    async def honest(method: str, params: Any) -> Any:
        if method == "eth_call":
            return "0x" + encode_arguments("(address)", (deployment.address,)).hex()
        return await world.node(method, params)

    async with account_at(world, account=kind, owner=OWNER, node=honest) as account:
        assert await account.get_address() == deployment.address


@pytest.mark.parametrize("name", ["bundler_url", "rpc_url", "paymaster_url"])
async def test_plain_http_is_for_loopback_only(name: str) -> None:
    """API keys and operations do not travel in the clear."""
    arguments: dict[str, Any] = {"signer": WALLET, "bundler_url": BUNDLER} | {name: "http://example.com"}
    with pytest.raises(InsecureTransportError):
        await create_smart_account_client(**arguments)


async def test_a_well_known_factorys_address_needs_no_node() -> None:
    """Biconomy's account and eth-infinitism's: worked out here when there is nobody to ask."""
    for kind in (BiconomyV2(), SimpleAccount("v0.6.0")):
        async with await create_smart_account_client(
            signer=WALLET, bundler_url=BUNDLER, account=kind
        ) as account:
            assert await account.get_address() == kind.deployment(Address(WALLET.address), 0).address
