"""The race for a signature among liars: with t honest nodes it is always won, in time, and nobody honest is named."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dan_async import DanClient
from dan_async.errors import NodeCode, QuorumError, RpcError
from dan_async.nodes.blame import most_tries
from tests.fake_signing import SigningNetwork
from tests.helpers import run_in_virtual_time
from tests.signing_liars import KINDS, Liar, Mixed, Network

SIZES = [(2, 3), (3, 5), (4, 7), (5, 9), (7, 13), (11, 20)]

#: What a client waits for a signature, in seconds, unless it says otherwise.
DEADLINE_S = 30.0


def sign_among(size, liars, *, calls=1, **options):
    """Sign some times; return how many sets were tried, and how long it took, for each. ``Network.attempt`` checks the names."""
    t, n = size

    async def work(clock):
        net = Network(clock, t, n, liars, **options)
        made = []
        try:
            for _ in range(calls):
                before = len(net.tried)
                signers, elapsed_s = await net.sign(DEADLINE_S)
                assert len(signers) == t
                made.append((len(net.tried) - before, elapsed_s))
        finally:
            await net.aclose()
        return made

    return run_in_virtual_time(work)


def liars_of(size, kind, rng):
    """As many as there may be, somewhere."""
    t, n = size
    return dict.fromkeys(rng.sample(range(n), min(t - 1, n - t)), kind)


CASES = [
    pytest.param(
        size,
        by_turns,
        id=f"{size[0]}-of-{size[1]}{', by turns' if by_turns else ''}",
        marks=[pytest.mark.long] if size[1] > (9 if by_turns else 13) else [],
    )
    for size in SIZES
    for by_turns in (False, True)
]


@pytest.mark.parametrize(("size", "by_turns"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_liars_as_may_be_stop_nothing(kind, size, by_turns):
    """Whatever they do, together or by turns, which shows less of them."""
    liars = liars_of(size, KINDS[kind], random.Random(f"{kind} {size}"))
    for tries, _ in sign_among(size, liars, calls=2, by_turns=by_turns):
        assert tries <= max(16, most_tries(*size))


# Three sets are late together, and then one of them hangs in its next step.
@example(size=(7, 13), seed=7733, by_turns=False, change=False)
# A busy node, to which a liar is silent, is more patient than the others, who then call it silent itself.
@example(size=(11, 20), seed=6799, by_turns=False, change=False)
@settings(max_examples=40)
@given(size=st.sampled_from(SIZES), seed=st.integers(0, 2**32), by_turns=st.booleans(), change=st.booleans())
def test_any_mixture_of_liars_stops_nothing(size, seed, by_turns, change):
    """Each with a fault of its own, or another one each time."""
    rng = random.Random(seed)
    kinds: list[Liar] = list(KINDS.values())

    def any_kind():
        return Mixed(rng.sample(kinds, 4), rng) if change else rng.choice(kinds)

    liars = {number: any_kind() for number in liars_of(size, Liar(), rng)}
    sign_among(size, liars, calls=2, by_turns=by_turns)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_one_liar_of_five_costs_one_signature_some_time_and_the_next_ones_none(kind, number):
    """Suspicion outlives the call: from the second one on it takes as long as in a healthy network."""
    ((_, healthy_s),) = sign_among((3, 5), {})
    _, *later = sign_among((3, 5), {number: KINDS[kind]}, calls=4)
    assert max(elapsed_s for _, elapsed_s in later) <= 1.01 * healthy_s


@pytest.mark.parametrize("number", range(5))
def test_a_node_that_hangs_makes_one_set_late(number):
    """All of its set say nothing then, but it alone does not answer when it is looked at."""

    async def work(clock):
        net = Network(clock, 3, 5, {})
        try:
            for _ in range(10):
                _, healthy_s = await net.sign()
            net.liars[list(net.nodes)[number]] = KINDS["silent"]
            _, elapsed_s = await net.sign()
            return elapsed_s - healthy_s, net.lateness.limit_s("presign")
        finally:
            await net.aclose()

    more_s, limit_s = run_in_virtual_time(work)
    assert more_s <= 1.01 * limit_s


@pytest.mark.parametrize("number", range(5))
def test_a_lie_without_a_name_is_narrowed_down(number):
    """Where nothing says whose share is wrong, the next sets leave out as many of the suspects as they can."""
    liars = {number: KINDS["wrong share"]}
    first, second = sign_among((3, 5), liars, calls=2, are_shares_checkable=False)
    assert first[0] <= 3
    assert second[0] == 1


def test_too_many_liars_end_it_long_before_the_deadline():
    """When the disputes leave no set, a few more are tried, for honest nodes may not have heard each other."""
    with pytest.raises(QuorumError):
        sign_among((3, 5), dict.fromkeys(range(3), KINDS["garbage"]))
    with pytest.raises(QuorumError):
        sign_among((3, 5), dict.fromkeys(range(3), KINDS["blames everybody"]))


@pytest.mark.parametrize("size", [(2, 3), (3, 5), (5, 9)])
def test_fewer_than_t_reachable_nodes_end_it_at_once(size):
    """No set is tried again in hope of a node that cannot be reached: the others would wait for it in vain."""
    t, n = size
    gone = n - t + 1

    async def work(clock):
        began = clock()
        net = Network(clock, t, n, dict.fromkeys(range(gone), KINDS["unreachable"]))
        try:
            with pytest.raises(QuorumError) as caught:
                await net.sign(DEADLINE_S)
        finally:
            await net.aclose()
        return len(net.tried), clock() - began, caught.value.retryable

    tries, elapsed_s, is_retryable = run_in_virtual_time(work)
    assert tries <= gone
    assert elapsed_s < 2
    assert is_retryable


async def test_a_node_that_refuses_what_others_sign_is_suspected_and_one_without_a_share_is_not():
    """The one may lie, and would be asked again each time; the other one is a spare."""
    net = SigningNetwork(2, 3, others=1)
    net.holders = net.identities[1:]

    async def refuse(method, params):
        raise RpcError(NodeCode.NOT_PERMITTED, "no")

    net.misbehaviour[net.operator(2)] = refuse
    async with DanClient(net.network(), clock=lambda: net.now) as dan:
        await dan.sign_message("hello", net.session())
        suspicion = {node.name: node.suspicion for node in (await dan.network.health()).nodes}
    assert suspicion[net.operator(2)] > 0.9
    assert suspicion[net.operator(1)] == 0
