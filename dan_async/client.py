"""DanClient: owns a network, closes it, calls the jobs."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack

from dan_async import jobs
from dan_async._values import (
    check_bool,
    check_instance,
    check_number,
    check_seconds,
    check_text,
    duration_s,
    setting,
)
from dan_async.config import Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline, OneLoop, carry_through
from dan_async.errors import (
    ClientClosedError,
    ConfigurationError,
    InvalidFieldError,
    OverloadedError,
)
from dan_async.jobs.generate_session_key import run_prepared
from dan_async.jobs.keeping import SessionKeeper, describe_problem
from dan_async.jobs.pending_keys import PendingSessionKey, PendingSessionKeys
from dan_async.jobs.recover import RecoveryReport, make_once
from dan_async.jobs.sign_message import Message
from dan_async.listeners import check_listener
from dan_async.live_session import LiveSession
from dan_async.network import AuthModule, EphemeralKeyReport, Network, NetworkSource, network_time
from dan_async.request import (
    DEFAULT_DURATION_S,
    HardcodedValues,
    OnReport,
    SessionKeyParameters,
    SessionKeyRequest,
    SmartAccount,
    choose_auth,
    prepare,
    read_request,
)
from dan_async.session import DanModuleInfo, DanSessionKeyPayload, session_of
from dan_async.turns import Turns
from dan_async.types import Clock, Hex, KeyAlgorithm, RequestId, TimeSpan
from dan_async.wallets.base import Wallet
from dan_async.wallets.passkey import PasskeyRegister

if TYPE_CHECKING:
    from dan_async.batch import BatchRun, Made, SigningRun
    from dan_async.events import OnEvent
    from dan_async.storage.base import SessionStore, StoredSession
    from dan_async.userops.sign_user_operation import Operation

__all__ = ["DanClient", "generate_session_key", "sign_message"]

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=DanModuleInfo)


class DanClient:
    """
    A client of one DAN network.

    Making one does no I/O. One client serves any number of concurrent calls on its event loop; share it. Use it as an
    async context manager, or call ``aclose()``: it closes the network it was given.

    Any of its jobs may raise, besides what its own entry names: ``ConfigurationError`` (a parameter is wrong, and named;
    nothing was sent), ``WalletError`` (the owner did not authorise it), ``QuorumError`` (too few nodes agree; it has every
    node's outcome), ``GatewayError``, ``DeadlineExceededError``, ``StoreError``, ``ClientClosedError``, and any other
    ``DanError``; see docs/reference/errors.md.

    Args:
        network: A ``NodeNetwork`` or a ``GatewayNetwork``, or a source of one such as a ``Devnet`` (which is started on
            first use, unless it already runs, and stopped with the client if the client started it).
        timeouts: Limits for the jobs; each call can shorten or lengthen the total with *timeout*.
        store: Where sessions are kept (docs/how-to/storage.md): the intent before the first byte leaves, the session before
            it is returned. It stays open when the client is closed, since others may use it.
        clock: The wall clock, in Unix seconds; for tests.
        on_event: Called with each event of the network; see ``dan_async.events``.
        max_pending: How many session keys that were begun here may wait for their owners at a time, 1 to 1 000 000.

    Raises:
        InvalidFieldError: *network* is neither, or *store* is no store; *on_event* is not a plain function, or the network
            has no events; *max_pending* is out of range.

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
        max_pending: int = 1000,
    ) -> None:
        if store is not None:
            from dan_async.storage.base import SessionStore

            if not isinstance(store, SessionStore):
                raise InvalidFieldError("store", f"must be a session store, not {type(store).__name__}")
        self._keeper = None if store is None else SessionKeeper(store, clock)
        self._timeouts = setting("timeouts", timeouts, Timeouts)
        self._clock = clock
        self._source = network if isinstance(network, NetworkSource) else None
        self._network = network if isinstance(network, Network) else None
        if (self._source is None and self._network is None) or isinstance(network, type):
            raise InvalidFieldError(
                "network",
                "must be a network",
                hint="For example NodeNetwork([...]) or Devnet(); DanClient.connect() takes a URL, a file or a name",
            )
        self._pending = PendingSessionKeys(
            self._keeper, most=max_pending, timeouts=self._timeouts, clock=clock
        )
        self._on_event = on_event
        if on_event is not None:
            check_listener(on_event)
            if self._network is not None:
                _observe(self._network, on_event)
        self._opening = asyncio.Lock()
        self._loop = OneLoop("client")
        self._turns: Turns | None = None  # of that loop
        self._ends = Deadline.limits()
        self._is_closed = False

    def __repr__(self) -> str:
        shown = self._source if self._network is None else self._network
        store = "" if self._keeper is None else f", store={self._keeper.store!r}"
        return f"DanClient({shown!r}{store}{', closed' * self._is_closed})"

    def __del__(self) -> None:
        if getattr(self, "_is_closed", True) or self._network is None or (loop := self._loop.loop) is None:
            return  # it holds nothing, or was never used
        # As aiohttp does it: Python shows a ResourceWarning only if asked to.
        text = "was not closed: use it in 'async with', or await its aclose()"
        warnings.warn(f"{self!r} {text}", ResourceWarning, stacklevel=2, source=self)
        loop.call_exception_handler({"message": f"A DanClient {text}", "client": self})

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DanClient is neither pickled nor copied: make one in each process")

    @classmethod
    def connect(
        cls,
        where: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        store: SessionStore | None = None,
        on_event: OnEvent | None = None,
    ) -> Self:
        """
        Return a client of the network that *where* names. Nothing is opened yet.

        Args:
            where: ``devnet://2-of-3`` for a devnet of the client's own; a network file (``./nodes.toml``) or the name of one
                in the user's configuration folder; a gateway's URL (``wss://gateway.example/v1``); or nodes as
                ``URL=OPERATOR``, separated by spaces. None for the environment variable ``DAN_ASYNC_NETWORK``.
            timeouts: As for the client.
            store: As for the client.
            on_event: As for the client.

        Raises:
            ConfigurationError: The text names no network, or its file cannot be used; see ``NetworkFile.read``.
            InsecureTransportError: A URL has no TLS and its host is not loopback.

        Example::

            async with DanClient.connect("devnet://2-of-3") as dan:
                session = await dan.generate_session_key(wallet=LocalWallet(key), chain_id=80002)
        """
        from dan_async.opening import open_network

        return cls(open_network(where, timeouts=timeouts), timeouts=timeouts, store=store, on_event=on_event)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
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

    @property
    def store(self) -> SessionStore:
        """
        The store that the client was given.

        Raises:
            ConfigurationError: It was given none.
        """
        return self._kept().store

    def _kept(self) -> SessionKeeper:
        if self._keeper is None:
            raise ConfigurationError("the client has no store", hint="DanClient(..., store=...)")
        return self._keeper

    def _opened(self) -> Network | None:
        """Return the network if it is known already, without the turn that a coroutine would take."""
        if self._is_closed:
            raise ClientClosedError("the client was closed", hint="Make a new DanClient")
        self._loop.check()
        return self._network

    async def _open(self) -> Network:
        if (network := self._opened()) is not None:
            return network
        async with self._opening:
            if self._network is None and self._source is not None:
                network = await self._source.open_network()
                if self._on_event is not None:
                    _observe(network, self._on_event)
                self._network = network
        return self.network

    async def _begin(self, timeout: TimeSpan | None) -> tuple[Network, Deadline]:
        """
        Open the network, and wait for a new call's turn on the event loop. Its deadline begins before.

        Thousands of calls may begin in one turn of the loop: nothing is done or made before the wait that can come after.
        """
        network = self._opened() or await self._open()
        began = time.monotonic()
        limit_s = self._timeouts.total_s if timeout is None else check_seconds("timeout", timeout)
        turns = self._turns
        if turns is None:
            turns = self._turns = Turns.of_running_loop()
        if not turns.may_begin() and not await turns.begin_later(limit_s):
            raise OverloadedError(
                f"the deadline of {limit_s:g} s ran out before this call's turn came; {turns.waiting} other calls"
                " are waiting to begin",
                waiting=turns.waiting,
                hint="Nothing was sent. Begin fewer calls at once, or give them a longer timeout",
            )
        return network, Deadline(limit_s, began=began, limits=self._ends)

    async def aclose(self) -> None:
        """
        Close the network, and stop it if the client started it. Calls under way fail.

        May be called twice. It is carried through even if cancelled meanwhile.
        """
        if not self._is_closed:
            self._loop.check()
        self._is_closed = True
        async with self._opening:  # also the second time: the first may have been cancelled here
            await carry_through(self._close())

    async def _close(self) -> None:
        try:
            await self._pending.aclose()
            if self._network is not None:
                await self._network.aclose()
        finally:
            if self._source is not None and self._network is not None:  # else it opened nothing
                source, self._source = self._source, None
                await source.close_network()

    async def generate_session_key(
        self,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        smart_account_client: SmartAccount | None = None,
        browser_wallet: Wallet | None = None,
        hardcoded_values: Mapping[str, Any] | HardcodedValues | None = None,
        duration: int | timedelta = DEFAULT_DURATION_S,
        chain_id: int | None = None,
        threshold: int | None = None,
        parties_number: int | None = None,
        min_parties: int | None = None,
        min_holders: int | None = None,
        permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
        key_label: str | None = None,
        eph_alg: KeyAlgorithm | None = None,
        ephemeral_key: EphemeralKey | str | None = None,
        eph_id: str | None = None,
        timeout: TimeSpan | None = None,
        allow_resign: bool = False,
        on_report: OnReport | None = None,
        reference: str | None = None,
    ) -> DanSessionKeyPayload:
        """
        Make a session key: t of n nodes generate a key that none of them holds.

        It is bound to an ephemeral key, which the owner authorises with one signature.

        Args:
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth`` (docs/how-to/passkeys.md). A passkey has no address, so
                the payload's is *eoa_address* of *hardcoded_values*, else the smart account's.
            smart_account_client: A smart account, whose signer is the owner's wallet unless another is given.
            browser_wallet: A wallet that is asked instead of the account's signer; TypeScript's *browserWallet*.
            hardcoded_values: Any of eoa_address, hex_eph_sk_without_0x, threshold, parties_number, chain_id, under these
                names or in camelCase; a value that is also given directly must be the same.
            duration: How long the ephemeral key lives: whole seconds, 1 to 31 536 000 (365 days), also as a ``timedelta``.
            chain_id: The chain; else the account's, else the one in a bundler URL …/api/v2/<chain id>/… or …/api/v3/….
            threshold: t, how many nodes must sign; if None the network's default, or a majority of another *parties_number*.
            parties_number: n, how many nodes hold a share: 2 <= t <= n <= 20.
            min_parties: The smallest n to accept if nodes are missing; *parties_number* if None.
            min_holders: How many nodes must acknowledge that they hold a share before the payload is returned, t to n; t if
                None. Not available through a gateway.
            permissions: The limits of what the session may sign: JSON text, kept as it is, or an object. None for no limits.
            key_label: A label for the network to keep with the key.
            eph_alg: ``"secp256k1"`` or ``"ed25519"``; the network's usual one if None.
            ephemeral_key: An ``EphemeralKey``, or its 64 hex digits, to use instead of a new one.
            eph_id: The name of the ephemeral key on the nodes; derived from its public key if None.
            timeout: Seconds for the whole call, instead of the client's. An interactive wallet's time does not count.
            allow_resign: Whether an interactive wallet may be asked to sign again when key generation failed after the first
                signature and is started again without the nodes at fault. A wallet that is not interactive always may.
            on_report: Called with the ``KeygenReport`` before the payload is returned: the nodes that acknowledged and hold
                a share, those that failed and why, attempts and timings.
            reference: Your own name for the session in the client's store, unique there.

        Returns:
            The payload. It holds the ephemeral private key: treat it as a secret.

        Raises:
            ConfigurationError: A parameter is wrong or missing; it is named, and nothing was sent.
            WalletError: The wallet refused, did not answer in time, or signed with another address.
            QuorumError: Fewer than t nodes, or *min_holders*, agree on a key; it has every node's outcome.
            StoreError: The store failed: before the first byte, or when the key was made (``recover()`` finds it then).
            DanError: As for any job.
        """
        # Of several wrong values the request names the first: it is the one to refuse a wrong timeout.
        network, deadline = await self._begin(None if timeout is None else _time_span(timeout))
        request = SessionKeyRequest(
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
            min_holders=min_holders,
            permissions=permissions,
            key_label=key_label,
            eph_alg=eph_alg,
            ephemeral_key=ephemeral_key,
            eph_id=eph_id,
            timeout=timeout,
            allow_resign=allow_resign,
            on_report=on_report,
            reference=reference,
        )
        return await self._generate(network, request, deadline)

    def _generate(
        self,
        network: Network,
        request: SessionKeyRequest,
        deadline: Deadline | None = None,
        *,
        in_batch: bool = False,
    ) -> Awaitable[DanSessionKeyPayload]:
        return jobs.generate_session_key(
            network,
            request,
            keeper=self._keeper,
            timeouts=self._timeouts,
            clock=self._clock,
            deadline=deadline,
            in_batch=in_batch,
        )

    async def begin_session_key(
        self, *, owner: str, **parameters: Unpack[SessionKeyParameters]
    ) -> PendingSessionKey:
        """
        Begin a session key whose owner signs elsewhere: ask the nodes for a challenge, and return what is to be signed.

        ``complete_session_key`` goes on when the signature is there; see docs/how-to/web-servers.md. Over nodes, what is
        begun waits for as long as their nonces live (5 minutes on the devnet), and with a *store* any process of the same
        nodes and store can complete it, this one restarted among them. Over a gateway it waits with its connection, in this
        process, for ``Timeouts.wallet_s`` or until the gateway hangs up.

        Args:
            owner: The address that will sign: an externally owned account's, as for ``generate_session_key``.
            **parameters: Parameters of ``generate_session_key`` under the same names, except wallets, *auth*,
                *allow_resign* and *on_report*.

        Returns:
            The id, the typed data for the wallet, and until when it waits; ``to_json()`` is for a page.

        Raises:
            OverloadedError: *max_pending* are waiting; nothing was sent.
            DanError: As for any job; nothing was made.

        Example::

            pending = await dan.begin_session_key(owner=address, chain_id=80002)
            signature = await ask_the_page(pending.to_json())
            session = await dan.complete_session_key(pending.id, signature)
        """
        network, _ = await self._begin(parameters.get("timeout"))
        return await self._pending.begin(network, owner, parameters)

    async def complete_session_key(
        self,
        pending_id: str,
        signature: str | bytes,
        *,
        timeout: TimeSpan | None = None,
        on_report: OnReport | None = None,
    ) -> DanSessionKeyPayload:
        """
        Make the session key that ``begin_session_key`` has begun.

        At most one key is made, however often and wherever this is called: a second call with the owner's signature returns
        the same session. After an error other than ``PendingNotFoundError`` it may be called again.

        Args:
            pending_id: ``PendingSessionKey.id``.
            signature: The owner's signature over the typed data: 65 bytes r, s, v, or their hex.
            timeout: Seconds for the whole call, instead of the client's.
            on_report: As for ``generate_session_key``; not called if the session was there already.

        Returns:
            The payload. It holds the ephemeral private key: treat it as a secret.

        Raises:
            PendingNotFoundError: No session key with this id waits: unknown, cancelled, too late, or begun elsewhere.
            WalletSignatureError: It is not a signature; the session key goes on waiting.
            WrongSignerError: It is not the owner's, or not over this typed data; the session key goes on waiting.
            SessionPendingError: Another process is still working on it; call again.
            DanError: Any error of ``generate_session_key``. With a store, ``recover()`` settles what it leaves.
        """
        network, deadline = await self._begin(timeout)
        return await self._pending.complete(
            network,
            pending_id,
            signature,
            timeout_s=deadline.timeout_s or self._timeouts.total_s,
            on_report=on_report,
        )

    async def cancel_session_key(self, pending_id: str) -> bool:
        """
        Cancel what ``begin_session_key`` has begun, unless its owner has signed.

        Args:
            pending_id: ``PendingSessionKey.id``.

        Returns:
            Whether it was still waiting. If not, nothing has changed.
        """
        await self._open()
        return await self._pending.cancel(pending_id)

    def generate_session_keys(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = 16,
        rate_limit: float | None = None,
        resume: bool = False,
        retry_failed: bool = False,
        **parameters: Any,
    ) -> BatchRun:
        """
        Make many session keys, several at a time, and return each as soon as it is made.

        One failure is one result; the others go on. See ``BatchRun`` for how it is iterated over and closed. Nodes that
        offer it make up to 16 keys with the same participants in one session of theirs, in several times fewer steps.

        Args:
            requests: Anything to iterate over, sync or async. Each request is a mapping with parameters of
                ``generate_session_key``, a ``SessionKeyRequest`` or a ``DanSessionKeyRequestParams``. Read one by one,
                never further ahead than *concurrency* beyond the results that were taken.
            concurrency: How many to work on at a time, 1 to 100 000.
            rate_limit: How many to begin per second at most; None for no limit.
            resume: Whether each request has a *reference* under which its session is made once, however often the batch
                is interrupted and started again. Needs a store.
            retry_failed: With *resume*: whether to try requests again that have failed before.
            **parameters: Parameters of ``generate_session_key`` for all requests; a request's own take precedence, and a
                ``SessionKeyRequest`` has all of them.

        Returns:
            The results, as an async iterator of ``ItemResult``. Nothing is begun before the first one is asked for.

        Raises:
            ConfigurationError: A parameter is wrong.
        """
        keeper = self._kept() if resume else None
        if retry_failed and not resume:
            raise InvalidFieldError("retry_failed", "needs resume=True")
        read_request(parameters, {})  # an unknown name is an error at once

        async def work(given: Any) -> Made:
            reference, make_request = read_request(given, parameters)
            if keeper is not None and not isinstance(reference, str):
                raise InvalidFieldError("reference", "is needed to resume a batch")
            network = await self._open()
            await Turns.of_running_loop().begin(None)  # an item's time begins with its turn
            if keeper is None or not isinstance(reference, str):
                return "made", await self._generate(network, make_request(), in_batch=True)
            return await make_once(
                network,
                keeper,
                reference,
                lambda: self._generate(network, make_request(), in_batch=True),
                retry_failed=retry_failed,
                settle_s=self._timeouts.attempt_s,
            )

        # Imported here, as below: not every program has that much to do.
        from dan_async.batch import BatchRun

        return BatchRun(requests, work, concurrency=concurrency, rate_limit=rate_limit)

    async def sign_message(
        self,
        message: Message,
        session: DanModuleInfo | Mapping[str, Any],
        *,
        request_type: str | None = None,
        chain_id: int | None = None,
        entry_point: str | None = None,
        timeout: TimeSpan | None = None,
    ) -> Hex:
        """
        Have t of the nodes sign a message with the session's key; the ephemeral key alone authorises it.

        Args:
            message: Text or bytes, signed as a personal message (EIP-191); typed data (EIP-712) as a mapping; or a user
                operation, as a mapping of userOperation, entryPointVersion, entryPointAddress and chainId.
            session: The session, as a payload, a ``DanModuleInfo`` or its JSON as a dict; the seven fields are enough.
            request_type: ``"EIP191"``, ``"EIP712"``, ``"accountAbstractionTx"``, or ``"rawBytes"`` for a digest of 32
                bytes (or their hex), which is signed as it is. Recognised by the message's form if None.
            chain_id: The chain that typed data or a user operation may be for, instead of the session's. 0 allows typed
                data whose domain has the chain 0, which some contracts take for any.
            entry_point: The address of an entry point that is not the well-known one of the user operation's version.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            ``0x`` and 130 hex digits: r, s (low) and v (27 or 28). It was checked that it recovers to the session's address.

        Raises:
            ConfigurationError: A parameter is wrong, or the message is for another chain or entry point, or the network's
                protocol cannot carry it; nothing was sent.
            SessionExpiredError: The session's expiry has passed; nothing was sent.
            EphemeralKeyRefusedError: The nodes do not know the ephemeral key, or it was revoked or has expired.
            NotPermittedError: The session's permissions do not allow the message.
            SignatureCheckError: The network's signature does not recover to the session's address.
            DanError: As for any job.
        """
        network, deadline = await self._begin(timeout)
        return await jobs.sign_message(
            network,
            message,
            session,
            request_type=request_type,
            chain_id=chain_id,
            entry_point=entry_point,
            clock=self._clock,
            deadline=deadline,
        )

    def sign_many(
        self,
        messages: Iterable[Message] | AsyncIterable[Message],
        session: DanModuleInfo | Mapping[str, Any] | Callable[[], DanModuleInfo],
        *,
        concurrency: int = 16,
        rate_limit: float | None = None,
        **parameters: Any,
    ) -> SigningRun:
        """
        Have many messages signed, several at a time, and return each signature as soon as it is ready.

        One failure is one result; the others go on. See ``BatchRun`` for how it is iterated over and closed.

        Args:
            messages: Anything to iterate over, sync or async; each is a message as ``sign_message`` takes it.
            session: The session, or a function that returns the current one.
            concurrency: How many to work on at a time, 1 to 100 000.
            rate_limit: How many to begin per second at most; None for no limit.
            **parameters: Any other parameter of ``sign_message``, for all messages.

        Returns:
            The results, as an async iterator of ``SigningResult``. Nothing is begun before the first one is asked for.
        """
        current = session if callable(session) else partial(session_of, session_of(session))

        def work(message: Message) -> Awaitable[Hex]:
            return self.sign_message(message, current(), **parameters)

        from dan_async.batch import SigningRun

        return SigningRun(messages, work, concurrency=concurrency, rate_limit=rate_limit)

    def keep_alive(
        self,
        session: DanModuleInfo,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        duration: int | timedelta = DEFAULT_DURATION_S,
        record_id: RequestId | None = None,
        on_renewed: Callable[[DanModuleInfo], object] | None = None,
        may_prompt: bool = False,
    ) -> LiveSession:
        """
        Renew a session while a context lasts: replace its ephemeral key before it expires.

        A quarter of *duration* before its end, 10 minutes at most, the owner authorises the next ephemeral key. If that
        fails it is tried again until the session has expired. The previous ephemeral key works until it expires.

        Args:
            session: The session; its *expires_at* must be known.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            duration: How long each new ephemeral key lives: whole seconds, 1 to 31 536 000, also as a ``timedelta``.
            record_id: The session's record in the client's store, which is kept up to date: see ``rotate_stored_session``.
            on_renewed: Called with each new session, on the event loop.
            may_prompt: Whether the wallet may ask a person, at any time. Otherwise such a wallet is refused.

        Returns:
            An async context manager, whose *session* is the current session.

        Raises:
            ConfigurationError: A parameter is wrong, the session has no expiry, or the wallet asks a person.
            SessionExpiredError: On entering: it has expired already.

        Example::

            async with dan.keep_alive(session, wallet=wallet, duration=3600) as live:
                while True:
                    signature = await dan.sign_message(await next_order(), live.session)
        """
        check_instance("session", session, DanModuleInfo)
        owner = choose_auth(auth, wallet=wallet, limit_s=self._timeouts.wallet_s)
        _check_listener(on_renewed)
        if not check_bool("may_prompt", may_prompt) and owner.interactive:
            raise InvalidFieldError(
                "wallet" if auth is None else "auth",
                "asks a person, which needs may_prompt=True",
                hint="Use a wallet that signs by itself, or pass may_prompt=True",
            )
        lifetime_s = duration_s(duration)
        if record_id is not None:
            self._kept()
        return self._live(session, owner, lifetime_s, record_id, on_renewed, renews=True)

    def _live(
        self,
        session: DanModuleInfo,
        owner: AuthModule,
        lifetime_s: int,
        record_id: RequestId | None,
        on_renewed: Callable[[DanModuleInfo], object] | None,
        *,
        renews: bool,
    ) -> LiveSession:
        async def renew(old: DanModuleInfo) -> DanModuleInfo:
            if record_id is None:
                return await self.add_ephemeral_key(old, auth=owner, duration=lifetime_s)
            record = await self.rotate_stored_session(record_id, auth=owner, duration=lifetime_s)
            return old if record.session is None else record.session

        def now() -> float:
            network = self._network
            return self._clock() if network is None else network_time(network, self._clock, session.threshold)

        return LiveSession(
            session,
            renew if renews else None,
            client=self,
            duration_s=lifetime_s,
            on_renewed=on_renewed,
            clock=now,
        )

    @asynccontextmanager
    async def session(
        self,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        revoke: bool = True,
        may_prompt: bool = False,
        on_renewed: Callable[[DanModuleInfo], object] | None = None,
        **parameters: Unpack[SessionKeyParameters],
    ) -> AsyncIterator[LiveSession]:
        """
        Make a session key, keep it alive while a context lasts, and revoke its ephemeral key at the end.

        A wallet that asks a person is asked once, to make the key; only *may_prompt* has it asked again, to renew and to
        revoke. Without that the session ends when *duration* is over. Where the ephemeral key cannot be revoked (too few
        nodes confirm, or a gateway's revision has no revoking), a warning is logged, ``failure`` says why, and the key works
        until it expires; so does one that was renewed away.

        Args:
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            revoke: Whether to revoke the ephemeral key at the end.
            may_prompt: Whether the wallet may ask a person again.
            on_renewed: Called with each new session, on the event loop.
            **parameters: Other parameters of ``generate_session_key``, except *browser_wallet*, *allow_resign* and
                *on_report*. *duration* is how long each ephemeral key lives.

        Yields:
            The session: its *session* is the current payload, and ``sign_message``, ``sign_many`` and
            ``sign_user_operation`` sign with it.

        Raises:
            DanError: On entering, any error of ``generate_session_key``.

        Example::

            async with dan.session(wallet=wallet, chain_id=80002) as session:
                signature = await session.sign_message("hello")
        """
        check_bool("revoke", revoke)
        _check_listener(on_renewed)
        network = await self._open()
        owner = choose_auth(
            auth,
            wallet=wallet,
            account=parameters.get("smart_account_client"),
            limit_s=self._timeouts.wallet_s,
        )
        may_ask = check_bool("may_prompt", may_prompt) or not owner.interactive
        _, make_request = read_request({"auth": owner, **parameters}, {})
        request = make_request()
        prepared = await prepare(
            request, network, timeouts=self._timeouts, clock=self._clock, has_store=self._keeper is not None
        )
        record_id = None if self._keeper is None else prepared.keygen.request_id
        made = await run_prepared(prepared, partial(network.keygen, prepared.keygen), keeper=self._keeper)
        live = self._live(made, owner, request.lifetime_s, record_id, on_renewed, renews=may_ask)
        try:
            async with live:
                yield live
        finally:
            if revoke and may_ask:
                await self._end(live, owner, record_id)

    async def _end(self, live: LiveSession, owner: AuthModule, record_id: RequestId | None) -> None:
        try:
            if record_id is None:
                await self.revoke_ephemeral_key(live.session, auth=owner)
            else:
                await self.revoke_stored_session(record_id, auth=owner)
            live.is_revoked = True
        except Exception as error:  # noqa: BLE001 - it must not take the place of an error in the block
            live.failure = error
            _log.warning(
                "the ephemeral key of session %s could not be revoked, and works until %s: %s",
                live.session.session_key_eoa,
                live.session.expires_at,
                describe_problem(error),
            )

    async def sign_user_operation(
        self,
        user_op: Operation,
        session: DanModuleInfo | Mapping[str, Any],
        *,
        entry_point: str | None = None,
        chain_id: int | None = None,
        permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
        timeout: TimeSpan | None = None,
    ) -> Operation:
        """
        Have t of the nodes sign a user operation of ERC-4337; see ``dan_async.userops.sign_user_operation``.

        Args:
            user_op: The operation, complete except for its signature.
            session: The session, as a payload, a ``DanModuleInfo`` or its JSON as a dict.
            entry_point: The entry point's address; the well-known one of the operation's version if None.
            chain_id: The chain; the session's if None.
            permissions: The session's permissions: an operation that they do not allow is refused before it is sent.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The operation with its signature.

        Raises:
            InvalidFieldError: An argument is wrong, or the chain is not known or not the session's; nothing was sent.
            PermissionDeniedError: The *permissions* given do not allow it; nothing was sent.
            DanError: Any error of ``sign_message``.
        """
        # Imported here: a program that signs no operations does not pay for the code that reads them.
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

    async def add_ephemeral_key(
        self,
        session: S,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        duration: int | timedelta = DEFAULT_DURATION_S,
        eph_alg: KeyAlgorithm | None = None,
        ephemeral_key: EphemeralKey | str | None = None,
        eph_id: str | None = None,
        timeout: TimeSpan | None = None,
    ) -> S:
        """
        Let another ephemeral key use the session's key: rotate or prolong a session without a new address.

        Args:
            session: The session whose key it is.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            duration: How long the new ephemeral key lives: whole seconds, 1 to 31 536 000, also as a ``timedelta``.
            eph_alg: ``"secp256k1"`` or ``"ed25519"``; the network's usual one if None.
            ephemeral_key: The key to add, as an ``EphemeralKey`` or 64 hex digits; a new one if None.
            eph_id: Its name on the nodes; derived from its public key if None.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The session with the new ephemeral key. The old one goes on working until it expires or is revoked.

        Raises:
            QuorumError: Fewer than t nodes confirmed.
            DanError: As for any job.
        """
        network, deadline = await self._begin(timeout)
        return await jobs.add_ephemeral_key(
            network,
            session,
            wallet=wallet,
            auth=auth,
            duration=duration,
            eph_alg=eph_alg,
            ephemeral_key=ephemeral_key,
            eph_id=eph_id,
            deadline=deadline,
            timeouts=self._timeouts,
            clock=self._clock,
        )

    async def revoke_ephemeral_key(
        self,
        session: DanModuleInfo,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        timeout: TimeSpan | None = None,
    ) -> EphemeralKeyReport:
        """
        Revoke the session's ephemeral key: the nodes do not accept it any more.

        Args:
            session: The session that is to end.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The nodes that confirmed, and the answers of the others: call again until all of them have.

        Raises:
            QuorumError: Fewer than n - t + 1 nodes confirmed, so t could be left that still accept the key.
            DanError: As for any job.
        """
        network, deadline = await self._begin(timeout)
        return await jobs.revoke_ephemeral_key(
            network,
            session,
            wallet=wallet,
            auth=auth,
            deadline=deadline,
            timeouts=self._timeouts,
            clock=self._clock,
        )

    async def register_passkey(self, passkey: PasskeyRegister, *, timeout: TimeSpan | None = None) -> str:
        """
        Register a passkey with the network, so that it can own keys.

        Args:
            passkey: The passkey for the browser to make.
            timeout: Seconds for the whole call, instead of the client's. The person's time does not count.

        Returns:
            The passkey's credential id, base64url, as ``PasskeyAuth`` takes it.

        Raises:
            ConfigurationError: A parameter is wrong, or the network has no passkeys; nothing was sent.
            DanError: As for any job; nothing was registered.
        """
        network, deadline = await self._begin(timeout)
        return await jobs.register_passkey(network, passkey, deadline=deadline, timeouts=self._timeouts)

    async def recover(
        self,
        *,
        record_id: RequestId | None = None,
        min_age_s: TimeSpan = 0.0,
        timeout: TimeSpan | None = None,
    ) -> RecoveryReport:
        """
        Settle the requests that a crash or an error left pending in the store, by asking the nodes about them.

        If t nodes acknowledge the key, the session is stored as active. If too few can have made it, the record is dropped
        (or marked failed, if its failure had been reported), and no node will make it any more. Otherwise it stays
        pending: call again when more nodes answer. A gateway cannot be asked, so that records of one stay pending until
        they expire. Calls of this client that are under way are left alone; for clients of other processes, use
        *min_age_s*.

        Args:
            record_id: Only this record; every one if None.
            min_age_s: Only requests that were made so many seconds ago.
            timeout: Seconds for the whole call; the records that it did not come to stay as they are, and the first of
                them is reported as undecided. If None, the call lasts until every record was looked at, and
                ``Timeouts.total_s`` is for each.

        Returns:
            The outcome for each record.

        Raises:
            ConfigurationError: The client has no store, or a parameter is wrong.
            StoreError: The store failed; records that were settled before stay so.
        """
        keeper = self._kept()
        if record_id is not None:
            check_text("record_id", record_id)
        return await jobs.recover(
            await self._open(),
            keeper,
            record_id=record_id,
            min_age_s=check_number("min_age_s", min_age_s),
            timeout_s=None if timeout is None else check_seconds("timeout", timeout),
            record_s=self._timeouts.total_s if timeout is None else None,
        )

    async def revoke_stored_session(
        self,
        record_id: RequestId,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        timeout: TimeSpan | None = None,
    ) -> StoredSession:
        """
        Revoke a stored session's ephemeral key, and mark the record as revoked.

        It may be repeated until every node has confirmed: a node that was not reached goes on accepting the key.

        Args:
            record_id: The record.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The record as it is now. Its *problem* is empty if every node has confirmed, else it has the others' answers.

        Raises:
            RecordConflictError: There is no such record, or it is neither active nor revoked; nothing was sent.
            QuorumError: Too few nodes confirmed; call again.
            DanError: As for any job.
        """
        keeper = self._kept()
        network, deadline = await self._begin(timeout)
        return await jobs.revoke_stored_session(
            network, keeper, record_id, wallet=wallet, auth=auth, deadline=deadline, timeouts=self._timeouts
        )

    async def rotate_stored_session(
        self,
        record_id: RequestId,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        duration: int | timedelta = DEFAULT_DURATION_S,
        timeout: TimeSpan | None = None,
    ) -> StoredSession:
        """
        Replace a stored session's ephemeral key by a new one; the address stays the same.

        The old ephemeral key works until it expires. Until then it has a record of its own in the store, which
        ``revoke_stored_session`` takes.

        Args:
            record_id: The record. It keeps its id and its reference.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            duration: How long the new ephemeral key lives: whole seconds, 1 to 31 536 000, also as a ``timedelta``.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The record as it is now.

        Raises:
            RecordConflictError: There is no such record, or it is neither active nor expired, and nothing was sent; or it
                was changed meanwhile, and stays as it is.
            QuorumError: Fewer than t nodes confirmed.
            DanError: As for any job.
        """
        keeper = self._kept()
        network, deadline = await self._begin(timeout)
        return await jobs.rotate_stored_session(
            network,
            keeper,
            record_id,
            wallet=wallet,
            auth=auth,
            duration=duration,
            deadline=deadline,
            timeouts=self._timeouts,
        )


def _time_span(timeout: TimeSpan) -> TimeSpan | None:
    """Return a timeout, or None for what is none."""
    with suppress(InvalidFieldError):
        return check_seconds("timeout", timeout)
    return None


def _check_listener(on_renewed: object) -> None:
    if on_renewed is not None and not callable(on_renewed):
        raise InvalidFieldError("on_renewed", "must be a function that takes the session")


def _observe(network: Network, on_event: OnEvent) -> None:
    from dan_async.events import Observable

    if not isinstance(network, Observable):
        raise InvalidFieldError(
            "on_event", f"cannot be used with {type(network).__name__}", hint="It has no observe() method"
        )
    network.observe(on_event)


async def generate_session_key(
    *, smart_account_client: SmartAccount, client: DanClient, **parameters: Any
) -> DanSessionKeyPayload:
    """
    Make a session key for a smart account: the shape of the TypeScript ``generateSessionKey``.

    Args:
        smart_account_client: The account; its signer is asked to sign unless *browser_wallet* is given.
        client: An open client.
        **parameters: Any other parameter of ``DanClient.generate_session_key``, under the same name.

    Returns:
        The payload; see ``DanClient.generate_session_key``, also for the errors.

    Raises:
        InvalidFieldError: *client* is not a ``DanClient``.
        DanError: As for ``DanClient.generate_session_key``.
    """
    check_instance("client", client, DanClient, "a DanClient")
    return await client.generate_session_key(smart_account_client=smart_account_client, **parameters)


async def sign_message(
    message: Message, session: DanModuleInfo | Mapping[str, Any], *, client: DanClient, **parameters: Any
) -> Hex:
    """
    Sign a message with a session's key: the shape of the TypeScript ``signMessage(message, danModuleInfo)``.

    Args:
        message: The message.
        session: The session.
        client: An open client.
        **parameters: Any other parameter of ``DanClient.sign_message``, under the same name.

    Returns:
        The signature; see ``DanClient.sign_message``, also for the errors.

    Raises:
        InvalidFieldError: *client* is not a ``DanClient``.
        DanError: As for ``DanClient.sign_message``.
    """
    check_instance("client", client, DanClient, "a DanClient")
    return await client.sign_message(message, session, **parameters)
