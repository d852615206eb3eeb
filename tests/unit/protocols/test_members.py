"""Reading members of JSON objects, strictly."""

import pytest

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import load_text, members, only


def test_members_may_stand_in_any_order():
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
