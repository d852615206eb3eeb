"""The owner's wallet: the interface, one that is a callback, and authorisation by its EIP-712 signature."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, runtime_checkable

from dan_async._values import check_bool, check_instance, check_seconds, to_hex
from dan_async.crypto.address import parse_address
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.signature import read_signature
from dan_async.errors import (
    DanError,
    InvalidFieldError,
    WalletError,
    WalletSignatureError,
    WalletTimeoutError,
    WrongSignerError,
)
from dan_async.protocols.setups import AuthMethod
from dan_async.types import Address, Hex, TimeSpan, TypedData
from dan_async.wallets.local_key import LocalWallet

T = TypeVar("T")


@runtime_checkable
class Wallet(Protocol):
    """Anything that can sign EIP-712 typed data for one address."""

    @property
    def address(self) -> str:
        """The owner's address."""

    @property
    def interactive(self) -> bool:
        """
        Whether a person sees a prompt.

        An interactive wallet is asked once, never again behind its owner's back, and the time it takes does not count
        against the job's deadline.
        """

    async def sign_typed_data(self, typed_data: TypedData) -> str:
        """
        Sign EIP-712 typed data (``eth_signTypedData_v4``).

        Args:
            typed_data: types (EIP712Domain spelled out), primaryType, domain and message.

        Returns:
            ``0x`` and 65 bytes r, s, v in hex.

        Raises:
            WalletRefusedError: The wallet or its owner said no.
        """


class CallbackWallet:
    """
    Hands the typed data to a coroutine function and returns its result.

    The bridge to a browser behind your web server: send the typed data to the page, have the page call
    ``eth_signTypedData_v4``, and return the signature that it posts back.

    Args:
        address: The owner's address.
        sign: Takes the typed data, returns the signature as 0x hex. If the owner declined, it raises
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
        self.interactive = check_bool("interactive", interactive)
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


class EoaAuth:
    """Has the owner's wallet sign, and accepts nothing but the owner's signature over exactly the data that was sent."""

    __slots__ = ("_local", "_timeout_s", "_wallet", "id")

    id: Address
    #: The scheme's name on the wire.
    method: AuthMethod = "eoa"

    def __init__(self, wallet: Wallet, *, timeout_s: TimeSpan | None = None) -> None:
        self.id = parse_address("wallet.address", wallet.address)
        self._wallet = wallet
        # It would hash the same data a second time. A class derived from it may do something else altogether.
        self._local = wallet if type(wallet) is LocalWallet else None
        self._timeout_s = None if timeout_s is None else check_seconds("timeout_s", timeout_s)

    @property
    def interactive(self) -> bool:
        """Whether a person sees a prompt."""
        return self._wallet.interactive

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> Hex:  # noqa: ARG002 - in the typed data already
        """
        Have the wallet sign the typed data and check that the owner did.

        The data is hashed first, so that a wallet never sees malformed data. It holds the challenge, which is not looked at.
        """
        digest = typed_data_digest(typed_data)
        if self._local is not None:
            signature, signer = read_signature(digest, self._local.sign_digest(digest))
        else:
            answer = await ask_owner(lambda: self._wallet.sign_typed_data(typed_data), self._timeout_s)
            signature, signer = _read(answer, digest)
        refuse_other_signer(signer, self.id)
        return to_hex(signature)

    def __repr__(self) -> str:
        return f"EoaAuth(id={self.id!r}, interactive={self.interactive})"


async def ask_owner(
    ask: Callable[[], Awaitable[T]],
    timeout_s: float | None,
    *,
    unanswered: str = "the wallet did not sign",
    failed: str = "the wallet failed",
    prompt: str = "an open prompt",
) -> T:
    """Ask a wallet or a page, which may wait for a person, and turn its failures into our errors."""
    try:
        async with asyncio.timeout(timeout_s):
            return await ask()
    except DanError:
        raise
    except TimeoutError as error:
        limit = "" if timeout_s is None else f" within {timeout_s:g} s"
        raise WalletTimeoutError(
            f"{unanswered}{limit}", hint=f"Look for {prompt}, or allow more time", phase="wallet"
        ) from error
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
            raise  # of the caller; else of what the wallet waited for, as when its page went away
        # Its text is left out of ours: it may hold what should not be logged.
        raise WalletError(
            f"{failed} with {type(error).__name__}",
            hint="Its own exception is the cause of this one",
            phase="wallet",
        ) from error


def refuse_other_signer(signer: Address, owner: Address) -> None:
    """Refuse a signature that is not the owner's."""
    if signer != owner:
        raise WrongSignerError(
            f"the wallet signed as {signer}, not as the owner {owner}",
            hint="Select the owner's account in the wallet; if it is selected, the wallet signed other data than asked",
            phase="wallet",
        )


def _read(answer: object, digest: bytes) -> tuple[bytes, Address]:
    """Return the signature in its one form, and its signer."""
    try:
        return read_signature(digest, check_instance("signature", answer, str, "hex text"))
    except InvalidFieldError as error:
        raise WalletSignatureError(
            f"the wallet's answer is not a signature: it {error.problem}",
            hint="Only externally owned accounts can authorise: 65 bytes r, s, v as 0x hex",
            phase="wallet",
        ) from error
