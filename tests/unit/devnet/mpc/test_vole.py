"""Random vector OLE."""

import secrets

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER
from dan_async.devnet.mpc import vole
from dan_async.devnet.mpc.aborts import PairAbort, Reason
from dan_async.devnet.mpc.field import scalar_to_bytes
from dan_async.devnet.mpc.ot import BATCH, accept
from dan_async.devnet.mpc.vole import REPLY_BYTES, VoleReceiver, gadget_vector, send
from tests.unit.devnet.mpc.signing_group import dealt_seeds

CONTEXT = {"gadget_context": b"gadget", "context": bytes(range(32)), "entropy": secrets.token_bytes}
RECEIVER, SENDER = dealt_seeds()
INPUTS = (123, ORDER - 5)
scalars = st.integers(0, ORDER - 1)


def receiver(**changes):
    return VoleReceiver(RECEIVER, **CONTEXT | changes)


def expect(call, reason, ban):
    with pytest.raises(PairAbort) as caught:
        call()
    assert (caught.value.reason, caught.value.ban) == (reason, ban)


@settings(max_examples=15)
@given(scalars, scalars)
@example(0, 0)
@example(1, ORDER - 1)
def test_the_outputs_add_up_to_the_products(one, two):
    """c_k + d_k = a_k·χ."""
    side = receiver()
    reply, sent = send(SENDER, (one, two), side.message, **CONTEXT)
    received = side.finish(reply)
    assert [(c + d) % ORDER for c, d in zip(sent, received, strict=True)] == [
        a * side.chi % ORDER for a in (one, two)
    ]


def test_neither_output_is_the_same_twice():
    """With the same inputs, under the same context: not χ, not c, not d."""
    seen = set()
    for _ in range(5):
        side = receiver()
        reply, sent = send(SENDER, INPUTS, side.message, **CONTEXT)
        seen |= {side.chi, *sent, *side.finish(reply)}
    assert len(seen) == 25


def test_two_replies_to_one_message_use_different_masks():
    """The sender's own nonce: their difference must not be the difference of the inputs."""
    side = receiver()
    one, _ = send(SENDER, (1, 2), side.message, **CONTEXT)
    other, _ = send(SENDER, (3, 4), side.message, **CONTEXT)
    differences = {
        (int.from_bytes(one[i : i + 32], "big") - int.from_bytes(other[i : i + 32], "big")) % ORDER
        for i in range(32, 32 + BATCH * 32, 32)
    }
    assert len(differences) == BATCH


def test_chi_is_the_gadget_vector_times_the_choices():
    """As the definition has it."""
    side = receiver()
    assert (
        side.chi == sum(g for g, bit in zip(gadget_vector(b"gadget"), side._bits, strict=True) if bit) % ORDER
    )


def test_the_gadget_vector_is_fixed_by_its_context():
    """416 different scalars, other ones for another context."""
    gadget = gadget_vector(b"gadget")
    assert len(set(gadget)) == BATCH
    assert gadget == gadget_vector(b"gadget")
    assert not set(gadget) & set(gadget_vector(b"other"))


def test_what_the_check_opens_hides_the_inputs():
    """η less the inputs' part is â, and that is another number each time."""
    side, found = receiver(), set()
    for _ in range(5):
        reply, _ = send(SENDER, INPUTS, side.message, **CONTEXT)
        thetas = vole._thetas(vole._salt(CONTEXT["context"], side.message, reply[:32]), reply[32:-64])
        eta = int.from_bytes(reply[-64:-32], "big")
        found.add((eta - sum(theta * value for theta, value in zip(thetas, INPUTS, strict=True))) % ORDER)
    assert len(found) == 5


def test_masks_are_bound_to_context_message_and_nonce():
    """Change any of them and every mask is another one."""
    salts = {
        vole._salt(*parts)
        for parts in ((b"c", b"m", b"n"), (b"x", b"m", b"n"), (b"c", b"x", b"n"), (b"c", b"m", b"x"))
    }
    assert len(salts) == 4


@settings(max_examples=60)
@given(st.integers(0, REPLY_BYTES * 8 - 1))
def test_a_reply_with_one_bit_changed_is_caught(bit):
    """In the nonce, any correction of a chosen transfer, η or the hash. A correction that was not chosen is not even used."""
    changed = bytearray(REPLY)
    changed[bit // 8] ^= 1 << bit % 8
    position = (bit // 8 - 32) // 32
    with pytest.raises(PairAbort) as caught:
        SIDE.finish(bytes(changed))
    # θ covers all corrections, so that even an unused one changes the check.
    assert caught.value.reason in (Reason.VOLE_CHECK, Reason.MALFORMED_MESSAGE)
    assert caught.value.ban is (caught.value.reason == Reason.VOLE_CHECK)
    assert position < 3 * BATCH + 2


SIDE = receiver()
REPLY, _ = send(SENDER, INPUTS, SIDE.message, **CONTEXT)


def inconsistent(message, transfer, row, offset):
    """A sender that puts another number into one transfer and does everything else right."""
    zeros, ones = accept(SENDER, CONTEXT["context"], message)
    nonce = secrets.token_bytes(32)
    salt = vole._salt(CONTEXT["context"], message, nonce)
    rows = vole._masks(salt, zeros)
    inputs = (*INPUTS, 77)
    numbers = [
        [(zero - one + value) % ORDER for zero, one in zip(zero_row, one_row, strict=True)]
        for zero_row, one_row, value in zip(rows, vole._masks(salt, ones), inputs, strict=True)
    ]
    numbers[row][transfer] = (numbers[row][transfer] + offset) % ORDER
    corrections = b"".join(scalar_to_bytes(number) for numbers_row in numbers for number in numbers_row)
    thetas = vole._thetas(salt, corrections)
    eta = (inputs[2] + thetas[0] * inputs[0] + thetas[1] * inputs[1]) % ORDER
    return nonce + corrections + scalar_to_bytes(eta) + vole._check_hash(salt, vole._combine(rows, thetas))


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("transfer", [0, 1, 2, 3, 4, 5, 415])
def test_an_inconsistent_input_is_caught_where_the_receiver_has_chosen_it(row, transfer):
    """The check's own limit: what is not chosen is not seen, so a cheat is a guess of a choice bit, and bans half of the time."""
    side = receiver()
    reply = inconsistent(side.message, transfer, row, 1)
    if side._bits[transfer]:
        expect(lambda: side.finish(reply), Reason.VOLE_CHECK, ban=True)
    else:
        side.finish(reply)


def test_the_check_depends_on_the_corrections():
    """Otherwise offsets in the two inputs could be chosen to cancel: θ must not be known before the inputs are fixed."""
    assert vole._thetas(b"s", b"one") != vole._thetas(b"s", b"two")
    assert len(set(vole._thetas(b"s", b"one"))) == 2


@pytest.mark.parametrize("at", [32, 32 + 32 * BATCH * 3, 32 + 32 * (BATCH * 3 - 1)])
def test_a_number_that_is_not_reduced_is_refused(at):
    """Corrections and η have one encoding."""
    reply = REPLY[:at] + ORDER.to_bytes(32, "big") + REPLY[at + 32 :]
    expect(lambda: SIDE.finish(reply), Reason.MALFORMED_MESSAGE, ban=False)


@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: None])
def test_a_reply_of_another_length_is_refused_without_a_ban(change):
    """It was not checked at all."""
    expect(lambda: SIDE.finish(change(REPLY)), Reason.MALFORMED_MESSAGE, ban=False)


def test_a_reply_to_another_message_is_caught():
    """Masks are bound to the message they answer."""
    expect(lambda: receiver().finish(REPLY), Reason.VOLE_CHECK, ban=True)


def test_a_message_that_fails_the_extension_is_not_answered():
    """The check comes first."""
    changed = bytearray(SIDE.message)
    changed[100] ^= 1
    expect(lambda: send(SENDER, INPUTS, bytes(changed), **CONTEXT), Reason.OT_EXTENSION_CHECK, ban=True)
