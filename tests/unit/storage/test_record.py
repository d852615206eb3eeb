"""Records: what they hold, what they show, and which state follows which."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.errors import InvalidFieldError, RecordConflictError
from dan_async.storage import KeygenIntent, StoredSession
from dan_async.storage.base import STATES
from tests.stored import NOW, active, pending, session


@settings(max_examples=40)
@given(problem=st.text(max_size=50).filter(lambda t: t.isprintable()), at=st.integers(0, 2**40))
def test_a_record_survives_json(problem: str, at: int) -> None:
    """What to_dict gives, from_dict reads, through JSON."""
    for record in (active(at=at), pending(at=at, problem=problem)):
        assert StoredSession.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_no_secret_is_shown() -> None:
    """Neither the session's ephemeral key nor the intent's is in the repr."""
    for record in (active(), pending()):
        secret = record.session.hex_eph_sk_without_0x if record.session else record.intent.hex_eph_sk
        assert secret not in repr(record)


def test_a_leafs_record_needs_no_session() -> None:
    """Its key may be kept elsewhere; other records are written as earlier versions read them."""
    leaf = evolve(active(), grant="{}", session=None)
    assert StoredSession.from_dict(json.loads(json.dumps(leaf.to_dict()))) == leaf
    assert "grant" not in active().to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"record_id": "7"},
        {"owner": "me"},
        {"chain_id": 0},
        {"state": "lost"},
        {"expires_at": -1},
        {"reference": ""},
        {"reference": "x" * 201},
        {"session": None},
    ],
)
def test_wrong_fields_are_refused(changes: dict[str, object]) -> None:
    """Each is named."""
    with pytest.raises(InvalidFieldError, match=next(iter(changes)).split("_")[0]):
        evolve(active(), **changes)


def test_a_pending_record_needs_its_intent() -> None:
    """Or nobody could find out what came of it."""
    with pytest.raises(InvalidFieldError, match="intent"):
        evolve(pending(), intent=None)


def test_an_intent_names_its_wrong_field() -> None:
    """Without its value."""
    values = {"eph_id": "a", "eph_alg": "secp256k1", "owner_id": "o", "threshold": 2, "parties_number": 3}
    with pytest.raises(InvalidFieldError, match="hex_eph_sk") as caught:
        KeygenIntent(hex_eph_sk="5a5a", **values)
    assert "5a5a" not in str(caught.value)


@pytest.mark.parametrize("value", [{}, {"record_id": 1}, active().to_dict() | {"more": 1}])
def test_other_members_are_refused(value: dict[str, object]) -> None:
    """Missing or unknown ones: another version wrote it."""
    with pytest.raises(InvalidFieldError):
        StoredSession.from_dict(value)


ALLOWED = {
    ("waiting", "pending"),
    ("pending", "pending"),
    ("pending", "active"),
    ("pending", "failed"),
    ("pending", "expired"),
    ("active", "active"),
    ("active", "revoked"),
    ("active", "expired"),
    ("revoked", "revoked"),
    ("expired", "pending"),
    ("expired", "active"),
}


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_states_follow_each_other(before: str, after: str) -> None:
    """Exactly these: a revoked session never comes back to life; an expired one may, if the clock was wrong."""
    record = evolve(pending(session=session()), state=before)
    if (before, after) in ALLOWED:
        assert record.changed(after, now=NOW + 1).state == after
    else:
        with pytest.raises(RecordConflictError, match=f"is {before}, and cannot become {after}"):
            record.changed(after, now=NOW + 1)


def test_a_session_without_an_end_cannot_be_kept() -> None:
    """Nobody could say when to forget it."""
    with pytest.raises(InvalidFieldError, match="expires_at"):
        StoredSession.of(session(expires_at=None), now=NOW)
