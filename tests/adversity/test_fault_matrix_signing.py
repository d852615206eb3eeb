"""
Every fault in signatures: one node, n - t and t - 1 nodes have it, and they are those that are asked first.

As long as t nodes are left, they sign; with fewer it is one clear error. Nothing hangs, no wrong signature comes out, and no
task or connection is left. By default a few faults at 3-of-5; the others, and 2-of-3 and 5-of-9, are long. 11-of-20 runs
with ``nox -s matrix`` (the environment variable ``DAN_MATRIX=full``).
"""

from __future__ import annotations

import os

import pytest

from dan_async.errors import DeadlineExceededError, QuorumError
from tests.adversity.fault_matrix import (
    LARGE,
    MIDDLE,
    SIGNING,
    SMALL,
    Size,
    nothing_left,
    sign_with_faults,
    signing_devnet,
)

#: In the ordinary suite.
QUICK = ("silent in round 1", "accuse in round 1", "wrong share")

SIZES = (*SMALL, MIDDLE, *((LARGE,) if os.environ.get("DAN_MATRIX") == "full" else ()))

CASES = [
    pytest.param(
        size,
        name,
        id=f"{size}, {name}",
        marks=[] if size == SMALL[1] and name in QUICK else [pytest.mark.long],
    )
    for size in SIZES
    for name in SIGNING
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("size", "name"), CASES)
async def test_signatures(size: Size, name: str) -> None:
    """What is left of t honest nodes signs; beyond that, an error says that they did not."""
    async with nothing_left(), signing_devnet(size) as (devnet, session):
        for count in sorted({1, size.n - size.t, size.t - 1}):
            is_beyond = count > size.n - size.t
            error = await sign_with_faults(
                devnet, session, SIGNING[name], count, deadline_s=10.0 if is_beyond else 30.0
            )
            if is_beyond:
                assert isinstance(error, QuorumError | DeadlineExceededError)
                assert error.hint
            else:
                assert error is None, f"{count} nodes: {error}"
