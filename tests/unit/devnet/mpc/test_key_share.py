"""Shares at rest."""

import json

import pytest

from dan_async.crypto.curve import ORDER
from dan_async.devnet.mpc.dkg import KeyShare, read_share
from dan_async.errors import InvalidFieldError
from dan_async.protocols.fields import to_json
from tests.unit.devnet.mpc.dkg_group import Group


@pytest.fixture(scope="module")
def share():
    return Group(2, 3).run()[2]


def test_a_share_survives_json(share):
    """Through text and back."""
    assert read_share("share", json.loads(json.dumps(to_json(share)))) == share


def test_repr_masks_the_secret(share):
    """In decimal and in hex."""
    shown = f"{share!r} {share}"
    assert str(share.secret_share) not in shown
    assert f"{share.secret_share:x}" not in shown
    assert "secret_share='***'" in shown


def test_a_share_knows_its_own_public_share(share):
    """By its index, which counts from 1."""
    assert share.public_share == share.public_shares[1]


@pytest.mark.parametrize(
    "name", ["index", "t", "n", "secretShare", "publicKey", "publicShares", "transcriptHash"]
)
def test_a_missing_member_is_named(share, name):
    """Each of them."""
    members = to_json(share)
    del members[name]
    with pytest.raises(InvalidFieldError, match=f"{name} is missing"):
        read_share("share", members)


def test_an_unknown_member_is_refused(share):
    """A file of a later version must not be half understood."""
    with pytest.raises(InvalidFieldError, match="does not know"):
        read_share("share", to_json(share) | {"more": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index", 0),
        ("index", 4),
        ("index", True),
        ("t", 4),
        ("n", 1),
        ("secretShare", "0x" + "00" * 32),
        ("secretShare", "0x" + ORDER.to_bytes(32, "big").hex()),
        ("secretShare", "0x01"),
        ("secretShare", 5),
        ("publicKey", "0x02" + "ff" * 32),
        ("publicKey", "0x" + "00" * 33),
        ("publicShares", []),
        ("publicShares", "0x"),
        ("publicShares", ["0x00"] * 21),
        ("publicShares", ["0x" + "00" * 33] * 3),
        ("transcriptHash", "0x00"),
    ],
)
def test_a_wrong_member_is_refused(share, name, value):
    """By our own error, which does not repeat the secret."""
    with pytest.raises(InvalidFieldError) as caught:
        read_share("share", to_json(share) | {name: value})
    assert f"{share.secret_share:x}" not in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "text"])
def test_what_is_no_object_is_refused(value):
    """By our own error."""
    with pytest.raises(InvalidFieldError, match="must be an object"):
        read_share("share", value)


def test_a_secret_that_is_not_the_public_shares_is_refused(share):
    """Somebody has exchanged one of them."""
    with pytest.raises(InvalidFieldError, match="does not belong"):
        read_share("share", to_json(share) | {"index": 1})


@pytest.mark.parametrize(
    "changes", [{"secret_share": 0}, {"secret_share": ORDER}, {"public_shares": ()}, {"transcript_hash": b""}]
)
def test_a_share_checks_itself(changes):
    """Also when it is made directly."""
    arguments = {
        "index": 1,
        "t": 2,
        "n": 2,
        "secret_share": 5,
        "public_key": bytes(33),
        "public_shares": (bytes(33), bytes(33)),
        "transcript_hash": bytes(32),
    }
    KeyShare(**arguments)
    with pytest.raises(InvalidFieldError):
        KeyShare(**arguments | changes)
