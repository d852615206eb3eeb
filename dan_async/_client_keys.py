"""The part of DanClient that changes who may use a key: ephemeral keys and passkeys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from dan_async import jobs
from dan_async.auth.base import AuthModule
from dan_async.auth.passkey import PasskeyRegister
from dan_async.config import Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.models.ephemeral_key_change import EphemeralKeyReport
from dan_async.models.request_params import DEFAULT_DURATION_S
from dan_async.models.session import DanModuleInfo
from dan_async.networks.base import Network
from dan_async.types import Clock, KeyAlgorithm
from dan_async.wallets.base import Wallet

__all__ = ["KeyJobs"]

S = TypeVar("S", bound=DanModuleInfo)


class KeyJobs(ABC):
    """
    What a client does with the keys of a session.

    Args:
        timeouts: Limits for the jobs.
        clock: The wall clock.
    """

    def __init__(self, timeouts: Timeouts | None, clock: Clock) -> None:
        self._timeouts = timeouts or Timeouts()
        self._clock = clock

    @abstractmethod
    async def _open(self) -> Network:
        """Give the network, opened."""

    async def register_passkey(self, passkey: PasskeyRegister, *, timeout: float | None = None) -> str:
        """
        Register a passkey with the network, so that it can own keys.

        Args:
            passkey: What to have the browser make.
            timeout: Seconds for the whole call, instead of the client's. The person's time does not count.

        Returns:
            The passkey's credential id, base64url: what ``PasskeyAuth`` takes.

        Raises:
            ConfigurationError: A parameter is wrong, or the network has no passkeys; nothing was sent.
            WalletError: No passkey was made; nothing was registered.
            QuorumError: Too few nodes confirmed.
            DanError: Any other failure, named.
        """
        return await jobs.register_passkey(
            await self._open(), passkey, timeout=timeout, timeouts=self._timeouts
        )

    async def add_ephemeral_key(
        self,
        session: S,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        duration: int = DEFAULT_DURATION_S,
        eph_alg: KeyAlgorithm | None = None,
        ephemeral_key: EphemeralKey | str | None = None,
        eph_id: str | None = None,
        timeout: float | None = None,
    ) -> S:
        """
        Let another ephemeral key use the session's key: rotate or prolong a session without a new address.

        Args:
            session: The session whose key it is.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            duration: How long the new ephemeral key lives: whole seconds, 1 to 31 536 000.
            eph_alg: ``"secp256k1"`` or ``"ed25519"``; the network's usual one if None.
            ephemeral_key: The key to add, as an ``EphemeralKey`` or 64 hex digits; a new one if None.
            eph_id: Its name on the nodes; derived from its public key if None.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The session with the new ephemeral key. The old one goes on working until it expires or is revoked.

        Raises:
            ConfigurationError: A parameter is wrong, or the wallet is not the owner's; nothing was sent.
            WalletError: The owner did not authorise it.
            QuorumError: Fewer than t nodes confirmed.
            DanError: Any other failure, named.
        """
        return await jobs.add_ephemeral_key(
            await self._open(),
            session,
            wallet=wallet,
            auth=auth,
            duration=duration,
            eph_alg=eph_alg,
            ephemeral_key=ephemeral_key,
            eph_id=eph_id,
            timeout=timeout,
            timeouts=self._timeouts,
            clock=self._clock,
        )

    async def revoke_ephemeral_key(
        self,
        session: DanModuleInfo,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        timeout: float | None = None,
    ) -> EphemeralKeyReport:
        """
        Take the use of the session's key from the session's ephemeral key.

        Args:
            session: The session that is to end.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            Which nodes confirmed, and what the others said: call again until all of them have.

        Raises:
            ConfigurationError: A parameter is wrong, or the wallet is not the owner's; nothing was sent.
            WalletError: The owner did not authorise it.
            QuorumError: Fewer than n - t + 1 nodes confirmed, so t could be left that still accept the key.
            DanError: Any other failure, named.
        """
        return await jobs.revoke_ephemeral_key(
            await self._open(),
            session,
            wallet=wallet,
            auth=auth,
            timeout=timeout,
            timeouts=self._timeouts,
            clock=self._clock,
        )
