"""
Key generations put together: those of a batch with the same participants and t go to each node in one call.

The nodes make the keys in one session of theirs (docs/reference/node-protocol.md, ``dan_keygen_batch``), which costs a
part of as many sessions. A batch changes nothing for a key: its owner has signed its own request, its acknowledgements
are checked as ever, and whatever a node does not answer in a batch it is asked again alone, which it takes for a repetition.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice

from attrs import define, field

from dan_async.config import Threshold
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.errors import DanError, NodeCode, failure_number
from dan_async.nodes.node import Node, Request
from dan_async.nodes.round import NodeRound
from dan_async.protocols.node import KEYGEN_BATCH, MOST_IN_BATCH, Acknowledgement, KeygenBatchResult
from dan_async.retry import Tries
from dan_async.types import OperatorAddress, RequestId

#: Points in one message among the nodes, t for each key.
_MOST_POINTS = 255

#: Characters of all requests of a batch.
_MOST_TEXT = 256 * 1024

#: How long the first request waits for others if none is under way, and at most, in seconds.
_GATHER_S, _LONGEST_S = 0.002, 0.1

#: Batches of the same participants that are under way before others wait to grow.
_MOST_RUNNING = 2

_Key = tuple[tuple[OperatorAddress, ...], int]


@define(eq=False, repr=False)
class _Member:
    """One request, and what each node answered to it in the batch: None if it is to be asked alone."""

    request_id: RequestId
    params: str
    answers: dict[OperatorAddress, asyncio.Future[Acknowledgement | None]]


@define(eq=False, repr=False)
class _Batch:
    """Requests that wait to be sent, or are on their way."""

    members: list[_Member] = field(factory=list)
    timer: asyncio.TimerHandle | None = None

    @property
    def length(self) -> int:
        return sum(len(member.params) for member in self.members)


class KeygenBatches:
    """Puts key generations together over one pool of nodes, which closes it."""

    def __init__(self) -> None:
        self._waiting: dict[_Key, _Batch] = {}
        self._running: Counter[_Key] = Counter()
        self._tasks: dict[asyncio.Task[None], _Batch] = {}
        #: Nodes that do not offer it.
        self._plain: set[OperatorAddress] = set()

    def join(
        self,
        nodes: Mapping[OperatorAddress, Node],
        opened: NodeRound,
        threshold: Threshold,
        deadline: Deadline,
        request: Request[Acknowledgement],
    ) -> Callable[[Node, Tries], Awaitable[Acknowledgement]]:
        """Add an authorised request to the next batch; return how ``ask_many`` asks each node."""
        alone = request.within(deadline)
        most = min(MOST_IN_BATCH, _MOST_POINTS // threshold.t)
        if most < 2 or not opened.nonces or self._plain.intersection(opened.participants):
            return alone
        key = opened.participants, threshold.t
        loop = asyncio.get_running_loop()
        batch = self._waiting.get(key)
        if batch is not None and batch.length + len(request.params) > _MOST_TEXT:
            self._begin(key, nodes)
            batch = None
        if batch is None:
            batch = self._waiting[key] = _Batch()
            wait_s = _LONGEST_S if self._running[key] >= _MOST_RUNNING else _GATHER_S
            batch.timer = loop.call_later(wait_s, self._begin, key, nodes)
        member = _Member(
            opened.setup.request_id,
            request.params,
            {operator: loop.create_future() for operator in opened.participants},
        )
        batch.members.append(member)
        if len(batch.members) == most:
            self._begin(key, nodes)

        async def ask(node: Node, tries: Tries) -> Acknowledgement:
            answer = await member.answers[node.operator]
            return await alone(node, tries) if answer is None else answer

        return ask

    async def aclose(self) -> None:
        """End what is under way."""
        waiting, self._waiting = self._waiting, {}
        # Those on their way too: a task that is cancelled before it began does nothing.
        for batch in (*waiting.values(), *self._tasks.values()):
            _drop(batch)
        await cancel_and_wait(self._tasks)

    def _begin(self, key: _Key, nodes: Mapping[OperatorAddress, Node]) -> None:
        batch = self._waiting.pop(key, None)
        if batch is None:
            return
        # What is done before it was asked was cancelled, with its call.
        batch.members = [m for m in batch.members if not all(a.done() for a in m.answers.values())]
        if len(batch.members) < 2:
            _drop(batch)
            return
        if batch.timer is not None:
            batch.timer.cancel()
        self._running[key] += 1
        task = asyncio.create_task(self._run(key, batch, nodes), name=f"a batch of {len(batch.members)} keys")
        self._tasks[task] = batch
        task.add_done_callback(self._tasks.pop)

    async def _run(self, key: _Key, batch: _Batch, nodes: Mapping[OperatorAddress, Node]) -> None:
        participants, t = key
        params = f'{{"keygens":[{",".join([member.params for member in batch.members])}]}}'
        request = Request(KEYGEN_BATCH, params, KeygenBatchResult.read, batch.members[0].request_id)
        asking = [asyncio.create_task(self._ask(nodes[o], request, batch)) for o in participants]
        try:
            try:
                for answered in islice(
                    asyncio.as_completed(asking), t
                ):  # the next batch waits for no slow node
                    await answered
            finally:
                self._running[key] -= 1
                if not self._running[key]:
                    del self._running[key]
            self._begin(key, nodes)
            await asyncio.wait(asking)
        finally:
            await cancel_and_wait(asking)
            _drop(batch)

    async def _ask(self, node: Node, request: Request[KeygenBatchResult], batch: _Batch) -> None:
        """Ask a node, again if the request may not have come: the others wait for it in their session of all keys."""
        said: tuple[Acknowledgement | None, ...] = (None,) * len(batch.members)
        try:
            result = await node.ask_for_many(request)
            if len(result.acknowledgements) == len(batch.members):
                said = result.acknowledgements
        except DanError as error:
            if failure_number(error) == NodeCode.METHOD_NOT_FOUND:
                self._plain.add(node.operator)
        finally:
            for member, answer in zip(batch.members, said, strict=True):
                future = member.answers[node.operator]
                if not future.done():
                    future.set_result(answer)


def _drop(batch: _Batch) -> None:
    """Have all that has no answer yet asked alone."""
    if batch.timer is not None:
        batch.timer.cancel()
    for member in batch.members:
        for future in member.answers.values():
            if not future.done():
                future.set_result(None)
