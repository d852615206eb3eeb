"""What an operation may cost: a limit, the chain's own price, and services that answer out of range."""

from __future__ import annotations

from typing import Any

import pytest

from dan_async.errors import DanError, ProtocolError, UserOperationCostError
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.userops import BiconomyPaymaster, BiconomyV2, Call
from dan_async.userops.service import JsonRpcService
from tests.servers import Handler
from tests.unit.userops.services import FACTORY, TARGET, World, account_at

CALL = Call(TARGET, 5, b"abcd")
GWEI, ETHER = 10**9, 10**18
ESTIMATE = {"preVerificationGas": "0xc350", "verificationGasLimit": "0x186a0", "callGasLimit": "0x186a0"}


def saying(handler: Handler, answers: dict[str, Any]) -> Handler:
    """A service that answers some methods so, and is the given one otherwise."""

    async def other(method: str, params: Any) -> Any:
        answer = await handler(method, params)
        return answers.get(method, answer)

    return other


def priced(fee: int, tip: int) -> dict[str, Any]:
    """A bundler's price of gas."""
    return {
        "pimlico_getUserOperationGasPrice": {
            "standard": {"maxFeePerGas": hex(fee), "maxPriorityFeePerGas": hex(tip)}
        },
        "eth_estimateUserOperationGas": ESTIMATE,
    }


def was_signed(world: World) -> bool:
    """Whether anything left."""
    return "eth_sendUserOperation" in world.methods()


async def test_an_estimate_of_fifty_ether_is_not_signed() -> None:
    """Within every other bound, and beyond the cost limit: the error has both numbers, in wei."""
    world = World()
    bundler = saying(
        world.bundler,
        priced(510 * GWEI, GWEI) | {"eth_estimateUserOperationGas": ESTIMATE | {"callGasLimit": 99_000_000}},
    )
    node = saying(world.node, {"eth_gasPrice": hex(510 * GWEI)})
    async with account_at(world, bundler=bundler, node=node) as account:
        with pytest.raises(UserOperationCostError, match="wei") as caught:
            await account.send_user_operation(CALL)
    assert caught.value.cost > 50 * ETHER
    assert caught.value.limit == ETHER // 10
    assert not was_signed(world)


async def test_the_limit_can_be_set() -> None:
    """The same operation below one limit and above another; by default a tenth of the currency's unit."""
    world = World()
    bundler = saying(world.bundler, priced(100 * GWEI, GWEI))
    node = saying(world.node, {"eth_gasPrice": hex(100 * GWEI)})
    cost = (50_000 + 200_000) * 100 * GWEI
    async with account_at(world, bundler=bundler, node=node, cost_limit=cost - 1) as account:
        with pytest.raises(UserOperationCostError):
            await account.send_user_operation(CALL)
    assert not was_signed(world)
    spread = 4096 * 100 * GWEI
    for options in ({"cost_limit": cost + spread}, {}):
        async with account_at(world, bundler=bundler, node=node, **options) as account:
            await account.send_user_operation(CALL)


async def test_a_node_that_names_a_price_is_held_to_the_limit_as_well() -> None:
    """Without a price of the bundler's there is nothing to compare it with but the limit."""
    world = World()
    world.price_method = None
    node = saying(world.node, {"eth_getBlockByNumber": {"baseFeePerGas": hex(500_000 * GWEI)}})
    bundler = saying(world.bundler, {"eth_estimateUserOperationGas": ESTIMATE})
    async with account_at(world, bundler=bundler, node=node) as account:
        with pytest.raises(UserOperationCostError):
            await account.send_user_operation(CALL)
    assert not was_signed(world)


@pytest.mark.parametrize(
    ("fee", "tip", "is_taken"),
    [(200, 1, True), (200, 200, True), (201, 1, False), (100, 101, False)],
)
async def test_a_bundlers_price_is_compared_with_the_chains(fee: int, tip: int, is_taken: bool) -> None:
    """Up to four times the node's own, and no tip beyond the whole; where gas is cheap, a bundler may have a minimum."""
    world = World()
    bundler = saying(world.bundler, priced(fee * GWEI, tip * GWEI))
    node = saying(world.node, {"eth_gasPrice": hex(50 * GWEI)})
    async with account_at(world, bundler=bundler, node=node) as account:
        if is_taken:
            await account.send_user_operation(CALL)
        else:
            with pytest.raises(ProtocolError, match="bundler's price of gas"):
                await account.send_user_operation(CALL)
    assert was_signed(world) is is_taken


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("bundler", {"eth_estimateUserOperationGas": ESTIMATE | {"callGasLimit": 10**8 + 1}}),
        ("bundler", {"eth_estimateUserOperationGas": ESTIMATE | {"preVerificationGas": hex(2**200)}}),
        ("bundler", {"eth_estimateUserOperationGas": ESTIMATE | {"verificationGasLimit": hex(2**128)}}),
        ("bundler", priced(10**15 + 1, 1)),
        ("bundler", priced(2**200, 1)),
        ("node", {"eth_gasPrice": hex(2**100)}),
        ("node", {"eth_gasPrice": None}),
        ("node", {"eth_chainId": hex(2**60)}),
        ("bundler", {"eth_chainId": hex(2**60)}),
    ],
)
async def test_an_answer_out_of_range_names_the_service(name: str, answers: dict[str, Any]) -> None:
    """No error of ours about a field that the caller never gave."""
    world = World()
    served = {"bundler": world.bundler, "node": world.node}
    served[name] = saying(served[name], answers)
    async with account_at(world, **served) as account:
        with pytest.raises(ProtocolError, match=f"the {name}'s answer to"):
            await account.send_user_operation(CALL)
    assert not was_signed(world)


@pytest.mark.parametrize("answer", ["baseFeePerGas", "tip"])
async def test_a_nodes_own_price_out_of_range_names_the_node(answer: str) -> None:
    """Where the node's price is used."""
    world = World()
    world.price_method = None
    wrong = {
        "baseFeePerGas": {"eth_getBlockByNumber": {"baseFeePerGas": hex(2**200)}},
        "tip": {"eth_maxPriorityFeePerGas": hex(2**200)},
    }[answer]
    async with account_at(world, node=saying(world.node, wrong)) as account:
        with pytest.raises(ProtocolError, match="the node's answer to"):
            await account.send_user_operation(CALL)


ZERO = "0x" + "00" * 20
STUB = {"paymaster": TARGET, "paymasterData": "0x01"}


@pytest.mark.parametrize(
    ("version", "final"),
    [
        ("v0.7.0", {"paymaster": ""}),
        ("v0.7.0", {"paymaster": "0x"}),
        ("v0.7.0", {"paymaster": ZERO, "paymasterData": "0x01"}),
        ("v0.7.0", {"paymaster": TARGET, "paymasterVerificationGasLimit": hex(2**128)}),
        ("v0.7.0", {"paymaster": TARGET, "paymasterPostOpGasLimit": 10**8 + 1}),
        ("v0.6.0", {"paymasterAndData": "0x"}),
        ("v0.6.0", {"paymasterAndData": ""}),
        ("v0.6.0", {"paymasterAndData": ZERO + "01"}),
    ],
)
async def test_an_empty_answer_of_a_paymaster_is_no_sponsorship(version: str, final: dict[str, Any]) -> None:
    """The account does not pay where a paymaster was asked to: the error names the service, and nothing is signed."""
    world = World(version)

    async def paymaster(method: str, params: Any) -> Any:
        stub = STUB if version == "v0.7.0" else {"paymasterAndData": TARGET + "01"}
        return stub if method == "pm_getPaymasterStubData" else final

    async with account_at(world, sponsor=paymaster) as account:
        with pytest.raises(ProtocolError, match="the paymaster's answer to pm_getPaymasterData"):
            await account.send_user_operation(CALL)
    assert not was_signed(world)


@pytest.mark.parametrize(
    "answer",
    [{"paymasterAndData": ZERO + "01"}, {"paymasterAndData": TARGET + "01", "callGasLimit": 10**8 + 1}],
)
async def test_biconomys_paymaster_is_held_to_the_same(answer: dict[str, Any]) -> None:
    """The zero address is nobody, and its gas limits are limited."""
    world = World("v0.6.0")

    async def service(method: str, params: Any) -> Any:
        return answer

    paymaster = BiconomyPaymaster(JsonRpcService("paymaster", InMemoryTransport(service)))
    async with account_at(world, account=BiconomyV2(factory=FACTORY), paymaster=paymaster) as account:
        with pytest.raises(DanError, match="the paymaster's answer to pm_sponsorUserOperation"):
            await account.send_user_operation(CALL)
    assert not was_signed(world)
