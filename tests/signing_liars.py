"""
A network of signing nodes in virtual time, some of which lie in every way that a signer can.

The nodes' sessions with each other are the real ones, without their arithmetic; so are the race and the steps of a set.
A liar knows everything that there is to know: which nodes are honest, what was said before, whom the client suspects.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from contextlib import contextmanager
from functools import cache
from typing import Any

from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.devnet.context import NodeIdentity, NodeLimits
from dan_async.devnet.node.rpc import RefusalError, refusing
from dan_async.devnet.peers.sessions import (
    AbortNotice,
    Kind,
    PeerMessage,
    PeerSessions,
    RoundSession,
    SessionFailedError,
)
from dan_async.errors import (
    NodeCode,
    NodeProtocolError,
    NodeRefusedError,
    NodeUnreachableError,
    RateLimitedError,
)
from dan_async.nodes.blame import disagreeing
from dan_async.nodes.health import HealthRecord, Lateness, RestPolicy
from dan_async.nodes.signing_race import SetFailedError, SignerRace, ask_set
from tests.helpers import ManualClock
from tests.unit.devnet.node_context import node_context

#: One way between any two, in seconds, and a step's arithmetic.
LATENCY_S, WORK_S = 0.005, 0.003
BAD = b"bad"


@cache
def identity_of(number: int) -> NodeIdentity:
    return NodeIdentity.from_hex(f"{number:064x}")


class SimulatedNode:
    """What the race knows of a node, and the node itself."""

    def __init__(self, net: Network, number: int) -> None:
        self.identity = identity_of(number)
        self.operator = self.identity.operator
        self.health = HealthRecord(RestPolicy(clock=net.clock))
        self.net = net
        self.sessions = PeerSessions(self, early_s=20, early_bytes=10_000_000, clock=net.clock)
        self.context = node_context(identity=self.identity, limits=NodeLimits(), clock=net.clock)

    @property
    def is_unreachable(self) -> bool:
        return isinstance(self.net.liars.get(self.operator), Unreachable)

    async def look(self, *, deadline: Deadline) -> float:
        await asyncio.sleep(2 * LATENCY_S)
        if isinstance(self.net.liars.get(self.operator), Silent):
            await asyncio.Event().wait()
        if self.is_unreachable:
            raise NodeUnreachableError("gone")
        return self.net.clock()

    # as its links

    @contextmanager
    def wanted(self, _peers: object) -> Any:
        yield

    def send(self, peer: str, frame: bytes) -> bool:
        message = PeerMessage.decode(frame)
        to = self.net.nodes[peer].sessions
        asyncio.get_running_loop().call_later(LATENCY_S, to.on_message, self.operator, message)
        return True


class PlayedSession(RoundSession[str]):
    """A presignature without numbers: two rounds, and a check that notices what is bad."""

    KIND = Kind.PRESIGN
    ROUNDS = 2
    IS_REPLACEABLE = True

    async def work(self) -> str:
        for round_ in (1, 2):
            await asyncio.sleep(WORK_S)
            received = await self.exchange(round_, {self.index(peer): b"right" for peer in self.peers})
            bad = [index for index, body in received.items() if body == BAD]
            if bad:
                raise SessionFailedError("a check has failed", self.operators(bad))
        return self.session_id.hex()


class Turn:
    """One node's part in one set of signers."""

    def __init__(
        self, net: Network, node: SimulatedNode, signers: tuple[str, ...], session_id: bytes
    ) -> None:
        self.net, self.node, self.signers, self.session_id = net, node, signers, session_id
        self.others = [operator for operator in signers if operator != node.operator]
        self.honest = [operator for operator in self.others if operator not in net.liars]

    async def play(self) -> str:
        """Do what an honest node does."""
        session = PlayedSession(
            self.node.context,
            self.node.sessions,
            name="set",
            session_id=self.session_id,
            parties=self.signers,
        )
        try:
            with refusing(NodeCode.SIGNING_FAILED, "signing"):
                return await session.run()
        except RefusalError as refusal:
            raise refused(**refusal.data) from None

    def say(self, to: str, round_: int, body: bytes = b"right") -> None:
        self.node.send(to, PeerMessage(Kind.PRESIGN, self.session_id, round_, body).encode())

    def say_all(self, but: tuple[str, ...] | list[str] = ()) -> None:
        for round_ in (1, 2):
            for operator in self.others:
                if operator not in but:
                    self.say(operator, round_)

    def abort(self, accused: list[str], to: list[str] | None = None) -> None:
        culprits = tuple(self.signers.index(operator) + 1 for operator in accused)
        body = AbortNotice("I say so", culprits).encode()
        for operator in self.others if to is None else to:
            self.node.send(operator, PeerMessage(Kind.ABORT, self.session_id, Kind.PRESIGN, body).encode())

    async def stay_alive(self) -> None:
        while True:
            for operator in self.others:
                self.node.send(operator, PeerMessage(Kind.ALIVE, self.session_id, Kind.PRESIGN, b"").encode())
            await asyncio.sleep(0.5)

    def liars(self) -> list[str]:
        return [operator for operator in self.signers if operator in self.net.liars]

    def next_liar(self) -> str:
        """The one after this one, in a circle; another node if there is no other liar."""
        liars = self.liars()
        following = liars[(liars.index(self.node.operator) + 1) % len(liars)]
        return following if len(liars) > 1 else self.victim()

    def victim(self) -> str:
        """An honest signer, or another one: the least suspect with which this liar was in no dispute yet."""
        net, me = self.net, self.node.operator
        return min(
            self.honest or self.others,
            key=lambda operator: (net.framed[me, operator], net.nodes[operator].health.suspicion, operator),
        )


def refused(code: int = NodeCode.SIGNING_FAILED, **data: Any) -> NodeRefusedError:
    return NodeRefusedError(
        "no",
        code=code,
        culprits=tuple(data.get("culprits", ())),
        evidence=data.get("evidence", ""),
        aborted_by=data.get("abortedBy"),
    )


# --- liars ------------------------------------------------------------------------------------------------------------


class Liar:
    """Honest in whatever it does not override."""

    async def presign(self, turn: Turn) -> str:
        return await turn.play()

    async def sign(self, turn: Turn) -> str:
        return "right"


class AbortsAndBlames(Liar):
    """Gives up at the start, and says that another one is at fault."""

    async def presign(self, turn: Turn) -> str:
        victim = turn.victim()
        turn.net.framed[turn.node.operator, victim] += 1
        turn.abort([victim])
        raise refused(culprits=[victim])


class BlamesEverybody(Liar):
    """As long as somebody listens."""

    async def presign(self, turn: Turn) -> str:
        turn.abort(turn.others)
        raise refused(culprits=turn.others, evidence="silence")


class SaysThatAnotherGaveUp(Liar):
    """To the client; the others it tells nothing of the kind."""

    async def presign(self, turn: Turn) -> str:
        victim = turn.victim()
        turn.abort([victim])
        raise refused(abortedBy=victim)


class AbortsToOne(Liar):
    """And tells the client that a third one gave up: each of three says that the next one did."""

    async def presign(self, turn: Turn) -> str:
        victim = turn.victim()
        turn.say_all(but=[victim])
        turn.abort([], to=[victim])
        await asyncio.sleep(4 * LATENCY_S)
        raise refused(abortedBy=next((o for o in turn.honest if o != victim), victim))


class AccusesInACircle(Liar):
    """The first of the liars in the set accuses the second, and so on, and the last one the first."""

    async def presign(self, turn: Turn) -> str:
        following = turn.next_liar()
        turn.abort([following])
        raise refused(culprits=[following])


class CirclesOfAborters(Liar):
    """Each of the liars in the set says that the next one gave up first."""

    async def presign(self, turn: Turn) -> str:
        following = turn.next_liar()
        turn.abort([], to=[following])
        await asyncio.sleep(4 * LATENCY_S)
        raise refused(abortedBy=following)


class CirclesThroughAnother(Liar):
    """The last of the liars in the set says that an honest one gave up first, to which the first one has given up."""

    async def presign(self, turn: Turn) -> str:
        liars, victim = turn.liars(), min(turn.honest, default=turn.victim())
        turn.say_all(but=[victim])
        if turn.node.operator == liars[0]:
            turn.abort([], to=[victim])
        await asyncio.sleep(4 * LATENCY_S)
        raise refused(abortedBy=victim if turn.node.operator == liars[-1] else turn.next_liar())


class AbortsWithoutReason(Liar):
    """It says no more than that it failed."""

    async def presign(self, turn: Turn) -> str:
        turn.abort([])
        raise refused()


class AbortsAndIsSilent(Liar):
    """To its client."""

    async def presign(self, turn: Turn) -> str:
        turn.abort([turn.victim()])
        return await asyncio.Event().wait()  # type: ignore[return-value]


class Cheats(Liar):
    """Sends one what does not pass its check."""

    async def presign(self, turn: Turn) -> str:
        victim = turn.victim()
        turn.net.framed[turn.node.operator, victim] += 1
        turn.say_all(but=[victim])
        turn.say(victim, 1)
        turn.say(victim, 2, BAD)
        return turn.session_id.hex()


class Silent(Liar):
    """To everybody."""

    async def presign(self, turn: Turn) -> str:
        return await asyncio.Event().wait()  # type: ignore[return-value]


class SilentToOne(Liar):
    """And as alive as can be: the others get everything, and the client an answer."""

    async def presign(self, turn: Turn) -> str:
        victim = turn.victim()
        turn.net.framed[turn.node.operator, victim] += 1
        turn.net.begin(turn.stay_alive())
        turn.say_all(but=[victim])
        return turn.session_id.hex()


class SaysAnotherNonce(Liar):
    """To the client, when the presignature is made."""

    async def presign(self, turn: Turn) -> str:
        await turn.play()
        return "another"


class WrongShare(Liar):
    """Which shows when all are put together."""

    async def sign(self, turn: Turn) -> str:
        return "wrong"


class SilentAtTheEnd(Liar):
    """Makes the presignature, and no share."""

    async def sign(self, turn: Turn) -> str:
        return await asyncio.Event().wait()  # type: ignore[return-value]


class Refuses(Liar):
    """With a code of the protocol, in either step."""

    def __init__(self, code: NodeCode, step: str) -> None:
        self.code, self.step = code, step

    async def presign(self, turn: Turn) -> str:
        if self.step == "presign":
            raise refused(self.code)
        return await turn.play()

    async def sign(self, turn: Turn) -> str:
        if self.step == "sign":
            raise refused(self.code)
        return "right"


class Unreachable(Liar):
    """After the time that three attempts take."""

    async def presign(self, turn: Turn) -> str:
        await asyncio.sleep(0.3)
        raise NodeUnreachableError("gone")


class Garbage(Liar):
    """No answer of the protocol."""

    async def presign(self, turn: Turn) -> str:
        raise NodeProtocolError("nonsense")


class AsksToSlowDown(Liar):
    """Always."""

    async def presign(self, turn: Turn) -> str:
        await asyncio.sleep(0.3)
        raise RateLimitedError("slowly", code=NodeCode.RATE_LIMITED, retry_after=1)


class Late(Liar):
    """With everything, but not by so much that anybody calls it silent."""

    async def presign(self, turn: Turn) -> str:
        turn.net.begin(turn.stay_alive())
        await asyncio.sleep(1.5)
        return await turn.play()

    async def sign(self, turn: Turn) -> str:
        await asyncio.sleep(1.5)
        return "right"


class Mixed(Liar):
    """One after the other."""

    def __init__(self, kinds: list[Liar], rng: random.Random) -> None:
        self.kinds, self.rng = kinds, rng
        self.kind = kinds[0]

    async def presign(self, turn: Turn) -> str:
        self.kind = self.rng.choice(self.kinds)
        return await self.kind.presign(turn)

    async def sign(self, turn: Turn) -> str:
        return await self.kind.sign(turn)


KINDS: dict[str, Liar] = {
    "aborts and blames one": AbortsAndBlames(),
    "blames everybody": BlamesEverybody(),
    "says that another gave up": SaysThatAnotherGaveUp(),
    "aborts to one": AbortsToOne(),
    "accuses in a circle": AccusesInACircle(),
    "circles of aborters": CirclesOfAborters(),
    "circles through another": CirclesThroughAnother(),
    "aborts without reason": AbortsWithoutReason(),
    "aborts and is silent": AbortsAndIsSilent(),
    "cheats": Cheats(),
    "silent": Silent(),
    "silent to one": SilentToOne(),
    "says another nonce": SaysAnotherNonce(),
    "wrong share": WrongShare(),
    "silent at the end": SilentAtTheEnd(),
    "does not permit it": Refuses(NodeCode.NOT_PERMITTED, "presign"),
    "does not permit it in the end": Refuses(NodeCode.NOT_PERMITTED, "sign"),
    "knows no such signers": Refuses(NodeCode.WRONG_PARTICIPANTS, "presign"),
    "forgets": Refuses(NodeCode.PRESIGNATURE_UNKNOWN, "sign"),
    "conflict": Refuses(NodeCode.REQUEST_CONFLICT, "sign"),
    "unreachable": Unreachable(),
    "garbage": Garbage(),
    "slow down": AsksToSlowDown(),
    "late": Late(),
}


# --- the network ------------------------------------------------------------------------------------------------------


class Network:
    """n nodes of which t sign; *liars* by number, from 0. *by_turns*: of those in a set, one lies."""

    def __init__(
        self,
        clock: ManualClock,
        t: int,
        n: int,
        liars: dict[int, Liar],
        *,
        by_turns: bool = False,
        are_shares_checkable: bool = True,
    ) -> None:
        self.clock, self.t = clock, t
        self.by_turns, self.are_shares_checkable = by_turns, are_shares_checkable
        nodes = [SimulatedNode(self, number) for number in range(1, n + 1)]
        self.nodes = {node.operator: node for node in nodes}
        self.liars = {nodes[number].operator: liar for number, liar in liars.items()}
        self.lateness = Lateness(clock=clock)
        self.framed: Counter[tuple[str, str]] = Counter()
        self.tried: list[tuple[str, ...]] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def begin(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    async def sign(self, timeout_s: float = 30.0) -> tuple[tuple[str, ...], float]:
        """Sign once; return the signers, and the seconds that it took."""
        started = self.clock()
        deadline = Deadline(timeout_s, clock=self.clock)
        race: SignerRace[tuple[str, ...]] = SignerRace(
            list(self.nodes.values()),  # type: ignore[arg-type]
            self.t,
            lambda run: self.attempt(run, deadline),
            lateness=self.lateness,
            deadline=deadline,
        )
        return await race.run(), self.clock() - started

    async def aclose(self) -> None:
        await cancel_and_wait(self.tasks)
        for node in self.nodes.values():
            await node.sessions.aclose()
            node.context.workers.close()

    async def attempt(self, run: Any, deadline: Deadline) -> tuple[str, ...]:
        signers, session_id = run.operators, secrets.token_bytes(32)
        self.tried.append(signers)
        try:
            return await self._attempt(run, deadline, session_id)
        except SetFailedError as failure:
            framed = [conflict for conflict in failure.conflicts if not conflict & self.liars.keys()]
            if framed:
                raise AssertionError(f"honest nodes were framed: {framed}") from failure
            raise

    async def _attempt(self, run: Any, deadline: Deadline, session_id: bytes) -> tuple[str, ...]:
        signers = run.operators
        liars = [operator for operator in signers if operator in self.liars]
        if self.by_turns and liars:
            liars = [min(liars, key=lambda me: sum(c for (by, _), c in self.framed.items() if by == me))]

        async def ask(node: SimulatedNode, step: str) -> str:
            await asyncio.sleep(LATENCY_S)
            turn = Turn(self, node, signers, session_id)
            kind = self.liars[node.operator] if node.operator in liars else Liar()
            work = kind.presign(turn) if step == "presign" else kind.sign(turn)
            answer = await asyncio.shield(self.begin(work))
            await asyncio.sleep(LATENCY_S)
            return answer

        offers = await ask_set(run, "presign", lambda node, _: ask(node, "presign"), deadline=deadline)
        groups: dict[str, list[str]] = {}
        for operator, offer in offers.items():
            groups.setdefault(offer, []).append(operator)
        if len(groups) > 1:
            raise SetFailedError({}, disagreeing(groups.values()))
        shares = await ask_set(run, "sign", lambda node, _: ask(node, "sign"), deadline=deadline)
        wrong = [operator for operator, share in shares.items() if share == "wrong"]
        if wrong:
            named = [frozenset((operator,)) for operator in wrong]
            raise SetFailedError({}, named if self.are_shares_checkable else [frozenset(signers)])
        return signers
