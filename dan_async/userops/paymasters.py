"""Paymasters, which pay for gas instead of the account: ERC-7677 services, and Biconomy's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from attrs import evolve

from dan_async._values import camel_case, check_mapping
from dan_async.deadline import Deadline
from dan_async.errors import InvalidFieldError
from dan_async.types import Address
from dan_async.user_operation import UserOperationV06, UserOperationV07
from dan_async.userops.service import JsonRpcService

Operation: TypeAlias = UserOperationV06 | UserOperationV07


#: The members of an answer, by our names; the first must be there.
_V07_MEMBERS = (
    *("paymaster", "paymaster_data"),
    *("paymaster_verification_gas_limit", "paymaster_post_op_gas_limit"),
)
_BICONOMY_MEMBERS = (
    *("paymaster_and_data", "pre_verification_gas"),
    *("verification_gas_limit", "call_gas_limit"),
)


class Sponsored(NamedTuple):
    """
    An operation with a paymaster's data in it.

    Args:
        operation: The operation.
        is_final: Whether the data is good for sending, too, and not only for estimating gas.
    """

    operation: Operation
    is_final: bool


class Paymaster(Protocol):
    """A paymaster service."""

    async def stub(
        self, operation: Operation, *, entry_point: Address, chain_id: int, deadline: Deadline
    ) -> Sponsored:
        """
        Return the operation with data with which its gas can be estimated.

        Args:
            operation: The operation.
            entry_point: The entry point's address.
            chain_id: The chain.
            deadline: The job's deadline.

        Raises:
            PaymasterError: The paymaster refuses.
            ProtocolError: It answers what is not allowed.
        """

    async def sponsor(
        self, operation: Operation, *, entry_point: Address, chain_id: int, deadline: Deadline
    ) -> Operation:
        """
        Return the operation, complete except for its signature, with the paymaster's approval.

        Args:
            operation: The operation.
            entry_point: The entry point's address.
            chain_id: The chain.
            deadline: The job's deadline.

        Raises:
            PaymasterError: The paymaster refuses.
            ProtocolError: It answers what is not allowed.
            InvalidFieldError: It does not pay for operations of this version.
        """

    async def aclose(self) -> None:
        """Close connections. May be called twice."""


class _Service(Paymaster):
    """A paymaster over JSON-RPC, which its answers are read for."""

    _service: JsonRpcService

    def _put(
        self, method: str, operation: Operation, answer: Mapping[str, Any], names: Sequence[str]
    ) -> Operation:
        """Put the members of an answer into an operation; *names* are those of our fields."""
        found: dict[str, Any] = {
            name: self._service.gas(answer[wire], method, wire) if "gas" in name else answer[wire]
            for name, wire in zip(names, map(camel_case, names), strict=True)
            if answer.get(wire) is not None
        }
        try:
            sponsored = evolve(operation, **found)
        except InvalidFieldError as error:
            raise self._service.wrong_member(method, error) from error
        if not any(sponsored.paymaster_and_data[:20]):  # the entry point takes the zero address for none
            raise self._service.broken(
                method, "names the zero address as paymaster: it does not sponsor this"
            )
        return sponsored

    async def aclose(self) -> None:
        await self._service.aclose()


class Erc7677Paymaster(_Service):
    """
    A paymaster service of ERC-7677: ``pm_getPaymasterStubData`` and ``pm_getPaymasterData``.

    Args:
        service: The service.
        context: The service's own parameters, as its documentation says; for example a policy's id.
    """

    def __init__(self, service: JsonRpcService, *, context: Mapping[str, Any] | None = None) -> None:
        self._service = service
        self._context = dict(check_mapping("context", context or {}))

    async def stub(
        self, operation: Operation, *, entry_point: Address, chain_id: int, deadline: Deadline
    ) -> Sponsored:
        method = "pm_getPaymasterStubData"
        answer = await self._ask(method, operation, entry_point, chain_id, deadline)
        return Sponsored(self._sponsored(method, operation, answer), answer.get("isFinal") is True)

    async def sponsor(
        self, operation: Operation, *, entry_point: Address, chain_id: int, deadline: Deadline
    ) -> Operation:
        method = "pm_getPaymasterData"
        answer = await self._ask(method, operation, entry_point, chain_id, deadline)
        return self._sponsored(method, operation, answer)

    async def _ask(
        self, method: str, operation: Operation, entry_point: Address, chain_id: int, deadline: Deadline
    ) -> dict[str, Any]:
        sent = {name: value for name, value in operation.to_dict().items() if name != "signature"}
        answer = await self._service.call(
            method, [sent, entry_point, hex(chain_id), self._context], deadline=deadline
        )
        if not isinstance(answer, dict):
            raise self._service.broken(method, "is not an object")
        return answer

    def _sponsored(self, method: str, operation: Operation, answer: dict[str, Any]) -> Operation:
        names = _V07_MEMBERS if isinstance(operation, UserOperationV07) else ("paymaster_and_data",)
        if answer.get(camel_case(names[0])) in (None, "", "0x"):
            wanted = ", ".join(map(camel_case, names))
            raise self._service.broken(method, f"names no paymaster for {operation.version}: {wanted}")
        return self._put(method, operation, answer, names)


class BiconomyPaymaster(_Service):
    """
    Biconomy's paymaster for its Smart Account V2: ``pm_sponsorUserOperation`` in the mode SPONSORED. For v0.6 only.

    Args:
        service: The service: ``https://paymaster.biconomy.io/api/v1/CHAIN/KEY``.
        webhook_data: Handed on to the dashboard's webhook.
        expiry_s: Seconds for which the promise holds.
    """

    def __init__(
        self, service: JsonRpcService, *, webhook_data: Mapping[str, Any] | None = None, expiry_s: int = 300
    ) -> None:
        self._service = service
        self._mode = {
            "mode": "SPONSORED",
            "calculateGasLimits": True,
            "expiryDuration": expiry_s,
            "sponsorshipInfo": {
                "webhookData": dict(check_mapping("webhook_data", webhook_data or {})),
                "smartAccountInfo": {"name": "BICONOMY", "version": "2.0.0"},
            },
        }

    async def stub(
        self, operation: Operation, *, entry_point: Address, chain_id: int, deadline: Deadline
    ) -> Sponsored:
        del entry_point, chain_id, deadline  # it works out the gas limits when it is asked to pay
        return Sponsored(operation, is_final=False)

    async def sponsor(
        self, operation: Operation, *, entry_point: Address, chain_id: int, deadline: Deadline
    ) -> Operation:
        del entry_point, chain_id  # the URL says which chain it is
        if not isinstance(operation, UserOperationV06):
            raise InvalidFieldError("user_op", "must be of v0.6 for Biconomy's paymaster")
        method = "pm_sponsorUserOperation"
        sent = {
            name: value
            for name, value in operation.to_dict().items()
            if name not in ("signature", "paymasterAndData")
        }
        answer = await self._service.call(method, [sent, self._mode], deadline=deadline)
        if not isinstance(answer, dict) or answer.get("paymasterAndData") in (None, "", "0x"):
            raise self._service.broken(method, "has no paymasterAndData: it does not sponsor this")
        return self._put(method, operation, answer, _BICONOMY_MEMBERS)
