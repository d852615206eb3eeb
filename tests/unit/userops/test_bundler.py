"""Bundler, node and paymaster: answers that are not what the specifications say are not taken for them."""

from __future__ import annotations

from typing import Any

import pytest

from dan_async import LocalWallet
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    InvalidFieldError,
    ProtocolError,
    RpcError,
    UserOperationInDoubtError,
)
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.user_operation import ENTRY_POINTS, UserOperationV06, UserOperationV07
from dan_async.userops import BiconomyPaymaster, Call, SimpleAccount, WalletSigner
from dan_async.userops.bundler import Bundler
from dan_async.userops.service import Chain, GasPrice, JsonRpcService
from tests.unit.userops.services import ACCOUNT, EAGER, TARGET, World, account_in, no_sleep

GAS = dict.fromkeys(
    [
        "call_gas_limit",
        "verification_gas_limit",
        "pre_verification_gas",
        "max_fee_per_gas",
        "max_priority_fee_per_gas",
    ],
    1,
)
V06: Any = UserOperationV06(sender=ACCOUNT, nonce=1, call_data=b"c", **GAS)
V07: Any = UserOperationV07(sender=ACCOUNT, nonce=1, call_data=b"c", **GAS)
HASH = "0x" + "11" * 32
ESTIMATE = {"preVerificationGas": 1, "verificationGasLimit": 2, "callGasLimit": 3}


def soon() -> Deadline:
    """A deadline that no test comes near."""
    return Deadline(30)


def answering(answer: Any, name: str = "bundler") -> JsonRpcService:
    """A service that answers everything so."""

    async def handler(method: str, params: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return JsonRpcService(name, InMemoryTransport(handler), retry=EAGER)


def bundler(answer: Any) -> Bundler:
    """A bundler that answers everything so."""
    return Bundler(answering(answer), entry_point=ENTRY_POINTS["v0.7.0"], sleep=no_sleep)


async def test_gas_of_older_bundlers_is_read() -> None:
    """verificationGas is what some for v0.6 call it; numbers may be ints, decimal or hex text."""
    answer = {"preVerificationGas": "0x10", "verificationGas": "17", "callGasLimit": 18}
    assert await bundler(answer).estimate_gas(V06, deadline=soon()) == {
        "pre_verification_gas": 16,
        "verification_gas_limit": 17,
        "call_gas_limit": 18,
    }


@pytest.mark.parametrize(
    "answer",
    [None, [], "0x1", {}, *({k: v for k, v in ESTIMATE.items() if k != name} for name in ESTIMATE)],
)
async def test_an_estimate_that_lacks_something_is_refused(answer: Any) -> None:
    """A missing limit is not taken for zero."""
    with pytest.raises(ProtocolError, match="eth_estimateUserOperationGas"):
        await bundler(answer).estimate_gas(V07, deadline=soon())


@pytest.mark.parametrize("wrong", [-1, "x", 1.5, 2**256, True])
async def test_a_number_that_is_none_is_refused(wrong: Any) -> None:
    """What is no number of gas does not go into an operation."""
    with pytest.raises(ProtocolError, match="callGasLimit"):
        await bundler(ESTIMATE | {"callGasLimit": wrong}).estimate_gas(V07, deadline=soon())


@pytest.mark.parametrize("answer", ["0x1", [1], None])
async def test_a_price_of_another_form_is_left_to_the_chain(answer: Any) -> None:
    """A bundler's own method that answers otherwise says nothing."""
    assert await bundler(answer).gas_price(deadline=soon()) is None


async def test_a_price_without_its_members_is_refused() -> None:
    """Half a price is none."""
    with pytest.raises(ProtocolError, match="maxPriorityFeePerGas"):
        await bundler({"standard": {"maxFeePerGas": "0x1"}}).gas_price(deadline=soon())


async def test_a_failing_price_method_is_asked_again() -> None:
    """Only a method that is not there is forgotten; a failure of the moment is not."""
    asked = []

    async def handler(method: str, params: Any) -> Any:
        asked.append(method)
        raise RpcError(-32603 if method.startswith("pimlico") else -32601, "no")

    service = JsonRpcService("bundler", InMemoryTransport(handler), retry=EAGER)
    one = Bundler(service, entry_point=ENTRY_POINTS["v0.7.0"])
    assert await one.gas_price(deadline=soon()) is None
    assert await one.gas_price(deadline=soon()) is None
    assert asked == [
        "pimlico_getUserOperationGasPrice",
        "biconomy_getGasFeeValues",
        "pimlico_getUserOperationGasPrice",
    ]


@pytest.mark.parametrize("answer", [None, "0x12", "nothing", {"hash": HASH}])
async def test_an_answer_that_is_no_hash_is_refused(answer: Any) -> None:
    """Whether it was sent is then not known, and not claimed."""
    with pytest.raises(UserOperationInDoubtError, match="not the hash of the operation"):
        await bundler(answer).send(V07, expected=bytes(32), deadline=soon())


async def test_a_refusal_is_a_refusal_even_if_nothing_can_be_looked_up() -> None:
    """A bundler that knows no eth_getUserOperationByHash changes nothing about it."""
    error = RpcError(-32500, "AA24 signature error")
    with pytest.raises(BundlerError, match="does not accept the signature"):
        await bundler(error).send(V07, expected=bytes(32), deadline=soon())


@pytest.mark.parametrize("answer", [{}, [], "", False, "0x"])
async def test_an_empty_answer_is_no_operation(answer: Any) -> None:
    """What was refused is not taken for sent because the bundler says "nothing" in another way than null."""

    async def handler(method: str, params: Any) -> Any:
        if method == "eth_sendUserOperation":
            raise RpcError(-32500, "AA24 signature error")
        return answer

    service = JsonRpcService("bundler", InMemoryTransport(handler), retry=EAGER)
    for is_new in (False, True):
        with pytest.raises(BundlerError, match="does not accept the signature"):
            await Bundler(service, entry_point=ENTRY_POINTS["v0.7.0"]).send(
                V07, expected=bytes(32), deadline=soon(), is_new=is_new
            )


@pytest.mark.parametrize("answer", [[], "x", {}, {"userOpHash": HASH}])
async def test_a_receipt_that_is_none_is_refused(answer: Any) -> None:
    """An answer without what matters is not a receipt."""
    with pytest.raises(ProtocolError, match="eth_getUserOperationReceipt"):
        await bundler(answer).wait_for_receipt(HASH, deadline=soon())


async def test_another_operations_receipt_is_refused() -> None:
    """A mix-up does not make an operation look executed."""
    answer = {
        "userOpHash": "0x" + "22" * 32,
        "success": True,
        "actualGasCost": 1,
        "actualGasUsed": 1,
        "receipt": {"transactionHash": HASH, "blockNumber": 1},
    }
    with pytest.raises(ProtocolError, match="another operation"):
        await bundler(answer).wait_for_receipt(HASH, deadline=soon())


async def test_a_bundler_that_refuses_to_be_asked_ends_the_wait() -> None:
    """An error that it answered with is not waited out."""
    with pytest.raises(BundlerError, match="access is denied"):
        await bundler(RpcError(-32001, "unauthorised")).wait_for_receipt(HASH, deadline=soon())


@pytest.mark.parametrize("answer", ["0x", "0x01", None, "0x" + "ff" * 32])
async def test_a_contract_that_is_not_there_is_told(answer: Any) -> None:
    """An answer of another form means another contract, or none."""
    chain = Chain(answering(answer, "node"))
    with pytest.raises(ProtocolError, match="is the contract on this chain"):
        await chain.read(TARGET, "owner()", (), "(address)", deadline=soon())


async def test_a_block_that_is_none_is_refused() -> None:
    """No price is made of nothing."""
    with pytest.raises(ProtocolError, match="is not a block"):
        await Chain(answering(None, "node")).gas_price(deadline=soon())


async def test_the_price_of_a_chain_without_base_fee() -> None:
    """Chains without EIP-1559 have the node's tip alone."""

    async def handler(method: str, params: Any) -> Any:
        return {} if method == "eth_getBlockByNumber" else "0x9"

    service = JsonRpcService("node", InMemoryTransport(handler))
    assert await Chain(service).gas_price(deadline=soon()) == GasPrice(9, 9)


@pytest.mark.parametrize("answer", [None, [], {}, {"paymasterAndData": "0x"}, {"paymasterAndData": "0x12"}])
async def test_biconomy_does_not_sponsor(answer: Any) -> None:
    """ "0x" is how it says no."""
    paymaster = BiconomyPaymaster(answering(answer, "paymaster"))
    with pytest.raises(ProtocolError, match="pm_sponsorUserOperation"):
        await paymaster.sponsor(V06, entry_point=ENTRY_POINTS["v0.6.0"], chain_id=1, deadline=soon())
    await paymaster.aclose()


async def test_biconomy_pays_for_v06_only() -> None:
    """An operation of v0.7 is not sent there."""
    paymaster = BiconomyPaymaster(answering(RpcError(-32603, "not to be asked"), "paymaster"))
    with pytest.raises(InvalidFieldError, match=r"v0\.6"):
        await paymaster.sponsor(V07, entry_point=ENTRY_POINTS["v0.7.0"], chain_id=1, deadline=soon())


async def test_an_account_without_a_factory_must_be_deployed() -> None:
    """A kind that cannot be deployed says so instead of sending an operation that would fail."""

    class Ready(SimpleAccount):
        def deployment(self, owner: Any, salt: int) -> Any:
            return None

    world = World()
    world.is_deployed = False
    account = await account_in(world, account=Ready(), address=ACCOUNT)
    with pytest.raises(ConfigurationError, match="has no factory"):
        await account.send_user_operation(Call(TARGET))
    assert "eth_sendUserOperation" not in world.methods()


def test_nothing_secret_is_shown() -> None:
    """Services, signers and kinds show where and who, not keys."""
    service = JsonRpcService("bundler", "https://user:pass@bundler.example/rpc?apikey=k")
    assert "pass" not in repr(service)
    assert "apikey" not in repr(service)
    assert repr(WalletSigner(LocalWallet(b"\x01" * 32))) == (
        "WalletSigner('0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1')"
    )
