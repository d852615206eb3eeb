"""
The services that smart accounts use, over JSON-RPC: how they are asked, a node of the chain, and their errors in words.

The codes are explained in bundler_codes.json: the AA codes of the EntryPoint contracts v0.6 and v0.7, and the numbers of
ERC-7769 and of JSON-RPC. Decided by code; a text is only searched for the AA code that bundlers put into it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from attrs import frozen

from dan_async._values import MAX_SAFE_INT, check_int, from_hex, number_of, setting, to_hex
from dan_async.config import TransportOptions, check_transport
from dan_async.crypto.abi import decode_arguments, encode_arguments, encode_call
from dan_async.crypto.hashes import keccak256
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    InvalidFieldError,
    PaymasterError,
    ProtocolError,
    RpcError,
    UserOperationCostError,
)
from dan_async.retry import RetryDetails, RetryPolicy
from dan_async.types import Address, EntryPointVersion, Json

if TYPE_CHECKING:
    from dan_async.transport.rpc import Transport


def version_of(version: object) -> EntryPointVersion:
    """Read a version: ``"v0.6.0"`` or ``"v0.7.0"``, also without the v or the last zero."""
    if version in ("v0.6.0", "0.6.0", "0.6", "v0.6"):
        return "v0.6.0"
    if version in ("v0.7.0", "0.7.0", "0.7", "v0.7"):
        return "v0.7.0"
    raise InvalidFieldError("version", "must be v0.6.0 or v0.7.0")


_read_number = number_of(256, may_be_empty=True)

#: Most gas in one member of a service's answer, more than a block holds, and most wei for one unit of it.
_MOST_GAS, _MOST_PRICE = 10**8, 10**15


class JsonRpcService:
    """
    A JSON-RPC service over HTTP: a bundler, a paymaster, or a node of the chain.

    Every request here may be sent twice: reading changes nothing, and a user operation is known by its hash. So connections
    that failed or broke, and replies that did not come, are tried again as *retry* says; an error that the service answered
    with is not. A ``Transport`` is taken in place of a URL, and is not closed here.
    """

    def __init__(
        self,
        name: str,
        url: str | Transport,
        *,
        options: TransportOptions | None = None,
        retry: RetryPolicy | None = None,
        attempt_s: float = 15.0,
    ) -> None:
        self.name = name
        self._is_owner = isinstance(url, str)
        if isinstance(url, str):
            # Imported here: aiohttp takes its time, and other transports need none of it.
            from dan_async.transport.http import HttpTransport

            url = HttpTransport(url, options=options)
        else:
            check_transport(f"{name}_url", url)
        self._transport = url
        self._retry = setting("retry", retry, RetryPolicy)
        self._attempt_s = attempt_s

    async def call(
        self, method: str, params: Sequence[Json], *, deadline: Deadline, about: str | None = None
    ) -> Json:
        """Ask; an error of the service is raised in plain words. *about* is the hash of the operation concerned."""
        try:
            return await self.ask(method, params, deadline=deadline)
        except RpcError as error:
            raise bundler_error(error, service=self.name, method=method, user_operation_hash=about) from error

    async def ask(
        self,
        method: str,
        params: Sequence[Json],
        *,
        deadline: Deadline,
        before_sleep: Callable[[RetryDetails], None] | None = None,
    ) -> Json:
        """Ask, and raise the service's own ``RpcError``; *before_sleep* hears of each wait before another attempt."""
        text = json.dumps(list(params), separators=(",", ":"), allow_nan=False)

        async def attempt() -> Json:
            return await self._transport.call(method, text, timeout_s=deadline.cap(self._attempt_s))

        return await self._retry.run(attempt, deadline=deadline, before_sleep=before_sleep)

    async def chain_id(self, *, deadline: Deadline) -> int:
        """Ask for the chain that it serves."""
        return await self.number("eth_chainId", deadline=deadline, most=MAX_SAFE_INT)

    async def number(self, method: str, *params: Json, deadline: Deadline, most: int = 2**256 - 1) -> int:
        """Ask for a number."""
        return self.quantity(await self.call(method, params, deadline=deadline), method, most=most)

    def quantity(self, value: Any, method: str, name: str = "result", *, most: int = 2**256 - 1) -> int:
        """Read a number in an answer."""
        try:
            return check_int(name, _read_number(name, value), least=0, most=most)
        except InvalidFieldError as error:
            raise self.wrong_member(method, error) from error

    def gas(self, value: Any, method: str, name: str) -> int:
        """Read an amount of gas in an answer."""
        return self.quantity(value, method, name, most=_MOST_GAS)

    def price(self, value: Any, method: str, name: str) -> int:
        """Read the price of a unit of gas in an answer, in wei."""
        return self.quantity(value, method, name, most=_MOST_PRICE)

    def wrong_member(self, method: str, error: InvalidFieldError) -> ProtocolError:
        """Return the error for an answer with a member that cannot be read."""
        return self.broken(method, f"has a wrong member: {error.message}")

    def broken(self, method: str, problem: str) -> ProtocolError:
        """Return the error for an answer that is not as the method's specification says."""
        return ProtocolError(
            f"the {self.name}'s answer to {method} {problem}",
            hint="Check that the URL is that of the right service",
        )

    async def aclose(self) -> None:
        """Close the connections, if they were opened here. May be called twice."""
        if self._is_owner:
            await self._transport.aclose()

    def __repr__(self) -> str:
        return f"JsonRpcService({self.name!r}, {self._transport!r})"


#: Seconds between two looks at the chain.
_POLL_S = 0.25


async def pause(deadline: Deadline, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> bool:
    """Wait a moment before the next look at the chain; return False at once if no time is left for it."""
    left = deadline.remaining()
    if left is not None and left <= _POLL_S:
        return False
    await sleep(_POLL_S)
    return True


@frozen
class GasPrice:
    """The highest price and tip for each unit of gas, in wei (EIP-1559)."""

    max_fee_per_gas: int
    max_priority_fee_per_gas: int


def check_cost(what: str, cost: int, limit: int) -> None:
    """Check that the gas of something costs no more wei than is allowed."""
    if cost > limit:
        raise UserOperationCostError(
            f"the gas of {what} could cost {cost} wei, more than the limit of {limit} wei",
            hint="Nothing was signed. If the price is acceptable, give the client a higher cost_limit",
            cost=cost,
            limit=limit,
        )


#: The event by which an entry point, of either version, says which operation used a nonce.
_EVENT = to_hex(keccak256(b"UserOperationEvent(bytes32,address,address,uint256,bool,uint256,uint256)"))

#: How many blocks back it is looked for: minutes to hours, and a range that nodes do not refuse.
_EVENT_BLOCKS = 2000


class Chain:
    """A node of the chain, read only."""

    def __init__(self, service: JsonRpcService) -> None:
        self.service = service

    async def read(
        self, contract: str, signature: str, arguments: tuple[Any, ...], returns: str, *, deadline: Deadline
    ) -> tuple[Any, ...]:
        """Call a function of a contract without changing anything: ``read(at, "f(address)", (x,), "(uint256)")``."""
        call = {"to": contract, "data": to_hex(encode_call(signature, *arguments))}
        answer = await self.service.call("eth_call", [call, "latest"], deadline=deadline)
        try:
            return decode_arguments(returns, from_hex(answer, field="result", prefix=True))
        except InvalidFieldError as error:
            raise self.service.broken(
                "eth_call", f"is not what {signature} returns: is the contract on this chain?"
            ) from error

    async def code(self, address: str, *, deadline: Deadline) -> bytes:
        """Return the code at an address; nothing if there is none."""
        method = "eth_getCode"
        answer = await self.service.call(method, [address, "latest"], deadline=deadline)
        try:
            return from_hex(answer, field="result")
        except InvalidFieldError as error:
            raise self.service.wrong_member(method, error) from error

    async def count_transactions(self, address: str, *, deadline: Deadline) -> int:
        """Return the nonce of an EOA's next transaction, those not counted that are in no block yet."""
        method, most = "eth_getTransactionCount", 2**64 - 2
        return await self.service.number(method, address, "latest", deadline=deadline, most=most)

    async def nonce(self, entry_point: Address, sender: Address, key: int, *, deadline: Deadline) -> int:
        """Return an entry point's next nonce for a lane, the lane's 192 bits included."""
        (nonce,) = await self.read(
            entry_point, "getNonce(address,uint192)", (sender, key), "(uint256)", deadline=deadline
        )
        if nonce >> 64 != key:
            raise self.service.broken("eth_call", "is a nonce of another lane than was asked for")
        return int(nonce)

    async def users_of_nonce(
        self, entry_point: Address, sender: Address, nonce: int, *, deadline: Deadline
    ) -> frozenset[str]:
        """
        Return the hash of the operation that used a nonce, as an event of the entry point in the last blocks shows.

        There is none if the node does not know it (yet), and more than one if the node contradicts itself.
        """
        latest = await self.service.number("eth_blockNumber", deadline=deadline)
        method, account = "eth_getLogs", to_hex(encode_arguments("(address)", (sender,)))
        wanted: dict[str, Json] = {
            "address": entry_point,
            "fromBlock": hex(max(0, latest - _EVENT_BLOCKS)),
            "toBlock": "latest",
            "topics": [_EVENT, None, account],
        }
        logs = await self.service.call(method, [wanted], deadline=deadline)
        try:
            return frozenset(
                to_hex(from_hex(log["topics"][1], field="topics", length=32))
                for log in logs
                if from_hex(log["data"], field="data")[:32] == nonce.to_bytes(32)
                and log["address"].lower() == entry_point.lower()
                and (log["topics"][0], log["topics"][2]) == (_EVENT, account)
                and not log.get("removed")
            )
        except (InvalidFieldError, AttributeError, LookupError, TypeError) as error:
            raise self.service.broken(method, "is not a list of the entry point's events") from error

    async def gas_price(self, *, deadline: Deadline) -> GasPrice:
        """Return a price: twice the base fee of the latest block, and the tip that the node suggests."""
        method = "eth_getBlockByNumber"
        block = await self.service.call(method, ["latest", False], deadline=deadline)
        if not isinstance(block, dict):
            raise self.service.broken(method, "is not a block")
        base = self.service.price(block.get("baseFeePerGas", 0), method, "baseFeePerGas")
        tip = await self.service.number("eth_maxPriorityFeePerGas", deadline=deadline, most=_MOST_PRICE)
        return GasPrice(2 * base + tip, tip)

    async def usual_price(self, *, deadline: Deadline) -> int:
        """Return the node's own word for the price of gas, to compare others with."""
        return await self.service.number("eth_gasPrice", deadline=deadline, most=_MOST_PRICE)


class Explanation(NamedTuple):
    """The meaning of a code, and what to do."""

    meaning: str
    hint: str


@cache
def explanations() -> dict[str, Explanation]:
    """Return what the codes of the entry point, and those of JSON-RPC, mean."""
    table = resources.files(__package__).joinpath("bundler_codes.json").read_text(encoding="ascii")
    return {code: Explanation(*texts) for code, texts in json.loads(table).items()}


#: An AA code in a text.
_CODE = re.compile(r"\bAA[0-9]{2}\b")

#: Characters of a service's own words that are shown.
_LONGEST_TEXT = 300


def bundler_error(
    error: RpcError, *, service: str, method: str, user_operation_hash: str | None = None
) -> BundlerError:
    """Put a service's error into plain words; *service* is ``bundler``, ``paymaster`` or ``node``."""
    found = _CODE.search(error.message) or _CODE.search(str(error.data.get("reason", "")))
    code = found[0] if found else None
    known = explanations().get(code or "") or explanations().get(str(error.code))
    is_paymaster = (
        service == "paymaster" or error.code in (-32501, -32508) or (code or "").startswith(("AA3", "AA50"))
    )
    named = f"error {error.code}" + (f", {code}" if code else "")
    words = error.message[:_LONGEST_TEXT]
    message = f"{known.meaning} ({named})" if known else f"it answered with {named}"
    return (PaymasterError if is_paymaster else BundlerError)(
        f"the {service} refused {method}: {message}. It said: {words}",
        hint=known.hint if known else f"Look the code up in the documentation of the {service}",
        service=service,
        code=error.code,
        entry_point_code=code,
        user_operation_hash=user_operation_hash,
    )
