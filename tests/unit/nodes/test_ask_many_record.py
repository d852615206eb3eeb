"""
Asking many nodes, recorded: who is asked, answers and is cut off when, what is reported of each, and when it is over.

Every case runs in virtual time, so each moment is exact. The four shapes are those that the jobs use: as many answers
as are wanted (nonces), a verdict that is counted (key generation), everybody's answer (changes, settling), and a set of which all must
answer (signing).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from attrs import define, frozen

from dan_async.deadline import Deadline
from dan_async.errors import (
    AcknowledgementError,
    ClientClosedError,
    DanError,
    NodeOutcome,
    NodeRefusedError,
    NodeUnreachableError,
)
from dan_async.nodes.ask_many import Answers, Plan, ask_many
from dan_async.nodes.health import Lateness
from dan_async.nodes.keygen import UntilVerdict
from dan_async.nodes.signing_race import Run, SetFailedError, ask_set
from dan_async.retry import Tries
from dan_async.types import OperatorAddress
from tests.helpers import ManualClock, run_in_virtual_time

FOREVER = Deadline(None)


@frozen
class Peer:
    """A node, by its letter."""

    operator: OperatorAddress


class Said(str):
    """An answer that can be put into words, as an acknowledgement can."""

    __slots__ = ()
    summary = "said it"


@define
class Scripted:
    """
    Asks nodes by a script, and keeps a record in virtual time.

    The script has a word for each node: ``a:ok@0.2`` answers after 0.2 s, ``b:fail@0.1`` fails, ``c:hang`` never does either,
    ``d:blames-a@0.1`` refuses and blames a node, ``e:wrong@0.1`` answers what does not count, ``f:closed@0.1`` meets
    a closed client. ``*3`` sets the attempts.
    """

    clock: ManualClock
    script: dict[str, tuple[str, float | None, int]]
    log: list[str]

    @classmethod
    def read(cls, text: str, clock: ManualClock) -> Scripted:
        script: dict[str, tuple[str, float | None, int]] = {}
        for word in text.split():
            name, _, rest = word.partition(":")
            rest, _, attempts = rest.partition("*")
            kind, _, after = rest.partition("@")
            script[name] = (kind, float(after) if after else None, int(attempts or 1))
        return cls(clock, script, [])

    @property
    def peers(self) -> list[Peer]:
        return [Peer(OperatorAddress(name)) for name in self.script]

    def note(self, what: str) -> None:
        self.log.append(f"{self.clock.now - 1000:.3f} {what}")

    async def ask_many(self, plan: Plan[Any], deadline: Deadline = FOREVER) -> Answers[Any]:
        answers = await ask_many(self.peers, self.ask, plan, step="", deadline=deadline)
        self.note("over")
        return answers

    async def ask(self, peer: Peer, tries: Tries) -> str:
        name = peer.operator
        kind, after, tries.made = self.script[name]
        self.note(f"ask {name}")
        try:
            await (asyncio.Event().wait() if after is None else asyncio.sleep(after))
        except asyncio.CancelledError:
            self.note(f"cut {name}")
            raise
        self.note(f"{kind} {name}")
        if kind == "ok":
            return Said(f"answer of {name}")
        if kind == "bug":
            raise ZeroDivisionError
        if kind == "closed":
            raise ClientClosedError("closed")
        error: DanError = NodeUnreachableError("gone", node=name)
        if kind == "wrong":
            error = AcknowledgementError("wrong", node=name)
        elif kind.startswith("blames-"):
            error = NodeRefusedError("no", code=-32030, culprits=(kind[7:],), node=name)
        error.attempts, error.elapsed_s = tries.made, after
        raise error


def describe(outcome: NodeOutcome) -> str:
    """One word for what a node did, with attempts and seconds."""
    said = type(outcome.error).__name__.removeprefix("Node").removesuffix("Error").lower()
    verb = "ok" if outcome.is_success else said if outcome.error else "cut"
    return f"{outcome.operator}: {verb} {outcome.attempts}x {outcome.elapsed_s:.3f}"


# --- the four shapes --------------------------------------------------------------------------------------------------


async def as_many(scripted: Scripted, *, wanted: int, **options: Any) -> str:
    """Ask until as many have answered as are wanted."""
    answers = await scripted.ask_many(Plan(wanted=wanted, **options))
    return "; ".join([" ".join(answers.values), *map(describe, answers.outcomes)])


class Count:
    """A tally of answers: t of n win."""

    def __init__(self, t: int, n: int) -> None:
        self.t, self.n, self.good = t, n, 0
        self.failed: set[str] = set()

    def record(self, _operator: str, _answer: object) -> None:
        self.good += 1

    def record_failure(self, operator: str) -> None:
        self.failed.add(operator)

    @property
    def is_won(self) -> bool:
        return self.good >= self.t

    @property
    def is_lost(self) -> bool:
        return self.n - len(self.failed) < self.t


async def count(
    scripted: Scripted,
    *,
    t: int,
    deadline_s: float = 60,
    grace_s: float | None = None,
    slow: Sequence[str] = (),
) -> str:
    """Ask everybody until t agree."""
    tally = Count(t, len(scripted.script))
    plan: Plan[Any] = UntilVerdict(
        wanted=len(scripted.script),
        tally=tally,  # type: ignore[arg-type]
        grace_s=grace_s,
        slow=[OperatorAddress(name) for name in slow],
    )
    answers = await scripted.ask_many(plan, Deadline(deadline_s, clock=scripted.clock))
    verdict = "won" if tally.is_won else "lost" if tally.is_lost else "open"
    return "; ".join([verdict, *map(describe, answers.outcomes)])


async def everybody(scripted: Scripted) -> str:
    """Ask everybody, and wait for all."""
    answers = await scripted.ask_many(Plan(wanted=len(scripted.script)))
    return "; ".join([" ".join(answers.values), *map(describe, answers.failures)])


async def signers(scripted: Scripted) -> str:
    """Ask a set of which all must answer."""
    lateness = Lateness(scripted.clock)
    run = Run(tuple(scripted.peers), lateness)  # type: ignore[arg-type]
    try:
        answers = await ask_set(run, "sign", scripted.ask, deadline=Deadline(None))  # type: ignore[arg-type]
    except SetFailedError as error:
        said = f"failed: {' '.join(sorted(error.failures))}"
    else:
        said = f"all: {' '.join(sorted(answers))}"
    scripted.note("over")
    return (
        f"{said}; waiting {' '.join(sorted(run.waiting)) or '-'}; late after {lateness.limit_s('sign'):.3f}"
    )


# --- the record -------------------------------------------------------------------------------------------------------

Shape = Callable[..., Awaitable[str]]

CASES: dict[str, tuple[Shape, str, dict[str, Any], str]] = {
    "as many, all well": (
        as_many,
        "a:ok@0.1 b:ok@0.3 c:ok@0.2 d:ok@0.1",
        {"wanted": 3},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.200 ok c | 0.300 ok b"
            " | 0.300 over | a c b; a: ok 1x 0.100; b: ok 1x 0.300; c: ok 1x 0.200"
        ),
    ),
    "as many, a failure is replaced at once": (
        as_many,
        "a:ok@0.1 b:fail@0.05*3 c:ok@0.2 d:ok@0.1 e:ok@0.1",
        {"wanted": 3, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.050 fail b | 0.050 ask d | 0.100 ok a"
            " | 0.150 ok d | 0.200 ok c | 0.200 over"
            " | a d c; a: ok 1x 0.100; b: unreachable 3x 0.050; c: ok 1x 0.200; d: ok 1x 0.100"
        ),
    ),
    "as many, a late node is raced": (
        as_many,
        "a:ok@0.1 b:hang c:ok@0.2 d:ok@0.1 e:ok@0.1",
        {"wanted": 3, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.200 ok c | 0.500 ask d"
            " | 0.600 ok d | 0.600 cut b | 0.600 over"
            " | a c d; a: ok 1x 0.100; b: cut 1x 0.600; c: ok 1x 0.200; d: ok 1x 0.100"
        ),
    ),
    "as many, a late node may still have one": (
        as_many,
        "a:ok@0.1 b:ok@0.6 c:ok@0.2 d:ok@0.4",
        {"wanted": 3, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.200 ok c | 0.500 ask d"
            " | 0.600 ok b | 0.600 cut d | 0.600 over"
            " | a c b; a: ok 1x 0.100; b: ok 1x 0.600; c: ok 1x 0.200; d: cut 1x 0.100"
        ),
    ),
    "as many, more are under way than are missing": (
        as_many,
        "a:ok@0.6 b:ok@0.9 c:hang d:hang e:ok@0.1",
        {"wanted": 2, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.500 ask c | 0.500 ask d | 0.600 ok a | 0.900 ok b | 0.900 cut c"
            " | 0.900 cut d | 0.900 over"
            " | a b; a: ok 1x 0.600; b: ok 1x 0.900; c: cut 1x 0.400; d: cut 1x 0.400"
        ),
    ),
    "as many, a late spare is raced as well": (
        as_many,
        "a:hang b:ok@0.1 c:hang d:ok@0.1",
        {"wanted": 2, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.100 ok b | 0.500 ask c | 1.000 ask d | 1.100 ok d"
            " | 1.100 cut a | 1.100 cut c | 1.100 over"
            " | b d; a: cut 1x 1.100; b: ok 1x 0.100; c: cut 1x 0.600; d: ok 1x 0.100"
        ),
    ),
    "as many, a late node that fails is not replaced twice": (
        as_many,
        "a:fail@0.6 b:ok@0.3 c:ok@0.1",
        {"wanted": 1, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.500 ask b | 0.600 fail a | 0.800 ok b | 0.800 over"
            " | b; a: unreachable 1x 0.600; b: ok 1x 0.300"
        ),
    ),
    "as many, a spare that fails is replaced": (
        as_many,
        "a:hang b:ok@0.1 c:fail@0.1 d:ok@0.1",
        {"wanted": 2, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.100 ok b | 0.500 ask c | 0.600 fail c | 0.600 ask d"
            " | 0.700 ok d | 0.700 cut a | 0.700 over"
            " | b d; a: cut 1x 0.700; b: ok 1x 0.100; c: unreachable 1x 0.100; d: ok 1x 0.100"
        ),
    ),
    "as many, an answer beyond them is ready and not counted": (
        as_many,
        "a:ok@0.7 b:ok@0.2 c:ok@0.7",
        {"wanted": 2, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.200 ok b | 0.500 ask c | 0.700 ok a | 0.700 cut c"
            " | 0.700 over | b a; a: ok 1x 0.700; b: ok 1x 0.200; c: cut 1x 0.200"
        ),
    ),
    "as many, no hedge": (
        as_many,
        "a:ok@2 b:ok@0.1 c:ok@0.1",
        {"wanted": 2},
        (
            "0.000 ask a | 0.000 ask b | 0.100 ok b | 2.000 ok a | 2.000 over"
            " | b a; a: ok 1x 2.000; b: ok 1x 0.100"
        ),
    ),
    "as many, the candidates run out": (
        as_many,
        "a:fail@0.1 b:ok@0.2 c:fail@0.3",
        {"wanted": 3, "hedge_s": 0.5},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 fail a | 0.200 ok b | 0.300 fail c"
            " | 0.300 over | b; a: unreachable 1x 0.100; b: ok 1x 0.200; c: unreachable 1x 0.300"
        ),
    ),
    "as many, fewer after the patience": (
        as_many,
        "a:ok@0.1 b:ok@0.2 c:hang d:hang",
        {"wanted": 3, "hedge_s": 0.5, "least": 2, "patience_s": 2},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.200 ok b | 0.500 ask d"
            " | 2.000 cut c | 2.000 cut d | 2.000 over"
            " | a b; a: ok 1x 0.100; b: ok 1x 0.200; c: cut 1x 2.000; d: cut 1x 1.500"
        ),
    ),
    "as many, the patience waits for the least": (
        as_many,
        "a:ok@0.1 b:ok@3 c:hang",
        {"wanted": 3, "hedge_s": 0.5, "least": 2, "patience_s": 1},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 3.000 ok b | 3.000 cut c"
            " | 3.000 over | a b; a: ok 1x 0.100; b: ok 1x 3.000; c: cut 1x 3.000"
        ),
    ),
    "as many, enough within the patience": (
        as_many,
        "a:ok@0.1 b:ok@0.2 c:ok@0.9",
        {"wanted": 3, "least": 2, "patience_s": 1},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.200 ok b | 0.900 ok c"
            " | 0.900 over | a b c; a: ok 1x 0.100; b: ok 1x 0.200; c: ok 1x 0.900"
        ),
    ),
    "as many, none": (
        as_many,
        "a:ok@0.1",
        {"wanted": 0},
        "0.000 over | ",
    ),
    "as many, a bug": (
        as_many,
        "a:bug@0.1 b:hang",
        {"wanted": 2},
        "0.000 ask a | 0.000 ask b | 0.100 bug a | 0.100 cut b | 0.100 raised ZeroDivisionError | -",
    ),
    "verdict, all at once": (
        count,
        "a:ok@0.1 b:ok@0.1 c:ok@0.1",
        {"t": 2},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.100 ok b | 0.100 ok c"
            " | 0.100 over | won; a: ok 1x 0.100; b: ok 1x 0.100; c: ok 1x 0.100"
        ),
    ),
    "verdict, grace is a tenth": (
        count,
        "a:ok@0.1 b:ok@0.2 c:ok@0.215 d:ok@0.3",
        {"t": 2},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 ok a | 0.200 ok b"
            " | 0.215 ok c | 0.220 cut d | 0.220 over"
            " | won; a: ok 1x 0.100; b: ok 1x 0.200; c: ok 1x 0.215; d: cut 1x 0.220"
        ),
    ),
    "verdict, grace is at least 2 ms": (
        count,
        "a:ok@0.001 b:ok@0.001 c:ok@0.0025 d:hang",
        {"t": 2},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.001 ok a | 0.001 ok b"
            " | 0.003 ok c | 0.003 cut d | 0.003 over"
            " | won; a: ok 1x 0.001; b: ok 1x 0.001; c: ok 1x 0.003; d: cut 1x 0.003"
        ),
    ),
    "verdict, grace is at most 50 ms": (
        count,
        "a:ok@3 b:ok@4 c:ok@4.04 d:ok@4.06",
        {"t": 2},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 3.000 ok a | 4.000 ok b"
            " | 4.040 ok c | 4.050 cut d | 4.050 over"
            " | won; a: ok 1x 3.000; b: ok 1x 4.000; c: ok 1x 4.040; d: cut 1x 4.050"
        ),
    ),
    "verdict, a grace of the caller's": (
        count,
        "a:ok@0.1 b:ok@0.1 c:ok@1 d:hang",
        {"t": 2, "grace_s": 1.5},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 ok a | 0.100 ok b"
            " | 1.000 ok c | 1.600 cut d | 1.600 over"
            " | won; a: ok 1x 0.100; b: ok 1x 0.100; c: ok 1x 1.000; d: cut 1x 1.600"
        ),
    ),
    "verdict, slow nodes are not listened to": (
        count,
        "a:ok@0.1 b:ok@0.2 c:ok@0.205 d:hang",
        {"t": 2, "slow": "d"},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 ok a | 0.200 ok b"
            " | 0.205 ok c | 0.205 cut d | 0.205 over"
            " | won; a: ok 1x 0.100; b: ok 1x 0.200; c: ok 1x 0.205; d: cut 1x 0.205"
        ),
    ),
    "verdict, all that is left is slow": (
        count,
        "a:ok@0.1 b:ok@0.2 c:hang d:hang",
        {"t": 2, "slow": "cd"},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 ok a | 0.200 ok b"
            " | 0.200 cut c | 0.200 cut d | 0.200 over"
            " | won; a: ok 1x 0.100; b: ok 1x 0.200; c: cut 1x 0.200; d: cut 1x 0.200"
        ),
    ),
    "verdict, lost": (
        count,
        "a:fail@0.1*2 b:fail@0.2 c:ok@0.24 d:hang",
        {"t": 3},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 fail a | 0.200 fail b"
            " | 0.240 ok c | 0.250 cut d | 0.250 over"
            " | lost; a: unreachable 2x 0.100; b: unreachable 1x 0.200; c: ok 1x 0.240; d: cut 1x 0.250"
        ),
    ),
    "verdict, lost whatever the grace": (
        count,
        "a:fail@0.1 b:fail@0.1 c:hang",
        {"t": 2, "grace_s": 9},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 fail a | 0.100 fail b | 0.150 cut c"
            " | 0.150 over | lost; a: unreachable 1x 0.100; b: unreachable 1x 0.100; c: cut 1x 0.150"
        ),
    ),
    "verdict, blame is heard but not the accused": (
        count,
        "a:hang b:blames-a@0.1 c:blames-a@0.2 d:blames-a@0.3",
        {"t": 3},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 blames-a b"
            " | 0.200 blames-a c | 0.300 blames-a d | 0.300 cut a | 0.300 over"
            " | lost; a: cut 1x 0.300; b: refused 1x 0.100; c: refused 1x 0.200; d: refused 1x 0.300"
        ),
    ),
    "verdict, blame waits a quarter of a second": (
        count,
        "a:hang b:blames-a@0.1 c:blames-a@0.2 d:ok@0.5",
        {"t": 3},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 blames-a b"
            " | 0.200 blames-a c | 0.450 cut a | 0.450 cut d | 0.450 over"
            " | lost; a: cut 1x 0.450; b: refused 1x 0.100; c: refused 1x 0.200; d: cut 1x 0.450"
        ),
    ),
    "verdict, a slow node is heard when it is lost": (
        count,
        "a:fail@0.1 b:fail@0.1 c:fail@0.13 d:hang",
        {"t": 3, "slow": "c"},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 fail a | 0.100 fail b"
            " | 0.130 fail c | 0.150 cut d | 0.150 over"
            " | lost; a: unreachable 1x 0.100; b: unreachable 1x 0.100; c: unreachable 1x 0.130; d: cut 1x 0.150"
        ),
    ),
    "verdict, what does not count": (
        count,
        "a:wrong@0.1 b:ok@0.1 c:ok@0.2",
        {"t": 2},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 wrong a | 0.100 ok b | 0.200 ok c"
            " | 0.200 over | won; a: acknowledgement 1x 0.100; b: ok 1x 0.100; c: ok 1x 0.200"
        ),
    ),
    "verdict, the deadline": (
        count,
        "a:ok@0.1 b:hang c:hang",
        {"t": 2, "deadline_s": 1},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 1.000 cut b | 1.000 cut c"
            " | 1.000 over | open; a: ok 1x 0.100; b: cut 1x 1.000; c: cut 1x 1.000"
        ),
    ),
    "verdict, the deadline ends the grace": (
        count,
        "a:ok@0.9 b:ok@0.9 c:hang",
        {"t": 2, "deadline_s": 0.95},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.900 ok a | 0.900 ok b | 0.950 cut c"
            " | 0.950 over | won; a: ok 1x 0.900; b: ok 1x 0.900; c: cut 1x 0.950"
        ),
    ),
    "verdict, a bug": (
        count,
        "a:bug@0.1 b:hang c:ok@0.05",
        {"t": 3},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.050 ok c | 0.100 bug a | 0.100 cut b"
            " | 0.100 raised ZeroDivisionError | -"
        ),
    ),
    "everybody": (
        everybody,
        "a:ok@0.3 b:ok@0.1 c:ok@0.2",
        {},
        "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok b | 0.200 ok c | 0.300 ok a | 0.300 over | b c a",
    ),
    "everybody, failures do not end it": (
        everybody,
        "a:fail@0.1 b:ok@0.4 c:wrong@0.2*2 d:ok@0.3",
        {},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.000 ask d | 0.100 fail a | 0.200 wrong c"
            " | 0.300 ok d | 0.400 ok b | 0.400 over"
            " | d b; a: unreachable 1x 0.100; c: acknowledgement 2x 0.200"
        ),
    ),
    "everybody, nobody answers": (
        everybody,
        "a:fail@0.1 b:fail@0.2",
        {},
        (
            "0.000 ask a | 0.000 ask b | 0.100 fail a | 0.200 fail b | 0.200 over"
            " | ; a: unreachable 1x 0.100; b: unreachable 1x 0.200"
        ),
    ),
    "everybody, a bug": (
        everybody,
        "a:bug@0.1 b:hang",
        {},
        "0.000 ask a | 0.000 ask b | 0.100 bug a | 0.100 cut b | 0.100 raised ZeroDivisionError | -",
    ),
    "a set, all well": (
        signers,
        "a:ok@0.1 b:ok@0.3 c:ok@0.2",
        {},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.200 ok c | 0.300 ok b"
            " | 0.300 over | all: a b c; waiting -; late after 0.780"
        ),
    ),
    "a set, the first failure loses": (
        signers,
        "a:ok@0.1 b:fail@0.2 c:hang",
        {},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 ok a | 0.200 fail b | 0.250 cut c"
            " | 0.250 over | failed: b; waiting b c; late after 0.500"
        ),
    ),
    "a set, reasons are listened to for a moment": (
        signers,
        "a:fail@0.1 b:fail@0.14 c:fail@0.2",
        {},
        (
            "0.000 ask a | 0.000 ask b | 0.000 ask c | 0.100 fail a | 0.140 fail b | 0.150 cut c"
            " | 0.150 over | failed: a b; waiting a b c; late after 0.500"
        ),
    ),
    "a set, a closed client is no failure of theirs": (
        signers,
        "a:closed@0.1 b:ok@0.12",
        {},
        "0.000 ask a | 0.000 ask b | 0.100 closed a | 0.120 ok b | 0.120 raised ClientClosedError | -",
    ),
    "a set, nobody else is left": (
        signers,
        "a:ok@0.1 b:fail@0.2",
        {},
        (
            "0.000 ask a | 0.000 ask b | 0.100 ok a | 0.200 fail b | 0.200 over"
            " | failed: b; waiting b; late after 0.500"
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_record(name: str) -> None:
    """Order, outcomes and end times stay as they were recorded."""
    shape, script, options, expected = CASES[name]

    async def work(clock: ManualClock) -> str:
        scripted = Scripted.read(script, clock)
        try:
            result = await shape(scripted, **options)
        except (DanError, ZeroDivisionError) as error:
            scripted.note(f"raised {type(error).__name__}")
            result = "-"
        assert len(asyncio.all_tasks()) == 1
        return " | ".join([*scripted.log, result])

    assert run_in_virtual_time(work) == expected
