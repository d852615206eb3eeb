"""
Key generations in which nodes answer in any order and lie in every way that a signature allows.

The default run has a hundred key generations; twenty thousand are ``nox -s tally`` (or ``DAN_TALLY_KEYGENS=20000`` in
the environment).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import cache

from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dan_async.config import Threshold
from dan_async.crypto import curve
from dan_async.errors import AcknowledgementError, QuorumError
from dan_async.nodes.acknowledgements import KeygenTally
from dan_async.protocols.node import Acknowledgement
from dan_async.types import RequestId
from tests.fake_nodes import DealtKey, Identity, identities, resigned, scalar

KEYGENS = int(os.environ.get("DAN_TALLY_KEYGENS", "100"))

#: Each example runs about seven of them, one after the other; the first examples are shorter.
EXAMPLES = KEYGENS // 5 + 80

SHAPES = [(2, 2), (2, 3), (3, 5), (4, 7), (11, 20)]

#: What a node does: tell the truth, vouch for the key that all liars agree on, fail, or send what must not count.
TRUE, OTHER, FAIL = "true", "other", "fail"
WORTHLESS = {
    "forged": "not signed by the node's operator",
    "malformed": "signature is malformed",
    "neighbour's": "speaks for another operator|already answered",
    "wrong index": "claims index",
    "wrong key id": "not the hash of the key",
    "own key": "do not make the public key",
    "off the curve": "not a point of the curve",
    "other request": "answers another request",
    "smaller t": "it is for",
    "other parties": "names other participants",
}
KINDS = [TRUE, OTHER, FAIL, *WORTHLESS]


class World:
    """One shape of network, with everything its nodes may say, signed beforehand: signing is what would take long."""

    def __init__(self, t: int, n: int) -> None:
        nodes = identities(n)
        self.t, self.n = t, n
        self.key, self.other = DealtKey(t, nodes), DealtKey(t, nodes)
        self.operators = self.key.participants
        self._said: dict[tuple[int, str], Acknowledgement] = {}

    def tally(self) -> KeygenTally:
        return KeygenTally(
            request_id=self.key.request_id,
            threshold=self.key.threshold,
            participants=self.operators,
            owner_id=self.key.owner_id,
        )

    def said(self, index: int, kind: str) -> Acknowledgement:
        """What node *index* (from 1) says when it does *kind*."""
        found = self._said.get((index, kind))
        if found is None:
            found = self._said[index, kind] = self._make(index, kind)
        return found

    def _make(self, index: int, kind: str) -> Acknowledgement:
        true = self.key.acknowledgement(index)
        outsider = Identity()
        own = curve.encode(curve.base_multiply(scalar()))
        off_the_curve = (b"\x02" + b"\xff" * 32, *self.key.public_shares[1:])
        make: dict[str, Callable[[], Acknowledgement]] = {
            TRUE: lambda: true,
            OTHER: lambda: self.other.acknowledgement(index),
            "forged": lambda: resigned(true, outsider),
            "malformed": lambda: evolve(true, signature=bytes(65)),
            "neighbour's": lambda: self.key.acknowledgement(index % self.n + 1),
            "wrong index": lambda: self.key.acknowledgement(index, party_index=index % self.n + 1),
            "wrong key id": lambda: self.key.acknowledgement(index, key_id="00" * 32),
            "own key": lambda: self.key.acknowledgement(
                index, public_key=own, key_id=self.key.key_id_of(own)
            ),
            "off the curve": lambda: self.key.acknowledgement(index, public_shares=off_the_curve),
            "other request": lambda: self.key.acknowledgement(index, request_id=RequestId("0x" + "cd" * 32)),
            "smaller t": lambda: self.key.acknowledgement(index, threshold=Threshold(2, 20)),
            "other parties": lambda: self.key.acknowledgement(
                index, participants=tuple(sorted((*self.operators[:-1], outsider.operator), key=str.lower))
            ),
        }
        return make[kind]()


@cache
def world(t: int, n: int) -> World:
    return World(t, n)


def apply(world: World, tally: KeygenTally, index: int, kind: str) -> None:
    """Let one node do its part; what is worthless must be refused for the right reason."""
    operator = world.operators[index - 1]
    if kind == FAIL:
        tally.record_failure(operator)
        return
    try:
        tally.record(operator, world.said(index, kind))
    except AcknowledgementError as error:
        assert kind in WORTHLESS, f"{kind} was refused: {error}"  # noqa: PT017
        assert any(reason in error.message for reason in WORTHLESS[kind].split("|"))  # noqa: PT017
        assert error.node == operator  # noqa: PT017
    else:
        assert kind in {TRUE, OTHER}, f"{kind} was counted"


def verdict(tally: KeygenTally) -> object:
    """The key that won, or what the error says."""
    try:
        return tally.verdict().public_key
    except QuorumError as error:
        return (error.message, error.retryable)


class Keygens(RuleBasedStateMachine):
    """Key generations; after every answer the tally must say what a simple count says."""

    finished = 0

    @initialize(shape=st.sampled_from(SHAPES), chance=st.randoms(use_true_random=True))
    def begin(self, shape: tuple[int, int], chance: random.Random) -> None:
        self.chance = chance
        self._begin(shape)

    def _begin(self, shape: tuple[int, int]) -> None:
        self.world = world(*shape)
        self.tally = self.world.tally()
        self.outstanding = list(range(1, self.world.n + 1))
        self.did: dict[int, str] = {}

    @rule(place=st.integers(0, 19), kind=st.sampled_from(KINDS))
    def answers(self, place: int, kind: str) -> None:
        """Some node that has not answered yet does something."""
        self._do(place, kind)

    @rule(place=st.integers(0, 19))
    def tells_the_truth(self, place: int) -> None:
        """As most nodes do."""
        self._do(place, TRUE)

    def _do(self, place: int, kind: str) -> None:
        if not self.outstanding:
            return
        index = self.outstanding.pop(place % len(self.outstanding))
        apply(self.world, self.tally, index, kind)
        self.did[index] = kind

    @rule(place=st.integers(0, 19), kind=st.sampled_from([TRUE, OTHER, "forged"]))
    def answers_again(self, place: int, kind: str) -> None:
        """A second answer of the same node is refused, whatever it is, and changes nothing."""
        if not self.did:
            return
        index = sorted(self.did)[place % len(self.did)]
        before = verdict(self.tally)
        try:
            self.tally.record(self.world.operators[index - 1], self.world.said(index, kind))
        except AcknowledgementError as error:
            assert "already answered" in error.message  # noqa: PT017
        else:
            raise AssertionError("counted twice")
        assert verdict(self.tally) == before

    @rule(shape=st.sampled_from(SHAPES), honesty=st.integers(1, 9))
    def the_rest_answer(self, shape: tuple[int, int], honesty: int) -> None:
        """All others answer, in any order; the same answers in yet another order come to the same; and the next begins."""
        self._finish(honesty)
        self._begin(shape)

    @invariant()
    def it_says_what_counting_says(self) -> None:
        """Won with t true or t colluding nodes, lost when neither can be reached any more; nothing else counts."""
        t = self.world.t
        kinds = list(self.did.values())
        true, other = kinds.count(TRUE), kinds.count(OTHER)
        assert self.tally.is_won == (max(true, other) >= t)
        assert self.tally.is_lost == (max(true, other) + len(self.outstanding) < t)
        found = verdict(self.tally)
        assert (found == self.world.key.public_key) == (true >= t > other)
        assert (found == self.world.other.public_key) == (other >= t > true)
        if other < t:  # fewer than t liars: no key but the true one, and only with t honest nodes
            assert found == self.world.key.public_key or not self.tally.is_won

    def _finish(self, honesty: int) -> None:
        while self.outstanding:
            kind = TRUE if self.chance.randrange(10) < honesty else self.chance.choice([OTHER, OTHER, *KINDS])
            self._do(self.chance.randrange(20), kind)
            self.it_says_what_counting_says()
        again = self.world.tally()
        for index in self.chance.sample(sorted(self.did), len(self.did)):
            apply(self.world, again, index, self.did[index])
        assert verdict(again) == verdict(self.tally)
        assert (again.is_won, again.is_lost) == (self.tally.is_won, self.tally.is_lost)
        Keygens.finished += 1

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self._finish(6)


Keygens.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=24,
    suppress_health_check=[HealthCheck.too_slow],
)


class TestKeygens(Keygens.TestCase):
    """The verdict depends on the set of answers, not on their order; no set with fewer than t honest nodes ever wins."""

    def runTest(self) -> None:
        Keygens.finished = 0
        super().runTest()
        assert Keygens.finished >= KEYGENS
