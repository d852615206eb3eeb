"""Base oblivious transfers."""

import secrets

import pytest
from coincurve import PrivateKey

from dan_async.crypto.curve import ORDER, encode
from dan_async.devnet.mpc.aborts import PairAbort, Reason
from dan_async.devnet.mpc.ot import TRANSFERS, OtBaseReceiver, OtBaseSender, _Hashes
from tests.unit.devnet.mpc.dkg_group import source

CONTEXT = bytes(range(32))


def pair(choices=None):
    choices = secrets.randbits(TRANSFERS) if choices is None else choices
    receiver = OtBaseReceiver(CONTEXT, choices, secrets.token_bytes)
    return OtBaseSender(CONTEXT, secrets.token_bytes), receiver, choices


def expect(reason, call):
    with pytest.raises(PairAbort) as caught:
        call()
    assert (caught.value.reason, caught.value.ban) == (reason, False)


def flip(message, byte, mask=1):
    changed = bytearray(message)
    changed[byte] ^= mask
    return bytes(changed)


@pytest.mark.parametrize("choices", [0, 2**TRANSFERS - 1, None])
def test_the_receiver_gets_the_seed_it_chose_in_each_transfer(choices):
    """The chosen one of each pair, and the seeds are all different."""
    sender, receiver, choices = pair(choices)
    chosen = receiver.finish(sender.open(receiver.respond(sender.challenge(receiver.choose(sender.start())))))
    pairs = sender.seeds()
    assert chosen == tuple(seeds[choices >> i & 1] for i, seeds in enumerate(pairs))
    assert len({seed for seeds in pairs for seed in seeds}) == 2 * TRANSFERS


def test_the_other_seed_is_in_nothing_that_is_sent():
    """Nor is the chosen one."""
    sender, receiver, _ = pair()
    messages = [sender.start()]
    messages.append(receiver.choose(messages[-1]))
    messages.append(sender.challenge(messages[-1]))
    messages.append(receiver.respond(messages[-1]))
    messages.append(sender.open(messages[-1]))
    assert not [seed for seeds in sender.seeds() for seed in seeds if seed in b"".join(messages)]


def test_a_sender_that_does_not_know_its_key():
    """The proof does not hold."""
    sender, receiver, _ = pair()
    expect(Reason.OT_PROOF, lambda: receiver.choose(flip(sender.start(), 90)))


def test_a_sender_that_repeats_the_proof_of_another_session():
    """The proof is bound to its context."""
    _, receiver, _ = pair()
    other = OtBaseSender(bytes(32), secrets.token_bytes)
    expect(Reason.OT_PROOF, lambda: receiver.choose(other.start()))


def test_a_sender_key_that_is_no_point():
    """Refused before anything is computed with it."""
    sender, receiver, _ = pair()
    expect(Reason.MALFORMED_MESSAGE, lambda: receiver.choose(b"\x05" + sender.start()[1:]))


@pytest.mark.parametrize("position", [0, 77, 127])
def test_a_receiver_that_does_not_know_a_pad(position):
    """One wrong response among 128."""
    sender, receiver, _ = pair()
    responses = receiver.respond(sender.challenge(receiver.choose(sender.start())))
    expect(Reason.OT_RESPONSE, lambda: sender.open(flip(responses, 32 * position)))


@pytest.mark.parametrize("choices", [0, 2**TRANSFERS - 1])
def test_a_challenge_made_of_other_pads(choices):
    """Whatever was chosen: the openings do not fit the challenge."""
    sender, receiver, _ = pair(choices)
    challenges = sender.challenge(receiver.choose(sender.start()))
    receiver.respond(flip(challenges, 32 * 5))
    openings = b"".join(sender._openings)
    expect(Reason.OT_OPENING, lambda: receiver.finish(openings))


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("choices", [0, 2**TRANSFERS - 1])
def test_a_sender_that_guesses_a_choice_is_caught_when_it_is_wrong(half, choices):
    """The selective failure of the protocol: one pad is replaced throughout. It shows exactly when that pad was chosen."""
    sender, receiver, _ = pair(choices)
    points = receiver.choose(sender.start())
    sender.challenge(points)
    hashes, position = sender._hashes, 9
    once = list(sender._openings[2 * position : 2 * position + 2])
    once[half] = hashes.once(position, b"another pad")
    twice = [hashes.twice(position, value) for value in once]
    challenge = bytes(a ^ b for a, b in zip(*twice, strict=True))
    receiver.respond(
        b"".join([*[bytes(32)] * position, challenge, *[bytes(32)] * (TRANSFERS - position - 1)])
    )
    receiver._challenges = [
        challenge
        if i == position
        else bytes(a ^ b for a, b in zip(hashes.twice(i, x), hashes.twice(i, y), strict=True))
        for i, (x, y) in enumerate(zip(sender._openings[::2], sender._openings[1::2], strict=True))
    ]
    openings = [*sender._openings]
    openings[2 * position : 2 * position + 2] = once
    if half == choices & 1:
        expect(Reason.OT_OPENING, lambda: receiver.finish(b"".join(openings)))
    else:
        assert len(receiver.finish(b"".join(openings))) == TRANSFERS


def test_a_point_equal_to_the_key_is_refused():
    """B = A makes the second pad a hash of infinity, which everybody knows."""
    sender, receiver, _ = pair()
    start = sender.start()
    points = receiver.choose(start)
    expect(Reason.MALFORMED_MESSAGE, lambda: sender.challenge(start[:33] + points[33:]))


def test_a_choice_that_cancels_the_key_is_not_sent():
    """b = -a: there is no point to send. It takes knowing the sender's secret."""
    sender, _, _ = pair()
    receiver = OtBaseReceiver(CONTEXT, 0, source(ORDER - sender._secret))
    expect(Reason.MALFORMED_MESSAGE, lambda: receiver.choose(sender.start()))


def test_a_choice_that_is_no_point():
    """At any position."""
    sender, receiver, _ = pair()
    points = receiver.choose(sender.start())
    expect(
        Reason.MALFORMED_MESSAGE,
        lambda: sender.challenge(points[: 33 * 50] + bytes(33) + points[33 * 51 :]),
    )


@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: None])
@pytest.mark.parametrize("step", range(5))
def test_a_message_of_another_length_is_refused(step, change):
    """In every step."""
    sender, receiver, _ = pair()
    steps = [receiver.choose, sender.challenge, receiver.respond, sender.open, receiver.finish]
    message = sender.start()
    for call in steps[:step]:
        message = call(message)
    expect(Reason.MALFORMED_MESSAGE, lambda: steps[step](change(message)))


def test_pads_depend_on_session_key_position_and_point():
    """So that nothing of one transfer says anything about another."""
    sender, _, _ = pair()
    shared, point = PrivateKey().public_key, encode(PrivateKey().public_key)
    pads = {
        sender._hashes.pad(0, point, shared),
        sender._hashes.pad(1, point, shared),
        sender._hashes.pad(0, encode(shared), shared),
        sender._hashes.pad(0, point, PrivateKey().public_key),
        _Hashes(bytes(32), encode(sender._key)).pad(0, point, shared),
        OtBaseSender(CONTEXT, secrets.token_bytes)._hashes.pad(0, point, shared),
    }
    assert len(pads) == 6
