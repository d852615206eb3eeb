"""
The contract of the transports, and JSON-RPC 2.0 framing: pure, strict, and safe against hostile texts.

See https://www.jsonrpc.org/specification. Only the frame is checked here; what a result means is for the typed layers above.
Not supported, and refused: batches, notifications from the peer, and ids that are not whole numbers, since we never send
such ids.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from dan_async._json import check_extent
from dan_async.errors import InvalidFieldError, ProtocolError, RpcError
from dan_async.types import Json

#: Deepest nesting of arrays and objects accepted in a reply.
MAX_DEPTH = 128

#: Longest piece of a peer's text that an error repeats, in characters.
_SHOWN_LENGTH = 200

_METHOD = re.compile(r"[A-Za-z0-9_.\-/]{1,128}\Z")

_CREDENTIALS = re.compile(r"//[^\s/@]*@")

_LONG_TOKEN = re.compile(r"[A-Za-z0-9+/_=.\-]{48,}")


class Transport(Protocol):
    """A way to one peer."""

    async def call(self, method: str, params: str, *, timeout_s: float | None) -> Json:
        """
        Send one request and wait for its reply.

        Args:
            method: The JSON-RPC method.
            params: Its parameters, already encoded as JSON text: a fan-out encodes them once for all nodes.
            timeout_s: Seconds to wait for the reply, connecting included; None for no limit.

        Returns:
            The decoded ``result`` member.

        Raises:
            ConnectError: The connection could not be opened; nothing was sent.
            ConnectionLostError: It broke before the reply came.
            RequestTimeoutError: No reply in time.
            RpcError: The peer answered with an error object.
            ProtocolError: The peer sent what JSON-RPC does not allow.
            ClientClosedError: The transport was closed by its owner.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection and fail what is pending. May be called twice."""
        ...


class Reply(NamedTuple):
    """A reply: exactly one of *result* and *error* counts. The id is None when the peer could not read the request's."""

    id: int | None
    result: Json = None
    error: RpcError | None = None


def shorten(text: str) -> str:
    """Make a peer's text fit for an error: one line, short, without what may be a secret (long tokens, credentials)."""
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN_LENGTH])
    text = _LONG_TOKEN.sub("[masked]", _CREDENTIALS.sub("//[masked]@", text)).strip()
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"


@lru_cache(maxsize=64)  # a program calls the same few again and again
def check_method(method: str) -> str:
    """Check a method's name, so that it can stand in JSON text as it is."""
    if not isinstance(method, str) or not _METHOD.match(method):
        raise InvalidFieldError(
            "method", "must be 1 to 128 letters, digits, dots, slashes, dashes or underscores"
        )
    return method


def encode_request(id: int, method: str, params: str) -> str:  # noqa: A002 - the member's own name
    """Write one request; *params* is JSON text, put in as it is."""
    return f'{{"jsonrpc":"2.0","id":{id},"method":"{check_method(method)}","params":{params}}}'


def _refuse_constant(_: str) -> Any:
    raise ProtocolError("the reply holds NaN or Infinity, which JSON does not have")


def _to_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ProtocolError("the reply holds a number that is out of range")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_to_float)


def _read_error(error: Json) -> RpcError:
    if not isinstance(error, dict):
        raise ProtocolError("the reply's error is not an object")
    code, message, data = error.get("code"), error.get("message"), error.get("data")
    if not isinstance(code, int) or isinstance(code, bool):
        raise ProtocolError("the reply's error has no whole number as its code")
    if not isinstance(message, str):
        raise ProtocolError("the reply's error has no text as its message")
    return RpcError(code, shorten(message) or "no message", data if isinstance(data, dict) else None)


def decode_reply(text: str) -> Reply:
    """
    Read one reply. Members that JSON-RPC does not define are ignored, as is ``"error": null`` beside a result.

    Raises:
        ProtocolError: It is not a reply. Its content is not repeated.
    """
    check_extent(text, "the reply", MAX_DEPTH)
    text = text.strip(" \t\r\n")
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        end = -1
    if end != len(text):
        raise ProtocolError("the reply is not JSON")
    if not isinstance(value, dict):
        raise ProtocolError("the reply is not a JSON object")
    if value.get("jsonrpc") != "2.0":
        raise ProtocolError("the reply does not say that it is JSON-RPC 2.0")
    reply_id = value.get("id", False)
    # type() rather than isinstance(): True is an int to Python.
    if type(reply_id) is not int and reply_id is not None:
        raise ProtocolError("the reply's id is not a whole number")
    error = value.get("error")
    if error is not None:
        if "result" in value:
            raise ProtocolError("the reply has both a result and an error")
        return Reply(reply_id, None, _read_error(error))
    if "result" not in value:
        raise ProtocolError("the reply has neither a result nor an error")
    if reply_id is None:
        raise ProtocolError("the reply has a result and no id")
    return Reply(reply_id, value["result"])
