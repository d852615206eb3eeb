"""Faults on purpose: what is in force, where and how often."""

from __future__ import annotations

import asyncio
import json

import pytest

from dan_async.devnet import (
    Accuse,
    AccuseInSigning,
    AcknowledgeOtherKey,
    CheatInSigning,
    ClaimOtherThreshold,
    ContradictInSigning,
    Crash,
    CrashInSigning,
    DealBadOpening,
    DealWrongShare,
    Delay,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
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
from dan_async.devnet.faults.in_force import FaultBoard, NodeFaults
from dan_async.devnet.faults.kinds import KINDS, Moments, NodeCrashed, RequestDropped
from dan_async.devnet.node.runner import fault_members, read_fault_members
from dan_async.errors import InvalidFieldError

ALL = [
    Accuse(round=2),
    AccuseInSigning(round=2),
    AcknowledgeOtherKey(),
    ClaimOtherThreshold(),
    CheatInSigning(),
    ContradictInSigning(),
    Crash(),
    CrashInSigning(at_round=2, restart_after=0.5),
    Crash(at_round=3, restart_after=0.5),
    DealBadOpening(),
    DealWrongShare(),
    Delay(seconds=0.5, jitter_s=0.1, methods=["dan_keygen"]),
    Disconnect(),
    DropReply(times=2),
    DropRequest(),
    Equivocate(),
    ExpireNonces(),
    FallSilent(round=2),
    ForgeCommitments(),
    ForgeShares(),
    ForgeSignature(),
    HttpError(status=429, retry_after=3),
    RefuseConnections(),
    SendGarbage(form="raw"),
    SilentInSigning(round=2),
    SquatSession(),
    WithholdEcho(reach=2),
    WrongSignatureShare(),
    Trickle(seconds=0.25),
]


def test_all_are_looked_at():
    """No kind is missing from the list above."""
    assert {type(fault) for fault in ALL} == set(KINDS)


def test_each_kind_has_a_name_of_its_own():
    """By which the command line knows it."""
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_does_something(kind):
    """It overrides a hook, or is a state that the node asks for."""
    hooks = [name for name in vars(Moments) if name.startswith(("on_", "before_"))]
    overridden = [name for name in hooks if getattr(kind, name) is not getattr(Moments, name)]
    assert overridden or kind.refuses_connections


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: type(fault).__name__)
def test_a_fault_survives_the_way_to_another_process(fault):
    """Through JSON and back."""
    assert read_fault_members(json.loads(json.dumps(fault_members((fault,), {0: 1})))) == ([fault], {0: 1})


def test_unknown_faults_are_refused():
    """Rather than ignored."""
    with pytest.raises(KeyError, match="explode"):
        read_fault_members({"faults": [{"kind": "explode"}], "uses": {}})


@pytest.mark.parametrize(
    "values",
    [
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": "1"},
        {"seconds": 1, "times": 0},
        {"seconds": 1, "methods": [1]},
    ],
)
def test_values_are_checked(values):
    """One clear error naming the field."""
    with pytest.raises(InvalidFieldError):
        Delay(**values)


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (Delay, {"seconds": 1, "jitter_s": 2}, "jitter_s"),
        (Delay, {"seconds": 1, "jitter_s": -1}, "jitter_s"),
        (Delay, {"seconds": 1, "jitter_s": False}, "jitter_s"),
        (Delay, {"seconds": 1, "methods": "dan_keygen"}, "methods"),
        (Crash, {"at_round": 4}, "at_round"),
        (Crash, {"at_round": 1, "methods": ["dan_keygen"]}, "methods"),
        (Crash, {"restart_after": 0}, "restart_after"),
        (HttpError, {"status": 200}, "status"),
        (HttpError, {"retry_after": 1.5}, "retry_after"),
        (HttpError, {"methods": ["dan_keygen"]}, "methods"),
        (RefuseConnections, {"times": 1}, "times"),
        (RefuseConnections, {"methods": ["dan_keygen"]}, "methods"),
        (SendGarbage, {"form": "rubbish"}, "form"),
        (Trickle, {"seconds": 0}, "seconds"),
        (FallSilent, {"round": 0}, "round"),
        (Equivocate, {"methods": ["dan_keygen"]}, "methods"),
    ],
)
def test_what_a_fault_does_not_take(kind, values, field):
    """Is refused where it is made, rather than ignored."""
    with pytest.raises(InvalidFieldError) as caught:
        kind(**values)
    assert caught.value.field == field


@pytest.mark.parametrize(("drawn", "slept"), [(0.0, 1.5), (0.5, 2.0), (1.0, 2.5)])
async def test_a_delay_is_within_its_jitter(drawn, slept):
    """Evenly spread around its seconds."""
    waits = []

    async def wait(event, seconds):
        waits.append(seconds)

    faults = NodeFaults(wait=wait, random=lambda: drawn)
    faults.set([Delay(seconds=2, jitter_s=0.5)])
    await faults.before_work("dan_keygen")
    assert waits == [slept]


async def test_what_is_delayed_goes_on_when_the_delay_is_taken_away():
    """Nobody waits for a fault that is no more."""
    faults = NodeFaults()
    faults.set([Delay(seconds=600)])
    delayed = [asyncio.create_task(faults.before_work("dan_keygen")) for _ in range(2)]
    await asyncio.sleep(0)
    faults.set([])
    async with asyncio.timeout(5):
        await asyncio.gather(*delayed)


async def test_several_delays_end_together_when_they_are_taken_away():
    """The second one does not begin anew."""
    faults = NodeFaults()
    faults.set([Delay(seconds=600), Delay(seconds=600)])
    delayed = asyncio.create_task(faults.before_work("dan_keygen"))
    await asyncio.sleep(0)
    faults.set([])
    async with asyncio.timeout(5):
        await delayed


def test_faults_are_used_in_the_order_of_their_kinds():
    """Not in the order of the list; a kind that has no turn is not used."""
    faults = NodeFaults()
    faults.set([Trickle(), SendGarbage(times=1), Disconnect(times=1)])
    assert [type(faults.spoil_reply("dan_health")) for _ in range(3)] == [Disconnect, SendGarbage, Trickle]
    assert faults.uses == {0: 1, 1: 1, 2: 1}


def test_all_faults_of_one_kind_are_used_at_once():
    """Each counts for itself, although one of them would do."""
    faults = NodeFaults()
    faults.set([DropReply(times=1), DropReply(times=2)])
    for _ in range(2):
        with pytest.raises(RequestDropped):
            faults.before_reply("dan_keygen")
    assert faults.uses == {0: 1, 1: 2}
    faults.before_reply("dan_keygen")


class Face:
    """A liar's means, without any arithmetic."""

    victim = 2
    commitments = None

    def other_commitment(self):
        return b"other commitment"

    def other_opening(self):
        return b"other opening"

    def with_wrong_share(self, body):
        return body[::-1]


BODIES = {2: b"to two", 3: b"to three"}


def outgoing(*faults, round_):
    node = NodeFaults()
    node.set(faults)
    return node.begin_keygen(Face())(round_, BODIES, {})


@pytest.mark.parametrize(
    ("faults", "round_", "victims"),
    [
        ([Equivocate()], 1, b"other commitment"),
        ([Equivocate()], 2, b"other opening"),
        ([Equivocate()], 3, b"to two"),
        ([DealWrongShare()], 1, b"to two"),
        ([DealWrongShare()], 2, b"owt ot"),
        ([DealWrongShare(), DealWrongShare()], 2, b"owt ot"),
        ([DealWrongShare(), Equivocate()], 2, b"gninepo rehto"),
        ([FallSilent(round=3), DealWrongShare()], 2, b"owt ot"),
    ],
)
def test_lies_in_key_generation_are_for_one_party(faults, round_, victims):
    """The others get the truth; two lies of one kind are one, of two kinds one on top of the other."""
    assert outgoing(*faults, round_=round_) == {**BODIES, 2: victims}


def test_a_node_falls_silent_for_good():
    """From the earliest round that a fault names, whatever else it would say."""
    faults = [FallSilent(round=3), FallSilent(round=2), Equivocate()]
    assert [len(outgoing(*faults, round_=round_)) for round_ in (1, 2, 3)] == [2, 0, 0]


def test_lies_in_key_generation_count_when_it_begins():
    """Not once a round, and not if the fault came later."""
    node = NodeFaults()
    node.set([DealWrongShare(times=1)])
    first, second = node.begin_keygen(Face()), node.begin_keygen(Face())
    node.set([])
    assert [lies(2, BODIES, {})[2] for lies in (first, second)] == [b"owt ot", b"to two"]


def test_a_node_crashes_before_it_lies():
    """Also in key generation."""
    node = NodeFaults()
    node.set([DealWrongShare(), Crash(at_round=2)])
    lies = node.begin_keygen(Face())
    lies(1, BODIES, {})
    with pytest.raises(NodeCrashed):
        lies(2, BODIES, {})


def test_faults_in_signing_are_used_in_the_order_of_their_kinds():
    """A node that is silent in a round does not cheat in it."""
    node = NodeFaults()
    node.set([CheatInSigning(), SilentInSigning(round=2, times=1), CrashInSigning(at_round=1, times=1)])
    with pytest.raises(NodeCrashed):
        node.signing_round(1, BODIES)
    assert node.signing_round(1, BODIES) == BODIES
    assert node.signing_round(2, BODIES) == {}
    assert node.uses == {1: 1, 2: 1}
    assert node.signing_round(2, BODIES) == {2: b"to tw\x6e", 3: b"to thre\x64"}


def test_garbage_takes_turns():
    """Unless its form is given."""
    faults = NodeFaults()
    faults.set([SendGarbage()])
    assert [faults.spoil_reply("dan_health").form for _ in range(4)] == ["json", "binary", "raw", "json"]
    faults.set([SendGarbage(form="raw")])
    assert [faults.spoil_reply("dan_health").form for _ in range(2)] == ["raw", "raw"]


def test_a_crash_at_a_round_is_not_one_after_the_work():
    """Each happens where it is meant to, and counts there only."""
    faults = NodeFaults()
    faults.set([Crash(at_round=2, restart_after=3, times=1), Crash(times=1)])
    faults.begin_keygen(Face())(1, BODIES, {})
    with pytest.raises(NodeCrashed) as caught:
        faults.begin_keygen(Face())(2, BODIES, {})
    assert caught.value.restart_after == 3
    faults.begin_keygen(Face())(2, BODIES, {})
    with pytest.raises(NodeCrashed) as caught:
        faults.before_reply("dan_keygen")
    assert caught.value.restart_after is None
    faults.before_reply("dan_keygen")


def test_uses_go_on_counting():
    """For a node that was brought back: a fault that has happened often enough does not happen again."""
    faults = NodeFaults()
    faults.set([DropReply(times=1), Crash(times=1)])
    with pytest.raises(NodeCrashed):
        faults.before_reply("dan_keygen")
    reborn = NodeFaults()
    reborn.set(faults._faults, faults.uses)
    with pytest.raises(RequestDropped):
        reborn.before_reply("dan_keygen")
    reborn.before_reply("dan_keygen")


def test_whoever_watches_is_told():
    """After each change, until it stops watching."""
    told = []
    faults = NodeFaults()
    faults.watch(lambda: told.append((faults.is_refusing, faults.cuts_clients)))
    faults.set([RefuseConnections()])
    faults.set([HttpError()])
    faults.set([])
    faults.watch(None)
    faults.set([RefuseConnections()])
    assert told == [(True, True), (False, True), (False, False)]


async def test_a_fault_of_some_methods_spares_the_others():
    """Only what is named is dropped."""
    faults = NodeFaults()
    faults.set([DropRequest(methods=["dan_keygen"])])
    await faults.before_work("dan_health")
    with pytest.raises(RequestDropped):
        await faults.before_work("dan_keygen")


def test_a_fault_ends_after_so_many_times():
    """And begins to count anew when it is set again."""
    faults = NodeFaults()
    for _ in range(2):
        faults.set([DropReply(times=1)])
        with pytest.raises(RequestDropped):
            faults.before_reply("dan_keygen")
        faults.before_reply("dan_keygen")


def test_a_crash_wins_over_a_lost_reply():
    """Both at once: the node is dead."""
    faults = NodeFaults()
    faults.set([DropReply(), Crash()])
    with pytest.raises(NodeCrashed):
        faults.before_reply("dan_keygen")


def test_the_board_takes_one_fault_a_list_or_none():
    """And tells the node."""
    told = []
    board = FaultBoard(3, lambda index, faults: told.append((index, faults)))
    board[2] = Crash()
    board[2] = [Crash(), DropReply()]
    board[2] = None
    del board[1]
    assert told == [(2, (Crash(),)), (2, (Crash(), DropReply())), (2, ()), (1, ())]
    assert board[2] == ()
    assert list(board) == [0, 1, 2]
    assert len(board) == 3


@pytest.mark.parametrize("index", [-1, 3, "0", True])
def test_the_board_refuses_nodes_that_do_not_exist(index):
    """A fault at no node would test nothing."""
    board = FaultBoard(3, lambda index, faults: None)
    with pytest.raises(InvalidFieldError, match="index of faults must be"):
        board[index] = Crash()


def test_the_board_is_a_mapping():
    """Asking for a node that does not exist is a KeyError."""
    board = FaultBoard(3, lambda index, faults: None)
    assert 5 not in board
    with pytest.raises(KeyError):
        board[5]


@pytest.mark.parametrize("faults", ["crash", [1], 5])
def test_the_board_refuses_what_is_no_fault(faults):
    """Before anything is told to a node."""
    board = FaultBoard(3, lambda index, faults: pytest.fail("told"))
    with pytest.raises((InvalidFieldError, TypeError)):
        board[0] = faults
