"""
A soak: concurrent jobs for minutes, against a network in which something is always going wrong.

Nodes are processes of their own, killed and restarted at random, with faults switched on and off; jobs run side by side
over the nodes and over a gateway, in every revision; some are cancelled at random moments. What must hold, whatever happens:

- no wrong result: every key that a client was given is what the nodes' shares make, every signature recovers to its key;
- every job ends, within its deadline; every attempt and every operation that began ends, once;
- between bursts no request is pending and no task of a job is left; in the end no task and no socket is;
- memory is flat after the warm-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from dan_async import DanClient, GatewayNetwork, LocalWallet, NodeNetwork, Timeouts
from dan_async.deadline import cancel_and_wait
from dan_async.devnet import Devnet
from dan_async.errors import (
    ConfigurationError,
    DanError,
    DeadlineExceededError,
    EphemeralKeyRefusedError,
    GatewayError,
    KeySubstitutionError,
    NodeError,
    QuorumError,
    SignatureCheckError,
    ThresholdDowngradeError,
)
from dan_async.session import DanSessionKeyPayload
from tests.soak.chaos import Chaos
from tests.soak.checks import (
    Baseline,
    Ledger,
    Made,
    memory_growth,
    pending_requests,
    rss_bytes,
    wrong_keys,
)

#: Ways to fail that are right in a network in which more than n - t nodes may be disturbed.
HONEST_FAILURES = (QuorumError, DeadlineExceededError, NodeError, GatewayError)

#: What no disturbed minority may bring about.
WRONG = (
    ConfigurationError,
    EphemeralKeyRefusedError,
    KeySubstitutionError,
    SignatureCheckError,
    ThresholdDowngradeError,
)

#: One job's deadline, and by how much it may be overrun on a busy machine, in seconds.
JOB_S = 8.0
OVERRUN_S = 5.0

#: Memory may grow by so much after the warm-up: what clients remember of challenges, and the soak's own notes.
LEAST_GROWTH = 24 * 1024 * 1024
PART_GROWTH = 0.1

WALLET = LocalWallet("0x" + "00" * 31 + "01")
THRESHOLDS = ((2, 3), (2, 4), (3, 4), (2, 2))


@frozen(kw_only=True)
class Plan:
    """
    What to do.

    Args:
        seconds: How long jobs are begun.
        seed: Of everything that is random here.
        nodes: How many nodes there are.
        workers: How many jobs run side by side.
        disturbed: How many nodes may be disturbed at the same time.
        checkpoints: How often everything is paused and looked at, at most; work goes on for two seconds in between.
    """

    seconds: float
    seed: int
    nodes: int = 5
    workers: int = 6
    disturbed: int = 2
    checkpoints: int = 20


@define
class Report:
    """What came of it; ``to_dict`` is what is written to the file."""

    plan: Plan
    results: Counter[str] = field(factory=Counter)
    failures: Counter[str] = field(factory=Counter)
    problems: list[str] = field(factory=list)
    memory: list[int] = field(factory=list)
    chaos: Counter[str] = field(factory=Counter)
    events: Counter[str] = field(factory=Counter)
    longest_job_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        plan = self.plan
        return {
            "isGood": self.is_good,
            "seed": plan.seed,
            "seconds": plan.seconds,
            "elapsedSeconds": round(self.elapsed_s, 1),
            "nodes": plan.nodes,
            "workers": plan.workers,
            "results": dict(self.results),
            "failures": dict(self.failures),
            "chaos": dict(self.chaos),
            "events": dict(self.events),
            "longestJobSeconds": round(self.longest_job_s, 3),
            "memoryBytes": self.memory,
            "memoryGrowthBytes": memory_growth(self.memory),
            "problems": self.problems,
        }


class Soak:
    """
    Runs a plan.

    Args:
        plan: What to do.
        storage: A folder for the nodes' shares.
    """

    def __init__(self, plan: Plan, storage: Path) -> None:
        self.report = Report(plan)
        self._plan = plan
        self._storage = storage
        self._dice = random.Random(plan.seed)
        self._made: list[Made] = []
        self._sessions: list[DanSessionKeyPayload] = []
        self._may_begin = asyncio.Event()
        self._under_way = 0
        self._ledger = Ledger()

    async def run(self) -> Report:
        """Run it to the end; problems stand in the report."""
        report, started = self.report, time.monotonic()
        before = Baseline()
        net = Devnet(2, self._plan.nodes, processes=True, storage=self._storage)
        async with net, self._clients(net) as (clients, network):
            chaos = Chaos(net, random.Random(self._plan.seed + 1), most=self._plan.disturbed)
            disturbing = asyncio.create_task(chaos.run(), name="chaos")
            try:
                await self._work(clients, network)
            finally:
                await cancel_and_wait([disturbing])
                report.chaos = chaos.counts
            if disturbing.done() and not disturbing.cancelled() and disturbing.exception():
                report.problems.append(f"chaos ended early: {disturbing.exception()!r}")
            await self._works_again(clients)
        report.problems += [f"left in the end: {what}" for what in await before.left()]
        report.problems += wrong_keys(self._made, self._storage)
        report.events = self._ledger.counts
        report.elapsed_s = time.monotonic() - started
        self._judge_memory()
        if not report.results["keygen"]:
            report.problems.append("not one key was made")
        return report

    @contextlib.asynccontextmanager
    async def _clients(self, net: Devnet) -> AsyncIterator[tuple[list[DanClient], NodeNetwork]]:
        timeouts = Timeouts(total_s=JOB_S, attempt_s=3.0, connect_s=2.0)
        direct = net.network(timeouts=timeouts)
        networks = [direct] + [
            GatewayNetwork(net.gateway_url, revision=revision, timeouts=timeouts)
            for revision in ("0.1", "0.3", "1")
        ]
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(DanClient(network, timeouts=timeouts, on_event=self._ledger))
                for network in networks
            ]
            yield clients, direct

    # --- work and pauses ----------------------------------------------------------------------------------------------

    async def _work(self, clients: list[DanClient], network: NodeNetwork) -> None:
        self._may_begin.set()
        workers = [
            asyncio.create_task(
                self._worker(clients, random.Random(self._dice.random())), name=f"soak worker {index}"
            )
            for index in range(self._plan.workers)
        ]
        try:
            end = time.monotonic() + self._plan.seconds
            while (left := end - time.monotonic()) > 0:
                pause = min(left, max(2.0, self._plan.seconds / self._plan.checkpoints))
                done, _ = await asyncio.wait(workers, timeout=pause)
                if done:
                    self.report.problems.append(f"a worker ended: {done.pop().exception()!r}")
                    return
                await self._checkpoint(network)
        finally:
            await cancel_and_wait(workers)

    async def _checkpoint(self, network: NodeNetwork) -> None:
        """Let everything that is under way end, and see that it has."""
        self._may_begin.clear()
        try:
            async with asyncio.timeout(JOB_S + OVERRUN_S):
                while self._under_way:
                    await asyncio.sleep(0.01)
                # Presignatures are made in the background, for a moment longer. (What the gateway, which runs in this process
                # too, still does for clients that have gone is its own affair; in the end nothing may be left of it either.)
                while pending_requests(network) or self._ledger.open_attempts:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            self.report.problems.append(
                f"after {JOB_S + OVERRUN_S} s: {self._under_way} jobs under way, {pending_requests(network)} "
                f"requests pending, {self._ledger.open_attempts} attempts open"
            )
        if self._ledger.open_operations:
            self.report.problems.append(f"{self._ledger.open_operations} operations did not end")
        self.report.memory.append(await rss_bytes())
        self._may_begin.set()

    async def _worker(self, clients: list[DanClient], dice: random.Random) -> None:
        while True:
            await self._may_begin.wait()
            self._under_way += 1
            try:
                await self._one_job(clients, dice)
            finally:
                self._under_way -= 1
            await asyncio.sleep(dice.uniform(0, 0.05))

    # --- one job ------------------------------------------------------------------------------------------------------

    async def _one_job(self, clients: list[DanClient], dice: random.Random) -> None:
        kind = dice.choices(["keygen", "sign", "add"], [6, 3, 1])[0] if self._sessions else "keygen"
        # Revision 0.1 adds no ephemeral keys and signs no messages.
        client = dice.choice([*[clients[0]] * 3, *clients[1 if kind == "keygen" else 2 :]])
        task = asyncio.create_task(getattr(self, f"_{kind}")(client, dice), name=f"soak {kind}")
        started = time.monotonic()
        try:
            if dice.random() < 0.2:
                await asyncio.wait([task], timeout=dice.uniform(0, 0.3))
                task.cancel()
            await task
            self.report.results[kind] += 1
        except asyncio.CancelledError:
            if not task.cancelled():  # it was the worker that was cancelled
                await cancel_and_wait([task])
                raise
            self.report.results["cancelled"] += 1
        except WRONG as error:
            self.report.problems.append(f"{kind} over {client.network!r}: {error!r}")
        except HONEST_FAILURES as error:
            self.report.results["failed"] += 1
            self.report.failures[type(error).__name__] += 1
        except DanError as error:
            self.report.failures[type(error).__name__] += 1
            self.report.problems.append(f"{kind}: {error!r}")
        except Exception as error:  # whatever it is, it is a bug, and the soak goes on to find more
            self.report.problems.append(f"{kind}: {error!r}")
        elapsed = time.monotonic() - started
        self.report.longest_job_s = max(self.report.longest_job_s, elapsed)
        if elapsed > JOB_S + OVERRUN_S:
            self.report.problems.append(f"{kind} took {elapsed:.1f} s, its deadline was {JOB_S} s")

    async def _keygen(self, client: DanClient, dice: random.Random) -> None:
        t, n = dice.choice(THRESHOLDS)
        payload = await client.generate_session_key(
            wallet=WALLET,
            chain_id=1,
            threshold=t,
            parties_number=n,
            eph_alg="ed25519",  # which every revision takes, so that each client can use each session
        )
        self._made.append(Made.of(payload))
        if (
            getattr(client.network, "revision", None) != "0.1"
        ):  # its sessions sign user operations only, in 0.1 only
            self._sessions.append(payload)
            del self._sessions[:-50]

    async def _sign(self, client: DanClient, dice: random.Random) -> None:
        # That the signature recovers to the session's address is checked by the client, and an error if it does not.
        session = dice.choice(self._sessions)
        signature = await client.sign_message(f"message {dice.random()}", session, request_type="EIP191")
        assert len(signature) == 132

    async def _add(self, client: DanClient, dice: random.Random) -> None:
        await client.add_ephemeral_key(dice.choice(self._sessions), wallet=WALLET, eph_alg="ed25519")

    # --- in the end ---------------------------------------------------------------------------------------------------

    async def _works_again(self, clients: list[DanClient]) -> None:
        """Once nothing goes wrong any more, every client makes a key, after the nodes have rested."""
        for client in clients:
            failure: DanError | None = None
            for _ in range(10):
                try:
                    await self._keygen(client, random.Random(0))
                except DanError as error:
                    failure = error
                    await asyncio.sleep(1.0)
                else:
                    break
            else:
                self.report.problems.append(f"no key after everything was put right: {failure!r}")

    def _judge_memory(self) -> None:
        samples = self.report.memory
        growth = memory_growth(samples)
        if samples and growth > max(LEAST_GROWTH, PART_GROWTH * samples[0]):
            self.report.problems.append(f"memory grew by {growth / 1e6:.1f} MB after the warm-up")


async def soak(plan: Plan) -> Report:
    """Run a plan with shares in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="dan-soak-") as folder:
        return await Soak(plan, Path(folder)).run()
