"""Kinds of accounts: calls that can be read back, factories, forms of signatures."""

from __future__ import annotations

from typing import Any

import pytest

from dan_async.crypto.abi import decode_arguments, encode_call
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.permissions import decode_calls
from dan_async.userops import BiconomyV2, Call, Nexus, SimpleAccount

A = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
B = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
KINDS = [SimpleAccount("v0.6.0"), SimpleAccount("v0.7.0"), BiconomyV2(), Nexus()]


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("count", [1, 3])
def test_calls_can_be_read_back(kind: Any, count: int) -> None:
    """What the account is told is what the permissions read."""
    is_simple_v06 = kind == SimpleAccount("v0.6.0")
    calls = tuple(Call(A, 0 if is_simple_v06 else n, bytes([n])) for n in range(count))
    assert decode_calls(kind.encode_calls(calls)) == calls


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_no_calls_are_refused(kind: Any) -> None:
    """An operation does something."""
    with pytest.raises(InvalidFieldError, match="calls"):
        kind.encode_calls(())


def test_a_batch_of_v06_cannot_send_value() -> None:
    """SimpleAccount's batch of v0.6 has no values: they are not silently dropped."""
    with pytest.raises(InvalidFieldError, match="value"):
        SimpleAccount("v0.6.0").encode_calls([Call(A, 1), Call(A, 0)])


def test_biconomys_cheap_selectors() -> None:
    """Single calls and batches use the functions with leading zeros."""
    assert BiconomyV2().encode_calls([Call(A)])[:4].hex() == "0000189a"
    assert BiconomyV2().encode_calls([Call(A), Call(B)])[:4].hex() == "00004680"


def test_biconomys_signature_names_its_module() -> None:
    """The account learns from the signature which module checks it; the dummy has the same form."""
    kind = BiconomyV2(module=B)
    assert decode_arguments("(bytes,address)", kind.wrap_signature(b"s" * 65)) == (b"s" * 65, B)
    signature, module = decode_arguments("(bytes,address)", kind.dummy_signature)
    assert (len(signature), module) == (65, B)


@pytest.mark.parametrize(
    ("owner", "account"),
    [
        ("0xFA66E705cf2582cF56528386Bb9dFCA119767262", "0xe6dBb5C8696d2E0f90B875cbb6ef26E3bBa575AC"),
        ("0x3079B249DFDE4692D7844aA261f8cf7D927A0DA5", "0x5F141ee1390D4c9d033a00CB940E509A4811a5E0"),
    ],
)
def test_biconomys_address_is_worked_out(owner: Any, account: str) -> None:
    """Owners and accounts of a test network, as the tests of Biconomy's SDK (4.6.2) write them down."""
    assert BiconomyV2().deployment(owner, 0).address == account
    assert BiconomyV2().deployment(owner, 1).address != account


@pytest.mark.parametrize(
    "kind", [SimpleAccount("v0.6.0", factory=B), SimpleAccount(factory=B), BiconomyV2(factory=B)]
)
def test_another_factorys_address_is_not_known_here(kind: Any) -> None:
    """Its code could be anything."""
    assert kind.deployment(A, 0).address is None


def test_a_simple_account_is_deployed_by_its_factory() -> None:
    """Owner and salt go into the factory's call, and into the question for the address."""
    found = SimpleAccount("v0.7.0", factory=B).deployment(A, 5)
    assert (found.factory, found.data) == (B, encode_call("createAccount(address,uint256)", A, 5))
    assert (found.address_function, found.address_arguments) == ("getAddress(address,uint256)", (A, 5))


def test_biconomys_factory_gets_the_owner_through_the_module() -> None:
    """The module's set-up call has the owner."""
    found = BiconomyV2(module=B).deployment(A, 2)
    module, setup, index = decode_arguments("(address,bytes,uint256)", found.data[4:])
    assert (module, setup, index) == (B, encode_call("initForSmartAccount(address)", A), 2)


def test_nexus_is_set_up_as_its_package_does() -> None:
    """
    The init code of one owner, by the default validator and by a module, is that of @biconomy/abstractjs 1.2.3.

    ``tests/chain/test_published_nexus.py`` compares random ones with the package itself.
    """
    by_default, by_module = Nexus(), Nexus(owner_validator=B, proxy_code=b"\x60")
    first, second = by_default.deployment(A, 7), by_module.deployment(A, 7)
    assert first is not None
    assert second is not None
    assert (keccak256(first.data).hex(), keccak256(second.data).hex()) == (
        "0641b99f75312a87fd5928a7b1aeb8562eea8f74c5eb5bed56d75df466266966",
        "b4b4fc08ffffcfee5bad786e81607d33763f923d9ef94d282b77dd76352db196",
    )
    assert first.address is None
    assert second.address is not None


def test_nexus_names_its_validator_in_the_nonce() -> None:
    """Three bytes of the lane, no mode, the module: the owner's, or that of sessions; zero for the default validator."""
    lane = int.from_bytes(bytes(range(1, 25)))
    module = Nexus().session_validator
    assert Nexus().nonce_key(lane) == 0x010203 << 168
    assert Nexus(owner_validator=B).nonce_key(lane) == 0x010203 << 168 | int(B, 16)
    assert Nexus(owner_validator=B).for_sessions().nonce_key(lane) == 0x010203 << 168 | int(module, 16)
    assert SimpleAccount().nonce_key(lane) == BiconomyV2().nonce_key(lane) == lane


def test_a_delegated_eoa_has_no_factory() -> None:
    """Its owner delegates it."""
    assert Nexus(is_delegated=True).deployment(A, 0) is None


@pytest.mark.parametrize("version", ["v0.6.0", "0.6", "v0.7.0", "0.7"])
def test_versions_may_be_short(version: Any) -> None:
    """0.7 and v0.7.0 are the same."""
    assert SimpleAccount(version).version in ("v0.6.0", "v0.7.0")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SimpleAccount("v0.8.0"), "version"),
        (lambda: SimpleAccount(factory="0x1"), "factory"),
        (lambda: BiconomyV2(factory="0x1"), "factory"),
        (lambda: BiconomyV2(module="0x1"), "module"),
        (lambda: Nexus(factory="0x1"), "factory"),
        (lambda: Nexus(bootstrap="0x1"), "bootstrap"),
        (lambda: Nexus(implementation="0x1"), "implementation"),
        (lambda: Nexus(owner_validator="0x1"), "owner_validator"),
    ],
)
def test_wrong_arguments_are_named(make: Any, field: str) -> None:
    """A wrong address or version is refused when the kind is made."""
    with pytest.raises(InvalidFieldError) as caught:
        make()
    assert caught.value.field == field
