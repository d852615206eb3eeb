"""One call, one execution: bundlers that lie or lag, and nodes that lie, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from dan_async import Timeouts
from dan_async.errors import (
    BundlerError,
    ConnectionLostError,
    DanError,
    DuplicateUserOperationError,
    ProtocolError,
    RpcError,
    UserOperationInDoubtError,
    UserOperationTimeoutError,
)
from dan_async.types import Hex
from dan_async.userops import Call
from tests.servers import Handler
from tests.unit.userops.services import (
    ACCOUNT,
    FACTORY,
    TARGET,
    TX,
    World,
    account_at,
    account_in,
    cancelled_when_sent,
    event,
)

CALL = Call(TARGET, 5, b"abcd")
TAKEN = RpcError(-32500, "AA25 invalid account nonce")


def offered(world: World) -> list[Any]:
    """The operations that the bundler was given, by their hashes, each once."""
    sent = [params[0] for method, params in world.calls if method == "eth_sendUserOperation"]
    return list({one["signature"]: one for one in sent}.values())


def executing_and_denying(world: World, error: RpcError, *, is_honest: bool = False) -> Handler:
    """A bundler that executes what it is given, says that it refuses, and denies knowing it; an honest one loses a reply."""

    async def bundler(method: str, params: Any) -> Any:
        if method == "eth_sendUserOperation":
            with contextlib.suppress(RpcError):
                await world.bundler(method, params)
                if is_honest:
                    raise ConnectionLostError("the reply is lost")
            raise error
        if method in ("eth_getUserOperationByHash", "pimlico_getUserOperationStatus"):
            return None
        return await world.bundler(method, params)

    return bundler


async def test_a_bundler_that_executes_and_says_that_the_nonce_is_taken_gets_one_execution() -> None:
    """The chain shows that the nonce went to the very operation: its hash is returned, and nothing else is signed."""
    world = World()
    async with account_at(world, bundler=executing_and_denying(world, TAKEN)) as account:
        sent = await account.send_user_operation(CALL)
    assert world.executed == [sent]
    assert len(offered(world)) == 1


@pytest.mark.parametrize("error", [TAKEN, RpcError(-32602, "already known"), RpcError(-32500, "AA10")])
async def test_an_index_that_lags_after_a_lost_reply_leads_to_one_execution(error: RpcError) -> None:
    """An honest bundler has the operation, does not find it yet and refuses the second sending: the hash can be waited for."""
    world = World()
    async with account_at(world, bundler=executing_and_denying(world, error, is_honest=True)) as account:
        try:
            sent: str | None = await account.send_user_operation(CALL)
        except UserOperationInDoubtError as doubt:
            assert "may have been executed" in doubt.message  # noqa: PT017 - one of two outcomes
            sent = doubt.user_operation_hash
        assert sent is not None
        assert (await account.wait_for_receipt(sent)).is_success
    assert world.executed == [sent]
    assert len(offered(world)) == 1


@pytest.mark.parametrize("error", [TAKEN, RpcError(-32500, "AA21 didn't pay prefund")])
async def test_a_refusal_that_was_a_lie_is_noticed_when_the_calls_are_sent_again(error: RpcError) -> None:
    """The caller was told of a refusal and tries again: the chain shows that it was executed, and nothing is signed."""
    world = World()
    withheld: list[Any] = []

    async def bundler(method: str, params: Any) -> Any:
        if method == "eth_sendUserOperation" and not withheld:
            withheld.append(params)
        if method in ("eth_sendUserOperation", "eth_getUserOperationByHash") and not world.executed:
            raise error
        return await world.bundler(method, params)

    async with account_at(world, bundler=bundler) as account:
        with pytest.raises(BundlerError) as refused:
            await account.send_user_operation(CALL, timeout=0.6)
        await world.bundler("eth_sendUserOperation", withheld[0])  # executes, afterwards
        with pytest.raises(DuplicateUserOperationError) as caught:
            await account.send_user_operation(CALL)
        assert caught.value.user_operation_hash == refused.value.user_operation_hash
        assert world.executed == [refused.value.user_operation_hash]
        # Other calls, and the same ones once the caller knows, are new wishes.
        assert await account.send_user_operation(CALL) in world.executed
    assert len(world.executed) == 2


async def test_a_later_operation_with_the_same_nonce_does_not_hide_the_earlier_one() -> None:
    """A refused operation and its repetition share a nonce: whichever is executed, it was the one execution."""
    world = World()
    first: list[Any] = []

    async def bundler(method: str, params: Any) -> Any:
        if method == "eth_sendUserOperation":
            if not first:
                first.append(params)
                raise RpcError(-32500, "AA21 didn't pay prefund")
            with contextlib.suppress(RpcError):
                await world.bundler(method, first[0])
            raise TAKEN
        return None if method == "eth_getUserOperationByHash" else await world.bundler(method, params)

    async with account_at(world, bundler=bundler) as account:
        with pytest.raises(BundlerError, match="cannot pay") as refused:
            await account.send_user_operation(CALL)
        with pytest.raises(DuplicateUserOperationError):
            await account.send_user_operation(CALL)
    assert world.executed == [refused.value.user_operation_hash]


def _without_events(world: World, logs: Any) -> Handler:
    async def node(method: str, params: Any) -> Any:
        if method != "eth_getLogs":
            return await world.node(method, params)
        found = logs(world.events[-1]) if callable(logs) else logs
        if isinstance(found, Exception):
            raise found
        return found

    return node


FORGERIES: dict[str, Any] = {
    "nothing": [],
    "another account's": lambda real: [real | {"topics": [real["topics"][0], TX, "0x" + "11" * 32]}],
    "another contract's": lambda real: [
        real | {"address": TARGET, "topics": [real["topics"][0], TX, real["topics"][2]]}
    ],
    "another event": lambda real: [real | {"topics": ["0x" + "22" * 32, TX, real["topics"][2]]}],
    "another nonce": lambda real: [event("v0.7.0", TX, ACCOUNT, 7)],
    "taken back": lambda real: [
        event("v0.7.0", TX, ACCOUNT, int(real["data"][2:66], 16)) | {"removed": True}
    ],
    "no list": 5,
    "no events": [{"topics": []}],
    "no hex": [{"topics": ["x", "y", "z"], "data": "0x", "address": "0x"}],
    "refused": RpcError(-32005, "query returned more than 10000 results"),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_node_that_does_not_show_another_operation_is_doubt(name: str) -> None:
    """The nonce is used, and nothing says by whom: the error has the hash, and nothing is signed again."""
    world = World()
    async with account_at(
        world,
        bundler=executing_and_denying(world, TAKEN),
        node=_without_events(world, FORGERIES[name]),
        timeouts=Timeouts(total_s=1, attempt_s=1),
    ) as account:
        with pytest.raises(UserOperationInDoubtError, match="may have been executed") as caught:
            await account.send_user_operation(CALL)
    assert world.executed == [caught.value.user_operation_hash]
    assert len(offered(world)) == 1


async def test_a_node_that_shows_both_is_believed_about_ours() -> None:
    """A forged event beside the true one does not make room for a second execution."""
    world = World()
    node = _without_events(
        world, lambda real: [real | {"topics": [real["topics"][0], TX, *real["topics"][2:]]}, real]
    )
    async with account_at(world, bundler=executing_and_denying(world, TAKEN), node=node) as account:
        assert [await account.send_user_operation(CALL)] == world.executed


async def test_bundler_and_node_that_lie_together_are_bounded() -> None:
    """If the node forges, too, the same calls are signed a few times at most."""
    world = World()
    node = _without_events(
        world, lambda real: [real | {"topics": [real["topics"][0], TX, *real["topics"][2:]]}]
    )
    async with account_at(
        world, bundler=executing_and_denying(world, TAKEN), node=node, timeouts=Timeouts(total_s=20)
    ) as account:
        with pytest.raises(BundlerError, match="not the next one"):
            await account.send_user_operation(CALL)
    assert len(world.executed) <= 4


async def test_a_nonce_of_another_lane_is_refused() -> None:
    """A node that leads the operation into another lane names itself."""
    world = World()

    async def node(method: str, params: Any) -> Any:
        is_nonce = method == "eth_call" and len(params[0]["data"]) == 2 + 2 * (4 + 32 * 2) and world.calls
        if is_nonce and params[0]["to"].startswith("0x0000000071"):
            return "0x" + (9).to_bytes(32).hex()
        return await world.node(method, params)

    async with account_at(world, node=node) as account:
        with pytest.raises(ProtocolError, match="node's answer to eth_call is a nonce of another lane"):
            await account.send_user_operation(CALL)
    assert not offered(world)


def _hanging(world: World) -> Handler:
    async def bundler(method: str, params: Any) -> Any:
        answer = await world.bundler(method, params)
        if method == "eth_sendUserOperation":
            await asyncio.Event().wait()
        return answer

    return bundler


def _vanishing(world: World) -> Handler:
    async def bundler(method: str, params: Any) -> Any:
        if method in ("eth_getUserOperationByHash", "pimlico_getUserOperationStatus"):
            raise ConnectionLostError("gone")
        answer = await world.bundler(method, params)
        if method == "eth_sendUserOperation":
            raise ConnectionLostError("gone")
        return answer

    return bundler


async def test_an_operation_with_a_nonce_to_come_is_in_doubt_as_well() -> None:
    """A node that is ahead of the chain had it signed, and a bundler may keep it: the calls get no second nonce."""
    world = World()
    ahead = [3]

    async def node(method: str, params: Any) -> Any:
        answer = await world.node(method, params)
        is_nonce = method == "eth_call" and params[0]["to"] != FACTORY
        return hex(int(answer, 16) + ahead[0]) if is_nonce else answer

    async def bundler(method: str, params: Any) -> Any:
        if method == "eth_sendUserOperation":
            world.calls.append((method, params))
            raise TAKEN
        return await world.bundler(method, params)

    async with account_at(world, bundler=bundler, node=_padded(node)) as account:
        with pytest.raises(BundlerError) as refused:
            await account.send_user_operation(CALL, timeout=0.6)
        ahead[0] = 0
        with pytest.raises(UserOperationInDoubtError) as caught:
            await account.send_user_operation(CALL, timeout=0.6)
    assert caught.value.user_operation_hash == refused.value.user_operation_hash
    assert len(offered(world)) == 1


def _padded(node: Handler) -> Handler:
    async def handler(method: str, params: Any) -> Any:
        answer = await node(method, params)
        return "0x" + answer[2:].zfill(64) if method == "eth_call" else answer

    return handler


@pytest.mark.parametrize("bundler", [_hanging, _vanishing])
async def test_whatever_ends_the_call_once_it_left_has_the_hash(bundler: Callable[[World], Handler]) -> None:
    """Deadline or broken connections: the error says that it may have been executed, and can be waited for."""
    world = World()
    async with account_at(world, bundler=bundler(world)) as account:
        with pytest.raises(UserOperationInDoubtError, match="may have been executed") as caught:
            await account.send_user_operation(CALL, timeout=0.5)
        assert [caught.value.user_operation_hash] == world.executed
        assert isinstance(caught.value, TimeoutError)
        assert (await account.wait_for_receipt(world.executed[0])).is_success


async def test_a_node_that_fails_after_it_left_leaves_doubt() -> None:
    """The error is not the node's alone: the hash is there."""
    world = World()

    async def node(method: str, params: Any) -> Any:
        if world.executed:
            raise RpcError(-32603, "out of order")
        return await world.node(method, params)

    async with account_at(world, bundler=executing_and_denying(world, TAKEN), node=node) as account:
        with pytest.raises(UserOperationInDoubtError, match="out of order") as caught:
            await account.send_user_operation(CALL)
    assert [caught.value.user_operation_hash] == world.executed


async def test_a_deployment_whose_receipt_is_refused_is_in_doubt() -> None:
    """The bundler took it and will not say what became of it."""
    world = World()
    world.is_deployed = False

    async def bundler(method: str, params: Any) -> Any:
        if method == "eth_getUserOperationReceipt":
            raise RpcError(-32001, "unauthorised")
        return await world.bundler(method, params)

    async with account_at(world, bundler=bundler) as account:
        with pytest.raises(UserOperationInDoubtError, match="access is denied") as caught:
            await account.send_user_operation(CALL)
    assert [caught.value.user_operation_hash] == world.executed


@pytest.mark.parametrize("failure", [RpcError(-32001, "unauthorised"), ProtocolError("no JSON")])
async def test_a_receipt_that_cannot_be_had_leaves_doubt(failure: DanError) -> None:
    """What the bundler answers says nothing about the operation, which was sent; its hash may be written in capitals."""
    world = World()
    account = await account_in(world)
    sent = await account.send_user_operation(CALL)
    world.failures["eth_getUserOperationReceipt"] = [failure]
    with pytest.raises(UserOperationInDoubtError, match="may have been executed") as caught:
        await account.wait_for_receipt(sent)
    assert caught.value.user_operation_hash == sent
    assert (await account.wait_for_receipt(Hex("0x" + sent[2:].upper()))).user_operation_hash == sent


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"eth_sendUserOperation": ProtocolError("no JSON")}, UserOperationInDoubtError),
        (
            {"eth_sendUserOperation": TAKEN, "eth_getUserOperationByHash": ProtocolError("no JSON")},
            BundlerError,
        ),
    ],
)
async def test_an_operation_signed_elsewhere_is_told_of_in_the_same_words(
    answers: dict[str, Exception], error: type[DanError]
) -> None:
    """An answer that cannot be read leaves doubt about what was sent, and none about what was refused."""
    world = World()
    account = await account_in(world)
    operation = await account.prepare_user_operation(CALL, nonce=await account.get_nonce())
    world.failures = {method: [answer] for method, answer in answers.items()}
    with pytest.raises(error) as caught:
        await account.send_signed(evolve(operation, signature=b"signed"))
    assert getattr(caught.value, "user_operation_hash", None) == "0x" + world.hash_of(operation).hex()


async def test_the_very_same_operation_of_another_program_is_not_signed_again(monkeypatch: Any) -> None:
    """Alike to the byte: whose it was, nobody can tell, so it is an error that has the hash, and no second execution."""
    monkeypatch.setattr("dan_async.userops.smart_account.secrets.randbelow", lambda most: 0)
    world = World()
    world.executes = False
    async with account_at(world) as one, account_at(world) as other:
        first = await one.send_user_operation(CALL)
        with pytest.raises(DuplicateUserOperationError, match="somebody else sent") as caught:
            await other.send_user_operation(CALL)
    assert caught.value.user_operation_hash == first
    assert list(world.operations) == [first]


async def test_a_cancelled_operation_stays_in_doubt_while_others_wait_for_it() -> None:
    """Its caller never heard of the hash: once it is executed, the same calls are not made again."""
    world = World()
    world.executes = False
    async with account_at(world, bundler=_hanging(world)) as account:
        sending = asyncio.create_task(account.send_user_operation(CALL))
        while not world.operations:
            await asyncio.sleep(0.01)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        with pytest.raises(UserOperationTimeoutError, match="lane waits"):
            await account.send_user_operation(CALL, timeout=0.3)
        (left,) = world.operations
        world.execute(left)
        with pytest.raises(DuplicateUserOperationError) as caught:
            await account.send_user_operation(CALL)
    assert caught.value.user_operation_hash == left
    assert world.executed == [left]


async def test_a_deployment_that_is_cancelled_while_it_is_waited_for_is_in_doubt_too() -> None:
    """The bundler has taken it; its caller, who set a time limit, has not heard of it."""
    world = World()
    world.is_deployed = world.executes = False
    async with account_at(world) as account:
        await cancelled_when_sent(world, account.send_user_operation(CALL))
        (left,) = world.operations
        world.execute(left)
        world.executes = True
        with pytest.raises(DuplicateUserOperationError) as caught:
            await account.send_user_operation(CALL)
        assert caught.value.user_operation_hash == left
        assert await account.send_user_operation(CALL) != left  # the caller was told
