"""The user-operation hash against the EntryPoint contracts themselves."""

from __future__ import annotations

from typing import Any

from attrs import astuple
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dan_async.user_operation import ENTRY_POINTS, UserOperationV06, UserOperationV07, user_operation_hash
from tests.chain.local_chain import CHAIN_ID, LocalChain
from tests.strategies import addresses

WHOLE, HALF, DATA = st.integers(0, 2**256 - 1), st.integers(0, 2**128 - 1), st.binary(max_size=100)
ADDRESS_AND_DATA = st.just(b"") | st.binary(min_size=20, max_size=120)

V06 = st.builds(
    UserOperationV06,
    sender=addresses(),
    nonce=WHOLE,
    init_code=ADDRESS_AND_DATA,
    call_data=DATA,
    call_gas_limit=WHOLE,
    verification_gas_limit=WHOLE,
    pre_verification_gas=WHOLE,
    max_fee_per_gas=WHOLE,
    max_priority_fee_per_gas=WHOLE,
    paymaster_and_data=ADDRESS_AND_DATA,
    signature=DATA,
)
V07_FIELDS = {
    "sender": addresses(),
    "nonce": WHOLE,
    "call_data": DATA,
    "call_gas_limit": HALF,
    "verification_gas_limit": HALF,
    "pre_verification_gas": WHOLE,
    "max_fee_per_gas": HALF,
    "max_priority_fee_per_gas": HALF,
    "signature": DATA,
}
FACTORY = {"factory": addresses(), "factory_data": DATA}
PAYMASTER = {
    "paymaster": addresses(),
    "paymaster_verification_gas_limit": HALF,
    "paymaster_post_op_gas_limit": HALF,
    "paymaster_data": DATA,
}
V07 = st.one_of(
    st.builds(UserOperationV07, **V07_FIELDS),
    st.builds(UserOperationV07, **V07_FIELDS, **FACTORY),
    st.builds(UserOperationV07, **V07_FIELDS, **PAYMASTER),
    st.builds(UserOperationV07, **V07_FIELDS, **FACTORY, **PAYMASTER),
)

SIGNATURES = {
    "v0.6.0": "getUserOpHash((address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes))",
    "v0.7.0": "getUserOpHash((address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes))",
}
moderately = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_tuple(operation: Any) -> tuple[Any, ...]:
    """The operation as the contract takes it."""
    form = operation if isinstance(operation, UserOperationV06) else operation.pack()
    return astuple(form)


def ours(operation: Any) -> bytes:
    """What this package says."""
    version = operation.version
    return user_operation_hash(
        operation, entry_point=ENTRY_POINTS[version], chain_id=CHAIN_ID, version=version
    )


def theirs(chain: LocalChain, operation: Any) -> bytes:
    """What the contract says."""
    version = operation.version
    (found,) = chain.call(
        ENTRY_POINTS[version], SIGNATURES[version], as_tuple(operation), returns="(bytes32)"
    )
    return found


@moderately
@given(operation=V06)
def test_the_hash_is_that_of_entry_point_v06(chain: LocalChain, operation: UserOperationV06) -> None:
    """EntryPoint v0.6 gives the same hash for any operation."""
    assert ours(operation) == theirs(chain, operation)


@moderately
@given(operation=V07)
def test_the_hash_is_that_of_entry_point_v07(chain: LocalChain, operation: UserOperationV07) -> None:
    """EntryPoint v0.7 gives the same hash for any operation, packed by us."""
    assert ours(operation) == theirs(chain, operation)
