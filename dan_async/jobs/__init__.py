"""The public jobs, each a function of the network that it runs over; ``DanClient`` has a method for each."""

from __future__ import annotations

from dan_async.jobs.ephemeral_keys import (
    add_ephemeral_key,
    register_passkey,
    revoke_ephemeral_key,
    revoke_stored_session,
    rotate_stored_session,
)
from dan_async.jobs.generate_session_key import generate_session_key
from dan_async.jobs.pending_keys import PendingSessionKey
from dan_async.jobs.recover import RecoveryReport, SettledRecord, Settlement, recover
from dan_async.jobs.sign_message import sign_message

__all__ = [
    "PendingSessionKey",
    "RecoveryReport",
    "SettledRecord",
    "Settlement",
    "add_ephemeral_key",
    "generate_session_key",
    "recover",
    "register_passkey",
    "revoke_ephemeral_key",
    "revoke_stored_session",
    "rotate_stored_session",
    "sign_message",
]
