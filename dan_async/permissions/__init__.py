"""The permissions of a session: read, and checked against requests. Pure; for nodes and clients alike."""

from dan_async.permissions.checking import check_permissions, decode_calls, find_refusal
from dan_async.permissions.rules import Permissions, parse_permissions

__all__ = ["Permissions", "check_permissions", "decode_calls", "find_refusal", "parse_permissions"]
