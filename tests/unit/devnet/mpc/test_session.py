"""What the parties agree on beforehand."""

import secrets

import pytest
from coincurve import PrivateKey

from dan_async.config import Threshold
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import ORDER
from dan_async.crypto.signature import sign_digest
from dan_async.devnet.mpc.dkg import Session
from dan_async.errors import InvalidFieldError

KEYS = [PrivateKey() for _ in range(3)]
IDENTITIES = tuple(public_key_to_address(key.public_key.format()) for key in KEYS)
SESSION_ID = bytes(range(32))
DIGEST = secrets.token_bytes(32)


def session(**changes):
    return Session(
        **{"session_id": SESSION_ID, "threshold": Threshold(2, 3), "identities": IDENTITIES} | changes
    )


@pytest.mark.parametrize("session_id", [b"", bytes(31), bytes(33), "0" * 32, None])
def test_the_session_id_is_32_bytes(session_id):
    """Anything else is refused."""
    with pytest.raises(InvalidFieldError, match="session_id"):
        session(session_id=session_id)


@pytest.mark.parametrize("count", [2, 4])
def test_there_is_one_identity_for_each_party(count):
    """Not fewer, not more."""
    extra = public_key_to_address(PrivateKey().public_key.format())
    with pytest.raises(InvalidFieldError, match="identities must be 3"):
        session(identities=(*IDENTITIES, extra)[:count])


def test_an_identity_cannot_appear_twice():
    """Nor in another spelling."""
    with pytest.raises(InvalidFieldError, match="differ"):
        session(identities=(IDENTITIES[0], IDENTITIES[1], IDENTITIES[0].lower()))


def test_an_identity_is_an_address():
    """Not any text."""
    with pytest.raises(InvalidFieldError, match="identities"):
        session(identities=(IDENTITIES[0], IDENTITIES[1], "0x12"))


def test_the_context_depends_on_everything():
    """Session id, t, n, and the identities in their order."""
    contexts = {
        session().context,
        session(session_id=bytes(32)).context,
        session(threshold=Threshold(3, 3)).context,
        session(identities=IDENTITIES[::-1]).context,
        session(threshold=Threshold(2, 2), identities=IDENTITIES[:2]).context,
    }
    assert len(contexts) == 5


def test_the_owner_of_an_identity_has_signed():
    """Each of the three, and nobody in another's name."""
    for index, key in enumerate(KEYS, 1):
        signature = sign_digest(key, DIGEST)
        assert [session().is_signed_by(i, DIGEST, signature) for i in (1, 2, 3)] == [
            i == index for i in (1, 2, 3)
        ]


@pytest.mark.parametrize("index", [-2, 0, 4, 255])
def test_nobody_signs_for_an_index_that_no_party_has(index):
    """Index 0 is not the last party."""
    assert not any(session().is_signed_by(index, DIGEST, sign_digest(key, DIGEST)) for key in KEYS)


def test_a_signature_counts_in_one_form_only():
    """The same signature with high s, or v as 0 or 1, is refused: a message must not have two encodings."""
    signature = sign_digest(KEYS[0], DIGEST)
    high = signature[:32] + (ORDER - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    assert session().is_signed_by(1, DIGEST, signature)
    assert not session().is_signed_by(1, DIGEST, high + bytes((55 - signature[64],)))
    assert not session().is_signed_by(1, DIGEST, signature[:64] + bytes((signature[64] - 27,)))


@pytest.mark.parametrize("signature", [b"", bytes(65), b"\xff" * 65, bytes(64)])
def test_what_is_no_signature_is_refused_without_an_exception(signature):
    """Any bytes may come in."""
    assert not session().is_signed_by(1, DIGEST, signature)
