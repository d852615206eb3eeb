"""Addresses: from public keys in every encoding, EIP-55 both ways."""

import pytest
from coincurve import PrivateKey
from coincurve import PublicKey as PublicPoint
from eth_account import Account
from eth_keys.datatypes import PublicKey
from eth_utils import to_checksum_address as eth_utils_checksum
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.address import (
    parse_address,
    point_to_address,
    public_key_to_address,
    to_checksum_address,
)
from dan_async.crypto.curve import ORDER
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from tests.unit.crypto.vectors import CASES

SECRETS = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
KEY = PrivateKey(b"\x01" * 32).public_key
UNCOMPRESSED = KEY.format(compressed=False)
COMPRESSED = KEY.format()
ADDRESS = "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1"


def encodings(uncompressed, compressed):
    """Every form that a public key is taken in."""
    return [
        form
        for raw in (uncompressed, compressed)
        for form in (raw, raw.hex(), "0x" + raw.hex(), "0x" + raw.hex().upper())
    ]


@pytest.mark.parametrize("form", encodings(UNCOMPRESSED, COMPRESSED))
def test_every_encoding_of_a_key_has_the_same_address(form):
    """Compressed and uncompressed, bytes and hex, with and without 0x."""
    assert public_key_to_address(form) == ADDRESS


@given(SECRETS)
def test_addresses_are_eth_accounts(secret):
    """eth-account gives the same address, checksum included."""
    point = PrivateKey(secret).public_key
    expected = Account.from_key(secret).address
    assert point_to_address(point) == expected
    assert {
        public_key_to_address(form) for form in encodings(point.format(compressed=False), point.format())
    } == {expected}


def recorded_keys():
    """Public key and address of every recorded keygen for secp256k1, as the TypeScript client returned them."""
    for case in CASES:
        if case["operation"] == "keygen":
            results = case["result"] if isinstance(case["result"], list) else [case["result"]]
            for result in results:
                if "address" in result:
                    yield pytest.param(result["publicKey"], result["address"], id=case["name"])


@pytest.mark.parametrize(("public_key", "recorded"), list(recorded_keys()))
def test_the_addresses_of_the_wire_vectors(public_key, recorded):
    """
    Recorded compressed keys have the recorded address.

    For an uncompressed key the recorded client appended a blank to its hex and so hashed a text: what it returned is no
    address of that key. Ours is the one that signatures recover to, as eth-keys confirms.
    """
    address = public_key_to_address(public_key)
    assert (
        address
        == PublicKey.from_compressed_bytes(
            PublicPoint(bytes.fromhex(public_key)).format()
        ).to_checksum_address()
    )
    if len(public_key) == 66:
        assert address == recorded
    else:
        assert recorded == to_checksum_address(keccak256(f"0x{public_key[2:]} ".encode())[12:])


@pytest.mark.parametrize(
    "key",
    [
        b"",
        "",
        "0x",
        UNCOMPRESSED[1:],
        b"\x04" + bytes(63),
        b"\x04" + COMPRESSED[1:],
        b"\x02" + UNCOMPRESSED[1:],
        bytes([6 + UNCOMPRESSED[64] % 2]) + UNCOMPRESSED[1:],
        b"\x05" + COMPRESSED[1:],
        b"\x00" + COMPRESSED[1:],
        COMPRESSED + b"\x00",
        COMPRESSED[:-1],
        COMPRESSED.hex()[:-1],
        "zz" * 33,
        "0x0x" + COMPRESSED.hex(),
        None,
        5,
        bytearray(COMPRESSED),
    ],
)
def test_what_is_no_sec1_key_is_refused(key):
    """Other lengths, the bare coordinates, the hybrid form, and other types are no public key."""
    with pytest.raises(InvalidFieldError) as caught:
        public_key_to_address(key)
    assert caught.value.field == "public_key"


@pytest.mark.parametrize(
    "key", [b"\x02" + b"\xff" * 32, b"\x03" + bytes(31) + b"\x05", b"\x04" + b"\x01" * 64]
)
def test_a_key_off_the_curve_is_refused(key):
    """A key of the right length must be a point."""
    with pytest.raises(InvalidFieldError, match="is not a point of secp256k1"):
        public_key_to_address(key)


@pytest.mark.parametrize(
    "address",
    [
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_the_examples_of_eip_55(address):
    """The EIP's own examples, written and read."""
    assert to_checksum_address(bytes.fromhex(address[2:])) == address
    assert parse_address("owner", address) == address


@given(st.binary(min_size=20, max_size=20))
def test_checksums_are_eth_utils(raw):
    """eth-utils writes the same checksum; all lower and all upper case are read as well."""
    expected = eth_utils_checksum(raw)
    assert to_checksum_address(raw) == expected
    assert parse_address("a", "0x" + raw.hex()) == parse_address("a", "0x" + raw.hex().upper()) == expected


@given(st.binary(min_size=20, max_size=20), st.integers(2, 41))
def test_one_letter_in_the_wrong_case_is_refused(raw, place):
    """A wrong checksum is an error, unless what results is all of one case."""
    address = to_checksum_address(raw)
    wrong = address[:place] + address[place].swapcase() + address[place + 1 :]
    if wrong == address or wrong[2:] in (wrong[2:].lower(), wrong[2:].upper()):
        assert parse_address("a", wrong) == address
    else:
        with pytest.raises(InvalidFieldError, match="a has a wrong EIP-55 checksum"):
            parse_address("a", wrong)


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        b"\x00" * 20,
        "",
        "0x",
        "ab" * 20,
        "0X" + "ab" * 20,
        "0x" + "ab" * 19,
        "0x" + "ab" * 21,
        "0x" + "zz" * 20,
        "0x" + "ab" * 20 + "\n",
        " 0x" + "ab" * 20,
    ],
)
def test_what_is_no_address_is_refused(value):
    """The error names the field and says what an address is."""
    with pytest.raises(InvalidFieldError, match=r"^owner must be an address") as caught:
        parse_address("owner", value)
    assert caught.value.field == "owner"


@pytest.mark.parametrize("length", [0, 19, 21, 32])
def test_only_20_bytes_are_an_address(length):
    """A program that passes anything else has a mistake in it."""
    with pytest.raises(ValueError, match="20 bytes"):
        to_checksum_address(bytes(length))
