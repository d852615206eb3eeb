"""Messages of threshold signing as bytes."""

import secrets

import pytest

from dan_async.devnet.mpc.aborts import Reason, SigningAbort
from dan_async.devnet.mpc.ot import EXTENSION_BYTES
from dan_async.devnet.mpc.threshold_ecdsa import CommitMessage, Envelope, MultiplyMessage
from dan_async.devnet.mpc.vole import REPLY_BYTES

CONTEXT = bytes(range(32))
ENVELOPE = Envelope(CONTEXT, 7, 3)


def some(length):
    return secrets.token_bytes(length)


MESSAGES = [
    CommitMessage(setup_id=some(32), commitment=some(32), signature=some(65), vole=some(EXTENSION_BYTES)),
    MultiplyMessage(
        commitments=(some(97), some(97)),
        zeros=(some(33),),
        nonce=some(32),
        nonce_point=some(33),
        key_point=some(33),
        gamma_u=some(33),
        gamma_v=some(33),
        psi=some(32),
        vole=some(REPLY_BYTES),
    ),
]
every_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)


@every_message
def test_a_message_survives_its_encoding(message):
    """Every field of it."""
    assert ENVELOPE.open(type(message), ENVELOPE.seal(message)) == message


@every_message
@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: None])
def test_a_message_of_another_length_is_blamed_on_its_sender(message, change):
    """Cut, extended, empty, or no bytes at all."""
    with pytest.raises(SigningAbort) as caught:
        ENVELOPE.open(type(message), change(ENVELOPE.seal(message)))
    assert (caught.value.reason, caught.value.culprits) == (Reason.MALFORMED_MESSAGE, (7,))


@every_message
def test_a_message_belongs_to_one_session_sender_recipient_and_kind(message):
    """All four are in its header."""
    encoded = ENVELOPE.seal(message)
    for changed, envelope in (
        (encoded, Envelope(bytes(32), 7, 3)),
        (encoded, Envelope(CONTEXT, 8, 3)),
        (encoded, Envelope(CONTEXT, 7, 4)),
        (bytes((encoded[0] ^ 1,)) + encoded[1:], ENVELOPE),
    ):
        with pytest.raises(SigningAbort, match="malformed"):
            envelope.open(type(message), changed)


def test_what_is_secret_does_not_show():
    """In repr: a reply holds what only its recipient may see."""
    assert repr(MESSAGES[1]) == "MultiplyMessage(***)"
