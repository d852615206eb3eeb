"""Messages between nodes: bytes and back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.devnet.mpc.framing import join_parts, split_parts
from dan_async.devnet.peers.sessions import AbortNotice, Kind, PeerMessage
from dan_async.errors import ProtocolError

SESSION = b"\x07" * 32


@given(st.sampled_from(Kind), st.integers(0, 255), st.binary(max_size=100))
def test_a_message_survives_the_way(kind, round_, body):
    """decode(encode(m)) == m."""
    if kind in {Kind.ABORT, Kind.ALIVE}:
        round_ = Kind.KEYGEN
    message = PeerMessage(kind, SESSION, round_, body)
    assert PeerMessage.decode(message.encode()) == message


@given(st.binary(max_size=80))
def test_any_frame_is_a_message_or_a_protocol_error(frame):
    """No input makes the decoder raise anything else."""
    with contextlib.suppress(ProtocolError):
        assert PeerMessage.decode(frame).encode() == frame


def test_the_layout_is_the_documented_one():
    """Kind, session, round, body."""
    assert PeerMessage(Kind.ABORT, SESSION, 3, b"x").encode() == b"\x02" + SESSION + b"\x03x"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=500),
    st.lists(st.integers(1, 20), max_size=20),
    st.none() | st.binary(max_size=50),
)
def test_an_abort_survives_the_way(reason, culprits, complaint):
    """decode(encode(a)) == a."""
    notice = AbortNotice(reason, tuple(culprits), complaint)
    assert AbortNotice.decode(notice.encode()) == notice


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"reason":1,"culprits":[],"complaint":null}',
        b'{"reason":"","culprits":[0],"complaint":null}',
        b'{"reason":"","culprits":[21],"complaint":null}',
        b'{"reason":"","culprits":1,"complaint":null}',
        b'{"reason":"","culprits":[],"complaint":"zz"}',
        b'{"reason":"","culprits":[],"complaint":null,"more":1}',
    ],
)
def test_a_malformed_abort_is_a_protocol_error(body):
    """Whatever is wrong with it."""
    with pytest.raises(ProtocolError):
        AbortNotice.decode(body)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_parts_survive_the_way(parts):
    """split(join(parts)) == parts."""
    assert split_parts(join_parts(parts), len(parts)) == parts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        join_parts([b"a"]),
        join_parts([b"a", b"b", b"c"]),
        join_parts([b"a", b"b"])[:-1],
        b"\xff" * 8,
        b"\0\0",
    ],
    ids=["none", "one", "three", "cut", "too long", "half a length"],
)
def test_parts_that_do_not_add_up_are_a_protocol_error(body):
    """Too few, too many, cut off."""
    with pytest.raises(ProtocolError):
        split_parts(body, 2)
