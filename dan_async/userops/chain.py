"""What has to be read from the chain itself: nonces, code, addresses, the price of gas."""

from __future__ import annotations

from typing import Any

from dan_async._hex import from_hex, to_hex
from dan_async._tasks import Deadline
from dan_async.crypto.abi import decode_arguments, encode_call
from dan_async.errors import InvalidFieldError
from dan_async.types import Address
from dan_async.userops.bundler import GasPrice
from dan_async.userops.json_rpc_service import JsonRpcService, read_quantity

__all__ = ["Chain"]


class Chain:
    """
    A node of the chain, read only.

    Args:
        service: Where it is.
    """

    def __init__(self, service: JsonRpcService) -> None:
        self.service = service

    async def chain_id(self, *, deadline: Deadline) -> int:
        """
        Ask which chain it is.

        Raises:
            BundlerError: The node answered with an error.
        """
        answer = await self.service.call("eth_chainId", [], deadline=deadline)
        return read_quantity(answer, self.service, "eth_chainId")

    async def read(
        self, contract: str, signature: str, arguments: tuple[Any, ...], returns: str, *, deadline: Deadline
    ) -> tuple[Any, ...]:
        """
        Call a function of a contract without changing anything.

        Args:
            contract: Its address.
            signature: The function, as ``getNonce(address,uint192)``.
            arguments: Its arguments.
            returns: What it returns, as ``(uint256)``.
            deadline: The job's.

        Raises:
            BundlerError: The call was reverted, or the node answered with another error.
            ProtocolError: The answer is not what the function returns: there may be no such contract.
        """
        call = {"to": contract, "data": to_hex(encode_call(signature, *arguments))}
        answer = await self.service.call("eth_call", [call, "latest"], deadline=deadline)
        try:
            return decode_arguments(returns, from_hex(answer, field="result", prefix=True))
        except InvalidFieldError as error:
            raise self.service.broken(
                "eth_call", f"is not what {signature} returns: is the contract on this chain?"
            ) from error

    async def is_deployed(self, address: str, *, deadline: Deadline) -> bool:
        """
        Ask whether there is code at an address.

        Raises:
            BundlerError: The node answered with an error.
        """
        answer = await self.service.call("eth_getCode", [address, "latest"], deadline=deadline)
        return isinstance(answer, str) and answer not in ("", "0x")

    async def nonce(self, entry_point: Address, sender: Address, key: int, *, deadline: Deadline) -> int:
        """
        Ask an entry point for the next nonce of a lane, the lane's 192 bits included.

        Raises:
            BundlerError: The node answered with an error.
            ProtocolError: The entry point is not on this chain.
        """
        (nonce,) = await self.read(
            entry_point, "getNonce(address,uint192)", (sender, key), "(uint256)", deadline=deadline
        )
        return int(nonce)

    async def gas_price(self, *, deadline: Deadline) -> GasPrice:
        """
        Work out a price: twice the base fee of the latest block, and the tip that the node suggests.

        Raises:
            BundlerError: The node answered with an error.
        """
        method = "eth_getBlockByNumber"
        block = await self.service.call(method, ["latest", False], deadline=deadline)
        if not isinstance(block, dict):
            raise self.service.broken(method, "is not a block")
        base = read_quantity(block.get("baseFeePerGas", 0), self.service, method, "baseFeePerGas")
        tip = read_quantity(
            await self.service.call("eth_maxPriorityFeePerGas", [], deadline=deadline),
            self.service,
            "eth_maxPriorityFeePerGas",
        )
        return GasPrice(2 * base + tip, tip)
