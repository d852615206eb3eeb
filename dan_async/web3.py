"""
A session's key as an account of web3.py (extra ``web3``): a middleware that signs, and sends what it signed.

Imported by its full path only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from dan_async._json import MAX_DEPTH, is_too_deep
from dan_async._values import check_int, from_hex, number_of, to_hex
from dan_async.account import DanAccount
from dan_async.client import DanClient
from dan_async.crypto.address import parse_address
from dan_async.errors import (
    ConfigurationError,
    DanError,
    EphemeralKeyRefusedError,
    InvalidFieldError,
    PermissionDeniedError,
    SessionExpiredError,
    require_extra,
)
from dan_async.session import DanModuleInfo, session_of

__all__ = ["session_middleware"]

#: Returns the answer to a method with its parameters, as JSON-RPC has it.
_MakeRequest: TypeAlias = Callable[[str, Any], Awaitable[Any]]

#: Most wei for the gas of one transaction, unless the caller says otherwise.
_COST_LIMIT = 10**17

#: Methods that sign, and where their parameters have the account and the message.
_SIGNING: Mapping[str, tuple[int, int]] = {
    "personal_sign": (1, 0),
    "eth_sign": (0, 1),
    "eth_signTypedData": (0, 1),
    "eth_signTypedData_v4": (0, 1),
}

#: Error codes of EIP-1193 and JSON-RPC: not authorised, wrong parameters, anything else.
_UNAUTHORISED, _WRONG_PARAMETERS, _FAILED = 4100, -32602, -32000

_read_quantity = number_of(256)


def session_middleware(
    client: DanClient,
    session: DanModuleInfo | Mapping[str, Any],
    *,
    chain_id: int | None = None,
    cost_limit: int = _COST_LIMIT,
    timeout: float | None = None,
) -> Any:
    """
    Return a middleware that lets an ``AsyncWeb3`` act as a session.

    - ``eth_sendTransaction`` from the session's address is filled (nonce, gas, fees), signed by t nodes and sent raw. Its
      chain must be the session's. Transactions follow one another: a nonce is taken when the one before was sent.
    - ``personal_sign``, ``eth_sign``, ``eth_signTypedData`` and ``eth_signTypedData_v4`` for the session's address are
      signed by t nodes.
    - ``eth_accounts`` has the session's address first.

    Everything else goes to the node, other accounts' requests included. A failure of ours is raised as web3.py's
    ``Web3RPCError``: its ``__cause__`` is the ``DanError``, and its ``rpc_response`` has a code, the message and the hint.

    It works with providers that answer request by request, such as ``AsyncHTTPProvider``. Those of one lasting connection
    (``WebSocketProvider``, ``AsyncIPCProvider``) let no middleware answer: there it refuses the session's requests.

    Args:
        client: An open client. It is not closed.
        session: The session, in any form that ``sign_message`` takes. One with permissions signs user operations only.
        chain_id: The chain that transactions and typed data may be for, instead of the session's.
        cost_limit: Most wei that the gas of one transaction may cost: its gas times its highest price. What it transfers
            does not count.
        timeout: Seconds for each signature, instead of the client's.

    Returns:
        A middleware for ``middleware_onion.inject()``. One may serve several ``AsyncWeb3`` of one event loop; they then
        share the session's nonces.

    Raises:
        MissingExtraError: web3.py is not installed.
        InvalidFieldError: A parameter is wrong.

    Example::

        w3 = AsyncWeb3(AsyncHTTPProvider(url))
        w3.middleware_onion.inject(session_middleware(dan, session), layer=0)
        w3.eth.default_account = session.session_key_eoa
        sent = await contract.functions.transfer(to, 10**18).transact()
    """
    require_extra("web3", extra="web3", purpose="session_middleware")
    account = DanAccount(client, session, timeout=timeout)
    if chain_id is not None:
        check_int("chain_id", chain_id, least=1, most=2**256 - 1)
    check_int("cost_limit", cost_limit, least=1, most=2**256 - 1)
    signer = _Signer(account, session_of(session).chain_id, chain_id, cost_limit)
    # web3.py calls it with each AsyncWeb3. It types middlewares as classes of its own, which this need not be.
    return partial(_OnOneWeb3, signer)


class _Signer:
    """A session's account, and the nonces of its transactions."""

    def __init__(
        self, account: DanAccount, session_chain: int | None, named_chain: int | None, cost_limit: int
    ) -> None:
        self.address = account.address
        self._account = account
        self._chain_id = session_chain if named_chain is None else named_chain
        self._named_chain_id = named_chain
        self._cost_limit = cost_limit
        self._one_by_one = asyncio.Lock()
        #: The nonce after that of the last transaction that was sent; the node may not count it yet.
        self._next_nonce = 0

    async def answer(self, w3: Any, make_request: _MakeRequest, method: str, params: Any) -> Any:
        """Answer a request of the session's, and pass on all others."""
        if method == "eth_accounts":
            answer = await make_request(method, params)
            others = [one for one in answer.get("result") or () if not self._is_own(one)]
            return {name: value for name, value in answer.items() if name != "error"} | {
                "result": [self.address, *others]
            }
        if not self.concerns(method, params):
            return await make_request(method, params)
        try:
            if method == "eth_sendTransaction":
                async with self._one_by_one:
                    return await self._send(w3, make_request, params[0])
            return {"jsonrpc": "2.0", "id": 1, "result": await self._sign(method, params)}
        except DanError as error:
            raise _as_web3_error(error) from error

    def concerns(self, method: str, params: Any) -> bool:
        """Return whether a request asks the session's address to sign something."""
        if method == "eth_sendTransaction":
            return bool(params) and isinstance(params[0], Mapping) and self._is_own(params[0].get("from"))
        if (
            method not in _SIGNING
            or not isinstance(params, list | tuple)
            or len(params) != len(_SIGNING[method])
        ):
            return False
        return self._is_own(params[_SIGNING[method][0]])

    def _is_own(self, address: object) -> bool:
        return isinstance(address, str) and address.lower() == self.address.lower()

    # --- signatures ---------------------------------------------------------------------------------------------------

    async def _sign(self, method: str, params: Any) -> str:
        message = params[_SIGNING[method][1]]
        if method.startswith("eth_signTypedData"):
            # The parser recurses, and eth-account raises the limit at which Python stops it.
            if isinstance(message, str) and is_too_deep(message, MAX_DEPTH):
                raise InvalidFieldError("typed_data", "is nested too deeply")
            try:
                typed_data = json.loads(message) if isinstance(message, str) else message
            except ValueError:
                raise InvalidFieldError("typed_data", "is not JSON text") from None
            signed = await self._account.sign_typed_data(
                full_message=typed_data, chain_id=self._named_chain_id
            )
        else:
            from eth_account.messages import encode_defunct

            text = message if isinstance(message, bytes) else from_hex(message, field="message", prefix=True)
            signed = await self._account.sign_message(encode_defunct(text))
        return to_hex(bytes(signed.signature))

    # --- transactions -------------------------------------------------------------------------------------------------

    async def _send(self, w3: Any, make_request: _MakeRequest, transaction: Mapping[str, Any]) -> Any:
        filled = await self._fill(w3.eth, transaction)
        counted = await w3.eth.get_transaction_count(self.address, "pending")
        following = max(counted, self._next_nonce)
        nonce = filled.setdefault("nonce", following)
        signed = await self._account.sign_transaction(filled, chain_id=self._chain_id)
        raw, name = to_hex(bytes(signed.raw_transaction)), to_hex(bytes(signed.hash))
        try:
            answer = await make_request("eth_sendRawTransaction", [raw])
        except Exception as error:  # any kind that a provider may raise: the transaction may have left
            problem = f"the node's answer to the transaction {name} was lost ({type(error).__name__})"
            hint = "It may have been sent: look for its receipt before the same is sent again"
            raise _as_web3_error(DanError(problem, hint=hint), transactionHash=name) from error
        # Not before, nor for a nonce of the caller's own: were one passed over that nobody used, all later transactions
        # would wait for it.
        if "error" not in answer and nonce == following:
            self._next_nonce = nonce + 1
        return answer

    async def _fill(self, eth: Any, transaction: Mapping[str, Any]) -> dict[str, Any]:
        """Return the transaction with all but its nonce filled in, numbers as numbers, and its gas within the limit."""
        filled = {name: value for name, value in transaction.items() if name != "from" and value is not None}
        if "input" in filled:
            filled.setdefault("data", filled.pop("input"))
        if "to" in filled:
            filled["to"] = parse_address("to", filled["to"])
        for name in ("chainId", "nonce", "gas", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "value"):
            if name in filled:
                filled[name] = _read_quantity(name, filled[name])
        chain = await eth.chain_id
        if filled.setdefault("chainId", chain) != chain or chain != (self._chain_id or chain):
            raise InvalidFieldError(
                "chainId",
                f"is {filled['chainId']}, but the node's chain is {chain} and the session's {self._chain_id or 'any'}",
                hint="Nothing was signed. Use a node of the session's chain, or name another one with chain_id",
            )
        if "gasPrice" not in filled:
            await self._fill_fees(eth, filled)
        if "gas" not in filled:
            filled["gas"] = await eth.estimate_gas({**filled, "from": self.address})
        cost = filled["gas"] * filled.get("gasPrice", filled.get("maxFeePerGas", 0))
        if cost > self._cost_limit:
            raise InvalidFieldError(
                "cost_limit",
                f"is {self._cost_limit} wei, and the gas of this transaction could cost {cost}",
                hint="Nothing was signed. Name gas and maxFeePerGas yourself, or raise the limit",
            )
        filled.setdefault("value", 0)
        return filled

    async def _fill_fees(self, eth: Any, filled: dict[str, Any]) -> None:
        """Fill in twice the base fee and the tip that the node suggests (EIP-1559), or a gas price on older chains."""
        base = (await eth.get_block("latest")).get("baseFeePerGas")
        if base is None:
            filled["gasPrice"] = await eth.gas_price
            return
        if "maxFeePerGas" not in filled:  # web3.py takes both or neither
            filled["maxPriorityFeePerGas"] = await eth.max_priority_fee
            filled["maxFeePerGas"] = 2 * base + filled["maxPriorityFeePerGas"]


class _OnOneWeb3:
    """The middleware as web3.py uses it: made for each ``AsyncWeb3``, all of one session share its nonces."""

    def __init__(self, signer: _Signer, w3: Any) -> None:
        self._signer = signer
        self._w3 = w3

    async def async_wrap_make_request(self, make_request: _MakeRequest) -> _MakeRequest:
        async def answer(method: str, params: Any) -> Any:
            return await self._signer.answer(self._w3, make_request, method, params)

        return answer

    async def async_wrap_make_batch_request(self, make_batch_request: Any) -> Any:
        return make_batch_request  # web3.py takes nothing into a batch that signs

    async def async_request_processor(self, method: str, params: Any) -> tuple[str, Any]:
        """Refuse what cannot be answered; only providers of one lasting connection call this."""
        if self._signer.concerns(method, params):
            error = ConfigurationError(
                f"{method} of a session cannot be answered over a persistent connection",
                hint="Use AsyncHTTPProvider for the session, or sign with DanAccount and send the raw transaction",
            )
            raise _as_web3_error(error) from error
        return method, params

    async def async_response_processor(self, _method: str, response: Any) -> Any:
        return response

    def wrap_make_request(self, _make_request: Any) -> Any:
        error = ConfigurationError("session_middleware is for AsyncWeb3", hint="Signing waits for the nodes")
        raise _as_web3_error(error) from error


def _as_web3_error(error: DanError, **data: str) -> Exception:
    """Return an error of ours as web3.py raises the errors of a node."""
    code = _FAILED
    if isinstance(error, ConfigurationError):
        code = _WRONG_PARAMETERS
    elif isinstance(error, PermissionDeniedError | EphemeralKeyRefusedError | SessionExpiredError):
        code = _UNAUTHORISED
    details = {"error": type(error).__name__, "hint": error.hint} | data
    text = f"{error.message}. {error.hint}" if error.hint else error.message
    members = {"code": code, "message": error.message, "data": details}
    exceptions: Any = require_extra("web3.exceptions", extra="web3", purpose="session_middleware")
    found: Exception = exceptions.Web3RPCError(
        text, rpc_response={"jsonrpc": "2.0", "id": None, "error": members}, user_message=text
    )
    return found
