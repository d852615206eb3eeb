"""Oblivious-transfer extension."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.devnet.mpc import ot
from dan_async.devnet.mpc.aborts import PairAbort, Reason
from dan_async.devnet.mpc.ot import (
    BATCH,
    EXTENSION_BYTES,
    ROW_BITS,
    ROW_BYTES,
    accept,
    extend,
    hash_rows,
    repeat_row,
)
from tests.unit.devnet.mpc.signing_group import dealt_seeds

CONTEXT = bytes(range(32))
RECEIVER, SENDER = dealt_seeds()
CHOICES = secrets.randbits(BATCH)
MESSAGE, STRINGS = extend(RECEIVER, CONTEXT, CHOICES, secrets.token_bytes)


def expect_ban(call):
    with pytest.raises(PairAbort) as caught:
        call()
    assert (caught.value.reason, caught.value.ban) == (Reason.OT_EXTENSION_CHECK, True)


@settings(max_examples=15)
@given(st.integers(0, 2**BATCH - 1))
def test_the_receiver_has_the_string_it_chose_in_each_transfer(choices):
    """t_j is q_j, or q_j xor Δ; for all choices, also all zeros or ones."""
    receiver, sender = dealt_seeds()
    message, strings = extend(receiver, CONTEXT, choices, secrets.token_bytes)
    offered = accept(sender, CONTEXT, message)
    assert strings == [offered[choices >> j & 1][j] for j in range(BATCH)]
    difference = sender.delta.to_bytes(16, "little")
    assert all(
        bytes(a ^ b for a, b in zip(*pair, strict=True)) == difference for pair in zip(*offered, strict=True)
    )


@pytest.mark.parametrize("choices", [0, 2**BATCH - 1])
def test_extreme_choices_work(choices):
    """All zeros and all ones."""
    message, strings = extend(RECEIVER, CONTEXT, choices, secrets.token_bytes)
    assert strings == accept(SENDER, CONTEXT, message)[choices & 1]


def test_two_runs_under_one_context_share_nothing():
    """The receiver's nonce sees to it: the difference of two matrices must not be the difference of the choices."""
    again, strings = extend(RECEIVER, CONTEXT, CHOICES, secrets.token_bytes)
    assert not set(strings) & set(STRINGS)
    rows = [[m[32 + i * ROW_BYTES : 32 + (i + 1) * ROW_BYTES] for i in range(128)] for m in (MESSAGE, again)]
    differences = {bytes(a ^ b for a, b in zip(*pair, strict=True)) for pair in zip(*rows, strict=True)}
    assert len(differences) == 128


def test_the_choices_are_masked_in_what_the_check_shows():
    """x is not the hash of the choices alone: that would be 208 equations for them."""
    nonce, matrix, check = MESSAGE[:32], MESSAGE[32:-58], int.from_bytes(MESSAGE[-58:-32], "little")
    elements = ot._elements(ot._salt(CONTEXT, nonce), matrix)
    assert hash_rows(CHOICES, *elements) != check


@settings(max_examples=80)
@given(st.integers(0, EXTENSION_BYTES * 8 - 1))
def test_a_message_with_one_bit_changed_bans_the_pair(bit):
    """Nonce, matrix, x or hash."""
    changed = bytearray(MESSAGE)
    changed[bit // 8] ^= 1 << bit % 8
    expect_ban(lambda: accept(SENDER, CONTEXT, bytes(changed)))


def cheat(row, flipped):
    """A receiver that uses other choices in one row, and does everything else right."""
    original = ot.repeat_row

    def inconsistent(value):
        return original(value) ^ flipped << ROW_BITS * row

    ot.repeat_row = inconsistent
    try:
        return extend(RECEIVER, CONTEXT, CHOICES, secrets.token_bytes)[0]
    finally:
        ot.repeat_row = original


@pytest.mark.parametrize("row", [*range(8), 127])
def test_choices_that_differ_between_rows_are_caught_where_the_sender_has_chosen(row):
    """The check's own limit: inconsistency in row i shows exactly if bit i of Δ is set, so that it bans half of the time."""
    message = cheat(row, 1 << 100)
    if SENDER.delta >> row & 1:
        expect_ban(lambda: accept(SENDER, CONTEXT, message))
    else:
        accept(SENDER, CONTEXT, message)


def test_the_sender_uses_the_check_on_every_block():
    """Inconsistency in the first, second and last 208 columns."""
    row = next(i for i in range(128) if SENDER.delta >> i & 1)
    for column in (0, 207, 208, 415, 416, 623):
        expect_ban(lambda column=column: accept(SENDER, CONTEXT, cheat(row, 1 << column)))


@pytest.mark.parametrize("change", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: None])
def test_a_message_of_another_length_is_refused_without_a_ban(change):
    """It says nothing about Δ."""
    with pytest.raises(PairAbort) as caught:
        accept(SENDER, CONTEXT, change(MESSAGE))
    assert (caught.value.reason, caught.value.ban) == (Reason.MALFORMED_MESSAGE, False)


def test_a_message_of_another_context_is_caught():
    """It was stretched from other streams."""
    expect_ban(lambda: accept(SENDER, bytes(32), MESSAGE))


def test_seeds_do_not_show():
    """In repr."""
    assert repr(RECEIVER) == "ReceiverSeeds(pairs='***')"
    assert repr(SENDER) == "SenderSeeds(delta='***', chosen='***')"


def test_the_matrix_is_as_wide_as_its_rows():
    """416 choices, 208 to mask them, 16 to fill up."""
    assert repeat_row(0) == 0
    assert EXTENSION_BYTES == 32 + 128 * 80 + 26 + 32
