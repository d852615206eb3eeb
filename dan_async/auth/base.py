"""Turns a wallet, a passkey or an ephemeral key into the credentials of one request."""

from __future__ import annotations

from typing import Protocol

from dan_async.models.authentication import AuthMethod
from dan_async.types import TypedData

__all__ = ["AuthModule"]


class AuthModule(Protocol):
    """
    One scheme by which an owner authorises a setup.

    Attributes:
        method: Its name on the wire.
        id: Who authorises: the EOA's address, or the passkey's credential id.
        interactive: Whether a person is asked.
    """

    @property
    def method(self) -> AuthMethod:
        """Give the scheme's name on the wire."""
        ...

    @property
    def id(self) -> str:
        """Tell who authorises."""
        ...

    @property
    def interactive(self) -> bool:
        """Whether a person is asked."""
        ...

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        """
        Have the owner sign, and check the result before anyone sees it.

        Args:
            challenge: 64 hex digits, no 0x: the final challenge.
            typed_data: The EIP-712 form of the request, which contains the challenge.

        Returns:
            The ``signature`` member of the authentication object.

        Raises:
            WalletError: The owner refused, did not answer in time, or signed with another key.
        """
        ...
