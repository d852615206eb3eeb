"""DanClient: owns a network, closes it, calls the jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dan_async import jobs
from dan_async._client_store import StoredJobs
from dan_async._event_hub import check_hook
from dan_async.auth.base import AuthModule
from dan_async.config import Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import ClientClosedError, ConfigurationError, InvalidFieldError
from dan_async.events import Observable, OnEvent
from dan_async.jobs.generate_session_key import OnReport
from dan_async.jobs.message_request import Message
from dan_async.models.request_params import DEFAULT_DURATION_S, HardcodedValues, SmartAccount
from dan_async.models.session import DanModuleInfo, DanSessionKeyPayload
from dan_async.networks.base import Network, NetworkSource
from dan_async.storage.base import SessionStore
from dan_async.types import Clock, Hex, KeyAlgorithm
from dan_async.wallets.base import Wallet

if TYPE_CHECKING:
    from dan_async.userops.sign_user_operation import Operation

__all__ = ["DanClient", "generate_session_key", "sign_message"]

S = TypeVar("S", bound=DanModuleInfo)


class DanClient(StoredJobs):
    """
    A client of one DAN network.

    Making one does no I/O. One client serves any number of concurrent calls on its event loop; share it. Use it as an
    async context manager, or call ``aclose()``: it closes the network it was given.

    Args:
        network: A ``NodeNetwork``, or something that has one to offer, such as a ``Devnet`` (which is started when the
            client is first used, unless it runs already, and stopped with the client if the client started it).
        timeouts: Limits for the jobs; each call can shorten or lengthen the total with *timeout*.
        store: Where sessions are kept (docs/storage.md): the intent before the first byte leaves, the session before it is
            returned. It stays open when the client is closed, since others may use it.
        clock: The wall clock, in Unix seconds; for tests.
        on_event: Told of what happens in the network; see ``dan_async.events``.

    Raises:
        InvalidFieldError: *network* is neither, or *store* is no store; *on_event* is not a plain function, or the network
            tells nothing.

    Example::

        async with DanClient(NodeNetwork(nodes)) as dan:
            session = await dan.generate_session_key(wallet=LocalWallet(key), chain_id=80002)
    """

    def __init__(
        self,
        network: Network | NetworkSource,
        *,
        timeouts: Timeouts | None = None,
        store: SessionStore | None = None,
        clock: Clock = time.time,
        on_event: OnEvent | None = None,
    ) -> None:
        super().__init__(store, timeouts, clock)
        self._source = network if isinstance(network, NetworkSource) else None
        self._network = network if isinstance(network, Network) else None
        if self._source is None and self._network is None:
            raise InvalidFieldError(
                "network", "must be a network", hint="For example NodeNetwork([...]) or Devnet()"
            )
        self._on_event = on_event
        if on_event is not None:
            check_hook(on_event)
            if self._network is not None:
                _observe(self._network, on_event)
        self._opening = asyncio.Lock()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def network(self) -> Network:
        """
        The network, for its ``health()``.

        Raises:
            ConfigurationError: The client has not been opened yet, and its network comes from a source.
        """
        if self._network is None:
            raise ConfigurationError(
                "the client is not open yet", hint="Use it in 'async with DanClient(...)'"
            )
        return self._network

    async def _open(self) -> Network:
        if self._is_closed:
            raise ClientClosedError("the client was closed", hint="Make a new DanClient")
        if self._network is None and self._source is not None:
            async with self._opening:
                if self._network is None:
                    network = await self._source.open_network()
                    if self._on_event is not None:
                        _observe(network, self._on_event)
                    self._network = network
        return self.network

    async def aclose(self) -> None:
        """Close the network, and stop what the client started. Calls under way fail. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        async with self._opening:
            try:
                if self._network is not None:
                    await self._network.aclose()
            finally:
                if self._source is not None:
                    await self._source.close_network()

    async def generate_session_key(
        self,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        smart_account_client: SmartAccount | None = None,
        browser_wallet: Wallet | None = None,
        hardcoded_values: Mapping[str, Any] | HardcodedValues | None = None,
        duration: int = DEFAULT_DURATION_S,
        chain_id: int | None = None,
        threshold: int | None = None,
        parties_number: int | None = None,
        min_parties: int | None = None,
        permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
        key_label: str | None = None,
        eph_alg: KeyAlgorithm | None = None,
        ephemeral_key: EphemeralKey | str | None = None,
        eph_id: str | None = None,
        timeout: float | None = None,
        allow_resign: bool = False,
        on_report: OnReport | None = None,
        reference: str | None = None,
    ) -> DanSessionKeyPayload:
        """
        Make a session key: t of n nodes generate a key that none of them holds.

        It is bound to an ephemeral key, which the owner authorises with one signature.

        Args:
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth`` (docs/passkeys.md). A passkey has no address, so the
                payload's is *eoa_address* of *hardcoded_values*, else the smart account's.
            smart_account_client: A smart account, whose signer is the owner's wallet unless another is given.
            browser_wallet: The seed's name for a wallet that is asked instead of the account's signer.
            hardcoded_values: Any of eoa_address, hex_eph_sk_without_0x, threshold, parties_number, chain_id, under these
                names or the seed's; a value that is also given directly must be the same.
            duration: How long the ephemeral key lives: whole seconds, 1 to 31 536 000 (365 days).
            chain_id: The chain; else the account's, else the one in a bundler URL …/api/v2/<chain id>/… or …/api/v3/….
            threshold: t, how many nodes must sign; the network's default if None (3-of-5 if it has none).
            parties_number: n, how many nodes hold a share: 2 <= t <= n <= 20.
            min_parties: The smallest n to accept if nodes are missing; *parties_number* if None.
            permissions: What the session may sign: JSON text, kept as it is, or an object. None for no limits.
            key_label: A label for the network to keep with the key.
            eph_alg: ``"secp256k1"`` or ``"ed25519"``; the network's usual one if None.
            ephemeral_key: An ``EphemeralKey``, or its 64 hex digits, to use instead of a new one.
            eph_id: The name of the ephemeral key on the nodes; derived from its public key if None.
            timeout: Seconds for the whole call, instead of the client's. An interactive wallet's time does not count.
            allow_resign: Whether an interactive wallet may be asked to sign again when key generation failed after the first
                signature and is started again without the nodes at fault. Wallets that nobody looks at always may.
            on_report: Called with the ``KeygenReport`` before the payload is returned: who acknowledged and holds a share,
                who failed and why, attempts and timings.
            reference: Your own name for the session in the client's store, unique there.

        Returns:
            The payload. It holds the ephemeral private key: treat it as a secret.

        Raises:
            ConfigurationError: A parameter is wrong or missing; it is named, and nothing was sent.
            WalletError: The wallet refused, did not answer in time, or signed with another address.
            QuorumError: Fewer than t nodes agree on a key; it has every node's outcome.
            DeadlineExceededError: The time ran out.
            StoreError: The store failed: before the first byte, or when the key was made (``recover()`` finds it then).
            ClientClosedError: The client was closed.
            DanError: Any other failure, named; see docs/errors.md.
        """
        return await jobs.generate_session_key(
            await self._open(),
            wallet=wallet,
            auth=auth,
            smart_account_client=smart_account_client,
            browser_wallet=browser_wallet,
            hardcoded_values=hardcoded_values,
            duration=duration,
            chain_id=chain_id,
            threshold=threshold,
            parties_number=parties_number,
            min_parties=min_parties,
            permissions=permissions,
            key_label=key_label,
            eph_alg=eph_alg,
            ephemeral_key=ephemeral_key,
            eph_id=eph_id,
            timeout=timeout,
            allow_resign=allow_resign,
            on_report=on_report,
            reference=reference,
            keeper=self._keeper,
            timeouts=self._timeouts,
            clock=self._clock,
        )

    async def sign_message(
        self,
        message: Message,
        session: DanModuleInfo | Mapping[str, Any],
        *,
        request_type: str | None = None,
        timeout: float | None = None,
    ) -> Hex:
        """
        Have t of the nodes sign a message with the session's key; the ephemeral key alone authorises it.

        Args:
            message: Text or bytes, signed as a personal message (EIP-191); typed data (EIP-712) as a mapping; or a user
                operation, as a mapping of userOperation, entryPointVersion, entryPointAddress and chainId.
            session: The session, as a payload, a ``DanModuleInfo`` or the seed's dict; its seven fields are enough.
            request_type: ``"EIP191"``, ``"EIP712"``, ``"accountAbstractionTx"``, or ``"rawBytes"`` for a digest of 32
                bytes (or their hex), which is signed as it is. Told by the message's form if None.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            ``0x`` and 130 hex digits: r, s (low) and v (27 or 28). It was checked that it recovers to the session's address.

        Raises:
            ConfigurationError: A parameter is wrong, or the network's protocol cannot carry it; nothing was sent.
            SessionExpiredError: The session's expiry has passed; nothing was sent.
            EphemeralKeyRefusedError: The nodes do not know the ephemeral key, or it was revoked or has expired.
            NotPermittedError: The session's permissions do not allow the message.
            SignatureCheckError: What the network gave does not recover to the session's address.
            QuorumError: No t nodes signed, for other reasons; it has what each node said.
            GatewayError: The gateway did not do it.
            DeadlineExceededError: The time ran out.
            DanError: Any other failure, named; see docs/errors.md.
        """
        return await jobs.sign_message(
            await self._open(),
            message,
            session,
            request_type=request_type,
            timeout=timeout,
            timeouts=self._timeouts,
            clock=self._clock,
        )

    async def sign_user_operation(
        self,
        user_op: Operation,
        session: DanModuleInfo | Mapping[str, Any],
        *,
        entry_point: str | None = None,
        chain_id: int | None = None,
        permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
        timeout: float | None = None,
    ) -> Operation:
        """
        Have t of the nodes sign a user operation of ERC-4337; see ``dan_async.userops.sign_user_operation``.

        Args:
            user_op: The operation, complete but for its signature.
            session: The session, as a payload, a ``DanModuleInfo`` or the seed's dict.
            entry_point: The entry point's address; the well-known one of the operation's version if None.
            chain_id: The chain; the session's if None.
            permissions: The session's permissions, to be told before anything is sent what the nodes will not sign.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The operation with its signature.

        Raises:
            InvalidFieldError: An argument is wrong, or the chain is not known or not the session's; nothing was sent.
            PermissionDeniedError: The *permissions* given do not allow it; nothing was sent.
            DanError: What ``sign_message`` raises.
        """
        # Imported here: who signs no operations does not pay for what reads them.
        from dan_async.userops.sign_user_operation import sign_user_operation

        return await sign_user_operation(
            user_op,
            session,
            client=self,
            entry_point=entry_point,
            chain_id=chain_id,
            permissions=permissions,
            clock=self._clock,
            timeout=timeout,
        )


def _observe(network: Network, on_event: OnEvent) -> None:
    if not isinstance(network, Observable):
        raise InvalidFieldError(
            "on_event", f"cannot be used with {type(network).__name__}", hint="It has no observe() method"
        )
    network.observe(on_event)


async def generate_session_key(
    *, smart_account_client: SmartAccount, client: DanClient, **parameters: Any
) -> DanSessionKeyPayload:
    """
    Make a session key for a smart account: the seed's own shape.

    Args:
        smart_account_client: The account; its signer is asked to sign unless *browser_wallet* is given.
        client: An open client.
        **parameters: Any other parameter of ``DanClient.generate_session_key``, under the same name.

    Returns:
        The payload; see ``DanClient.generate_session_key``, also for what it raises.
    """
    if not isinstance(client, DanClient):
        raise InvalidFieldError("client", f"must be a DanClient, not {type(client).__name__}")
    return await client.generate_session_key(smart_account_client=smart_account_client, **parameters)


async def sign_message(
    message: Message, session: DanModuleInfo | Mapping[str, Any], *, client: DanClient, **parameters: Any
) -> Hex:
    """
    Sign a message with a session's key: the shape of the seed's sibling, ``signMessage(message, danModuleInfo)``.

    Args:
        message: What to sign.
        session: The session.
        client: An open client.
        **parameters: Any other parameter of ``DanClient.sign_message``, under the same name.

    Returns:
        The signature; see ``DanClient.sign_message``, also for what it raises.
    """
    if not isinstance(client, DanClient):
        raise InvalidFieldError("client", f"must be a DanClient, not {type(client).__name__}")
    return await client.sign_message(message, session, **parameters)
