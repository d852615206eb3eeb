"""Depth is found without recursion, and brackets in strings do not count."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async import _json as json_text
from dan_async._json import is_too_deep
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


@settings(max_examples=200, deadline=None)
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
    finally:
        sys.setrecursionlimit(limit)
