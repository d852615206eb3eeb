"""The set-up of a pair."""

import secrets

import pytest

from dan_async.devnet.mpc.aborts import PairAbort, ProtocolStateError, Reason
from dan_async.devnet.mpc.pairwise_setup import PairSetup
from dan_async.errors import InvalidFieldError
from tests.unit.devnet.mpc.signing_group import made_pair, run_setup

FIRST, SECOND = "0x" + "11" * 20, "0x" + "22" * 20
STEPS = ["start", "choose", "challenge", "respond", "open", "finish"]


def pair(session_id=None):
    session_id = session_id or secrets.token_bytes(32)
    return (
        PairSetup(session_id=session_id, own=FIRST, peer=SECOND),
        PairSetup(session_id=session_id, own=SECOND, peer=FIRST),
    )


def up_to(step, session_id=None):
    """Two sides that have taken the steps before that one, and the messages of the last one taken."""
    sides = pair(session_id)
    messages = tuple(side.start() for side in sides)
    for name in STEPS[1 : STEPS.index(step)]:
        messages = tuple(getattr(side, name)(messages[1 - k]) for k, side in enumerate(sides))
    return sides, messages


def expect(reason, call):
    with pytest.raises(PairAbort) as caught:
        call()
    assert (caught.value.reason, caught.value.ban) == (reason, False)


@pytest.fixture(scope="module")
def states():
    return made_pair(FIRST, SECOND)


def test_each_side_has_the_seeds_that_the_other_chose(states):
    """In both directions, and Δ is each side's own."""
    for receiver, sender in (states, states[::-1]):
        delta = sender.sender.delta
        assert sender.sender.chosen == tuple(p[delta >> i & 1] for i, p in enumerate(receiver.receiver.pairs))
    assert states[0].sender.delta != states[1].sender.delta
    assert not set(states[0].receiver.pairs) & set(states[1].receiver.pairs)


def test_both_sides_have_the_same_seed_and_name_for_it(states):
    """And know which of them is the first."""
    assert states[0].common_seed == states[1].common_seed
    assert states[0].setup_id == states[1].setup_id
    assert (states[0].is_first, states[1].is_first) == (True, False)
    assert not states[0].ban.is_set


def test_each_direction_has_its_own_gadget_vector_on_both_sides(states):
    """The receiver's is the sender's, and the other direction's is another one."""
    one, other = states
    assert one.gadget_context(receiving=True) == other.gadget_context(receiving=False)
    assert one.gadget_context(receiving=False) == other.gadget_context(receiving=True)
    assert one.gadget_context(receiving=True) != one.gadget_context(receiving=False)


def test_two_set_ups_have_nothing_in_common(states):
    """Between the same parties."""
    again, _ = made_pair(FIRST, SECOND)
    assert again.common_seed != states[0].common_seed
    assert again.setup_id != states[0].setup_id
    assert again.gadget_context(receiving=True) != states[0].gadget_context(receiving=True)


def test_neither_side_alone_chooses_the_seed():
    """Change either side's part and the common seed is another one."""
    session_id = secrets.token_bytes(32)
    seeds = set()
    for _ in range(2):
        first, second = pair(session_id)
        first._seed = bytes(64)
        seeds.add(run_setup(first, second)[0].common_seed)
    assert len(seeds) == 2


def test_a_seed_that_was_not_committed_to():
    """Chosen after the other side's was known."""
    (first, second), (_, message) = up_to("challenge")
    del second
    expect(Reason.SEED_COMMITMENT, lambda: first.challenge(message[:-64] + bytes(64)))


def test_a_seed_commitment_of_the_other_side_cannot_be_repeated():
    """Commitments are bound to their maker: a copied one would make the common seed public."""
    first, second = pair()
    mine, theirs = first.start(), second.start()
    copied = theirs[:-32] + mine[-32:]
    first.choose(copied)
    opening = second.choose(mine)
    expect(Reason.SEED_COMMITMENT, lambda: first.challenge(opening[:-64] + first._seed))


@pytest.mark.parametrize("step", STEPS[1:])
@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: None])
def test_a_message_of_another_length_is_refused(step, change):
    """In every round."""
    (first, _), (_, message) = up_to(step)
    expect(Reason.MALFORMED_MESSAGE, lambda: getattr(first, step)(change(message)))


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_message_of_another_session_is_refused(step):
    """Between the same parties, in the same round."""
    (first, _), _ = up_to(step)
    _, (_, replayed) = up_to(step)
    expect(Reason.MALFORMED_MESSAGE, lambda: getattr(first, step)(replayed))


@pytest.mark.parametrize("step", STEPS[2:])
def test_a_message_of_another_round_is_refused(step):
    """The round is part of the message."""
    session_id = secrets.token_bytes(32)
    (first, _), (_, message) = up_to(step, session_id)
    earlier = bytes((message[0] - 1,)) + message[1:]
    expect(Reason.MALFORMED_MESSAGE, lambda: getattr(first, step)(earlier))


def test_a_reflected_message_is_refused():
    """What this side said, sent back to it: directions have different contexts."""
    (first, _), (own, _) = up_to("choose")
    expect(Reason.OT_PROOF, lambda: first.choose(own))


@pytest.mark.parametrize("step", STEPS[1:])
def test_one_wrong_byte_aborts(step):
    """In the middle of each round's message, at the latest two rounds later."""
    sides, messages = up_to(step)
    changed = bytearray(messages[1])
    changed[len(changed) // 2] ^= 1
    messages = (messages[0], bytes(changed))
    with pytest.raises(PairAbort):
        for name in STEPS[STEPS.index(step) :]:
            messages = tuple(getattr(side, name)(messages[1 - k]) for k, side in enumerate(sides))


@pytest.mark.parametrize("taken", range(7))
@pytest.mark.parametrize("step", STEPS)
def test_steps_are_taken_once_and_in_order(taken, step):
    """Every other step is refused, and the refusal does no harm."""
    sides = pair()
    messages = ()
    for name in STEPS[:taken]:
        arguments = [(messages[1 - k],) if messages else () for k in (0, 1)]
        messages = tuple(getattr(side, name)(*given) for side, given in zip(sides, arguments, strict=True))
    if STEPS[taken : taken + 1] == [step]:
        return
    with pytest.raises(ProtocolStateError):
        getattr(sides[0], step)(*(() if step == "start" else (b"",)))


def test_a_side_that_has_aborted_takes_no_further_step():
    """Not even with the right message."""
    (first, _), (_, message) = up_to("challenge")
    with pytest.raises(PairAbort):
        first.challenge(b"")
    with pytest.raises(ProtocolStateError):
        first.challenge(message)


@pytest.mark.parametrize(
    "changes",
    [{"session_id": b"short"}, {"session_id": None}, {"own": "0x12"}, {"peer": None}, {"peer": FIRST}],
)
def test_wrong_arguments_are_refused(changes):
    """When the object is made."""
    with pytest.raises(InvalidFieldError):
        PairSetup(**{"session_id": bytes(32), "own": FIRST, "peer": SECOND} | changes)


def test_nothing_secret_shows():
    """In repr."""
    assert repr(pair()[0]) == "PairSetup(step=START)"
