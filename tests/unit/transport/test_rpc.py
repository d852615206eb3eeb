"""Framing: what is written, what is accepted, and that nothing but ProtocolError comes out of a bad text."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.errors import InvalidFieldError, ProtocolError, RpcError
from dan_async.transport.rpc import MAX_DEPTH, Reply, decode_reply, encode_request, shorten

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_request_is_written_without_touching_the_parameters():
    """The parameters' text goes out byte for byte."""
    text = encode_request(7, "dan_keygen", '{"b" : 1.0,"a":"\\u00e9é"}')
    assert text == '{"jsonrpc":"2.0","id":7,"method":"dan_keygen","params":{"b" : 1.0,"a":"\\u00e9é"}}'


@pytest.mark.parametrize("method", ["", 'a"b', "a\n", "a b", "x" * 129, "é", 5, None])
def test_method_that_is_no_name_is_refused(method):
    """A method cannot break out of its place in the text."""
    with pytest.raises(InvalidFieldError, match="method"):
        encode_request(1, method, "{}")


@settings(max_examples=60)
@given(_JSON)
def test_any_result_comes_back_as_it_was_sent(value):
    """decode(encode(result)) is the result."""
    assert decode_reply(json.dumps({"jsonrpc": "2.0", "id": 3, "result": value})) == Reply(3, value)


@settings(max_examples=60)
@given(st.text() | _JSON.map(json.dumps))
def test_no_text_raises_anything_but_a_protocol_error(text):
    """Garbage of any kind gives ProtocolError or, if it happens to be one, a reply."""
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_reply(text), Reply)


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "jsonrpc": st.just("2.0") | _JSON,
            "id": st.integers() | _JSON,
            "result": _JSON,
            "error": _JSON
            | st.fixed_dictionaries({"code": _JSON, "message": _JSON}, optional={"data": _JSON}),
        },
    )
)
def test_no_frame_raises_anything_but_a_protocol_error(frame):
    """Objects that look like replies give a reply or ProtocolError."""
    try:
        reply = decode_reply(json.dumps(frame))
    except ProtocolError:
        return
    assert reply.error is None or isinstance(reply.error, RpcError)
    assert reply.id is None or type(reply.id) is int


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '[{"jsonrpc":"2.0","id":1,"result":1}]',
        '{"jsonrpc":"2.0","id":1,"result":1',
        '{"id":1,"result":1}',
        '{"jsonrpc":2.0,"id":1,"result":1}',
        '{"jsonrpc":"2.0","id":1}',
        '{"jsonrpc":"2.0","result":1}',
        '{"jsonrpc":"2.0","id":null,"result":1}',
        '{"jsonrpc":"2.0","id":"1","result":1}',
        '{"jsonrpc":"2.0","id":1.0,"result":1}',
        '{"jsonrpc":"2.0","id":true,"result":1}',
        '{"jsonrpc":"2.0","id":1,"result":NaN}',
        '{"jsonrpc":"2.0","id":1,"result":-Infinity}',
        '{"jsonrpc":"2.0","id":1,"result":1e999}',
        '{"jsonrpc":"2.0","id":1,"result":' + "9" * 5000 + "}",
        '{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":"m"}}',
        '{"jsonrpc":"2.0","id":1,"error":"m"}',
        '{"jsonrpc":"2.0","id":1,"error":{"message":"m"}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":true,"message":"m"}}',
        '{"jsonrpc":"2.0","id":1,"error":{"code":1}}',
        '{"jsonrpc":"2.0","method":"notify","params":[]}',
    ],
)
def test_what_json_rpc_does_not_allow_is_refused(text):
    """Each of these breaks one rule of the frame."""
    with pytest.raises(ProtocolError):
        decode_reply(text)


def test_null_error_beside_a_result_is_a_result():
    """Some servers write both; there is no doubt about what they mean."""
    assert decode_reply('{"jsonrpc":"2.0","id":1,"error":null,"result":5}') == Reply(1, 5)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 10_000, 500_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_a_protocol_error(depth, brackets):
    """However deep the text is, there is no RecursionError, neither here nor in whoever walks the result."""
    text = brackets[0] * depth + "1" + brackets[1] * depth
    with pytest.raises(ProtocolError, match="nested too deeply"):
        decode_reply('{"jsonrpc":"2.0","id":1,"result":' + text + "}")


def test_nesting_up_to_the_limit_and_any_width_are_fine():
    """The limit is on depth alone: long flat lists of objects pass."""
    deep = json.loads("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    wide = [{"a": [1]}] * 1000
    assert decode_reply(json.dumps({"jsonrpc": "2.0", "id": 1, "result": deep})).result == deep
    assert decode_reply(json.dumps({"jsonrpc": "2.0", "id": 1, "result": wide})).result == wide


def test_error_is_read_with_code_message_and_data():
    """An error object becomes our RpcError."""
    text = '{"jsonrpc":"2.0","id":4,"error":{"code":-32023,"message":"not the owner","data":{"a":1}}}'
    reply = decode_reply(text)
    assert reply.id == 4
    assert (reply.error.code, reply.error.message, reply.error.data) == (-32023, "not the owner", {"a": 1})


def test_error_message_is_shortened_and_masked():
    """A peer's message cannot put a key, a credential or a flood of lines into our logs."""
    key = "ab" * 32
    text = f"bad key 0x{key} at wss://user:secret@host\r\n\x1b[31m" + "very long " * 1000
    message = decode_reply(
        json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": text}})
    ).error.message
    assert key not in message
    assert "secret" not in message
    assert message.isprintable()
    assert len(message) <= 200


def test_error_data_that_is_no_object_is_dropped():
    """RpcError.data is always a dictionary."""
    text = '{"jsonrpc":"2.0","id":4,"error":{"code":3,"message":"reverted","data":"0x08c379a0"}}'
    assert decode_reply(text).error.data == {}


def test_shorten_keeps_short_texts_and_addresses():
    """An address is not a secret and stays readable."""
    text = "unknown operator 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    assert shorten(text) == text
