"""Pair states at rest."""

import json

import pytest

from dan_async.devnet.mpc.pairwise_setup import PairState
from dan_async.errors import InvalidFieldError
from tests.unit.devnet.mpc.signing_group import dealt_pair

STATE, PEER = dealt_pair()


def test_a_state_survives_json():
    """Through text and back; a ban is kept elsewhere."""
    copy = PairState.from_dict(json.loads(json.dumps(STATE.to_dict())))
    for name in ("context", "is_first", "common_seed", "receiver", "sender"):
        assert getattr(copy, name) == getattr(STATE, name)
    assert "banned" not in STATE.to_dict()


def test_repr_shows_no_secret():
    """Neither seeds nor Δ."""
    shown = repr(STATE)
    assert "common_seed='***', receiver='***', sender='***'" in shown
    assert str(STATE.sender.delta) not in shown


def test_the_set_up_id_depends_on_context_and_seed():
    """Equal on both sides, different for every set-up."""
    other, _ = dealt_pair()
    assert STATE.setup_id == PEER.setup_id != other.setup_id
    same_seed = PairState.from_dict(STATE.to_dict() | {"context": "0x" + "00" * 32})
    assert same_seed.setup_id != STATE.setup_id


def test_the_gadget_vector_depends_on_context_and_seed():
    """Neither side can have chosen it, nor taken it from another set-up."""
    for change in ({"context": "0x" + "00" * 32}, {"commonSeed": "0x" + "00" * 32}):
        changed = PairState.from_dict(STATE.to_dict() | change)
        assert changed.gadget_context(receiving=True) != STATE.gadget_context(receiving=True)


@pytest.mark.parametrize(
    "name", ["context", "isFirst", "commonSeed", "receiverSeeds", "delta", "senderSeeds"]
)
def test_a_missing_member_is_named(name):
    """Each of them."""
    members = STATE.to_dict()
    del members[name]
    with pytest.raises(InvalidFieldError, match=f"{name} is missing"):
        PairState.from_dict(members)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context", "0x00"),
        ("isFirst", 1),
        ("isFirst", None),
        ("commonSeed", "0x" + "00" * 31),
        ("receiverSeeds", "0x" + "00" * 16 * 255),
        ("senderSeeds", "0x" + "00" * 16 * 129),
        ("delta", "0x" + "00" * 15),
        ("delta", 5),
    ],
)
def test_a_wrong_member_is_refused(name, value):
    """By our own error."""
    with pytest.raises(InvalidFieldError, match=name):
        PairState.from_dict(STATE.to_dict() | {name: value})


@pytest.mark.parametrize("value", [None, [], "text"])
def test_what_is_no_object_is_refused(value):
    """By our own error."""
    with pytest.raises(InvalidFieldError, match="must be a JSON object"):
        PairState.from_dict(value)


def test_an_unknown_member_is_refused():
    """A later version's file must not be half understood."""
    with pytest.raises(InvalidFieldError, match="does not know"):
        PairState.from_dict(STATE.to_dict() | {"more": 1})
