"""The handshake of a link: each side is sure who is at the other end, and nobody else can read along."""

from __future__ import annotations

import pytest

from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.peers.links import HELLO_LENGTH, Dialler, _Transcript, accept_hello, check_finish
from dan_async.errors import ProtocolError

ALICE, BOB, EVE = (NodeIdentity.from_hex(f"{secret:064x}") for secret in (11, 22, 33))
ROSTER = frozenset({ALICE.operator, BOB.operator})


def shake(dialler=ALICE, listener=BOB, expects=BOB.operator, roster=ROSTER):
    """A whole handshake; gives both sides' keys."""
    calling = Dialler(dialler, expects)
    answer, accepted = accept_hello(listener, calling.hello(), roster)
    finish, keys = calling.finish(answer)
    check_finish(accepted, finish)
    return keys, accepted


def test_both_sides_get_the_same_keys():
    """What one seals the other opens, in both directions."""
    dialler, accepted = shake()
    assert accepted.keys.receiving.open(dialler.sending.seal(b"to bob")) == b"to bob"
    assert dialler.receiving.open(accepted.keys.sending.seal(b"to alice")) == b"to alice"
    assert accepted.dialler == ALICE.operator


def test_every_link_has_its_own_keys():
    """A recorded frame of one link is nothing on another."""
    first, _ = shake()
    _, second = shake()
    with pytest.raises(ProtocolError):
        second.keys.receiving.open(first.sending.seal(b"again"))


def test_directions_have_different_keys():
    """A frame cannot be sent back to whom it came from."""
    dialler, _ = shake()
    with pytest.raises(ProtocolError):
        dialler.receiving.open(dialler.sending.seal(b"mirror"))


def test_a_stranger_is_refused():
    """An operator that is not on the roster does not get an answer, whatever it signs."""
    with pytest.raises(ProtocolError, match="not on the roster"):
        shake(dialler=EVE)


def test_a_node_does_not_link_with_itself():
    """Also if the roster has it."""
    with pytest.raises(ProtocolError, match="not on the roster"):
        shake(dialler=BOB)


def test_the_dialler_must_be_who_it_says():
    """Eve says that she is Alice; she cannot sign for her."""
    calling = Dialler(EVE, BOB.operator)
    hello = calling.hello().replace(bytes.fromhex(EVE.operator[2:]), bytes.fromhex(ALICE.operator[2:]))
    answer, accepted = accept_hello(BOB, hello, ROSTER)
    with pytest.raises(ProtocolError):
        calling.finish(answer)  # she does not even get Bob's keys: they depend on the names in the transcript
    with pytest.raises(ProtocolError, match="does not decrypt"):
        check_finish(accepted, bytes(81))


def test_a_dialler_with_the_keys_but_not_the_identity_is_refused():
    """Deriving the keys needs no identity: only the signature shows who is calling."""
    calling = Dialler(EVE, BOB.operator)
    calling._identity = Impostor(EVE, ALICE.operator)
    answer, accepted = accept_hello(BOB, calling.hello(), ROSTER)
    finish, _ = calling.finish(answer)
    with pytest.raises(ProtocolError, match="could not prove"):
        check_finish(accepted, finish)


def test_a_listener_with_the_keys_but_not_the_identity_is_refused():
    """Whoever answers at the right address must be the right operator."""
    calling = Dialler(ALICE, BOB.operator)
    answer, _ = accept_hello(Impostor(EVE, BOB.operator), calling.hello(), ROSTER)
    with pytest.raises(ProtocolError, match="could not prove"):
        calling.finish(answer)


class Impostor:
    """Signs with its own key in another operator's name."""

    def __init__(self, identity, operator):
        self.operator = operator
        self.sign = identity.sign


def test_a_hello_for_another_node_is_refused():
    """Somebody who forwards a dialler to another node gets nowhere."""
    with pytest.raises(ProtocolError, match="another operator"):
        accept_hello(BOB, Dialler(ALICE, EVE.operator).hello(), ROSTER)


@pytest.mark.parametrize("role", ["listener", "keys"])
def test_a_signature_of_one_role_does_not_do_for_the_other(role):
    """Each role signs a text of its own, so that no signature can be mirrored back."""
    calling = Dialler(ALICE, BOB.operator)
    answer, accepted = accept_hello(BOB, calling.hello(), ROSTER)
    _, keys = calling.finish(answer)
    transcript = _Transcript(ALICE.operator, BOB.operator, calling._key, answer[:33])
    check_finish(accepted, _resealed(keys, ALICE.sign(transcript.digest("dialler"))))
    answer, accepted = accept_hello(BOB, calling.hello(), ROSTER)
    _, keys = calling.finish(answer)
    transcript = _Transcript(ALICE.operator, BOB.operator, calling._key, answer[:33])
    with pytest.raises(ProtocolError, match="could not prove"):
        check_finish(accepted, _resealed(keys, ALICE.sign(transcript.digest(role))))


def _resealed(keys, signature):
    """Seal another signature in the place of the one that ``finish`` sealed."""
    keys.sending._counter = 0
    return keys.sending.seal(signature)


def test_a_recorded_handshake_cannot_be_played_again():
    """The listener's key is fresh, so an old last message proves nothing."""
    calling = Dialler(ALICE, BOB.operator)
    answer, accepted = accept_hello(BOB, calling.hello(), ROSTER)
    finish, _ = calling.finish(answer)
    check_finish(accepted, finish)
    _, later = accept_hello(BOB, calling.hello(), ROSTER)
    with pytest.raises(ProtocolError):
        check_finish(later, finish)


@pytest.mark.parametrize("position", range(0, HELLO_LENGTH, 6))
def test_a_changed_hello_ends_the_handshake(position):
    """Whatever byte is changed on the way, one of the two notices."""
    calling = Dialler(ALICE, BOB.operator)
    hello = bytearray(calling.hello())
    hello[position] ^= 1
    with pytest.raises(ProtocolError):
        calling.finish(accept_hello(BOB, bytes(hello), ROSTER)[0])


@pytest.mark.parametrize("position", [0, 1, 20, 33, 60, 97, 98, 113])
def test_a_changed_answer_ends_the_handshake(position):
    """The dialler notices any changed byte."""
    calling = Dialler(ALICE, BOB.operator)
    answer = bytearray(accept_hello(BOB, calling.hello(), ROSTER)[0])
    answer[position] ^= 1
    with pytest.raises(ProtocolError):
        calling.finish(bytes(answer))


@pytest.mark.parametrize("hello", [b"", bytes(HELLO_LENGTH), b"\xff" * (HELLO_LENGTH + 1)])
def test_a_malformed_hello_is_refused(hello):
    """Of whatever length."""
    with pytest.raises(ProtocolError):
        accept_hello(BOB, hello, ROSTER)


@pytest.mark.parametrize("answer", [b"", bytes(113), bytes(114), bytes(115)])
def test_a_malformed_answer_is_refused(answer):
    """Of whatever length."""
    with pytest.raises(ProtocolError):
        Dialler(ALICE, BOB.operator).finish(answer)


def test_frames_left_out_repeated_or_reordered_are_noticed():
    """The nonce is the frame's number."""
    dialler, accepted = shake()
    first, second = dialler.sending.seal(b"1"), dialler.sending.seal(b"2")
    with pytest.raises(ProtocolError):
        accepted.keys.receiving.open(second)
    dialler, accepted = shake()
    first = dialler.sending.seal(b"1")
    accepted.keys.receiving.open(first)
    with pytest.raises(ProtocolError):
        accepted.keys.receiving.open(first)


def test_a_changed_frame_is_noticed():
    """One bit is enough."""
    dialler, accepted = shake()
    sealed = bytearray(dialler.sending.seal(b"share"))
    sealed[0] ^= 1
    with pytest.raises(ProtocolError):
        accepted.keys.receiving.open(bytes(sealed))


def test_keys_are_not_shown():
    """Not in the repr of what a handshake gives."""
    dialler, _ = shake()
    assert repr(dialler) == "LinkKeys()"
