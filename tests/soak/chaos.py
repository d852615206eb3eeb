"""What goes wrong in a soak: nodes are killed and come back, faults are switched on and off, all by one seeded generator."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable

from dan_async.deadline import cancel_and_wait
from dan_async.devnet import (
    AcknowledgeOtherKey,
    ContradictInSigning,
    Crash,
    DealBadOpening,
    DealWrongShare,
    Delay,
    Devnet,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    Fault,
    ForgeCommitments,
    ForgeShares,
    ForgeSignature,
    HttpError,
    RefuseConnections,
    SendGarbage,
    SilentInSigning,
    SquatSession,
    Trickle,
    WithholdEcho,
    WrongSignatureShare,
)

# Left out on purpose: CheatInSigning, since nodes that were cheated never sign with the cheat again, so that a long soak
# would end with a network in which nobody signs with anybody.
FAULTS: tuple[Callable[[random.Random], Fault], ...] = (
    lambda dice: Delay(seconds=dice.uniform(0.02, 0.5), jitter_s=0.02),
    lambda _: DropRequest(),
    lambda _: DropReply(methods=["dan_keygen"]),
    lambda _: Disconnect(),
    lambda _: RefuseConnections(),
    lambda dice: HttpError(status=dice.choice([429, 503]), retry_after=dice.choice([None, 1])),
    lambda _: SendGarbage(),
    lambda _: Trickle(),
    lambda _: ExpireNonces(),
    lambda dice: Crash(at_round=dice.choice([None, 1, 2, 3]), restart_after=dice.uniform(0.1, 1.0)),
    lambda _: ForgeSignature(),
    lambda _: ForgeShares(),
    lambda _: AcknowledgeOtherKey(),
    lambda _: DealWrongShare(),
    lambda _: DealBadOpening(),
    lambda _: Equivocate(),
    lambda dice: WithholdEcho(reach=dice.choice([1, 2])),
    lambda _: SquatSession(),
    lambda dice: FallSilent(round=dice.choice([1, 2, 3])),
    lambda _: SilentInSigning(),
    lambda _: ContradictInSigning(),
    lambda _: ForgeCommitments(),
    lambda _: WrongSignatureShare(),
)


class Chaos:
    """
    Disturbs the nodes of a devnet whose nodes are processes.

    Args:
        net: The devnet.
        dice: The source of all that is random.
        most: How many nodes may be disturbed at the same time.
    """

    def __init__(self, net: Devnet, dice: random.Random, *, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self._net = net
        self._dice = dice
        self._most = most
        self._disturbed: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Go on until cancelled, which puts everything right again."""
        try:
            while True:
                await asyncio.sleep(self._dice.uniform(0.2, 1.0))
                free = [node.index for node in self._net.nodes if node.index not in self._disturbed]
                if len(self._disturbed) >= self._most or not free:
                    continue
                index = self._dice.choice(free)
                self._disturbed.add(index)
                move = self._dice.choice([self._kill, self._stop, self._break, self._break])
                task = asyncio.create_task(self._disturb(index, move(index)), name=f"chaos at node {index}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            await cancel_and_wait(list(self._tasks))
            await self._put_right()

    async def _disturb(self, index: int, move: object) -> None:
        try:
            await move  # type: ignore[misc]  # a coroutine of one of the moves below
        finally:
            self._disturbed.discard(index)

    async def _kill(self, index: int) -> None:
        """SIGKILL: nothing is said, nothing is finished."""
        node = self._net.nodes[index]
        process = node._runner._process  # type: ignore[attr-defined]  # only the soak shoots at processes
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGKILL)
            self.counts["killed"] += 1
        await asyncio.sleep(self._dice.uniform(0.2, 2.0))
        await node.start()

    async def _stop(self, index: int) -> None:
        """A clean stop, as of an operator's update."""
        node = self._net.nodes[index]
        await node.stop()
        self.counts["stopped"] += 1
        await asyncio.sleep(self._dice.uniform(0.2, 2.0))
        await node.start()

    async def _break(self, index: int) -> None:
        """A fault for a while, or two."""
        chosen = [make(self._dice) for make in self._dice.sample(FAULTS, self._dice.choice([1, 1, 2]))]
        self._net.faults[index] = chosen
        self.counts.update(type(fault).__name__ for fault in chosen)
        try:
            await asyncio.sleep(self._dice.uniform(0.3, 3.0))
        finally:
            self._net.faults[index] = None
        await self._net.nodes[index].start()  # it may have crashed for good

    async def _put_right(self) -> None:
        for node in self._net.nodes:
            self._net.faults[node.index] = None
            # What was killed is started again; what crashed by a fault may be on its way back, which start() waits for.
            await node.start()
