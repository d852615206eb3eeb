"""Messages as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.devnet.mpc.dkg import (
    CommitmentMessage,
    ComplaintMessage,
    EchoMessage,
    OpeningMessage,
    ShareMessage,
    opening_commitment,
    transcript_hash,
)
from dan_async.errors import InvalidFieldError

CONTEXT = bytes(range(32))


def block(length):
    return st.binary(min_size=length, max_size=length)


indices = st.integers(0, 255)
messages = st.one_of(
    st.builds(CommitmentMessage, sender=indices, commitment=block(32)),
    st.builds(
        OpeningMessage,
        sender=indices,
        points=st.lists(block(33), max_size=12).map(tuple),
        proofs=block(65),
        nonce=block(32),
    ),
    st.builds(
        ShareMessage,
        sender=indices,
        recipient=indices,
        share=block(32),
        commitment=block(32),
        signature=block(65),
    ),
    st.builds(EchoMessage, sender=indices, transcript_hash=block(32), signature=block(65)),
    st.builds(
        ComplaintMessage,
        sender=indices,
        share_message=block(164),
        opening=st.binary(max_size=300),
        signature=block(65),
    ),
)

SAMPLES = [
    CommitmentMessage(sender=1, commitment=bytes(32)),
    OpeningMessage(sender=1, points=(bytes(33), bytes(33)), proofs=bytes(65), nonce=bytes(32)),
    ShareMessage(sender=1, recipient=2, share=bytes(32), commitment=bytes(32), signature=bytes(65)),
    EchoMessage(sender=1, transcript_hash=bytes(32), signature=bytes(65)),
]


@given(messages, block(32))
def test_a_message_survives_its_encoding(message, context):
    """decode(encode(m)) == m, for every kind."""
    assert type(message).decode(message.encode(context), context) == message


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_cut_anywhere_is_refused(message):
    """At each of its bytes."""
    encoded = message.encode(CONTEXT)
    for length in range(len(encoded)):
        with pytest.raises(InvalidFieldError, match="too short"):
            type(message).decode(encoded[:length], CONTEXT)


def test_a_complaint_cut_before_its_end_is_refused():
    """What it quotes has no fixed length, but its other parts have."""
    encoded = ComplaintMessage(sender=1, share_message=bytes(164), opening=b"", signature=bytes(65)).encode(
        CONTEXT
    )
    for length in range(len(encoded)):
        with pytest.raises(InvalidFieldError, match="too short"):
            ComplaintMessage.decode(encoded[:length], CONTEXT)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_with_bytes_after_its_end_is_refused(message):
    """Nothing may be hidden behind it."""
    with pytest.raises(InvalidFieldError, match="too long"):
        type(message).decode(message.encode(CONTEXT) + b"\0", CONTEXT)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_of_another_kind_is_refused(message):
    """The first byte says which."""
    encoded = message.encode(CONTEXT)
    for other in SAMPLES:
        if type(other) is not type(message):
            with pytest.raises(InvalidFieldError, match="another kind"):
                type(other).decode(encoded, CONTEXT)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_of_another_session_is_refused(message):
    """The context is part of every message."""
    with pytest.raises(InvalidFieldError, match="another session"):
        type(message).decode(message.encode(CONTEXT), bytes(32))


@pytest.mark.parametrize("value", [None, "text", 7, bytearray(70)])
def test_what_is_not_bytes_is_refused(value):
    """Without another exception type."""
    with pytest.raises(InvalidFieldError, match="must be bytes"):
        CommitmentMessage.decode(value, CONTEXT)


def test_neither_a_share_message_nor_a_complaint_shows_the_share():
    """In repr."""
    share = ShareMessage(sender=1, recipient=2, share=b"S" * 32, commitment=bytes(32), signature=bytes(65))
    complaint = ComplaintMessage(
        sender=1, share_message=share.encode(CONTEXT), opening=b"", signature=bytes(65)
    )
    assert "SSSS" not in f"{share!r} {complaint!r}"


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_commitment_binds_every_byte_of_the_opening(one, other):
    """Two openings have the same commitment only if they are the same."""
    assert (opening_commitment(one) == opening_commitment(other)) is (one == other)


def test_the_transcript_covers_each_commitment_and_opening_in_order():
    """Exchange or change any of them and the hash is another."""
    commitments, openings = {1: b"c1", 2: b"c2"}, {1: b"o1", 2: b"o2"}
    hashes = {
        transcript_hash(CONTEXT, commitments, openings),
        transcript_hash(bytes(32), commitments, openings),
        transcript_hash(CONTEXT, {1: b"c2", 2: b"c1"}, openings),
        transcript_hash(CONTEXT, commitments, {1: b"o2", 2: b"o1"}),
        transcript_hash(CONTEXT, {1: b"c1", 2: b"c3"}, openings),
        transcript_hash(CONTEXT, commitments, {1: b"o3", 2: b"o2"}),
    }
    assert len(hashes) == 6
    backwards = transcript_hash(CONTEXT, commitments, {2: b"o2", 1: b"o1"})
    assert backwards == transcript_hash(CONTEXT, commitments, openings)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (ShareMessage, {"sender": 1, "recipient": 2, "share": b"s" * 32, "commitment": b"c" * 32}),
        (EchoMessage, {"transcript_hash": b"t" * 32}),
        (ComplaintMessage, {"sender": 1, "share_message": b"s" * 164, "opening": b"o" * 50}),
    ],
    ids=["share", "echo", "complaint"],
)
def test_what_is_signed_depends_on_every_part(kind, parts):
    """A signature holds for one session, sender, recipient and content only."""

    def digest_of(changed):
        arguments = {"context": CONTEXT, "sender": 1} | parts | changed
        context = arguments.pop("context")
        return kind(**arguments).digest(context)

    changes = [
        {name: value + 1 if isinstance(value, int) else value[1:] + b"x"}
        for name, value in ({"context": CONTEXT} | parts).items()
    ]
    assert len({digest_of(change) for change in [{}, *changes]}) == len(parts) + 2
