"""Depth and number of values are found without parsing, and what is in strings does not count."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async import _json as json_text
from dan_async._json import has_too_many_values, is_too_deep
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.permissions.rules import permissions_text
from dan_async.transport.rpc import decode_reply


def depth_of(value: Any) -> int:
    if isinstance(value, dict | list):
        children = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, children), default=0)
    return 0


JSON = st.recursive(
    st.integers() | st.text(alphabet='[]{}"\\a'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"'), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=200)
@given(value=JSON, most=st.integers(0, 6))
def test_it_is_the_depth_of_the_value(value: Any, most: int) -> None:
    """For every JSON text it says what walking the value would say."""
    assert is_too_deep(json.dumps(value), most) == (depth_of(value) > most)


@given(text=st.text(alphabet='[]{}"\\,: 1', max_size=50))
def test_any_text_is_looked_at(text: str) -> None:
    """What is not JSON has an answer too."""
    assert is_too_deep(text, 1000) is False


@pytest.mark.parametrize("row", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
def test_a_raised_recursion_limit_is_no_way_in(row: str) -> None:
    """With the limit raised, the standard parser would crash the process; ours are never reached by such a text."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(ProtocolError, match="nested too deeply"):
            json_text.load(row)
        with pytest.raises(ProtocolError, match="nested too deeply"):
            decode_reply('{"jsonrpc":"2.0","id":1,"result":' + row)
        with pytest.raises(InvalidFieldError, match="nested more than"):
            permissions_text(row[:60_000])
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(InvalidFieldError, match="nested more than"):
            permissions_text(deep)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("row", ["[]", "{}", "1", '"a"', "[1,2]"])
def test_a_mib_of_small_values_is_refused_before_it_is_parsed(
    row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep a loop busy for most of a second."""
    text = f"[{','.join([row] * (2**20 // (len(row) + 1)))}]"

    def parsed(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(json.JSONDecoder, "decode", parsed)
    with pytest.raises(ProtocolError, match="too many values"):
        json_text.load(text)
    with pytest.raises(ProtocolError, match="too many values"):
        decode_reply(f'{{"jsonrpc":"2.0","id":1,"result":{text}}}')


def test_a_long_string_is_one_value() -> None:
    """However many commas and brackets are in it, escaped quotes among them."""
    text = json.dumps(['[{",\\"}],' * 50_000])
    assert json_text.load(text) == json.loads(text)


@given(value=JSON, most=st.integers(0, 20))
def test_no_value_is_overlooked(value: Any, most: int) -> None:
    """There are never more values in a text than marks and one."""

    def count(value: Any) -> int:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(count, children))

    if not has_too_many_values(json.dumps(value), most):
        assert count(value) <= most + 1
