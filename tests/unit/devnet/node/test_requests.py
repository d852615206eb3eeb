"""Work that is done once for each request."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from dan_async.devnet.context import NodeLimits
from dan_async.devnet.node.requests import RequestRuns
from dan_async.devnet.node.rpc import RefusalError, rate_limited
from dan_async.errors import NodeCode
from tests.helpers import ManualClock
from tests.unit.devnet.node_context import node_context


class Work:
    """Counts how often it is done, and ends when it is told to."""

    def __init__(self, result="done"):
        self.result = result
        self.times = 0
        self.may_end = asyncio.Event()

    async def __call__(self):
        self.times += 1
        await self.may_end.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def runs(clock):
    context = node_context(clock=clock, limits=NodeLimits(nonce_lifetime_s=10))
    made = RequestRuns(context, "pieces of work", most=2)
    yield made
    await made.aclose()


def started(runs, request, content, work):
    return asyncio.create_task(runs.run(request, content, work))


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def code_of(running):
    with pytest.raises(RefusalError) as caught:
        await running
    return caught.value.code


async def test_who_repeats_a_request_gets_the_same_result(runs):
    """While it is under way, and afterwards: the work is done once."""
    work = Work()
    first, second = started(runs, 1, b"a", work), started(runs, 1, b"a", work)
    await settled()
    work.may_end.set()
    assert await first == await second == await runs.run(1, b"a", work) == "done"
    assert work.times == 1


async def test_a_result_is_forgotten_in_time(runs, clock):
    """Then the same request is a new one."""
    work = Work()
    work.may_end.set()
    await runs.run(1, b"a", work)
    clock.advance(9.9)
    await runs.run(1, b"a", work)
    assert work.times == 1
    clock.advance(0.1)
    await runs.run(1, b"a", work)
    assert work.times == 2


async def test_another_content_is_a_conflict(runs):
    """While the first is under way, and after it has succeeded."""
    work = Work()
    first = started(runs, 1, b"a", work)
    await settled()
    assert await code_of(runs.run(1, b"b", work)) == NodeCode.REQUEST_CONFLICT
    work.may_end.set()
    await first
    assert await code_of(runs.run(1, b"b", work)) == NodeCode.REQUEST_CONFLICT
    assert work.times == 1


async def test_a_failure_is_repeated_and_another_content_begins_anew(runs):
    """Nothing was made under the id, so that a new request may use it."""
    failing = Work(RefusalError(NodeCode.SIGNING_FAILED, "no", data={"culprits": ["x"]}))
    failing.may_end.set()
    for _ in range(2):
        with pytest.raises(RefusalError) as caught:
            await runs.run(1, b"a", failing)
        assert caught.value.data == {"culprits": ["x"]}
    assert failing.times == 1
    work = Work()
    work.may_end.set()
    assert await runs.run(1, b"b", work) == "done"
    assert await runs.run(1, b"b", work) == "done"
    assert work.times == 1


async def test_an_unforeseen_failure_is_repeated_as_the_nodes_own(runs):
    """The first caller sees what happened; later ones that the node has failed."""
    failing = Work(ValueError("inside"))
    failing.may_end.set()
    with pytest.raises(ValueError, match="inside"):
        await runs.run(1, b"a", failing)
    assert await code_of(runs.run(1, b"a", failing)) == NodeCode.INTERNAL_ERROR


async def test_who_came_too_early_may_come_again(runs):
    """A refusal for lack of room is not remembered."""
    work = Work(rate_limited("too many", 1.0))
    work.may_end.set()
    for _ in range(2):
        assert await code_of(runs.run(1, b"a", work)) == NodeCode.RATE_LIMITED
    assert work.times == 2


async def test_what_is_refused_before_the_work_is_not_remembered(runs):
    """The checks are made again."""

    def refuse():
        raise RefusalError(NodeCode.UNKNOWN_KEY, "no")

    assert await code_of(runs.run(1, b"a", refuse)) == NodeCode.UNKNOWN_KEY
    work = Work()
    work.may_end.set()
    assert await runs.run(1, b"a", work) == "done"


async def test_only_so_many_at_a_time(runs):
    """More are refused until one has ended."""
    work = Work()
    running = [started(runs, number, b"a", work) for number in range(2)]
    await settled()
    assert await code_of(runs.run(2, b"a", work)) == NodeCode.RATE_LIMITED
    work.may_end.set()
    await asyncio.gather(*running)
    assert await runs.run(2, b"a", work) == "done"


async def test_the_work_goes_on_when_the_caller_is_gone(runs):
    """Who asks later gets its result."""
    work = Work()
    first = started(runs, 1, b"a", work)
    await settled()
    first.cancel()
    await settled()
    waiting = asyncio.create_task(runs.wait_for(1))
    await settled()
    assert not waiting.done()
    work.may_end.set()
    await waiting
    assert await runs.run(1, b"a", work) == "done"
    assert work.times == 1


async def test_closing_tells_whoever_waits(runs):
    """The node is stopping; nothing is left running."""
    work = Work()
    first = started(runs, 1, b"a", work)
    await settled()
    await runs.aclose()
    assert await code_of(first) == NodeCode.UNAVAILABLE


async def test_a_refusal_is_kept_without_its_request(runs):
    """Its traceback would hold a megabyte of a stranger's for as long as the refusal is remembered."""

    class Request:
        pass

    async def refuse(request):
        raise RefusalError(NodeCode.UNKNOWN_KEY, "no such key", data={"a": 1}) from ValueError(request)

    request = Request()
    gone = weakref.ref(request)
    running = started(runs, "id", b"1", lambda request=request: refuse(request))
    del request
    assert await code_of(running) == NodeCode.UNKNOWN_KEY
    del running
    await settled()
    gc.collect()
    assert gone() is None
    with pytest.raises(RefusalError) as again:
        await runs.run("id", b"1", lambda: refuse(None))
    assert (again.value.message, again.value.data) == ("no such key", {"a": 1})


async def test_work_that_waits_for_nothing_is_done_once_too(runs):
    """Its result is returned again, its refusal repeated; another content is a conflict, or begins anew."""
    made = []

    def work():
        made.append("done")
        return made[-1]

    def refuse():
        made.append("refused")
        raise RefusalError(NodeCode.PRESIGNATURE_SPENT, "no")

    for _ in range(2):
        assert runs.run_at_once(1, b"a", work) == "done"
        with pytest.raises(RefusalError, match="no"):
            runs.run_at_once(2, b"a", refuse)
    with pytest.raises(RefusalError) as caught:
        runs.run_at_once(1, b"b", work)
    assert caught.value.code == NodeCode.REQUEST_CONFLICT
    assert made == ["done", "refused"]
    assert runs.run_at_once(2, b"b", work) == "done"


async def test_work_at_once_is_refused_while_another_content_is_being_worked_on(runs):
    """One id names one request, whichever way its work is done."""
    slow = Work()
    first = started(runs, 1, b"a", slow)
    await settled()
    with pytest.raises(RefusalError) as caught:
        runs.run_at_once(1, b"b", lambda: "done")
    assert caught.value.code == NodeCode.REQUEST_CONFLICT
    slow.may_end.set()
    assert await first == "done"
