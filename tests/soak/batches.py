"""
Two runs of one batch and a recovering client, over one PostgreSQL, while connections, database and nodes fail.

Answers of the database are lost after COMMIT, its connections are cut or go silent, it is restarted as after a crash; the
nodes' connections are cut or go silent, and one node at a time is killed or stopped. What must hold, whatever happens:

- every row has exactly one key in the end: each run that returned it returned that one, and the store has one record of it;
- every key that a client was given is in the store, and is what the nodes' shares make;
- every call ends within its timeout plus a second, but for time in which the machine had no processor for it;
- in the end no task and no socket is left.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from attrs import define, field

from dan_async import DanClient, LocalWallet, NodeEndpoint, NodeNetwork, Threshold, Timeouts
from dan_async.deadline import cancel_and_wait
from dan_async.devnet import Devnet
from dan_async.errors import (
    DanError,
    DeadlineExceededError,
    NodeError,
    QuorumError,
    SessionFailedError,
    SessionPendingError,
    StoreError,
)
from dan_async.request import SessionKeyRequest
from dan_async.session import DanSessionKeyPayload
from dan_async.storage import FixedKeys, SessionFilter, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.helpers import CuttableProxy, _queued_s
from tests.postgresql import FaultProxy, restart_cluster, running_cluster
from tests.soak.chaos import Chaos
from tests.soak.checks import Baseline, Made, shares_held, wrong_keys

T = TypeVar("T")

#: One call's timeout, and by how much it may be overrun, in seconds.
CALL_S = 10.0
OVERRUN_S = 1.0

#: Ways to fail that are right while all this goes on; a row that failed in one run is reported as failed by the other.
HONEST_FAILURES = (
    QuorumError,
    DeadlineExceededError,
    NodeError,
    SessionFailedError,
    SessionPendingError,
    StoreError,
)

TIMEOUTS = Timeouts(total_s=CALL_S, attempt_s=4.0, connect_s=2.0)

WALLET = LocalWallet("0x" + "00" * 31 + "01")


@define
class Report:
    """What came of it; ``to_dict`` is what is written to the file."""

    seconds: float
    seed: int
    rows: int = 0
    results: Counter[str] = field(factory=Counter)
    failures: Counter[str] = field(factory=Counter)
    chaos: Counter[str] = field(factory=Counter)
    problems: list[str] = field(factory=list)
    longest_s: dict[str, float] = field(factory=dict)
    longest_for_the_loop_s: float = 0.0
    elapsed_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return {
            "isGood": not self.problems,
            "seed": self.seed,
            "seconds": self.seconds,
            "elapsedSeconds": round(self.elapsed_s, 1),
            "rows": self.rows,
            "results": dict(self.results),
            "failures": dict(self.failures),
            "chaos": dict(self.chaos),
            "callTimeoutSeconds": CALL_S,
            "longestCallSeconds": {name: round(seconds, 2) for name, seconds in self.longest_s.items()},
            "longestTurnOfTheLoopSeconds": round(self.longest_for_the_loop_s, 2),
            "problems": self.problems,
        }


class TimedClient(DanClient):
    """A client whose key generations are timed, those of batches too."""

    report: Report

    def _generate(
        self, network: Any, request: SessionKeyRequest, *arguments: Any, **options: Any
    ) -> Awaitable[DanSessionKeyPayload]:
        return timed(self.report, "keygen", super()._generate(network, request, *arguments, **options))


async def timed(report: Report, name: str, call: Awaitable[T], *, most_s: float = CALL_S) -> T:
    """Await a call, and note if it takes longer than it may."""
    queued, started = _queued_s(), time.monotonic()
    try:
        return await call
    finally:
        elapsed = time.monotonic() - started - (_queued_s() - queued)
        report.longest_s[name] = max(report.longest_s.get(name, 0.0), elapsed)
        if elapsed > most_s + OVERRUN_S:
            report.problems.append(f"{name} took {elapsed:.2f} s, its timeout was {most_s:g} s")


class Batches:
    """
    Runs everything.

    Args:
        seconds: How long rows are begun.
        seed: Of everything that is random here.
        storage: A folder for the nodes' shares.
    """

    def __init__(self, seconds: float, seed: int, storage: Path) -> None:
        self.report = Report(seconds, seed)
        self._storage = storage
        self._dice = random.Random(seed)
        self._keys = FixedKeys([StoreKey.generate()])
        self._returned: dict[str, set[str]] = {}
        self._made: dict[str, Made] = {}
        self._sessions: list[DanSessionKeyPayload] = []
        self._rows = 0

    async def run(self) -> Report:
        """Run it to the end; problems stand in the report."""
        report, started = self.report, time.monotonic()
        before = Baseline()
        with running_cluster() as url:
            async with (
                FaultProxy(url) as database,
                Devnet(2, 5, processes=True, storage=self._storage) as net,
                AsyncExitStack() as stack,
            ):
                links = [
                    await stack.enter_async_context(CuttableProxy(urlsplit(node.url).port or 0))
                    for node in net.nodes
                ]
                endpoints = [
                    NodeEndpoint(f"ws://127.0.0.1:{link.port}/v1/rpc", node.operator)
                    for link, node in zip(links, net.nodes, strict=True)
                ]
                clients = [
                    await stack.enter_async_context(self._client(database.url, endpoints)) for _ in range(3)
                ]
                await clients[0].store.open()  # type: ignore[attr-defined]  # one of them makes the tables
                chaos = Chaos(net, self._dice, most=1)
                disturbing = [
                    asyncio.create_task(self._disturb(net, chaos, links), name="disturbing nodes"),
                    asyncio.create_task(
                        self._disturb_database(url, database), name="disturbing the database"
                    ),
                    asyncio.create_task(self._watch_loop(), name="watching the loop"),
                ]
                try:
                    await self._work(clients)
                finally:
                    ended = [task for task in disturbing if task.done()]
                    await cancel_and_wait(disturbing)
                    for node in net.nodes:
                        await node.start()
                    report.chaos += chaos.counts
                report.problems += [f"{task.get_name()} ended early: {task.exception()!r}" for task in ended]
                await asyncio.sleep(2)
                async with self._client(url, endpoints) as dan:
                    await self._finish(dan)
        report.problems += [f"left in the end: {what}" for what in await before.left()]
        report.problems += wrong_keys(list(self._made.values()), self._storage)
        held = shares_held(self._storage)
        # Of rounds that were begun again, and whose owner's key is another: of no use to anybody, and no row's.
        report.results["keys that no row has"] = sum(
            count >= 2 for key, count in held.items() if key not in self._made
        )
        report.elapsed_s = time.monotonic() - started
        return report

    def _client(self, url: str, endpoints: list[NodeEndpoint]) -> DanClient:
        store = SQLAlchemyStore(url, self._keys, lock_wait_s=2.0, answer_wait_s=3.0)
        network = NodeNetwork(endpoints, threshold=Threshold(2, 3), timeouts=TIMEOUTS)
        made = TimedClient(network, store=store, timeouts=TIMEOUTS)
        made.report = self.report
        return made

    # --- work ---------------------------------------------------------------------------------------------------------

    async def _work(self, clients: list[DanClient]) -> None:
        end = time.monotonic() + self.report.seconds

        def rows() -> Iterator[dict[str, Any]]:
            for number in itertools.count():
                if time.monotonic() > end:
                    return
                self._rows = max(self._rows, number + 1)
                yield self._row(number)

        recovering = asyncio.create_task(self._recover(clients[2]), name="recovering")
        signing = asyncio.create_task(self._sign(clients[2]), name="signing")
        try:
            async with asyncio.TaskGroup() as group:
                for client in clients[:2]:
                    group.create_task(self._batch(client, rows()))
        finally:
            await cancel_and_wait([recovering, signing])

    @staticmethod
    def _row(number: int) -> dict[str, Any]:
        return {"reference": f"row-{number}", "wallet": WALLET, "chain_id": 1}

    async def _batch(self, dan: DanClient, rows: Any, **options: Any) -> None:
        async with dan.generate_session_keys(rows, concurrency=4, resume=True, **options) as run:
            async for item in run:
                self.report.results[item.status] += 1
                if item.session is not None:
                    self._returned.setdefault(item.request["reference"], set()).add(item.session.mpc_key_id)
                    self._made[item.session.mpc_key_id] = Made.of(item.session)
                    self._sessions.append(item.session)
                elif item.error is not None:
                    self._note(item.error)

    def _note(self, error: BaseException) -> None:
        self.report.failures[type(error).__name__] += 1
        if not isinstance(error, HONEST_FAILURES):
            self.report.problems.append(repr(error))

    async def _recover(self, dan: DanClient) -> None:
        while True:
            try:
                # The timeout is that of one record.
                call = dan.recover(min_age_s=5.0, timeout=5.0)
                report = await timed(self.report, "recover", call, most_s=math.inf)
            except DanError as error:
                self._note(error)
            else:
                self.report.results["recovered"] += len(report.sessions)
            await asyncio.sleep(1)

    async def _sign(self, dan: DanClient) -> None:
        while True:
            await asyncio.sleep(0.2)
            if not self._sessions:
                continue
            session = self._dice.choice(self._sessions)
            try:
                await timed(self.report, "sign", dan.sign_message("hello", session))
                number = self._dice.randrange(self._rows)
                await timed(self.report, "read", self._kept(dan, number))
            except DanError as error:
                self._note(error)
            else:
                self.report.results["signed"] += 1

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    async def _disturb(self, net: Devnet, chaos: Chaos, links: list[CuttableProxy]) -> None:
        """Kill, stop or cut off a node for a while, and let connections go dead."""
        counts, dice = self.report.chaos, self._dice
        while True:
            await asyncio.sleep(dice.uniform(0.5, 4.0))
            index = dice.randrange(len(links))
            move = dice.choice(["kill", "stop", "cut", "half-open", "half-open", "all half-open"])
            if move == "kill":
                await chaos._kill(index)
            elif move == "stop":
                await chaos._stop(index)
            elif move == "cut":
                links[index].cut()
                counts["node connections cut"] += 1
            else:
                for link in links if move == "all half-open" else [links[index]]:
                    link.silence()
                    counts["nodes half-open"] += 1

    async def _disturb_database(self, url: str, database: FaultProxy) -> None:
        counts, dice = self.report.chaos, self._dice
        while True:
            await asyncio.sleep(dice.uniform(1.0, 6.0))
            move = dice.choice(["cut", "silence", "lose", "lose", "restart"])
            if move == "cut":
                database.cut()
            elif move == "silence":
                database.silence()
            elif move == "lose":
                database.lose_answer_to(b"COMMIT", times=database.lost + 1)
            else:
                await asyncio.to_thread(restart_cluster, url)
            counts[f"database: {move}"] += 1

    async def _watch_loop(self) -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.05)
            late = time.monotonic() - started - 0.05
            self.report.longest_for_the_loop_s = max(self.report.longest_for_the_loop_s, late)

    # --- in the end ---------------------------------------------------------------------------------------------------

    async def _finish(self, dan: DanClient) -> None:
        """Run the batch once more where nothing goes wrong, and compare what everybody has."""
        report = self.report
        report.rows = self._rows
        await dan.recover(timeout=5.0)
        for _ in range(3):  # a row that another run holds is left alone until its lease is over
            missing = [number for number in range(self._rows) if (await self._kept(dan, number)) != "active"]
            if not missing:
                break
            await self._batch(dan, (self._row(number) for number in missing), retry_failed=True)
            await asyncio.sleep(5)
        keys: Counter[str] = Counter()
        references: Counter[str] = Counter()
        async for record in dan.store.find(SessionFilter(state="active")):
            assert record.session is not None
            keys[record.session.mpc_key_id] += 1
            self._made.setdefault(record.session.mpc_key_id, Made.of(record.session))  # what recover() found
            references[record.reference or ""] += 1
            returned = self._returned.get(record.reference or "", set())
            if returned - {record.session.mpc_key_id}:
                report.problems.append(f"{record.reference}: other keys were returned than the store has")
        for number in range(self._rows):
            if references[f"row-{number}"] != 1:
                report.problems.append(f"row-{number} has {references[f'row-{number}']} keys in the store")
        report.problems += [
            f"key {key} was returned, and is not in the store" for key in self._made if not keys[key]
        ]
        report.results["active in the store"] = keys.total()

    @staticmethod
    async def _kept(dan: DanClient, number: int) -> str | None:
        record = await dan.store.get_by_reference(f"row-{number}")
        return None if record is None else record.state


async def batches(seconds: float, seed: int) -> Report:
    """Run it with a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="dan-soak-") as folder:
        return await Batches(seconds, seed, Path(folder)).run()
