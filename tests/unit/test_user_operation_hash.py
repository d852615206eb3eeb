"""The user-operation hash: every field counts, the signature does not. That it is the contract's: tests/chain."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from dan_async.errors import InvalidFieldError
from dan_async.user_operation import UserOperationV06, UserOperationV07, user_operation_hash

ENTRY_POINT = "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"
OTHER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
NUMBERS = {
    "nonce": 1,
    "call_gas_limit": 2,
    "verification_gas_limit": 3,
    "pre_verification_gas": 4,
    "max_fee_per_gas": 5,
    "max_priority_fee_per_gas": 6,
}
V06 = UserOperationV06(sender=OTHER, call_data=b"c", init_code=bytes(20), **NUMBERS)
V07 = UserOperationV07(
    sender=OTHER,
    call_data=b"c",
    factory=OTHER,
    factory_data=b"f",
    paymaster=OTHER,
    paymaster_verification_gas_limit=7,
    paymaster_post_op_gas_limit=8,
    paymaster_data=b"p",
    **NUMBERS,
)


def digest(operation: Any, *, entry_point: str = ENTRY_POINT, chain_id: int = 80002) -> bytes:
    """Hash for the operation's own version."""
    return user_operation_hash(
        operation, entry_point=entry_point, chain_id=chain_id, version=operation.version
    )


def _other(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    return value + b"x" * 20 if isinstance(value, bytes) else ENTRY_POINT


@pytest.mark.parametrize("operation", [V06, V07], ids=["v0.6", "v0.7"])
def test_every_field_but_the_signature_counts(operation: Any) -> None:
    """Changing any one field changes the hash, and no two changes give the same; the signature changes nothing."""
    names = [a.name for a in attrs.fields(type(operation)) if a.name != "signature"]
    changed = [attrs.evolve(operation, **{name: _other(getattr(operation, name))}) for name in names]
    assert len({digest(one) for one in [operation, *changed]}) == len(names) + 1
    assert digest(attrs.evolve(operation, signature=b"s")) == digest(operation)


@pytest.mark.parametrize("operation", [V06, V07], ids=["v0.6", "v0.7"])
def test_chain_and_entry_point_count(operation: Any) -> None:
    """A signature for one chain or entry point is none for another."""
    hashes = {digest(operation), digest(operation, chain_id=1), digest(operation, entry_point=OTHER)}
    assert len(hashes) == 3


def test_packed_or_not_is_the_same() -> None:
    """The packed form of v0.7 has the hash of the unpacked one."""
    assert digest(V07.pack()) == digest(V07)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"version": "v0.7.0"}, "version"),
        ({"version": "v0.8.0"}, "version"),
        ({"entry_point": "0x12"}, "entry_point"),
        ({"chain_id": 0}, "chain_id"),
        ({"chain_id": True}, "chain_id"),
        ({"chain_id": 2**256}, "chain_id"),
        ({"chain_id": "1"}, "chain_id"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], field: str) -> None:
    """A hash is given for the right version and a possible chain only."""
    right = {"entry_point": ENTRY_POINT, "chain_id": 1, "version": "v0.6.0"}
    with pytest.raises(InvalidFieldError) as caught:
        user_operation_hash(V06, **(right | arguments))
    assert caught.value.field == field
