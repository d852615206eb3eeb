"""The bundler's JSON-RPC (ERC-7769): estimate, send, wait for the receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve, field, frozen

from dan_async._values import camel_case, from_hex, to_hex
from dan_async.deadline import Deadline
from dan_async.errors import (
    ConnectError,
    DanError,
    DuplicateUserOperationError,
    InvalidFieldError,
    ProtocolError,
    RpcError,
    TransportError,
    UserOperationInDoubtError,
    UserOperationRevertedError,
    UserOperationTimeoutError,
)
from dan_async.types import Address, Hex
from dan_async.user_operation import UserOperation, UserOperationReceipt
from dan_async.userops.service import GasPrice, JsonRpcService, bundler_error

if TYPE_CHECKING:
    from dan_async.crypto.set_code import Authorisation

#: Seconds between two looks for a receipt: the first, the growth, the longest.
_FIRST_POLL_S, _GROWTH, _LONGEST_POLL_S = 0.1, 1.5, 2.0

#: A bundler's own method for the price of gas -> the member of its answer that has it.
_PRICE_METHODS = {"pimlico_getUserOperationGasPrice": "standard", "biconomy_getGasFeeValues": None}

#: Answers of pimlico_getUserOperationStatus for an operation that will not come.
_NOT_THERE = ("not_found", "rejected", "failed")

_NO_SUCH_METHOD = (-32601, -32600, -32004)

#: What an estimate has: for every operation, and for one with a paymaster.
_GAS = ("pre_verification_gas", "verification_gas_limit", "call_gas_limit")
_PAYMASTER_GAS = ("paymaster_verification_gas_limit", "paymaster_post_op_gas_limit")
_GAS_MEMBERS = {
    **{camel_case(name): name for name in (*_GAS, *_PAYMASTER_GAS)},
    "verificationGas": "verification_gas_limit",  # the name with some bundlers for v0.6
}


def in_doubt(user_operation_hash: Hex, problem: str) -> UserOperationInDoubtError:
    """Return the error for an operation that left, after something else went wrong."""
    return UserOperationInDoubtError(
        f"the user operation {user_operation_hash} was sent and may have been executed: {problem}",
        hint="Wait for its receipt; sending the very same operation again is safe, the same calls are not",
        user_operation_hash=user_operation_hash,
    )


@frozen(eq=False, repr=False)
class Bundler:
    """A bundler, and the entry point that its operations are for."""

    service: JsonRpcService
    entry_point: Address = field(kw_only=True)
    _sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, kw_only=True)
    _price_methods: dict[str, str | None] = field(factory=_PRICE_METHODS.copy)
    #: What is sent along with operations, and with those of which the gas is estimated.
    extra: Mapping[str, Any] = {}
    estimated_extra: Mapping[str, Any] = {}

    def carrying(self, authorisation: Authorisation, chain_id: int) -> Self:
        """Return the same bundler for operations that come with an authorisation of their sender (EIP-7702)."""
        form = authorisation.to_dict()
        # Alto takes 0, which is every chain, for missing here. An estimate does not look at the signature.
        estimated = form | {"chainId": hex(chain_id)}
        return evolve(self, extra={"eip7702Auth": form}, estimated_extra={"eip7702Auth": estimated})

    async def gas_price(self, *, deadline: Deadline) -> GasPrice | None:
        """Return its price of gas; None if it has no method for that. The methods are bundlers' own."""
        for method, member in tuple(self._price_methods.items()):
            try:
                answer = await self.service.ask(method, [], deadline=deadline)
            except RpcError as error:
                if error.code in _NO_SUCH_METHOD:
                    self._price_methods.pop(method, None)
                continue  # the chain has a price as well
            prices = answer.get(member) if member and isinstance(answer, dict) else answer
            if isinstance(prices, dict):
                names = ("maxFeePerGas", "maxPriorityFeePerGas")
                return GasPrice(*(self.service.price(prices.get(name), method, name) for name in names))
        return None

    async def estimate_gas(self, operation: UserOperation, *, deadline: Deadline) -> dict[str, int]:
        """Return the gas that an operation needs, by our field names; its signature is a dummy of the right length."""
        method = "eth_estimateUserOperationGas"
        answer = await self.service.call(
            method, [{**operation.to_dict(), **self.estimated_extra}, self.entry_point], deadline=deadline
        )
        if not isinstance(answer, dict):
            raise self.service.broken(method, "is not an object")
        found = {
            ours: self.service.gas(answer[name], method, name)
            for name, ours in _GAS_MEMBERS.items()
            if answer.get(name) is not None
        }
        for ours in _GAS:
            if ours not in found:
                raise self.service.broken(method, f"has no {ours.replace('_', ' ')}")
        return found

    async def send(
        self, operation: UserOperation, *, expected: bytes, deadline: Deadline, is_new: bool = False
    ) -> Hex:
        """
        Send a signed operation, whose hash is *expected*. Sending it twice is safe: bundler and chain know it by its hash.

        With *is_new*, for an operation that was made just now, it is an error if the bundler has it already: then
        somebody else sent the very same one.
        """
        method, own = "eth_sendUserOperation", to_hex(expected)
        attempts: list[DanError] = []
        try:
            answer = await self.service.ask(
                method,
                [{**operation.to_dict(), **self.extra}, self.entry_point],
                deadline=deadline,
                before_sleep=lambda details: attempts.append(details.error),
            )
        except RpcError as error:
            # Unless nothing but connecting failed, an attempt before this one may have arrived.
            is_first = all(isinstance(one, ConnectError) for one in attempts)
            if await self.is_known(own, deadline=deadline):
                # After a reply that was lost on the way, the second sending finds the first one's work done.
                if is_new and is_first:
                    raise DuplicateUserOperationError(
                        f"somebody else sent the user operation {own}",
                        hint="Another program uses the same signer and lane: give them lanes of their own",
                        user_operation_hash=own,
                    ) from error
                return own
            refusal = bundler_error(error, service=self.service.name, method=method, user_operation_hash=own)
            if is_first:
                raise refusal from error
            raise in_doubt(own, refusal.message) from refusal
        except TransportError as error:
            if all(isinstance(one, ConnectError) for one in (*attempts, error)):
                raise  # it never left
            raise in_doubt(own, f"the bundler's reply was lost: {error.message}") from error
        except ProtocolError as error:
            raise in_doubt(own, error.message) from error
        try:
            is_same = from_hex(answer, field="hash", length=32) == expected
        except InvalidFieldError:
            is_same = False
        if not is_same:
            broken = self.service.broken(method, "is not the hash of the operation that was sent")
            raise in_doubt(own, broken.message) from broken
        return own

    async def is_known(self, user_operation_hash: Hex, *, deadline: Deadline) -> bool:
        """
        Return whether the bundler or the chain has this operation.

        ERC-7769 has one method for both; Alto's covers the chain only, and it has its own for the rest.
        """
        for method in ("eth_getUserOperationByHash", "pimlico_getUserOperationStatus"):
            try:
                answer = await self.service.ask(method, [user_operation_hash], deadline=deadline)
            except (TransportError, ProtocolError):  # no answer is none: what was sent has left all the same
                continue
            if isinstance(answer, dict) and answer and answer.get("status") not in _NOT_THERE:
                return True
        return False

    async def receipt(self, user_operation_hash: Hex, *, deadline: Deadline) -> UserOperationReceipt | None:
        """Return the operation's receipt; None while there is none."""
        method = "eth_getUserOperationReceipt"
        answer = await self.service.call(
            method, [user_operation_hash], deadline=deadline, about=user_operation_hash
        )
        if answer is None:
            return None
        try:
            found = UserOperationReceipt.from_dict(answer)
        except InvalidFieldError as error:
            raise self.service.wrong_member(method, error) from error
        if found.user_operation_hash != user_operation_hash:
            raise self.service.broken(method, "is about another operation")
        return found

    async def wait_for_receipt(
        self, user_operation_hash: Hex, *, deadline: Deadline, allow_revert: bool = False
    ) -> UserOperationReceipt:
        """Wait until the operation is on the chain; a reverted one is an error unless *allow_revert*."""
        pause = _FIRST_POLL_S
        while True:
            failure: TransportError | None = None
            try:
                found = await self.receipt(user_operation_hash, deadline=deadline)
            except TransportError as error:
                if not error.retryable:
                    raise
                found, failure = None, error  # a bundler that starts anew is no reason to stop looking
            if found is not None:
                break
            left = deadline.remaining()
            if left is not None and left <= 0:
                raise UserOperationTimeoutError(
                    f"the user operation {user_operation_hash} is not known to be on the chain yet"
                    + ("" if failure is None else f": {failure.message}"),
                    hint="It may still be executed: wait for its receipt again, and do not send it with another nonce",
                    user_operation_hash=user_operation_hash,
                ) from failure
            await self._sleep(pause if left is None else min(pause, left))
            pause = min(pause * _GROWTH, _LONGEST_POLL_S)
        if not found.is_success and not allow_revert:
            raise UserOperationRevertedError(
                f"the user operation {user_operation_hash} is on the chain, and its calls were reverted"
                + (f": {' '.join(found.reason[:200].splitlines())}" if found.reason else ""),
                hint="Its gas is paid. Look at the calls: one of them fails",
                transaction_hash=found.transaction_hash,
                reason=found.reason,
                receipt=found.raw,
                user_operation_hash=user_operation_hash,
            )
        return found
