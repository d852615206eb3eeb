"""SmartAccountClient piece by piece: what is asked of whom, in which order, and what is never done twice."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from dan_async import CallbackWallet, LocalWallet
from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    DuplicateUserOperationError,
    InvalidFieldError,
    PaymasterError,
    ProtocolError,
    RpcError,
    UserOperationInDoubtError,
    UserOperationRevertedError,
    UserOperationTimeoutError,
)
from dan_async.permissions import decode_calls
from dan_async.request import SmartAccount
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.user_operation import UserOperationReceipt, UserOperationV06, UserOperationV07
from dan_async.userops import BiconomyPaymaster, BiconomyV2, Call, SimpleAccount, create_smart_account_client
from dan_async.userops.service import JsonRpcService
from tests.helpers import cancelled_at, no_leaks
from tests.unit.userops.services import ACCOUNT, CHAIN_ID, FACTORY, TARGET, TX, World, account_in, event

CALL = Call(TARGET, 5, b"abcd")


@pytest.mark.parametrize("version", ["v0.6.0", "v0.7.0"])
async def test_an_operation_is_built_signed_and_sent(version: str) -> None:
    """Nonce, price, gas and calls are where they belong, and the owner's signature is over the hash."""
    world, wallet = World(version), LocalWallet(b"\x01" * 32)
    account = await account_in(world, signer=wallet)
    assert "address not asked for yet" in repr(account)
    sent = await account.send_user_operation([CALL])
    assert repr(account).startswith(f"SmartAccountClient({ACCOUNT}, SimpleAccount(")
    operation = world.operations[sent]
    assert (operation.sender, operation.nonce) == (ACCOUNT, account.lanes.key() << 64)
    assert (operation.max_fee_per_gas, operation.max_priority_fee_per_gas) == (100, 5)
    assert (operation.pre_verification_gas, operation.call_gas_limit) == (1, 3)
    assert operation.verification_gas_limit in range(2, 2 + 4096)
    assert decode_calls(operation.call_data) == (CALL,)
    assert operation.init_code == b""
    assert operation.paymaster_and_data == b""
    digest = personal_message_digest(world.hash_of(operation))
    assert recover_address(digest, operation.signature) == wallet.address


async def test_gas_is_estimated_with_a_signature_of_the_right_form() -> None:
    """Contracts that refuse malformed signatures let the estimate through."""
    world = World()
    await (await account_in(world)).send_user_operation(CALL)
    (asked,) = [params for method, params in world.calls if method == "eth_estimateUserOperationGas"]
    assert recover_address(bytes(32), asked[0]["signature"])


@pytest.mark.parametrize("version", ["v0.6.0", "v0.7.0"])
async def test_the_first_operation_deploys(version: str) -> None:
    """An account without code is deployed by its factory, with owner and salt; later ones carry no factory."""
    world = World(version)
    world.is_deployed = False
    wallet = LocalWallet(b"\x01" * 32)
    account = await account_in(world, signer=wallet, salt=9, account=SimpleAccount(version, factory=TARGET))
    first = world.operations[await account.send_user_operation(CALL)]
    second = world.operations[await account.send_user_operation(CALL)]
    assert first.init_code[:20].hex() == TARGET[2:].lower()
    assert wallet.address[2:].lower() in first.init_code.hex()
    assert first.init_code[-1] == 9
    assert second.init_code == b""


async def test_the_price_comes_from_the_chain_if_the_bundler_has_none() -> None:
    """Twice the base fee and the tip; a bundler without such methods is asked for them once."""
    world = World()
    world.price_method = None
    account = await account_in(world)
    operation = world.operations[await account.send_user_operation(CALL)]
    assert (operation.max_fee_per_gas, operation.max_priority_fee_per_gas) == (207, 7)
    await account.send_user_operation(CALL)
    assert world.methods().count("pimlico_getUserOperationGasPrice") == 1


async def test_biconomys_price() -> None:
    """Biconomy's bundler has a method of its own."""
    world = World()
    world.price_method = "biconomy_getGasFeeValues"
    operation = world.operations[await (await account_in(world)).send_user_operation(CALL)]
    assert operation.max_fee_per_gas == 100


async def test_a_lost_reply_does_not_send_twice() -> None:
    """The first sending worked and its reply was lost: the second is recognised, and the hash is given."""
    world = World()
    account = await account_in(world, bundler_url=InMemoryTransport(_losing(world, 1), name="bundler"))
    sent = await account.send_user_operation(CALL)
    assert world.executed == [sent]


def _losing(world: World, replies: int) -> Any:
    left = replies

    async def handler(method: str, params: Any) -> Any:
        nonlocal left
        answer = await world.bundler(method, params)
        if method == "eth_sendUserOperation" and left:
            left -= 1
            raise ConnectionLostError("the connection broke")
        return answer

    return handler


async def test_when_every_reply_is_lost_the_hash_is_told_and_the_lane_waits() -> None:
    """Nobody knows whether it arrived: the error has the hash, and the lane's next operation is not given its nonce."""
    world = World()
    world.executes = False
    failing = {"eth_sendUserOperation": [ConnectionLostError("broke")] * 3}
    world.failures = {name: list(errors) for name, errors in failing.items()}
    account = await account_in(world)
    with pytest.raises(UserOperationTimeoutError) as lost:
        await account.send_user_operation(CALL)
    assert lost.value.user_operation_hash is not None
    with pytest.raises(UserOperationTimeoutError, match="lane waits") as waiting:
        await account.send_user_operation(CALL, timeout=0.05)
    assert waiting.value.user_operation_hash == lost.value.user_operation_hash
    account.lanes.forget()
    assert await account.send_user_operation(CALL) in world.operations


async def test_what_never_left_is_no_lost_reply() -> None:
    """A bundler that cannot be reached has nothing, and the lane is free."""
    world = World()
    world.failures = {"eth_sendUserOperation": [ConnectError("no") for _ in range(3)]}
    account = await account_in(world)
    with pytest.raises(ConnectError):
        await account.send_user_operation(CALL)
    assert await account.send_user_operation(CALL) in world.operations


async def test_lost_once_and_unreachable_afterwards_is_lost() -> None:
    """One attempt that may have arrived is enough for doubt."""
    world = World()
    world.failures = {
        "eth_sendUserOperation": [ConnectionLostError("broke"), ConnectError("no"), ConnectError("no")]
    }
    with pytest.raises(UserOperationTimeoutError):
        await (await account_in(world)).send_user_operation(CALL)


async def test_a_refused_operation_leaves_the_lane_free() -> None:
    """After a refusal the same nonce is used again."""
    world = World()
    world.failures = {"eth_sendUserOperation": [RpcError(-32500, "AA21 didn't pay prefund")]}
    account = await account_in(world)
    with pytest.raises(BundlerError, match="cannot pay") as caught:
        await account.send_user_operation(CALL)
    assert caught.value.user_operation_hash is not None
    assert world.operations[await account.send_user_operation(CALL)].nonce == account.lanes.key() << 64


async def test_the_bundler_speaks_of_another_operation() -> None:
    """A hash that is not ours is not taken for it."""
    world = World()

    async def other(method: str, params: Any) -> Any:
        answer = await world.bundler(method, params)
        return "0x" + "11" * 32 if method == "eth_sendUserOperation" else answer

    account = await account_in(world, bundler_url=InMemoryTransport(other))
    with pytest.raises(UserOperationInDoubtError, match="not the hash of the operation") as caught:
        await account.send_user_operation(CALL)
    assert [caught.value.user_operation_hash] == world.executed


async def test_an_operation_is_sent_once() -> None:
    """Sending a signed operation again is noticed."""
    world = World()
    account = await account_in(world)
    operation = await account.prepare_user_operation(CALL, nonce=await account.get_nonce())
    sent = await account.send_signed(operation)
    with pytest.raises(DuplicateUserOperationError) as caught:
        await account.send_signed(operation)
    assert caught.value.user_operation_hash == sent
    assert world.methods().count("eth_sendUserOperation") == 1


@pytest.mark.parametrize("attribute", ["chain_id", "bundler_chain_id"])
async def test_nothing_is_signed_for_another_chain(attribute: str) -> None:
    """Bundler and node must be on the account's chain."""
    world = World()
    setattr(world, attribute, 1)
    with pytest.raises(InvalidFieldError, match="is on chain 1, but"):
        await (await account_in(world)).send_user_operation(CALL)
    assert "eth_estimateUserOperationGas" not in world.methods()


async def test_waiting_for_a_receipt() -> None:
    """The receipt is polled for until it is there, through failures of the bundler too."""
    world = World()
    world.executes = False
    account = await account_in(world)
    sent = await account.send_user_operation(CALL)
    world.failures = {"eth_getUserOperationReceipt": [ConnectError("restarting") for _ in range(4)]}
    waiting = asyncio.create_task(account.wait_for_receipt(sent))
    await asyncio.sleep(0)
    world.execute(sent)
    receipt = await waiting
    assert (receipt.user_operation_hash, receipt.transaction_hash) == (sent, TX)
    assert (receipt.block_number, receipt.actual_gas_cost, receipt.actual_gas_used) == (9, 16, 2)


async def test_waiting_ends_with_the_hash() -> None:
    """Not on the chain in time: the error says which one."""
    world = World()
    world.executes = False
    account = await account_in(world)
    sent = await account.send_user_operation(CALL)
    with pytest.raises(UserOperationTimeoutError) as caught:
        await account.wait_for_receipt(sent, timeout=0.05)
    assert caught.value.user_operation_hash == sent
    assert isinstance(caught.value, TimeoutError)
    world.failures = {"eth_getUserOperationReceipt": [ConnectError("no bundler there") for _ in range(1000)]}
    with pytest.raises(UserOperationTimeoutError, match=r"not known .* yet: .*no bundler there"):
        await account.wait_for_receipt(sent, timeout=0.05)
    with pytest.raises(InvalidFieldError, match="user_operation_hash must hold 32 bytes, not 1"):
        await account.wait_for_receipt("0x11")


async def test_a_reverted_operation_is_an_error_with_its_receipt() -> None:
    """Executed and reverted: raised, unless asked for."""
    world = World()
    world.success = False
    account = await account_in(world)
    sent = await account.send_user_operation(CALL)
    with pytest.raises(UserOperationRevertedError) as caught:
        await account.wait_for_receipt(sent)
    assert caught.value.transaction_hash == TX
    assert UserOperationReceipt.from_dict(caught.value.receipt).transaction_hash == TX
    assert not (await account.wait_for_receipt(sent, allow_revert=True)).is_success


async def test_a_reason_that_commands_a_terminal_is_only_shown() -> None:
    """A contract chooses the reason of its revert: no control character of it is in the error."""
    world = World()
    world.success, world.reason = False, "\x1b[2J\x1b]0;owned\x07sent\r\nok \u202e"
    account = await account_in(world)
    sent = await account.send_user_operation(CALL)
    with pytest.raises(UserOperationRevertedError) as caught:
        await account.wait_for_receipt(sent)
    assert str(caught.value).isprintable()
    assert "\\x1b[2J\\x1b]0;owned\\x07sent ok \\u202e" in str(caught.value)
    assert "\x1b" not in caught.value.reason


async def test_an_account_that_cannot_be_signed_for() -> None:
    """A wallet that signs typed data only will do for keygen, and sends nothing."""

    async def sign(_: Any) -> str:
        return "0x"

    wallet = CallbackWallet(TARGET, sign)
    account = await account_in(World(), signer=wallet)
    assert account.signer is wallet
    with pytest.raises(ConfigurationError, match="cannot sign user operations"):
        await account.send_user_operation(CALL)


async def test_without_a_node_the_chain_cannot_be_read() -> None:
    """Without rpc_url the error says what is missing, before anything is sent."""
    account = await account_in(World(), rpc_url=None)
    with pytest.raises(ConfigurationError, match="rpc_url"):
        await account.send_user_operation(CALL)


@pytest.mark.parametrize("calls", [[], ["0x"], "0x12", [CALL, None]])
async def test_calls_are_calls(calls: Any) -> None:
    """Anything else is refused before anybody is asked."""
    world = World()
    with pytest.raises(InvalidFieldError, match="calls"):
        await (await account_in(world)).send_user_operation(calls)
    assert world.calls == []


async def test_a_silent_bundler_trips_the_deadline() -> None:
    """One deadline over the whole call; nothing is left running."""

    async def silent(method: str, params: Any) -> Any:
        await asyncio.Event().wait()

    async with no_leaks():
        async with await account_in(World(), bundler_url=InMemoryTransport(silent)) as account:
            with pytest.raises((DeadlineExceededError, TimeoutError)):
                await account.send_user_operation(CALL, timeout=0.05)


async def test_it_is_what_generate_session_key_takes() -> None:
    """The seed's smartAccountClient: signer, bundler_url, chain_id and get_address()."""
    wallet = LocalWallet(b"\x01" * 32)
    account = await create_smart_account_client(
        signer=wallet, bundler_url="https://bundler.example/api/v2/137/key", address=ACCOUNT
    )
    assert isinstance(account, SmartAccount)
    assert (account.signer, account.chain_id) == (wallet, 137)
    assert account.bundler_url == "https://bundler.example/api/v2/137/key"
    assert await account.get_address() == ACCOUNT
    await account.aclose()


class Service:
    """A paymaster service that notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    async def __call__(self, method: str, params: Any) -> Any:
        """Answer from the table."""
        self.asked.append((method, params))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer


STUB_V07 = {"paymaster": TARGET, "paymasterData": "0x01", "paymasterPostOpGasLimit": "0x9"}


async def test_an_erc_7677_paymaster_is_asked_twice() -> None:
    """Stub data for the estimate, then the promise over the finished gas fields; both know chain and entry point."""
    service = Service(
        pm_getPaymasterStubData=STUB_V07,
        pm_getPaymasterData={"paymaster": TARGET, "paymasterData": "0x02"},
    )
    world = World()
    account = await account_in(world, paymaster_url=InMemoryTransport(service), paymaster_context={"a": 1})
    operation = world.operations[await account.send_user_operation(CALL)]
    assert isinstance(operation, UserOperationV07)
    assert (operation.paymaster, operation.paymaster_data) == (TARGET, b"\x02")
    assert (operation.paymaster_verification_gas_limit, operation.paymaster_post_op_gas_limit) == (4, 5)
    (_, stub), (_, final) = service.asked
    assert stub[1:] == final[1:] == [account.entry_point, hex(CHAIN_ID), {"a": 1}]
    assert stub[0]["callGasLimit"] == "0x0"
    assert final[0]["callGasLimit"] == "0x3"
    assert final[0]["paymasterData"] == "0x01"
    assert "signature" not in final[0]


async def test_a_final_stub_is_enough() -> None:
    """isFinal saves the second question."""
    service = Service(pm_getPaymasterStubData=STUB_V07 | {"isFinal": True})
    world = World()
    account = await account_in(world, paymaster_url=InMemoryTransport(service))
    assert world.operations[await account.send_user_operation(CALL)].paymaster == TARGET


async def test_a_paymaster_of_v06() -> None:
    """v0.6 has one member for it all."""
    service = Service(
        pm_getPaymasterStubData={"paymasterAndData": TARGET + "01"},
        pm_getPaymasterData={"paymasterAndData": TARGET + "02"},
    )
    world = World("v0.6.0")
    account = await account_in(world, paymaster_url=InMemoryTransport(service))
    assert world.operations[await account.send_user_operation(CALL)].paymaster_and_data[20:] == b"\x02"


@pytest.mark.parametrize(
    "answer", [None, {}, {"paymaster": None}, {"paymaster": "0x1"}, {"paymasterAndData": TARGET}, []]
)
async def test_a_paymasters_wrong_answer_is_refused(answer: Any) -> None:
    """Data of another version, or none, does not go into an operation."""
    service = Service(pm_getPaymasterStubData=answer)
    world = World()
    with pytest.raises(ProtocolError, match="paymaster's answer"):
        await (await account_in(world, paymaster_url=InMemoryTransport(service))).send_user_operation(CALL)
    assert "eth_sendUserOperation" not in world.methods()


async def test_a_paymasters_refusal_is_told() -> None:
    """The service's error becomes ours, as the paymaster's."""
    service = Service(pm_getPaymasterStubData=RpcError(-32001, "rejected due to gas policy"))
    world = World()
    with pytest.raises(PaymasterError, match="gas policy"):
        await (await account_in(world, paymaster_url=InMemoryTransport(service))).send_user_operation(CALL)


async def test_biconomys_paymaster_has_the_last_word_on_gas() -> None:
    """pm_sponsorUserOperation in the mode SPONSORED, and its gas limits."""
    service = Service(
        pm_sponsorUserOperation={
            "paymasterAndData": TARGET + "02",
            "preVerificationGas": "75388",
            "verificationGasLimit": 57121,
            "callGasLimit": 108848,
        }
    )
    world = World("v0.6.0")
    paymaster = BiconomyPaymaster(JsonRpcService("paymaster", InMemoryTransport(service)))
    account = await account_in(world, account=BiconomyV2(factory=FACTORY), paymaster=paymaster)
    operation = world.operations[await account.send_user_operation(CALL)]
    assert isinstance(operation, UserOperationV06)
    assert operation.paymaster_and_data.hex() == TARGET[2:].lower() + "02"
    gas = (operation.pre_verification_gas, operation.verification_gas_limit, operation.call_gas_limit)
    assert gas == (75388, 57121, 108848)
    (_, (sent, mode)) = service.asked[0]
    assert mode["mode"] == "SPONSORED"
    assert "paymasterAndData" not in sent


async def test_lanes_run_side_by_side() -> None:
    """A lane that waits for its operation does not hold up another one."""
    world = World()
    world.executes = False
    account = await account_in(world)
    first = await account.send_user_operation(CALL, lane="a")
    other = await account.send_user_operation(CALL, lane="b")
    assert world.operations[first].nonce >> 64 != world.operations[other].nonce >> 64
    second = asyncio.create_task(account.send_user_operation(CALL, lane="a"))
    await asyncio.sleep(0.05)
    assert not second.done()
    world.execute(first)
    assert world.operations[await second].nonce == world.operations[first].nonce + 1


async def test_cancelling_anywhere_leaves_no_task_and_no_doubtful_nonce() -> None:
    """Cancelled at each step: what may have been sent keeps its nonce, what was not gives it back; nothing stays behind."""
    for step in itertools.count(1):
        world = World()
        async with no_leaks():
            account = await account_in(world)
            was_cancelled = await cancelled_at(step, account.send_user_operation(CALL))
            before = list(world.executed)
            try:
                again = await account.send_user_operation(CALL, timeout=0.2)
            except UserOperationTimeoutError as error:
                # It was about to leave: nobody can tell, so nobody else gets its nonce.
                assert error.user_operation_hash not in before  # noqa: PT017 - one of three outcomes
            except DuplicateUserOperationError as error:
                # It had left, and was executed: the same calls are not made twice.
                assert world.executed == before == [error.user_operation_hash]  # noqa: PT017
            else:
                assert world.executed == [*before, again]
                assert world.operations[again].nonce == account.lanes.key() << 64 | len(before)
            await account.aclose()
        if not was_cancelled:
            assert step > 10
            return


async def test_a_nonce_that_somebody_else_took_is_replaced() -> None:
    """Another agent was quicker in the lane: the calls are made with the next nonce, once."""
    world = World()
    taken = RpcError(-32500, "AA25 invalid account nonce")
    account = await account_in(world)

    async def hurried(method: str, params: Any) -> Any:
        if method == "eth_sendUserOperation" and not world.nonces:
            first = account.lanes.key() << 64
            world.nonces[account.lanes.key()] = 3
            world.events.append(event(world.version, TX, ACCOUNT, first))
            raise taken
        return await world.bundler(method, params)

    account = await account_in(world, bundler_url=InMemoryTransport(hurried))
    sent = await account.send_user_operation(CALL)
    assert world.executed == [sent]
    assert world.operations[sent].nonce == account.lanes.key() << 64 | 3


async def test_a_pool_without_room_is_waited_for_with_the_same_operation() -> None:
    """While the nonce is still the next one, the very same operation is offered again: nothing is signed twice."""
    world = World()
    world.failures = {"eth_sendUserOperation": [RpcError(-32602, "AA25 invalid account nonce: too many")] * 2}
    account = await account_in(world)
    sent = await account.send_user_operation(CALL)
    offered = [params[0] for method, params in world.calls if method == "eth_sendUserOperation"]
    assert len(offered) == 3
    assert all(one == offered[0] for one in offered)
    assert world.executed == [sent]


async def test_a_nonce_that_never_comes_free_is_told() -> None:
    """When the time is over, the bundler's words are the error."""
    world = World()
    world.failures = {"eth_sendUserOperation": [RpcError(-32602, "AA25 invalid account nonce")] * 99}
    with pytest.raises(BundlerError, match="not the next one of its lane"):
        await (await account_in(world)).send_user_operation(CALL, timeout=0.7)
    assert world.executed == []


async def test_the_very_same_operation_of_somebody_else_is_not_taken_for_ours() -> None:
    """Two programs, one lane, the same calls: the operations are alike to the byte, and both calls are made all the same."""
    world = World()
    world.executes = False
    one, other = await account_in(world), await account_in(world)
    first = await one.send_user_operation(CALL)
    waiting = asyncio.create_task(other.send_user_operation(CALL))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    world.execute(first)
    second = await waiting
    assert world.operations[second].nonce == world.operations[first].nonce + 1


async def test_an_operation_that_only_the_pool_has_is_known() -> None:
    """Alto tells by a method of its own what waits in its pool; what it has dropped is not known."""
    answers = {"eth_getUserOperationByHash": None, "pimlico_getUserOperationStatus": {"status": "queued"}}

    async def handler(method: str, params: Any) -> Any:
        return answers[method]

    account = await account_in(World(), bundler_url=InMemoryTransport(handler))
    assert await account._bundler.is_known("0x01", deadline=Deadline(5))
    answers["pimlico_getUserOperationStatus"] = {"status": "not_found"}
    assert not await account._bundler.is_known("0x01", deadline=Deadline(5))
