"""
Every fault in whole jobs: ``generate_session_key`` on nodes that misbehave from the start.

By default at 2-of-3 and 3-of-5, and at 11-of-20 every fault of key generation once, in one job. The whole cross product runs
with ``nox -s matrix`` (the environment variable ``DAN_MATRIX=full``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import pytest
from attrs import frozen

from dan_async.devnet import Crash, DealWrongShare, DropRequest, Equivocate, ExpireNonces, FallSilent, Fault
from dan_async.devnet.peers.presigning import PairSetups
from dan_async.network import KeygenReport
from tests.adversity.fault_matrix import (
    ACKNOWLEDGING,
    GENERATING,
    KEYGEN,
    LARGE,
    PASSING,
    SMALL,
    Result,
    Size,
    check_error,
    nothing_left,
    run_job,
)

IS_FULL = os.environ.get("DAN_MATRIX") == "full"

#: Those that only spoil the acknowledgement: such a node takes part in the key generation and holds a share.
SPOILING = {
    name: fault
    for name, fault in ACKNOWLEDGING.items()
    if fault.methods == tuple(KEYGEN) or name in ("forged signature", "forged shares", "other key")
}
#: Those that keep a node from getting ready: it is replaced before the owner is asked.
UNREADY = {name: fault for name, fault in ACKNOWLEDGING.items() if name not in SPOILING}
#: Those that pass, also in a key generation.
OVERCOME = {name: fault for name, fault in PASSING.items() if name != "expired nonces"}


@pytest.fixture(autouse=True)
def no_signing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody signs here: the nodes need not get ready for it after each key generation, which takes them seconds."""
    monkeypatch.setattr(PairSetups, "prepare", lambda *_: None)


pytestmark = pytest.mark.timeout(900 if IS_FULL else 60)


@frozen
class Case:
    """A network, how many of its nodes misbehave, and what came of it."""

    size: Size
    count: int
    result: Result
    spares: int = 0

    @property
    def is_beyond(self) -> bool:
        """Whether too few are left that do not misbehave."""
        return self.count > self.size.n - self.size.t

    def check_left_out(self) -> KeygenReport:
        """The faulty nodes are named, and the key is made without them: with a spare for each, or by so many less."""
        report = self.result.check_success()
        assert report.threshold.n == self.size.n - self.count + self.spares
        assert not self.result.faulty & set(report.holders)
        assert self.result.named | self.result.disputed >= self.result.faulty
        return report


async def run_cases(fault: Fault, *, beyond_s: float = 1.5, spares: bool = False) -> list[Case]:
    """
    Run all cases of one fault; those of small networks at once, since they mostly wait.

    Args:
        fault: The fault.
        beyond_s: The deadline where too many nodes misbehave.
        spares: Whether to run one more, of a faulty node and a spare, where fewer than n parties are not allowed.
    """

    async def run(size: Size, count: int, spares: int = 0) -> Case:
        is_beyond = count == size.counts[2]
        limits: Mapping[str, float] = {"deadline_s": beyond_s if is_beyond else 15.0}
        if size == LARGE:  # a key generation of twenty takes seconds of arithmetic
            limits = {"round_s": 10.0, "deadline_s": 25.0 if is_beyond else 240.0, "attempt_s": 10.0}
        faults = dict.fromkeys(range(count), fault)
        least = None if spares else size.t
        result = await run_job(size, faults, min_parties=least, spares=spares, **limits)
        return Case(size, count, result, spares)

    asked = [(size, count, 0) for size in SMALL for count in sorted(set(size.counts))]
    asked += [(size, 1, 1) for size in SMALL if spares]
    async with nothing_left():
        cases = await asyncio.gather(*(run(*case) for case in asked))
        if IS_FULL:
            cases += [await run(LARGE, count) for count in LARGE.counts]
    return cases


@pytest.mark.parametrize("name", SPOILING)
async def test_spoilt_acknowledgements(name: str) -> None:
    """Up to n - t of them keep no key back: all n nodes make it, without starting again. One more is one clear error."""
    for case in await run_cases(SPOILING[name]):
        if case.is_beyond:
            check_error(case.result)
            continue
        report = case.result.check_success()
        assert report.threshold.n == case.size.n
        assert report.restarts == 0
        assert not case.result.faulty & set(report.holders)


@pytest.mark.long
@pytest.mark.parametrize("name", UNREADY)
async def test_nodes_that_are_not_ready(name: str) -> None:
    """Up to n - t of them are named and left out: min_parties allows it, or there is a spare. One more is one clear error."""
    for case in await run_cases(UNREADY[name], spares=True):
        if case.is_beyond:
            check_error(case.result)
        else:
            assert case.check_left_out().restarts == 0


@pytest.mark.long
@pytest.mark.parametrize("name", GENERATING)
async def test_broken_key_generations(name: str) -> None:
    """Up to n - t nodes at fault are named, and a restart without them makes the key. One more is one clear error."""
    for case in await run_cases(GENERATING[name], beyond_s=2.5, spares=True):
        if case.is_beyond:
            check_error(case.result)
        else:
            assert case.check_left_out().restarts >= 1


@pytest.mark.parametrize("name", OVERCOME)
async def test_what_passes(name: str) -> None:
    """However many nodes have it, it is waited for, and all of them make the key."""
    for size in SMALL:
        async with nothing_left():
            for count in size.counts:
                result = await run_job(size, dict.fromkeys(range(count), OVERCOME[name]))
                assert result.check_success().threshold.n == size.n


# --- all at once ------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_every_fault_of_key_generation_at_once_in_a_large_network() -> None:
    """11-of-20: each culprit is named, one round after the other, until the others make the key."""
    faults = [
        *(ExpireNonces(), FallSilent(round=1), Crash(at_round=1), DropRequest(methods=KEYGEN)),
        *(DealWrongShare(), Equivocate()),
    ]
    async with nothing_left():
        result = await run_job(
            LARGE,
            dict(enumerate(faults)),
            min_parties=LARGE.t,
            deadline_s=50.0,
            round_s=6.0,
            attempt_s=6.0,
        )
    report = result.check_success()
    assert report.threshold.n == LARGE.n - len(faults)
    assert result.named == result.faulty
