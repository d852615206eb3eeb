"""Faults on purpose: what is in force, where and how often."""

from __future__ import annotations

import pytest

from dan_async.devnet import Crash, Delay, DropReply, DropRequest, Fault, ForgeShares, ForgeSignature
from dan_async.devnet.faults import FaultBoard, NodeCrashed, NodeFaults, RequestDropped
from dan_async.errors import InvalidFieldError

ALL = [
    Crash(),
    Delay(seconds=0.5, methods=["dan_keygen"]),
    DropReply(times=2),
    DropRequest(),
    ForgeShares(),
    ForgeSignature(),
]


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: type(fault).__name__)
def test_a_fault_survives_the_way_to_another_process(fault):
    """from_dict(to_dict(f)) == f."""
    assert Fault.from_dict(fault.to_dict()) == fault


def test_unknown_faults_are_refused():
    """Rather than ignored."""
    with pytest.raises(InvalidFieldError, match="unknown kind"):
        Fault.from_dict({"kind": "Explode"})


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
    with pytest.raises(InvalidFieldError):
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
