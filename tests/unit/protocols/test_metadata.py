"""The metadata list of setups."""

import pytest

from dan_async.errors import InvalidFieldError
from dan_async.protocols.setups import (
    TaggedValue,
    claim_is_bare_key,
    decode_metadata,
    ephemeral_key_metadata,
    keygen_metadata,
    metadata_members,
)


def entries(*pairs):
    return [{"tag": tag, "value": value} for tag, value in pairs]


def test_permissions_come_first():
    """Tag 1, then the claim; without permissions the claim alone."""
    assert [e.tag for e in keygen_metadata("claim", "{}")] == [1, 2]
    assert [e.tag for e in keygen_metadata("claim", None)] == [2]


def test_key_id_comes_before_the_claim():
    """Tag 3, then tag 2."""
    assert metadata_members(ephemeral_key_metadata("claim", "key")) == entries((3, "key"), (2, "claim"))


def test_wallet_is_not_shown_the_permissions():
    """All entries but tag 1, in their order."""
    metadata = (TaggedValue(2, "claim"), TaggedValue(1, "{}"), TaggedValue(3, "key"))
    assert metadata_members(metadata) == entries((2, "claim"), (3, "key"))


def test_values_and_their_order_are_kept():
    """Even where the order is not the usual one: the owner signed it so."""
    found = decode_metadata(entries((2, ' {"a" : 1}'), (1, "x\u2028")), required=(2,), optional=(1,))
    assert found == (TaggedValue(2, ' {"a" : 1}'), TaggedValue(1, "x\u2028"))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "must be a list"),
        ({}, "must be a list"),
        ("[]", "must be a list"),
        ([], "no entry with tag 2"),
        (entries((1, "a")), "no entry with tag 2"),
        (entries((2, "a"), (2, "a")), "repeated tag"),
        (entries((2, "a"), (1, "a"), (1, "a")), "one entry per tag"),
        (entries((2, "a"), (3, "a")), "does not take"),
        (entries((2, "a"), (65535, "a")), "does not take"),
        ([None], "must be a JSON object"),
        ([{"tag": 2}], "value is missing"),
        ([{"value": "a"}], "tag is missing"),
        ([{"tag": 2, "value": "a", "more": 1}], "does not know"),
        (entries((2, None)), "value must be text"),
        (entries((2, 1)), "value must be text"),
        (entries((2, "\ud800")), "lone surrogate"),
        (entries(("2", "a")), "tag must be a whole number"),
        (entries((True, "a")), "tag must be a whole number"),
        (entries((-1, "a")), "tag must be from 0"),
        (entries((65536, "a")), "tag must be from 0"),
        (entries((None, "a")), "tag must be a whole number"),
    ],
)
def test_wrong_metadata_is_refused(value, problem):
    """Each with its own message; a repeated tag would let two readers see two claims."""
    with pytest.raises(InvalidFieldError, match=problem):
        decode_metadata(value, required=(2,), optional=(1,))


@pytest.mark.parametrize(
    ("value", "bare"),
    [
        (entries((2, "0x12")), True),
        (entries((1, "0x12"), (2, "{}")), False),
        (entries((2, '{"ephId":1}')), False),
        (entries((2, None)), False),
        ([None, 1], False),
        ({}, False),
        (None, False),
    ],
)
def test_bare_key_tells_revision_0_1(value, bare):
    """Only its claim is not JSON; nothing else is checked here."""
    assert claim_is_bare_key(value) is bare
