"""JSON-RPC 2.0 as a node reads and writes it: pure and strict, one request per message."""

from __future__ import annotations

import re

from attrs import frozen

from dan_async.devnet.rpc_errors import RefusalError
from dan_async.errors import NodeCode, ProtocolError
from dan_async.types import Json
from dan_async.wire.json_text import dump, load

__all__ = ["RpcRequest", "encode_error", "encode_result", "guess_id", "parse_request"]

_MEMBERS = frozenset({"jsonrpc", "id", "method", "params"})
_LONGEST_ID = 64
_LONGEST_METHOD = 64
_ID_NEAR_THE_START = re.compile(
    r'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(0|[1-9][0-9]{0,14})\s*[,}]'
)


@frozen
class RpcRequest:
    """One request: its id as the client chose it, the method, the parameters as decoded."""

    id: int | str
    method: str
    params: dict[str, Json]


def _read_id(value: Json) -> int | str:
    if isinstance(value, str) and 1 <= len(value) <= _LONGEST_ID and value.isascii():
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise RefusalError(
        NodeCode.INVALID_REQUEST, f"id must be a whole number from 0, or 1 to {_LONGEST_ID} ASCII characters"
    )


def parse_request(text: str | bytes) -> RpcRequest:
    """
    Read one request.

    Raises:
        RefusalError: It is not JSON (``PARSE_ERROR``) or not a JSON-RPC 2.0 request (``INVALID_REQUEST``). A batch, a
            notification, an unknown member and parameters by position are refused too.
    """
    try:
        value = load(text)
    except ProtocolError as error:
        raise RefusalError(NodeCode.PARSE_ERROR, error.message) from error
    if not isinstance(value, dict):
        raise RefusalError(NodeCode.INVALID_REQUEST, "a request is one JSON object; batches are not taken")
    rpc_id = _read_id(value.get("id"))
    problem = _problem(value)
    if problem:
        raise RefusalError(NodeCode.INVALID_REQUEST, problem, rpc_id=rpc_id)
    return RpcRequest(rpc_id, value["method"], value["params"])


def _problem(value: dict[str, Json]) -> str:
    if value.get("jsonrpc") != "2.0":
        return 'jsonrpc must be "2.0"'
    method = value.get("method")
    if not isinstance(method, str) or not 1 <= len(method) <= _LONGEST_METHOD:
        return f"method must be text of 1 to {_LONGEST_METHOD} characters"
    if not isinstance(value.get("params"), dict):
        return "params must be an object"
    if not value.keys() <= _MEMBERS:
        return "the request has members that JSON-RPC does not know"
    return ""


def guess_id(text: str) -> int | None:
    """Find the numeric id of a request that is too long to be parsed, if it stands at the start."""
    match = _ID_NEAR_THE_START.match(text[:200])
    return int(match[1]) if match else None


def encode_result(rpc_id: int | str, result: Json) -> str:
    """Write the reply to a request that was carried out."""
    return dump({"jsonrpc": "2.0", "id": rpc_id, "result": result})


def encode_error(rpc_id: int | str | None, refusal: RefusalError) -> str:
    """Write the reply to a request that was refused; the id is null if it could not be read."""
    return dump({"jsonrpc": "2.0", "id": rpc_id, "error": refusal.error_object()})
