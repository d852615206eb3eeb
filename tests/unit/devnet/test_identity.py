"""Node identities: an address, signatures, and a secret that stays inside."""

from __future__ import annotations

import pickle
import stat

import pytest

from dan_async.crypto.signature import recover_address
from dan_async.devnet.context import NodeIdentity
from dan_async.errors import InvalidFieldError

SECRET = "00" * 31 + "01"


def test_the_operator_is_the_keys_address():
    """The private key 1 has a well-known address."""
    assert NodeIdentity.from_hex(SECRET).operator == "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"


def test_signatures_recover_to_the_operator():
    """Whoever has the operator's address can check what it signed."""
    identity = NodeIdentity.generate()
    assert recover_address(b"\x05" * 32, identity.sign(b"\x05" * 32)) == identity.operator


def test_identities_differ():
    """Each is made from fresh randomness."""
    assert NodeIdentity.generate().operator != NodeIdentity.generate().operator


@pytest.mark.parametrize("text", ["00" * 32, "ff" * 32, "01", "0x" + SECRET, "zz" * 32])
def test_what_is_no_private_key_is_refused(text):
    """And not repeated: it may be a real one with a typing error."""
    with pytest.raises(InvalidFieldError) as caught:
        NodeIdentity.from_hex(text)
    assert text not in str(caught.value)


def test_the_storage_key_is_fixed_and_its_own():
    """The same identity always derives the same key, another identity another."""
    one, same, other = NodeIdentity.from_hex(SECRET), NodeIdentity.from_hex(SECRET), NodeIdentity.generate()
    assert one.storage_key() == same.storage_key() != other.storage_key()
    assert one.storage_key() != bytes.fromhex(SECRET)


def test_a_file_keeps_the_identity(tmp_path):
    """The first call makes it, with mode 0600; the next reads it."""
    path = tmp_path / "node" / "identity"
    made = NodeIdentity.load_or_create(path)
    assert NodeIdentity.load_or_create(path).operator == made.operator
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_with_something_else_is_refused(tmp_path):
    """It is neither taken nor overwritten."""
    path = tmp_path / "identity"
    path.write_bytes(b"\xffnot a key")
    with pytest.raises(InvalidFieldError):
        NodeIdentity.load_or_create(path)
    assert path.read_bytes() == b"\xffnot a key"


def test_the_secret_is_not_shown():
    """Not in repr or str, and pickling is refused."""
    identity = NodeIdentity.from_hex("ab" * 32)
    assert "abab" not in repr(identity) + str(identity)
    with pytest.raises(TypeError):
        pickle.dumps(identity)
