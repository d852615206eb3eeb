"""What a node accepts, how much of it, and how long it waits."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from dan_async.models._fields import check_int, check_seconds, required

__all__ = ["NodeLimits"]


def _count(default: int, *, most: int = 2**31 - 1) -> Any:
    return field(default=default, validator=required(check_int, least=1, most=most))


def _seconds(default: float) -> Any:
    return field(default=default, validator=required(check_seconds))


@frozen(kw_only=True)
class NodeLimits:
    """
    Limits of one devnet node. What is beyond them is refused with an error code, never queued without bound.

    Args:
        max_request_bytes: Longest request. One of up to twice that length is answered with ``TOO_LARGE``; anything
            longer closes the connection.
        max_in_flight: Requests being worked on per connection.
        max_connections: Client connections at a time, and as many of peers.
        requests_per_s: Requests per second from one address, on average.
        request_burst: Requests from one address at once.
        max_keygens: Key generations running at a time.
        max_nonces: Nonces remembered at a time, used and expired ones included.
        nonce_lifetime_s: How long a nonce may be used, in seconds; a person may be reading a wallet prompt meanwhile.
        round_s: How long one round of the distributed key generation waits for the slowest peer, in seconds.
        sign_round_s: The same for one round of making a presignature, and for the set-up of a pair.
        sign_quiet_s: How long a peer may give no sign of life in these, in seconds: a busy peer gives them, and has a
            round's time; one that is gone does not.
        max_presigns: Presignatures being made at a time.
        max_presignatures: Presignatures kept ready at a time, and as many being made, for one ephemeral key.
        presignature_lifetime_s: How long a presignature is kept, in seconds.
        max_signs: Requests for signatures being worked on at a time.
        stop_grace_s: How long a stopping node waits for what it is working on, in seconds.
        handshake_s: How long opening one link between nodes may take, in seconds.
        max_peer_frame_bytes: Longest message from another node.
        max_peer_queue_bytes: What may wait to be sent to one node, or wait for a session that has not begun here, in
            bytes for each node.
        early_message_s: How long a peer's message for a session that has not begun here is kept, in seconds.

    Raises:
        InvalidFieldError: A number is out of range.
    """

    max_request_bytes: int = _count(1024 * 1024, most=64 * 1024 * 1024)
    max_in_flight: int = _count(1024)
    max_connections: int = _count(1024)
    requests_per_s: float = _seconds(5000.0)
    request_burst: int = _count(10_000)
    max_keygens: int = _count(256)
    max_nonces: int = _count(65_536)
    nonce_lifetime_s: float = _seconds(300.0)
    round_s: float = _seconds(10.0)
    sign_round_s: float = _seconds(15.0)
    sign_quiet_s: float = _seconds(2.5)
    max_presigns: int = _count(1024)
    max_presignatures: int = _count(256)
    presignature_lifetime_s: float = _seconds(60.0)
    max_signs: int = _count(1024)
    stop_grace_s: float = _seconds(1.0)
    handshake_s: float = _seconds(5.0)
    max_peer_frame_bytes: int = _count(1024 * 1024, most=64 * 1024 * 1024)
    max_peer_queue_bytes: int = _count(16 * 1024 * 1024)
    early_message_s: float = _seconds(20.0)
