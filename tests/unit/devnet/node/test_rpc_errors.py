"""What a node says to its client when a session with the other nodes has failed."""

from __future__ import annotations

import pytest

from dan_async.devnet.node.rpc import RefusalError, refusing
from dan_async.devnet.peers.sessions import SessionFailedError, TooManySessionsError
from dan_async.errors import NodeCode

A, B = "0xA", "0xB"


def refusal_of(error):
    with pytest.raises(RefusalError) as caught, refusing(NodeCode.SIGNING_FAILED, "signing"):
        raise error
    return caught.value


def test_a_failed_session_names_its_culprits():
    """With the code of the work, and its reason in words; the complaint is for the other nodes only."""
    refusal = refusal_of(SessionFailedError("wrong share", (A, B), complaint=b"evidence"))
    assert refusal.code == NodeCode.SIGNING_FAILED
    assert refusal.message == "signing failed: wrong share"
    assert refusal.data == {"culprits": [A, B], "evidence": "proof"}
    assert refusal_of(SessionFailedError("no", (A,))).data == {"culprits": [A]}
    assert refusal_of(SessionFailedError("no", (A,), is_silence=True)).data["evidence"] == "silence"


def test_a_failed_session_names_who_aborted_it():
    """Which is not to say that it is to blame."""
    assert refusal_of(SessionFailedError("no", aborted_by=A)).data == {"culprits": [], "abortedBy": A}


def test_too_many_sessions_are_a_matter_of_time():
    """The client is asked to come back."""
    refusal = refusal_of(TooManySessionsError("too many presignatures are being made"))
    assert refusal.code == NodeCode.RATE_LIMITED
    assert refusal.data == {"retryAfter": 1}


def test_other_errors_go_on_as_they_are():
    """They are not about the other nodes."""
    with pytest.raises(KeyError), refusing(NodeCode.SIGNING_FAILED, "signing"):
        raise KeyError
