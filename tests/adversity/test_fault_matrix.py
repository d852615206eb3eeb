"""
Every fault of acknowledging, at one node, at as many as may fail, and at one more, in networks of every size.

Here the key is made already: the same authorised request is sent again over new connections, and only now nodes misbehave.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from dan_async.devnet.peers.presigning import PairSetups
from dan_async.errors import QuorumError
from tests.adversity.fault_matrix import (
    ACKNOWLEDGING,
    LARGE,
    PASSING,
    SMALL,
    MadeKey,
    Size,
)

shared = pytest.mark.asyncio(loop_scope="module")
every_size = pytest.mark.parametrize("size", [*SMALL, LARGE], ids=str)

#: What the client says of a node with this fault, in the class of its error; None where it says nothing of the single node.
SEEN_AS = {
    "delay": {"NodeTimeoutError"},
    "drop request": {"NodeTimeoutError", "NodeUnreachableError"},
    "drop reply": {"NodeTimeoutError"},
    "drop every reply": {"NodeTimeoutError", "NodeUnreachableError"},
    "disconnect": {"NodeUnreachableError"},
    "disconnect at once": {"NodeUnreachableError"},
    "refuse": {"NodeUnreachableError"},
    "http 503": {"RateLimitedError"},
    "http 429": {"RateLimitedError"},
    "http 503 without a word": {"NodeUnreachableError"},
    "garbage, json": {"NodeProtocolError"},
    "garbage, binary": {"NodeProtocolError"},
    "garbage, raw": {"NodeProtocolError"},
    "garbage at once": {"NodeProtocolError"},
    "trickle": {"NodeTimeoutError"},
    "trickle at once": {"NodeTimeoutError", "NodeUnreachableError"},
    "crash": {"NodeUnreachableError"},
    "forged signature": {"AcknowledgementError"},
    "forged shares": {"AcknowledgementError"},
}

#: What differs for a POST: an answer that is dropped ends its connection.
BY_POST = {
    "drop reply": {"NodeUnreachableError"},
    "trickle at once": {"NodeTimeoutError"},
}


@pytest.fixture(scope="module", autouse=True)
def no_signing() -> Iterator[None]:
    """Nobody signs here: the nodes need not get ready for it after each key generation, which takes them seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairSetups, "prepare", lambda *_: None)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_keys() -> Any:
    """One network of each size with a key on it, made when first needed."""
    async with AsyncExitStack() as stack:
        made: dict[Size, MadeKey] = {}

        async def get(size: Size) -> MadeKey:
            if size not in made:
                made[size] = await stack.enter_async_context(MadeKey.on_devnet(size))
            return made[size]

        yield get


@shared
@every_size
@pytest.mark.parametrize("name", ACKNOWLEDGING)
async def test_n_minus_t_faulty_nodes_keep_no_key_back(made_keys: Any, name: str, size: Size) -> None:
    """After the key generation: one faulty node, or n - t of them, and the key is still returned, at once."""
    made = await made_keys(size)
    for count in sorted({size.counts[0], size.counts[1]}):
        report = await made.ask_again(ACKNOWLEDGING[name], count, deadline_s=5, attempt_s=4)
        assert not isinstance(report, QuorumError), str(report)
        made.check_key(report)
        faulty = {node.operator for node in made.devnet.nodes[:count]}
        assert not faulty & set(report.holders)


@shared
@every_size
@pytest.mark.parametrize("name", ACKNOWLEDGING)
async def test_one_more_is_one_clear_error(made_keys: Any, name: str, size: Size) -> None:
    """With n - t + 1 faulty nodes: a QuorumError, in time, which says of each node what it did."""
    made = await made_keys(size)
    attempt_s = 0.25 if size.n < 20 else 1.0  # twenty that connect again at once take longer than that
    error = await made.ask_again(ACKNOWLEDGING[name], size.counts[2], deadline_s=4, attempt_s=attempt_s)
    assert isinstance(error, QuorumError)
    outcomes = {outcome.operator: outcome for outcome in error.nodes}
    assert set(outcomes) == set(made.opened.participants)
    for node in made.devnet.nodes[: size.counts[2]]:
        outcome = outcomes[node.operator]
        if name == "other key":
            assert outcome.error is None  # it is right in itself, and alone
        elif outcome.error is not None:
            assert type(outcome.error).__name__ in SEEN_AS[name]
    assert f"{size.t} are needed" in str(error)


@shared
@pytest.mark.parametrize("name", ACKNOWLEDGING)
async def test_the_same_by_post(made_keys: Any, name: str) -> None:
    """Where each request is a POST of its own: one of three keeps no key back, two are one clear error."""
    size = SMALL[0]
    made = await made_keys(size)
    fault = ACKNOWLEDGING[name]
    report = await made.ask_again(fault, 1, deadline_s=5, attempt_s=4, by_post=True)
    assert not isinstance(report, QuorumError), str(report)
    made.check_key(report)
    assert made.devnet.nodes[0].operator not in report.holders
    error = await made.ask_again(fault, 2, deadline_s=4, attempt_s=0.25, by_post=True)
    assert isinstance(error, QuorumError)
    for outcome in error.nodes:
        if (
            outcome.operator in {node.operator for node in made.devnet.nodes[:2]}
            and outcome.error is not None
        ):
            assert type(outcome.error).__name__ in SEEN_AS[name] | BY_POST.get(name, set())


@shared
@every_size
@pytest.mark.parametrize("name", PASSING)
async def test_what_passes_is_waited_for(made_keys: Any, name: str, size: Size) -> None:
    """However many nodes have it: the retry gets the acknowledgement of the same key."""
    made = await made_keys(size)
    for count in size.counts:
        # Of a node that comes back, a busy machine decides when; the others need two attempts.
        report = await made.ask_again(
            PASSING[name],
            count,
            deadline_s=8,
            attempt_s=2.0 if size == LARGE else 0.5,
            attempts=20 if "return" in name else 2,
        )
        assert not isinstance(report, QuorumError), str(report)
        made.check_key(report)
