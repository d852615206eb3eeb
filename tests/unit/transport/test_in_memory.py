"""The transport for users' tests behaves as a real one."""

from __future__ import annotations

import asyncio

import pytest

from dan_async.errors import (
    ClientClosedError,
    ConnectionLostError,
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
    RpcError,
)
from dan_async.transport import InMemoryTransport, Transport
from tests.helpers import assert_runs_under, cancelled_at, no_leaks
from tests.servers import echo


async def test_handler_gets_method_and_decoded_parameters():
    """What the handler returns is the result."""
    transport: Transport = InMemoryTransport(echo)
    result = await transport.call("add", '{"a":[1,2]}', timeout_s=1)
    assert result == {"method": "add", "params": {"a": [1, 2]}}


async def test_result_goes_through_json():
    """A tuple comes back as a list, and nothing is shared with the handler."""
    kept = {"points": (1, 2)}

    async def handler(method, params):
        return kept

    result = await InMemoryTransport(handler).call("m", "{}", timeout_s=1)
    assert result == {"points": [1, 2]}
    assert result is not kept


@pytest.mark.parametrize(
    "error", [RpcError(-32025, "conflict"), ConnectionLostError("gone"), KeyError("a bug")]
)
async def test_errors_of_the_handler_reach_the_caller(error):
    """Errors that a transport can raise, and bugs of the test itself, are not hidden."""

    async def handler(method, params):
        raise error

    with pytest.raises(type(error)) as caught:
        await InMemoryTransport(handler).call("m", "{}", timeout_s=1)
    assert caught.value is error


async def test_calls_give_way_to_the_loop():
    """A call is never over before other tasks have had their turn."""
    turns = []
    task = asyncio.create_task(InMemoryTransport(echo).call("m", "{}", timeout_s=1))
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await task
    assert turns == [1]


async def test_handler_that_hangs_times_out():
    """A time limit ends the handler."""
    ended = []

    async def handler(method, params):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(method)

    async with no_leaks(), assert_runs_under(2):
        with pytest.raises(RequestTimeoutError, match="m at memory timed out"):
            await InMemoryTransport(handler).call("m", "{}", timeout_s=0.01)
    assert ended == ["m"]


async def test_timeout_error_of_the_handler_is_left_as_it_is():
    """Only the call's own limit becomes RequestTimeoutError of the call."""

    async def handler(method, params):
        raise TimeoutError("the handler's own")

    with pytest.raises(TimeoutError, match="the handler's own"):
        await InMemoryTransport(handler).call("m", "{}", timeout_s=1)


async def test_closing_fails_what_is_pending_and_later_calls():
    """Each call in flight ends with ClientClosedError; closing twice is fine."""

    async def handler(method, params):
        await asyncio.Event().wait()

    transport = InMemoryTransport(handler, name="node 1")
    async with no_leaks():
        calls = [asyncio.create_task(transport.call("m", "{}", timeout_s=None)) for _ in range(3)]
        await asyncio.sleep(0.01)
        await asyncio.gather(transport.aclose(), transport.aclose())
        assert all(call.done() for call in calls)
        for call in calls:
            assert isinstance(call.exception(), ClientClosedError)
        with pytest.raises(ClientClosedError, match="node 1"):
            await transport.call("m", "{}", timeout_s=1)
        await transport.aclose()


async def test_cancelling_at_every_await_leaves_a_working_transport():
    """No call is left behind, wherever it is cancelled."""
    transport = InMemoryTransport(echo)
    async with no_leaks():
        step = 1
        while await cancelled_at(step, transport.call("m", "{}", timeout_s=1)):
            assert (await transport.call("m", "1", timeout_s=1))["params"] == 1
            step += 1
        assert step > 2
        await transport.aclose()


@pytest.mark.parametrize("params", ["", "{", "undefined", "[" * 100_000])
async def test_parameters_that_are_not_json_are_refused(params):
    """The caller hears of it at once."""
    with pytest.raises(InvalidFieldError, match="params"):
        await InMemoryTransport(echo).call("m", params, timeout_s=1)


@pytest.mark.parametrize("result", [object(), float("nan"), {1, 2}])
async def test_result_that_is_not_json_is_refused(result):
    """A real peer could not have sent it."""

    async def handler(method, params):
        return result

    with pytest.raises(ProtocolError, match="not JSON"):
        await InMemoryTransport(handler).call("m", "{}", timeout_s=1)


def test_limits_hold_on_every_event_loop_that_it_is_used_on():
    """A transport that outlives an event loop limits its calls on the next one as well."""

    async def hang(method, params):
        await asyncio.Event().wait()

    transport = InMemoryTransport(hang)

    async def call():
        with pytest.raises(RequestTimeoutError):
            await transport.call("anything", "{}", timeout_s=0.01)

    for _ in range(2):
        asyncio.run(asyncio.wait_for(call(), 5))
