"""Recoverable signatures: against eth-account and the wire vectors, and what is refused."""

from contextlib import suppress

import pytest
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER
from dan_async.crypto.signature import (
    parse_signature,
    personal_message_digest,
    recover_address,
    recover_public_key,
    sign_digest,
    signing_key,
)
from dan_async.errors import InvalidFieldError
from tests.unit.crypto.vectors import WALLET_CASES, name

SECRETS = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
DIGESTS = st.binary(min_size=32, max_size=32)
SECRET = b"\x11" * 32
DIGEST = b"\x22" * 32
SIGNATURE = sign_digest(SECRET, DIGEST)
ADDRESS = Account.from_key(SECRET).address


def high_s(signature):
    """The other signature of the same key over the same digest."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


@given(SECRETS, DIGESTS)
def test_signatures_are_eth_accounts(secret, digest):
    """eth-account makes the same 65 bytes (both are RFC 6979) and recovers the same address."""
    signature = sign_digest(secret, digest)
    account = Account.from_key(secret)
    assert signature == bytes(account.unsafe_sign_hash(digest).signature)
    assert (
        recover_address(digest, signature)
        == account.address
        == Account._recover_hash(digest, signature=signature)
    )


@pytest.mark.parametrize("case", WALLET_CASES, ids=name)
def test_the_signatures_of_the_wire_vectors(case):
    """Every recorded wallet signature is made again, byte for byte, and recovers to the owner."""
    digest = bytes.fromhex(case["wallet"]["digest"][2:])
    secret = bytes.fromhex(case["inputs"]["eoa_private_key"][2:])
    assert "0x" + sign_digest(secret, digest).hex() == case["wallet"]["signature"]
    assert (
        recover_address(digest, case["wallet"]["signature"])
        == case["wallet"]["from"]
        == case["inputs"]["eoa"]
    )


@given(SECRETS, DIGESTS)
def test_s_is_low(secret, digest):
    """What we make, contracts accept."""
    assert int.from_bytes(sign_digest(secret, digest)[32:64], "big") <= ORDER // 2


@given(SECRETS, DIGESTS)
def test_the_public_key_is_recovered(secret, digest):
    """Compressed, 33 bytes."""
    key = signing_key(secret)
    assert recover_public_key(digest, sign_digest(key, digest)) == key.public_key.format()


@given(SECRETS, DIGESTS)
def test_a_high_s_is_brought_down(secret, digest):
    """Both forms of a signature parse to the same bytes and recover to the same address."""
    signature = sign_digest(secret, digest)
    assert parse_signature(high_s(signature)) == signature
    assert recover_address(digest, high_s(signature)) == recover_address(digest, signature)


def test_a_bit_flipped_in_the_digest_recovers_to_another_address():
    """A signature is bound to what was signed."""
    assert recover_address(b"\x23" + DIGEST[1:], SIGNATURE) != ADDRESS


@pytest.mark.parametrize("v", [0, 1, 27, 28])
def test_v_may_be_written_in_two_ways(v):
    """0 and 27 mean the same, so do 1 and 28; the result has 27 or 28."""
    assert parse_signature(SIGNATURE[:64] + bytes([v]))[64] == 27 + v % 27


@pytest.mark.parametrize("text", [SIGNATURE.hex(), "0x" + SIGNATURE.hex(), "0x" + SIGNATURE.hex().upper()])
def test_hex_text_is_read(text):
    """With or without 0x, in either case."""
    assert parse_signature(text) == SIGNATURE


@pytest.mark.parametrize("v", [2, 3, 26, 29, 30, 35, 37, 38, 255])
def test_another_v_is_refused(v):
    """Recovery ids 2 and 3, and v with a chain id in it, are refused."""
    with pytest.raises(InvalidFieldError, match="v = 0, 1, 27 or 28"):
        parse_signature(SIGNATURE[:64] + bytes([v]))


@pytest.mark.parametrize("length", [0, 1, 64, 66, 96, 130])
def test_another_length_is_refused(length):
    """The 64 bytes of EIP-2098 and the longer answers of contract wallets are refused."""
    with pytest.raises(InvalidFieldError, match="must hold 65 bytes"):
        parse_signature(bytes(length))


@pytest.mark.parametrize("number", [0, ORDER, ORDER + 1, 2**256 - 1])
@pytest.mark.parametrize("place", [0, 32])
def test_r_and_s_out_of_range_are_refused(number, place):
    """r and s are from 1 to q - 1."""
    wrong = SIGNATURE[:place] + number.to_bytes(32, "big") + SIGNATURE[place + 32 :]
    with pytest.raises(InvalidFieldError, match="r and s"):
        parse_signature(wrong)


@pytest.mark.parametrize("value", [None, 5, "", "0x", "zz" * 65, "0x" + "1" * 129, bytearray(65), [1] * 65])
def test_what_is_no_signature_is_refused(value):
    """The error names the field and does not repeat the value."""
    with pytest.raises(InvalidFieldError) as caught:
        parse_signature(value, field="user_signature")
    assert caught.value.field == "user_signature"


@given(st.one_of(st.binary(max_size=70), st.text(max_size=140)), DIGESTS)
def test_only_our_error_comes_out(value, digest):
    """Whatever a peer sends, the answer is an address or InvalidFieldError."""
    with suppress(InvalidFieldError):
        assert len(recover_address(digest, value)) == 42


def test_an_r_that_is_no_x_coordinate_is_refused():
    """Of the numbers in range, half belong to no point."""
    with pytest.raises(InvalidFieldError, match="signature belongs to no public key"):
        recover_address(DIGEST, (5).to_bytes(32, "big") + SIGNATURE[32:])


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(33), "0x" + "22" * 32, None])
def test_a_digest_has_32_bytes(digest):
    """Signing or recovering over anything else is refused."""
    for call in (lambda: sign_digest(SECRET, digest), lambda: recover_address(digest, SIGNATURE)):
        with pytest.raises(InvalidFieldError) as caught:
            call()
        assert caught.value.field == "digest"


@pytest.mark.parametrize(
    "secret",
    [b"", bytes(32), b"\x11" * 31, b"\x11" * 33, ORDER.to_bytes(32, "big"), b"\xff" * 32, "11" * 32, None],
)
def test_what_is_no_private_key_is_refused(secret):
    """Zero, q and beyond, other lengths and types are refused, and not repeated."""
    with pytest.raises(
        InvalidFieldError, match=r"^private_key must be 32 bytes, from 1 to the group order - 1$"
    ):
        sign_digest(secret, DIGEST)


def test_a_signing_key_names_its_field():
    """The error carries the name that the caller knows."""
    with pytest.raises(InvalidFieldError) as caught:
        signing_key(bytes(32), field="identity")
    assert caught.value.field == "identity"


@given(st.binary(max_size=300))
def test_personal_messages_are_eth_accounts(message):
    """The EIP-191 digest is eth-account's, whatever the number of digits of the length."""
    assert personal_message_digest(message) == bytes(_hash_eip191_message(encode_defunct(message)))


def test_the_highest_low_s_stays_as_it_is():
    """q is odd, so (q - 1) / 2 is still low and the next number is not."""
    half = ORDER // 2
    low = SIGNATURE[:32] + half.to_bytes(32, "big") + b"\x1b"
    high = SIGNATURE[:32] + (half + 1).to_bytes(32, "big") + b"\x1c"
    assert parse_signature(low) == parse_signature(high) == low
