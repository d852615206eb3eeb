"""Builds a user operation that is complete but for its signature: price, gas, paymaster."""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from dan_async._tasks import Deadline
from dan_async.models.user_operation import UserOperationV06, UserOperationV07
from dan_async.types import Address
from dan_async.userops.account_kinds import AccountKind, FactoryCall
from dan_async.userops.bundler import Bundler, GasPrice
from dan_async.userops.paymasters import Operation, Paymaster

__all__ = ["OperationBuilder"]


@frozen(kw_only=True)
class OperationBuilder:
    """
    What building an operation takes.

    Args:
        kind: What kind of account it is for.
        bundler: Estimates the gas.
        paymaster: Who pays for gas, or None for the account itself.
        entry_point: The entry point.
        chain_id: The chain.
    """

    kind: AccountKind
    bundler: Bundler
    paymaster: Paymaster | None
    entry_point: Address
    chain_id: int

    async def build(
        self,
        *,
        sender: Address,
        nonce: int,
        call_data: bytes,
        price: GasPrice,
        factory: FactoryCall | None,
        deadline: Deadline,
    ) -> Operation:
        """
        Build an operation.

        Args:
            sender: The account.
            nonce: Its nonce, key included.
            call_data: What the account is called with.
            price: What to pay for gas.
            factory: How the account is deployed, if it is to be.
            deadline: The job's.

        Raises:
            BundlerError: The operation would fail, or the paymaster does not pay.
            ProtocolError: A service's answer is not what its specification says.
        """
        draft = self._draft(
            factory,
            sender=sender,
            nonce=nonce,
            call_data=call_data,
            max_fee_per_gas=price.max_fee_per_gas,
            max_priority_fee_per_gas=price.max_priority_fee_per_gas,
        )
        is_final = True
        if self.paymaster is not None:
            draft, is_final = await self.paymaster.stub(
                draft, entry_point=self.entry_point, chain_id=self.chain_id, deadline=deadline
            )
        draft = _with_gas(draft, await self.bundler.estimate_gas(draft, deadline=deadline))
        if self.paymaster is not None and not is_final:
            draft = await self.paymaster.sponsor(
                draft, entry_point=self.entry_point, chain_id=self.chain_id, deadline=deadline
            )
        return evolve(draft, signature=b"")

    def _draft(self, factory: FactoryCall | None, **fields: Any) -> Operation:
        fields |= {"call_gas_limit": 0, "verification_gas_limit": 0, "pre_verification_gas": 0}
        fields["signature"] = self.kind.dummy_signature
        if self.kind.version == "v0.6.0":
            init_code = bytes.fromhex(factory.factory[2:]) + factory.data if factory else b""
            return UserOperationV06(**fields, init_code=init_code)
        if factory:
            fields |= {"factory": factory.factory, "factory_data": factory.data}
        return UserOperationV07(**fields)


def _with_gas(operation: Operation, gas: dict[str, int]) -> Operation:
    found: dict[str, Any] = dict(gas)
    if not (isinstance(operation, UserOperationV07) and operation.paymaster is not None):
        found = {name: value for name, value in gas.items() if not name.startswith("paymaster")}
    return evolve(operation, **found)
