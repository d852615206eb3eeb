"""Records and messages of declared fields: one encoding each, and nothing left over."""

from __future__ import annotations

from typing import Annotated

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from dan_async.devnet.mpc.framing import (
    Digest,
    EncodedPoint,
    Index,
    Message,
    Record,
    Signature,
    counted,
    fixed,
    up_to_last,
)
from dan_async.errors import InvalidFieldError

KNOWN = bytes(range(32))


@frozen
class Everything(Record):
    """One field of each form."""

    index: Index
    digest: Digest
    short: Annotated[bytes, fixed(3)]
    points: Annotated[tuple[bytes, ...], counted(33)]
    text: Annotated[bytes, up_to_last(65)]
    signature: Signature


@frozen
class OneMessage(Message):
    """A message with one field."""

    KIND = 7

    point: EncodedPoint


def block(length):
    return st.binary(min_size=length, max_size=length)


records = st.builds(
    Everything,
    index=st.integers(0, 255),
    digest=block(32),
    short=block(3),
    points=st.lists(block(33), max_size=5).map(tuple),
    text=st.binary(max_size=50),
    signature=block(65),
)
RECORD = Everything(1, bytes(32), b"abc", (bytes(33),), b"", bytes(65))


@given(records)
def test_a_record_survives_its_packing(record):
    """Every form of field."""
    assert Everything.unpack(record.pack()) == record


def test_fields_stand_in_the_order_of_their_declaration():
    """With nothing between them but the count of what is counted."""
    record = Everything(2, b"d" * 32, b"abc", (b"p" * 33,), b"text", b"s" * 65)
    assert record.pack() == b"\x02" + b"d" * 32 + b"abc" + b"\x01" + b"p" * 33 + b"text" + b"s" * 65


def test_a_record_cut_anywhere_is_refused():
    """At each of its bytes; the name of the record is in the error."""
    packed = RECORD.pack()
    for length in range(len(packed)):
        with pytest.raises(InvalidFieldError, match="too short") as caught:
            Everything.unpack(packed[:length])
        assert caught.value.field == "everything"


def test_a_message_has_its_kind_and_what_is_known_first():
    """Then its fields."""
    message = OneMessage(b"p" * 33)
    assert message.encode(KNOWN) == b"\x07" + KNOWN + b"p" * 33
    assert OneMessage.decode(message.encode(KNOWN), KNOWN) == message


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: b"\x08" + m[1:], "another kind"),
        (lambda m: m[:1] + bytes(32) + m[33:], "another session"),
        (lambda m: m + b"\0", "too long"),
        (lambda m: m[:-1], "too short"),
        (lambda m: b"", "too short"),
        (bytearray, "must be bytes"),
        (lambda m: None, "must be bytes"),
    ],
)
def test_anything_but_the_message_is_refused(change, problem):
    """And the error says in which way; the name of the message is without the word."""
    with pytest.raises(InvalidFieldError, match=problem) as caught:
        OneMessage.decode(change(OneMessage(b"p" * 33).encode(KNOWN)), KNOWN)
    assert caught.value.field == "one"
