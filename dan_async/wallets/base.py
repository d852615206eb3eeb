"""Who signs for the owner."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dan_async.types import TypedData

__all__ = ["Wallet"]


@runtime_checkable
class Wallet(Protocol):
    """
    Anything that can sign EIP-712 typed data for one address.

    Attributes:
        address: The owner's address.
        interactive: Whether a person sees a prompt. An interactive wallet is asked once, never again behind its
            owner's back, and the time it takes does not count against the job's deadline.
    """

    @property
    def address(self) -> str:
        """Give the owner's address."""
        ...

    @property
    def interactive(self) -> bool:
        """Whether a person sees a prompt."""
        ...

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
        ...
