"""A wallet behind JSON-RPC: a node with unlocked accounts, a signer service, a desktop wallet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Self

from dan_async._values import check_bool, check_seconds
from dan_async.config import TransportOptions, check_transport
from dan_async.crypto.address import parse_address
from dan_async.errors import (
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
    RpcError,
    TransportError,
    WalletError,
    WalletRefusedError,
    WalletSignatureError,
    WalletTimeoutError,
)
from dan_async.types import Address, Hex, Json, TimeSpan, TypedData

if TYPE_CHECKING:
    from dan_async.transport.rpc import Transport

#: How long a wallet may take by default, in seconds: a person may be reading.
_TIMEOUT_S = 120.0

_LONGEST_MESSAGE = 200

#: Stands for the address until the wallet has said which it is.
_UNKNOWN = "0x" + "00" * 20

#: "User rejected": EIP-1193's code, and the one that WalletConnect uses.
_USER_REJECTED = (4001, 5000)

#: Error code (EIP-1193 and JSON-RPC) -> the hint.
_HINTS = {
    4100: "Unlock the account, or allow this application to use it",
    4200: "Use a wallet that supports eth_signTypedData_v4",
    -32601: "Use a wallet that supports eth_signTypedData_v4",
}


class JsonRpcWallet:
    """
    Signs with ``eth_signTypedData_v4`` over JSON-RPC. Close it with ``aclose()`` or use it in ``async with``.

    ``connect`` makes one when the address is not known beforehand.

    Args:
        url: Its URL: ``https``, or ``http`` to loopback. A ``Transport`` is taken as well; it is not closed with the
            wallet, since whoever opens closes.
        address: Which of its accounts signs.
        interactive: Whether a person sees a prompt; say False for a node with unlocked accounts.
        timeout_s: Seconds it may take to answer.
        options: How to connect.

    Raises:
        InvalidFieldError: The URL, the address or the timeout is wrong.
        InsecureTransportError: The URL has no TLS and its host is not loopback.
    """

    __slots__ = ("_is_owner", "_timeout_s", "_transport", "address", "interactive")

    address: Address
    interactive: bool

    def __init__(
        self,
        url: str | Transport,
        *,
        address: str,
        interactive: bool = True,
        timeout_s: TimeSpan = _TIMEOUT_S,
        options: TransportOptions | None = None,
    ) -> None:
        self.address = parse_address("address", address)
        self.interactive = check_bool("interactive", interactive)
        self._timeout_s = check_seconds("timeout_s", timeout_s)
        self._is_owner = isinstance(url, str)
        if isinstance(url, str):
            # Imported here: aiohttp takes its time, and wallets that use another transport need none of it.
            from dan_async.transport.http import HttpTransport

            url = HttpTransport(url, options=options)
        else:
            check_transport("url", url)
        self._transport = url

    @classmethod
    async def connect(
        cls,
        url: str | Transport,
        *,
        address: str | None = None,
        interactive: bool = True,
        timeout_s: TimeSpan = _TIMEOUT_S,
        options: TransportOptions | None = None,
    ) -> Self:
        """
        Make a wallet, asking it for its first account (``eth_accounts``) unless the address is given.

        Args:
            url: As for the class.
            address: Which of its accounts signs; None for the first.
            interactive: As for the class.
            timeout_s: As for the class.
            options: As for the class.

        Raises:
            InvalidFieldError: The URL, the address or the timeout is wrong.
            InsecureTransportError: The URL has no TLS and its host is not loopback.
            WalletTimeoutError: It did not answer in time.
            WalletError: It could not be asked, or has no account to offer.
        """
        known = _UNKNOWN if address is None else address
        wallet = cls(url, address=known, interactive=interactive, timeout_s=timeout_s, options=options)
        if address is None:
            try:
                wallet.address = _first(
                    await _call(wallet._transport, "eth_accounts", "[]", wallet._timeout_s)
                )
            except BaseException:
                await wallet.aclose()
                raise
        return wallet

    async def sign_typed_data(self, typed_data: TypedData) -> Hex:
        """
        Ask the wallet to sign; see ``Wallet``.

        Raises:
            WalletRefusedError: Its owner said no (code 4001 or 5000).
            WalletTimeoutError: It did not answer in time.
            WalletSignatureError: Its answer is not text.
            WalletError: It could not be asked, or answered with an error.
            ClientClosedError: The wallet was closed.
            InvalidFieldError: JSON cannot carry the typed data.
        """
        try:
            # The typed data goes as a JSON text within the JSON, as ethers and viem send it, so every wallet takes it.
            text = json.dumps(dict(typed_data), allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError):
            raise InvalidFieldError("typed_data", "holds a value that JSON cannot carry") from None
        params = json.dumps([self.address, text])
        answer = await _call(self._transport, "eth_signTypedData_v4", params, self._timeout_s)
        if not isinstance(answer, str):
            raise WalletSignatureError(
                "the wallet's answer to eth_signTypedData_v4 is not text", phase="wallet"
            )
        return answer

    async def aclose(self) -> None:
        """Close the connection, if the wallet opened it. May be called twice."""
        if self._is_owner:
            await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"JsonRpcWallet(address={self.address!r}, interactive={self.interactive})"


def _first(accounts: Json) -> Address:
    if not isinstance(accounts, list):
        raise WalletError("the wallet's answer to eth_accounts is not a list", phase="wallet")
    if not accounts:
        raise WalletError(
            "the wallet offers no account",
            hint="Unlock one, or allow this application to see it",
            phase="wallet",
        )
    try:
        return parse_address("account", accounts[0])
    except InvalidFieldError:
        raise WalletError("the wallet's answer to eth_accounts holds no address", phase="wallet") from None


async def _call(transport: Transport, method: str, params: str, timeout_s: float) -> Json:
    """Call, and turn errors into the wallet's. ClientClosedError and cancellation pass through."""
    try:
        return await transport.call(method, params, timeout_s=timeout_s)
    except RpcError as error:
        if error.code in _USER_REJECTED:
            raise WalletRefusedError(
                "the wallet's owner declined to sign",
                hint="Nothing was created; ask again when they agree",
                phase="wallet",
            ) from error
        raise WalletError(
            f"the wallet answered {method} with error {error.code}: {error.message[:_LONGEST_MESSAGE]}",
            hint=_HINTS.get(error.code, "Look the code up in the wallet's documentation"),
            phase="wallet",
        ) from error
    except RequestTimeoutError as error:
        raise WalletTimeoutError(
            f"the wallet did not answer {method} within {timeout_s:g} s",
            hint="Look for an open prompt, or give timeout_s more time",
            phase="wallet",
        ) from error
    except (TransportError, ProtocolError) as error:
        raise WalletError(
            f"the wallet could not be asked for {method}: {error.message}",
            hint="Check that it runs and that its URL is right",
            phase="wallet",
        ) from error
