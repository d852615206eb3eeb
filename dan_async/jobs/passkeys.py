"""Passkeys as owners: registering one, and what a session key needs to know besides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dan_async._tasks import Deadline
from dan_async.auth.passkey import PasskeyRegister
from dan_async.config import Timeouts
from dan_async.crypto.address import parse_address
from dan_async.errors import (
    DanError,
    InvalidFieldError,
    WalletError,
    WalletTimeoutError,
)
from dan_async.models._fields import check_seconds
from dan_async.models.authentication import AuthMethod
from dan_async.models.request_params import HardcodedValues, SmartAccount
from dan_async.types import Address, TypedData

if TYPE_CHECKING:
    from dan_async.auth.base import AuthModule
    from dan_async.networks.base import Network

__all__ = ["LimitedAuth", "find_address", "register_passkey"]


class LimitedAuth:
    """
    Gives an authorisation the client's limit for a wallet.

    Args:
        auth: The owner.
        timeout_s: Seconds it may take.
    """

    def __init__(self, auth: AuthModule, timeout_s: float) -> None:
        self._auth = auth
        self._timeout_s = timeout_s

    @property
    def method(self) -> AuthMethod:
        """The scheme's name on the wire."""
        return self._auth.method

    @property
    def id(self) -> str:
        """Who authorises."""
        return self._auth.id

    @property
    def interactive(self) -> bool:
        """Whether a person is asked."""
        return self._auth.interactive

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        """
        Have the owner sign.

        Raises:
            WalletTimeoutError: There was no answer in time.
            WalletError: What the owner's own scheme raises.
        """
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                return await self._auth.authorise(challenge=challenge, typed_data=typed_data)
        except TimeoutError as error:
            if isinstance(error, DanError) or not limit.expired():
                raise
            raise WalletTimeoutError(
                f"the owner did not authorise within {self._timeout_s:g} s",
                hint="Look for an open prompt, or allow more time with Timeouts(wallet_s=…)",
                phase="wallet",
            ) from error


async def find_address(
    auth: AuthModule, *, fixed: HardcodedValues, account: SmartAccount | None, timeout_s: float
) -> Address:
    """
    Find out the address under which a session is filed whose owner is not a wallet of the call's.

    A wallet is its own address. A passkey has none: it is the given one, else the smart account's.

    Raises:
        InvalidFieldError: There is none, or *auth* is not an owner.
        WalletError: The account could not tell; its own exception is the cause.
    """
    if auth.method == "eoa":
        return parse_address("auth.id", auth.id)
    if auth.method != "passkey":
        raise InvalidFieldError("auth", "must be an owner: a wallet or a passkey")
    if fixed.eoa_address is not None:
        return parse_address("hardcoded_values: eoa_address", fixed.eoa_address)
    if account is None:
        raise InvalidFieldError(
            "eoa_address",
            "is needed with a passkey, which has no address",
            hint="Give it in hardcoded_values, or a smart_account_client that has one",
        )
    try:
        async with asyncio.timeout(timeout_s):
            found = await account.get_address()
    except DanError:
        raise
    except Exception as error:
        raise WalletError(
            f"smart_account_client.get_address() failed with {type(error).__name__}",
            hint="Its own exception is the cause of this one",
            phase="wallet",
        ) from error
    return parse_address("smart_account_client: address", found)


async def register_passkey(
    network: Network, passkey: PasskeyRegister, *, timeout: float | None, timeouts: Timeouts
) -> str:
    """Run the job over *network*; ``DanClient.register_passkey`` has the full description."""
    if not isinstance(passkey, PasskeyRegister):
        raise InvalidFieldError("passkey", f"must be a PasskeyRegister, not {type(passkey).__name__}")
    total_s = timeouts.total_s if timeout is None else check_seconds("timeout", timeout)
    auth = LimitedAuth(passkey, timeouts.wallet_s)
    deadline = Deadline(total_s)
    async with deadline.enforced("registering the passkey"):
        return await network.register_passkey(auth, deadline=deadline)
