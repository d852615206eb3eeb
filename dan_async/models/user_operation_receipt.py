"""What a bundler reports of a user operation that is on the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from attrs import field, frozen

from dan_async._hex import from_hex, to_hex
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import number_of
from dan_async.types import Hex

__all__ = ["UserOperationReceipt"]

_read_number = number_of(256)


@frozen(kw_only=True)
class UserOperationReceipt:
    """
    A receipt (``eth_getUserOperationReceipt``, ERC-7769).

    Args:
        user_operation_hash: The operation's hash.
        transaction_hash: The transaction that carried it.
        block_number: Its block.
        is_success: Whether its calls were executed; if not, they were reverted and the gas is paid all the same.
        reason: Why not: the revert's text or bytes, shortened; empty if nothing is known.
        actual_gas_cost: What was paid for gas, in wei.
        actual_gas_used: Gas used.
        raw: The whole answer.
    """

    user_operation_hash: Hex
    transaction_hash: Hex
    block_number: int
    is_success: bool
    reason: str
    actual_gas_cost: int
    actual_gas_used: int
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_dict(cls, found: Any) -> Self:
        """
        Read the bundler's answer; members that are not needed may be there or not.

        Raises:
            InvalidFieldError: A needed member is missing or wrong.
        """
        receipt = found.get("receipt") if isinstance(found, Mapping) else None
        if not isinstance(receipt, Mapping):
            raise InvalidFieldError("receipt", "must be a JSON object")
        if not isinstance(found.get("success"), bool):
            raise InvalidFieldError("success", "must be true or false")
        reason = found.get("reason")
        return cls(
            user_operation_hash=to_hex(from_hex(found.get("userOpHash"), field="userOpHash", length=32)),
            transaction_hash=to_hex(
                from_hex(receipt.get("transactionHash"), field="transactionHash", length=32)
            ),
            block_number=_read_number(receipt.get("blockNumber"), "blockNumber"),
            is_success=found["success"],
            reason=reason[:_LONGEST_REASON] if isinstance(reason, str) else "",
            actual_gas_cost=_read_number(found.get("actualGasCost"), "actualGasCost"),
            actual_gas_used=_read_number(found.get("actualGasUsed"), "actualGasUsed"),
            raw=found,
        )


_LONGEST_REASON = 1024
