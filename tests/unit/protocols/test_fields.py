"""Messages as classes, and members of JSON objects: what is written is read, and nothing else is."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import (
    ADDRESS,
    HASH,
    Form,
    decode,
    decode_canonical,
    decode_key_id,
    encode,
    hex_bytes,
    hex_text,
    list_of,
    load_text,
    members,
    nested,
    number,
    one_of,
    only,
    operators,
    scalar,
    set_of,
    string,
    to_json,
    wire,
)
from tests.strategies import addresses, texts


@frozen(kw_only=True)
class Inner:
    name: Annotated[str, wire("name", string(40))]
    secret: Annotated[bytes, wire("secretBytes", HASH)] = field(repr=False)


@frozen(kw_only=True)
class Outer:
    first: Annotated[int, wire("first", number(0, 9))]
    second: Annotated[str | None, wire("second", string(9), optional=True)] = None
    inner: Annotated[tuple[Inner, ...], wire("inner", list_of(nested(Inner), 0, 2))] = ()


@frozen(kw_only=True)
class Longer(Outer):
    last: Annotated[bytes, wire("last", hex_bytes(1, 2))]


@frozen(kw_only=True)
class Bounded:
    least: Annotated[int, wire("least", number(0, 9))]
    most: Annotated[int, wire("most", number(0, 9))]

    def __attrs_post_init__(self) -> None:
        if self.least > self.most:
            raise InvalidFieldError("least", "is more than most")


class Plain:
    def __init__(self, *, x: str) -> None:
        self.x = x


INNER = {"name": "é", "secretBytes": "0x" + "0a" * 32}


def refused(form: Form[object], value: object, problem: str) -> None:
    with pytest.raises(InvalidFieldError, match=problem) as caught:
        form.read("member", value)
    assert caught.value.field == "member"


# --- messages ---------------------------------------------------------------------------------------------------------


def test_members_are_written_in_the_order_of_the_fields():
    """Those of the class above first; what is optional and not there is left out."""
    message = Longer(first=1, inner=(Inner(name="a", secret=bytes(32)),), last=b"\x0a")
    zeros = "00" * 32
    assert encode(message) == (
        '{"first":1,"inner":[{"name":"a","secretBytes":"0x' + zeros + '"}],"last":"0x0a"}'
    )
    assert list(to_json(Longer(first=1, second="b", last=b"\x0a"))) == ["first", "second", "inner", "last"]


@given(
    st.builds(
        Outer,
        first=st.integers(0, 9),
        second=st.none() | texts(most=9).filter(lambda text: len(text) <= 9),
        inner=st.lists(
            st.builds(Inner, name=texts(), secret=st.binary(min_size=32, max_size=32)), max_size=2
        ).map(tuple),
    )
)
def test_what_is_written_is_read(message):
    """As an object, and as its text."""
    assert decode(Outer, to_json(message)) == message
    assert decode_canonical(Outer, encode(message), "outer") == message


def test_members_may_stand_in_any_order():
    """JSON objects have none."""
    assert decode(Outer, {"inner": [INNER], "first": 3}) == Outer(
        first=3, inner=(Inner(name="é", secret=b"\x0a" * 32),)
    )


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        (None, "params", "must be an object"),
        ([], "params", "must be an object"),
        ({}, "first", "is missing"),
        ({"first": 1}, "inner", "is missing"),
        ({"inner": [], "second": "a"}, "first", "is missing"),
        ({"first": 1, "inner": [], "evil": 2}, "params", "has members that the protocol does not know"),
        ({"first": 1, "inner": [], "second": None}, "second", "must be text"),
        ({"first": 1, "inner": [{**INNER, "evil": 2}]}, "inner", "has members"),
        ({"first": 1, "inner": [{"name": "a"}]}, "secretBytes", "is missing"),
        ({"first": 1, "inner": [7]}, "inner", "must be an object"),
        ({"first": 1, "inner": [INNER] * 3}, "inner", "must be a list of 0 to 2 entries"),
    ],
)
def test_nothing_is_missing_and_nothing_unknown(value, field, problem):
    """The error names the member; what came from outside is not repeated."""
    with pytest.raises(InvalidFieldError, match=problem) as caught:
        decode(Outer, value)
    assert caught.value.field == field
    assert "evil" not in str(caught.value)


def test_a_message_may_check_how_its_members_fit_together():
    """Whether it is read or made."""
    with pytest.raises(InvalidFieldError, match="least is more than most"):
        decode(Bounded, {"least": 2, "most": 1})
    with pytest.raises(InvalidFieldError, match="least is more than most"):
        Bounded(least=2, most=1)


def test_a_class_that_declares_nothing_can_be_nested():
    """Its members are named as its fields."""
    form = nested(Plain, wire("x", string(3)))
    assert form.read("plain", {"x": "abc"}).x == "abc"
    assert form.write(Plain(x="abc")) == '{"x":"abc"}'
    with pytest.raises(InvalidFieldError, match="x must be 1 to 3 characters"):
        form.read("plain", {"x": "abcd"})


def test_a_field_without_a_form_is_noticed():
    """When its class is used first."""

    @frozen
    class Forgotten:
        x: int

    with pytest.raises(TypeError, match=r"Forgotten\.x declares no form"):
        encode(Forgotten(1))


# --- one text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"most":2,"least":1}',
        '{"least":1, "most":2}',
        ' {"least":1,"most":2}',
        '{"least":1,"most":2}\n',
        '{"l\\u0065ast":1,"most":2}',
        '{"least":-0,"most":2}',
        '{"least":1,"least":1,"most":2}',
    ],
)
def test_one_content_has_one_text(text):
    """Another text of the same is refused."""
    assert decode_canonical(Bounded, '{"least":1,"most":2}', "bounds") == Bounded(least=1, most=2)
    with pytest.raises(InvalidFieldError, match="bounds are not in their canonical form"):
        decode_canonical(Bounded, text, "bounds")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"least":1.0,"most":2}',
        '{"least":1,"least":1}',
        '{"least":NaN,"most":2}',
        '{"least":1,"most":' + "9" * 5000 + "}",
        "\ud800",
    ],
)
def test_what_is_no_such_text_is_refused(text):
    """By the same kind of error."""
    with pytest.raises(InvalidFieldError):
        decode_canonical(Bounded, text, "bounds")


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "abcd", 1, None, "\ud800"])
def test_text(value):
    """Within its length, and of characters that UTF-8 can carry."""
    assert string(3).read("member", "é") == "é"
    refused(string(3), value, "member")


@pytest.mark.parametrize("value", [-1, 10, True, 1.0, "1", None])
def test_numbers(value):
    """Whole ones within bounds."""
    assert number(0, 9).read("member", 9) == 9
    refused(number(0, 9), value, "member")


@pytest.mark.parametrize("value", ["0x", "0x0a0b0c", "0a", "0x0", "0xzz", "0x0 a ", 10, None])
def test_bytes(value):
    """Hex of one of the lengths; text that stays text is checked all the same."""
    assert hex_bytes(1).read("member", "0x0A") == b"\x0a"
    assert hex_bytes(1, 2).read("member", "0x0a0b") == b"\x0a\x0b"
    assert hex_text(1, 2).read("member", "0x0A") == "0x0A"
    for form in (hex_bytes(1, 2), hex_text(1, 2), hex_bytes(1)):
        refused(form, value, "member")


def test_scalars_are_below_their_bound():
    """32 bytes, big-endian."""
    form = scalar(256)
    assert form.read("member", json.loads(form.write(255))) == 255
    refused(form, "0x" + (256).to_bytes(32, "big").hex(), "below the group order")
    refused(form, "0x01", "32 bytes")


@pytest.mark.parametrize("value", ["c", "", None, ["a"], {}])
def test_one_of_a_few(value):
    """To the letter."""
    assert one_of("a", "b").read("member", "b") == "b"
    refused(one_of("a", "b"), value, "must be one of a, b")
    refused(one_of("a"), value, "must be a")


def test_sets_repeat_nothing():
    """And keep their order."""
    form = set_of(number(0, 9), 0, 3)
    assert form.read("member", [2, 1]) == (2, 1)
    assert form.write((2, 1)) == "[2,1]"
    refused(form, [1, 1], "must be different")
    refused(form, [1, 2, 3, 4], "0 to 3 entries")


@given(st.lists(addresses(), min_size=2, max_size=4, unique=True))
def test_operators_ascend(found):
    """As numbers, so that each set has one form."""
    form, ascending = operators(1, 4), sorted(found, key=str.lower)
    assert form.read("member", [address.lower() for address in ascending]) == tuple(ascending)
    refused(form, ascending[::-1], "strictly ascending")
    refused(form, [ascending[0]] * 2, "strictly ascending")
    refused(form, [], "1 to 4 entries")


def test_addresses_get_their_checksum():
    """A wrong one is refused."""
    right = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
    assert ADDRESS.read("member", right.lower()) == right
    refused(ADDRESS, right.replace("E", "e"), "EIP-55")


@pytest.mark.parametrize("value", ["0x" + "0a" * 32, "0a" * 31, "zz" * 32, None])
def test_key_ids_have_no_prefix(value):
    """64 hex digits, written in lower case."""
    assert decode_key_id("0A" * 32) == "0a" * 32
    with pytest.raises(InvalidFieldError, match="keyId"):
        decode_key_id(value)


# --- members of JSON objects ------------------------------------------------------------------------------------------


def test_members_of_an_object_may_stand_in_any_order():
    """JSON objects have none."""
    assert members({"b": 2, "a": 1}, "thing", ("a", "b")) == {"a": 1, "b": 2}


def test_optional_member_may_be_missing():
    """And may be there."""
    assert members({"a": 1}, "thing", ("a",), ("b",)) == {"a": 1}
    assert members({"a": 1, "b": 2}, "thing", ("a",), ("b",)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("value", [None, [], "a", 1, True])
def test_what_is_no_object_is_refused(value):
    """The error has the thing's name."""
    with pytest.raises(InvalidFieldError, match="thing must be a JSON object"):
        members(value, "thing", ("a",))


def test_missing_member_is_named():
    """The error says which."""
    with pytest.raises(InvalidFieldError, match=r"thing\.b is missing"):
        members({"a": 1}, "thing", ("a", "b"))


def test_unknown_member_is_refused_and_not_repeated():
    """Its name came from outside."""
    with pytest.raises(InvalidFieldError, match="does not know") as caught:
        members({"a": 1, "evil": 2}, "thing", ("a",), ("b",))
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize("values", [(), (1, 2)])
def test_only_one_value_is_one_value(values):
    """Neither none nor two."""
    with pytest.raises(InvalidFieldError, match="setups must be exactly one"):
        only(values, "setups")


def test_only_value_is_given():
    """The one there is."""
    assert only((7,), "setups") == 7


@pytest.mark.parametrize("frame", [b"{}", None, 1, {}])
def test_frame_that_is_no_text_is_refused(frame):
    """A binary frame with good JSON in it, too."""
    with pytest.raises(ProtocolError, match="must be text"):
        load_text(frame)
