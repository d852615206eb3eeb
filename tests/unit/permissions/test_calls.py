"""Call data of smart accounts: each known function is read, everything doubtful is refused."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.abi import encode_arguments, encode_call, function_selector
from dan_async.errors import PermissionDeniedError
from dan_async.permissions import decode_calls
from dan_async.user_operation import Call
from tests.strategies import addresses

A = "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"
B = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"

call_lists = st.lists(
    st.builds(
        Call, addresses().filter(lambda it: int(it, 16)), st.integers(0, 2**256 - 1), st.binary(max_size=80)
    ),
    min_size=1,
    max_size=4,
).map(tuple)


def mode(call_type: int, exec_type: int = 0, rest: bytes = bytes(30)) -> bytes:
    """An ERC-7579 execution mode."""
    return bytes([call_type, exec_type]) + rest


def packed(call: Call) -> bytes:
    """The call data of an ERC-7579 single call."""
    return bytes.fromhex(call.target[2:]) + call.value.to_bytes(32) + call.data


def columns(calls: tuple[Call, ...]) -> tuple[list[Any], list[int], list[bytes]]:
    """Targets, values and call data as three lists."""
    return [c.target for c in calls], [c.value for c in calls], [c.data for c in calls]


def tuples(calls: tuple[Call, ...]) -> list[tuple[Any, int, bytes]]:
    """The calls as tuples."""
    return [(c.target, c.value, c.data) for c in calls]


#: Each function that makes any number of calls, and how it is called for these.
BATCHES = {
    "SimpleAccount, Biconomy V2": lambda calls: encode_call(
        "executeBatch(address[],uint256[],bytes[])", *columns(calls)
    ),
    "Biconomy V2, short": lambda calls: encode_call(
        "executeBatch_y6U(address[],uint256[],bytes[])", *columns(calls)
    ),
    "SimpleAccount v0.8": lambda calls: encode_call("executeBatch((address,uint256,bytes)[])", tuples(calls)),
    "ERC-7579": lambda calls: encode_call(
        "execute(bytes32,bytes)",
        mode(1),
        encode_arguments("((address,uint256,bytes)[])", (tuples(calls),)),
    ),
}
SINGLES = {
    "SimpleAccount, Biconomy V2": lambda call: encode_call(
        "execute(address,uint256,bytes)", call.target, call.value, call.data
    ),
    "Biconomy V2, short": lambda call: encode_call(
        "execute_ncC(address,uint256,bytes)", call.target, call.value, call.data
    ),
    "ERC-7579": lambda call: encode_call("execute(bytes32,bytes)", mode(0), packed(call)),
}


@pytest.mark.parametrize("shape", BATCHES)
@given(calls=call_lists)
def test_a_batch_is_read_as_it_was_written(shape: str, calls: tuple[Call, ...]) -> None:
    """Every call of a batch appears, in order, with its value."""
    assert decode_calls(BATCHES[shape](calls)) == calls


@pytest.mark.parametrize("shape", SINGLES)
@given(calls=call_lists)
def test_a_single_call_is_read_as_it_was_written(shape: str, calls: tuple[Call, ...]) -> None:
    """A single call is read whole."""
    assert decode_calls(SINGLES[shape](calls[0])) == calls[:1]


@given(call_lists)
def test_a_batch_without_values_sends_nothing(calls: tuple[Call, ...]) -> None:
    """SimpleAccount v0.6 has a batch without values; v0.7 takes an empty list for all zeros."""
    targets, _, datas = columns(calls)
    expected = tuple(Call(call.target, 0, call.data) for call in calls)
    assert decode_calls(encode_call("executeBatch(address[],bytes[])", targets, datas)) == expected
    three = encode_call("executeBatch(address[],uint256[],bytes[])", targets, [], datas)
    assert decode_calls(three) == expected


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda n, rest: n + rest,
        st.sampled_from(
            [
                function_selector("execute(address,uint256,bytes)"),
                function_selector("execute(bytes32,bytes)"),
                function_selector("executeBatch_y6U(address[],uint256[],bytes[])"),
            ]
        ),
        st.binary(max_size=400),
    )
)
def test_random_call_data_never_crashes(call_data: bytes) -> None:
    """Anything is read or refused with our error."""
    with contextlib.suppress(PermissionDeniedError):
        assert decode_calls(call_data)


@pytest.mark.parametrize("shape", BATCHES)
@given(calls=call_lists, data=st.data())
def test_no_second_meaning(shape: str, calls: tuple[Call, ...], data: st.DataObject) -> None:
    """Changed bytes are refused, or are the very encoding of what is read out of them."""
    encoded = bytearray(BATCHES[shape](calls))
    at = data.draw(st.integers(4, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_calls(bytes(encoded))
    except PermissionDeniedError:
        return
    again = [write(found) for write in BATCHES.values()]
    again += [write(call) for write in SINGLES.values() for call in found]
    assert bytes(encoded) in again


@pytest.mark.parametrize("shape", {**BATCHES, **SINGLES})
def test_trailing_bytes_are_refused(shape: str) -> None:
    """What stands behind the arguments might be read by an account."""
    call = Call(A, 1, b"abcd")
    written = BATCHES[shape]((call,)) if shape in BATCHES else SINGLES[shape](call)
    for extra in (b"\0", bytes(32)):
        if shape == "ERC-7579" or extra:
            with pytest.raises(PermissionDeniedError):
                decode_calls(written + extra)


def refused(call_data: bytes) -> str:
    """The reason for which call data is refused."""
    with pytest.raises(PermissionDeniedError) as caught:
        decode_calls(call_data)
    assert caught.value.rule == "callData"
    return caught.value.problem


def test_dirty_address_padding_is_refused() -> None:
    """An address with bits above its 20 bytes: contracts revert or cut them off, as they please."""
    written = bytearray(encode_call("execute(address,uint256,bytes)", A, 0, b""))
    written[4] = 1
    assert "padding" in refused(bytes(written))


def test_an_offset_pointing_elsewhere_is_refused() -> None:
    """Two call datas behind each other, the offset to the second: a decoder that expects the first sees another call."""
    head = encode_arguments("(address,uint256)", (A, 0))
    first, second = ((4).to_bytes(32) + text.ljust(32, b"\0") for text in (b"good", b"evil"))
    written = (
        function_selector("execute(address,uint256,bytes)") + head + (0xA0).to_bytes(32) + first + second
    )
    assert "offset" in refused(written)


def test_lists_that_share_their_members_are_refused() -> None:
    """Two offsets to one place are not the canonical encoding."""
    words = [0x40, 0x40, 0]
    written = function_selector("executeBatch(address[],bytes[])") + b"".join(n.to_bytes(32) for n in words)
    assert "offset" in refused(written)


@pytest.mark.parametrize(
    ("targets", "values", "datas"), [([A], [1, 2], [b""]), ([A, B], [1], [b"", b""]), ([A], [1], [])]
)
def test_lists_of_different_lengths_are_refused(targets: Any, values: Any, datas: Any) -> None:
    """A call without its value or data could be any call."""
    written = encode_call("executeBatch(address[],uint256[],bytes[])", targets, values, datas)
    assert "different lengths" in refused(written)


@pytest.mark.parametrize("count", [0, 257])
def test_no_calls_and_too_many_are_refused(count: int) -> None:
    """A batch has 1 to 256 calls."""
    written = encode_call("executeBatch(address[],bytes[])", [A] * count, [b""] * count)
    assert "1 to 256" in refused(written)


@pytest.mark.parametrize(
    ("given_mode", "reason"),
    [
        (mode(0xFF), "delegate call"),
        (mode(0xFE), "static call"),
        (mode(0x02), "unknown type"),
        (mode(0, 1), "try mode"),
        (mode(1, 1), "try mode"),
        (mode(0, 2), "execution type"),
        (mode(0, 0, bytes(4) + b"\x78\x21\x00\x01" + bytes(22)), "execution mode"),
        (mode(0, 0, bytes(29) + b"\x01"), "execution mode"),
    ],
)
def test_other_modes_of_erc_7579_are_refused(given_mode: bytes, reason: str) -> None:
    """A delegate call runs foreign code as the account; an unknown mode may run anything."""
    written = encode_call("execute(bytes32,bytes)", given_mode, packed(Call(A, 0, b"abcd")))
    assert reason in refused(written)


def erc_7579_batch(*words: int | bytes) -> bytes:
    """The call data of an ERC-7579 batch whose execution is these words."""
    text = b"".join(word.to_bytes(32) if isinstance(word, int) else word for word in words)
    return encode_call("execute(bytes32,bytes)", mode(1), text)


ONE = encode_arguments("((address,uint256,bytes)[])", ([(A, 0, b"good")],))
EVIL = encode_arguments("((address,uint256,bytes)[])", ([(B, 0, b"evil")],))


@pytest.mark.parametrize(
    ("call_data", "reason"),
    [
        (erc_7579_batch(ONE, 0), "left over"),
        (erc_7579_batch(ONE, EVIL), "left over"),
        # The accounts' own decoders follow the offset wherever it leads.
        (erc_7579_batch(len(ONE), ONE[32:], EVIL[32:]), "offset"),
        (erc_7579_batch(0x21, b"\0", ONE[32:]), "offset"),
        (erc_7579_batch(2**256 - 32, ONE[32:]), "offset"),
        (erc_7579_batch(0x20, 2, 0x40, 0x40, ONE[96:]), "offset"),
        (erc_7579_batch(0x20, 1, 0x20, int(A, 16), 0, 0x80, 0, 4, b"good".ljust(32, b"\0")), "offset"),
        (erc_7579_batch(ONE[:-1], b"\1"), "padding"),
        (erc_7579_batch(0x20, 2**255), "cut short"),
        (encode_call("execute(bytes32,bytes)", mode(1), packed(Call(A, 0, b"good"))), "."),
        (encode_call("execute(bytes32,bytes)", mode(0), packed(Call(A, 0, b"")))[:-33], "."),
        (
            encode_call("execute(bytes32,bytes)", mode(0), packed(Call("0x" + "00" * 20, 0, b"abcd"))),
            "zero address",
        ),
        (
            erc_7579_batch(encode_arguments("((address,uint256,bytes)[])", ([("0x" + "00" * 20, 0, b"")],))),
            "zero",
        ),
    ],
    ids=[
        "a word behind the calls",
        "a second batch behind the first",
        "an offset to a second batch",
        "an unaligned offset",
        "an offset that wraps around",
        "two calls in one place",
        "an offset into the data of a call",
        "dirty padding",
        "more calls than there is room for",
        "a single call in batch mode",
        "an execution cut short",
        "the zero address",
        "the zero address in a batch",
    ],
)
def test_attacks_in_erc_7579_calls_are_refused(call_data: bytes, reason: str) -> None:
    """Each is another call to the account than to a reader who is not strict."""
    assert re.search(reason, refused(call_data))


def test_a_short_erc_7579_call_is_refused() -> None:
    """A single call has a target and a value at least."""
    assert "cut short" in refused(encode_call("execute(bytes32,bytes)", mode(0), bytes(51)))


@pytest.mark.parametrize(
    "call_data",
    [
        b"",
        b"\0\0\x18",
        bytes(4),
        bytes(36),
        encode_call("transferOwnership(address)", A),
        encode_call("executeUserOp((address,uint256,bytes),bytes32)", (A, 0, b""), bytes(32)),
    ],
    ids=["empty", "short", "zeros", "more zeros", "own function", "executeUserOp"],
)
def test_other_functions_are_refused(call_data: bytes) -> None:
    """Whatever an account does when called so, nobody here knows."""
    assert "can be decoded" in refused(call_data) or "cannot be decoded" in refused(call_data)
