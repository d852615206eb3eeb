"""A wallet somewhere else, reached through a coroutine function of yours."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError, WalletError
from dan_async.types import Address, Hex, TypedData

__all__ = ["CallbackWallet"]


class CallbackWallet:
    """
    Hands the typed data to a coroutine function and returns what it returns.

    The bridge to a browser behind your web server: send the typed data to the page, have the page call
    ``eth_signTypedData_v4``, and return the signature that it posts back.

    Args:
        address: The owner's address.
        sign: Takes the typed data, returns the signature as 0x hex. To say that the owner declined, it raises
            ``WalletRefusedError``.
        interactive: Whether a person sees a prompt.

    Raises:
        InvalidFieldError: The address is wrong, or *sign* cannot be called.
    """

    __slots__ = ("_sign", "address", "interactive")

    address: Address
    interactive: bool

    def __init__(
        self, address: str, sign: Callable[[TypedData], Awaitable[str]], *, interactive: bool = True
    ) -> None:
        if not callable(sign):
            raise InvalidFieldError("sign", f"must be a coroutine function, not {type(sign).__name__}")
        self.address = parse_address("address", address)
        self.interactive = interactive
        self._sign = sign

    async def sign_typed_data(self, typed_data: TypedData) -> Hex:
        """
        Ask the callback; see ``Wallet``. Its exceptions pass through.

        Raises:
            WalletError: It is not a coroutine function.
        """
        answer = self._sign(typed_data)
        if not inspect.isawaitable(answer):
            raise WalletError(
                f"the wallet callback returned {type(answer).__name__} instead of an awaitable",
                hint="Define it with async def",
                phase="wallet",
            )
        return await answer

    def __repr__(self) -> str:
        return f"CallbackWallet(address={self.address!r}, interactive={self.interactive})"
