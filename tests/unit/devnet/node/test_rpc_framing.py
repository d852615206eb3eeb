"""JSON-RPC as a node reads it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.devnet.node.rpc import (
    RefusalError,
    encode_error,
    encode_result,
    guess_id,
    parse_request,
    rate_limited,
)
from dan_async.errors import NodeCode

GOOD = {"jsonrpc": "2.0", "id": 7, "method": "dan_health", "params": {}}


def refused(text):
    with pytest.raises(RefusalError) as caught:
        parse_request(text)
    return caught.value


def test_a_request_is_read():
    """Id, method and parameters."""
    request = parse_request('{"jsonrpc":"2.0","id":7,"method":"m","params":{"a":[1]}}')
    assert (request.id, request.method, request.params) == (7, "m", {"a": [1]})


@pytest.mark.parametrize("rpc_id", [0, 2**53 - 1, "a", "x" * 64])
def test_ids_are_numbers_or_short_texts(rpc_id):
    """Both come back as they were."""
    assert parse_request(json.dumps({**GOOD, "id": rpc_id})).id == rpc_id


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", '{"id":1.5}', '{"id":1,"id":1}', '{"a":NaN}', "[" * 20_000, b"\xff"]
)
def test_what_is_not_json_is_a_parse_error(text):
    """As is JSON that this protocol does not use: floats, repeated keys."""
    assert refused(text).code == NodeCode.PARSE_ERROR


@pytest.mark.parametrize(
    "change",
    [
        {"jsonrpc": "1.0"},
        {"jsonrpc": None},
        {"id": None},
        {"id": -1},
        {"id": True},
        {"id": ""},
        {"id": "x" * 65},
        {"id": "ä"},
        {"id": []},
        {"method": 1},
        {"method": ""},
        {"method": "m" * 65},
        {"params": []},
        {"params": None},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_not_a_request_is_an_invalid_request(change):
    """Whichever member is wrong."""
    assert refused(json.dumps({**GOOD, **change})).code == NodeCode.INVALID_REQUEST


@pytest.mark.parametrize("missing", GOOD)
def test_every_member_must_be_there(missing):
    """A notification, too, is refused: nothing here is done without an answer."""
    value = {key: value for key, value in GOOD.items() if key != missing}
    assert refused(json.dumps(value)).code == NodeCode.INVALID_REQUEST


def test_a_batch_is_refused():
    """Its replies could not be bounded or told apart by a relay."""
    assert refused(json.dumps([GOOD])).code == NodeCode.INVALID_REQUEST


def test_a_refusal_carries_the_id_if_it_could_be_read():
    """So that the client knows which of its requests it was."""
    assert refused(json.dumps({**GOOD, "params": []})).rpc_id == 7
    assert refused("{").rpc_id is None


@given(st.text() | st.binary())
def test_no_input_raises_anything_but_a_refusal(text):
    """Whatever arrives."""
    with contextlib.suppress(RefusalError):
        assert parse_request(text).method


def test_replies_are_json_rpc():
    """Result and error, with and without data."""
    assert encode_result(1, {"a": "é"}) == '{"jsonrpc":"2.0","id":1,"result":{"a":"é"}}'
    plain = RefusalError(NodeCode.UNSUPPORTED, "no")
    assert encode_error(None, plain) == '{"jsonrpc":"2.0","id":null,"error":{"code":-32027,"message":"no"}}'
    assert json.loads(encode_error("x", rate_limited("slow", 1.2)))["error"]["data"] == {"retryAfter": 2}


@pytest.mark.parametrize(
    ("text", "rpc_id"),
    [
        ('{"jsonrpc":"2.0","id":42,"method":"m","params":{"x":"', 42),
        ('{"id":0,"jsonrpc":"2.0"', 0),
        ('{ "jsonrpc" : "2.0" , "id" : 5 }', 5),
        ('{"jsonrpc":"2.0","method":"m","id":42', None),
        ('{"jsonrpc":"2.0","id":"a","method"', None),
        ("garbage", None),
    ],
)
def test_the_id_of_an_overlong_request_is_found_where_clients_put_it(text, rpc_id):
    """Without parsing what is too long to be parsed."""
    assert guess_id(text + "x" * 1000) == rpc_id
