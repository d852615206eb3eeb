"""GatewayNetwork: a wallet-provider gateway, spoken to as the public TypeScript clients do."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args
from urllib.parse import urlsplit

import aiohttp

from dan_async._values import check_instance, check_seconds, setting
from dan_async.config import DEFAULT_THRESHOLD, Threshold, Timeouts, TransportOptions, check_url
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline, OneLoop
from dan_async.errors import (
    ClientClosedError,
    ConfigurationError,
    DanError,
    InvalidFieldError,
    KeySubstitutionError,
)
from dan_async.gateway.operation import EphemeralKeyOperation, Gateway, OwnerOperation
from dan_async.gateway.revision import RevisionChoice
from dan_async.listeners import EventHub
from dan_async.network import (
    AuthModule,
    EphemeralKeyChange,
    EphemeralKeyReport,
    KeygenReport,
    KeygenRequest,
    NetworkHealth,
    NodeHealth,
    SigningOrder,
)
from dan_async.protocols.exchange import (
    EphemeralKeyExchange,
    ephemeral_key_exchange,
    keygen_exchange,
    passkey_exchange,
    protocol_for,
    signgen_exchange,
)
from dan_async.protocols.fields import new_request_id
from dan_async.protocols.gateway import ApiVersion, GatewayProtocol, Operation
from dan_async.protocols.gateway_0_3 import REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.results import KeygenResult, SigngenResult
from dan_async.protocols.setups import EphemeralClaim
from dan_async.retry import RetryPolicy
from dan_async.transport.socket import SocketOpener
from dan_async.types import Clock, KeyAlgorithm, TimeSpan

if TYPE_CHECKING:
    from dan_async.events import OnEvent

_VERSION_SEGMENT = re.compile(r"/(v[0-9]+)\Z")


def check_gateway_url(name: str, url: object, api_version: str) -> str:
    """
    Return a gateway's URL without a trailing slash: ``wss://…``, or ``ws://…`` to loopback, with its version segment.

    A wrong one is not repeated in the error, since it may carry credentials.
    """
    checked = check_url(name, url, schemes=("wss", "ws"))
    found = _VERSION_SEGMENT.search(urlsplit(checked).path)
    if found is None:
        raise InvalidFieldError(
            name,
            "must end with the version segment of the gateway's API",
            hint=f"For example wss://gateway.example/{api_version}",
        )
    if found[1] != api_version:
        raise InvalidFieldError(
            name,
            f"ends with /{found[1]}, and api_version is {api_version}",
            hint=f"Give the URL that ends with /{api_version}, or the other api_version",
        )
    return checked


def check_gateway_revision(revision: str | None, api_version: str) -> GatewayProtocol | None:
    """Return the revision's protocol, which ``v2`` implies; None if it is to be found out."""
    if api_version not in get_args(ApiVersion):
        raise InvalidFieldError("api_version", "must be v1 or v2")
    if revision is None:
        return REVISION_1 if api_version == "v2" else None
    protocol = protocol_for(revision)
    if api_version not in protocol.api_versions:
        raise InvalidFieldError(
            "api_version", f"must be v1 in revision {revision}", hint="v2 exists in revision 1 only"
        )
    return protocol


class GatewayNetwork:
    """
    A DAN network behind a wallet-provider gateway: one WebSocket for each operation, in the public clients' protocol.

    The gateway is believed about the key (docs/reference/gateway.md, "What you trust"): its results name neither t and n
    nor the permissions, and no node signs them. Challenges are taken once: one that this process has seen before is
    refused (the last 65 536 are remembered).

    Args:
        url: Where it is, version segment included: ``wss://gateway.example/v1``, or ``ws://…`` to loopback.
        revision: The revision it speaks: ``"0.1"``, ``"0.3"`` or ``"1"``. If None, 1 or 0.3 is found out with the first
            operation, before the wallet is asked, and remembered; 0.1, whose expiry no signature covers, has to be named.
        api_version: ``"v1"``, challenge and response; or ``"v2"``, one frame without a challenge, which can be replayed by
            anyone who sees it. ``"v2"`` exists in revision 1 only, which it implies.
        threshold: t and n when the caller of a job names none; 3-of-5 if None.
        options: TLS, proxy, headers (for example an API key) and size limits.
        timeouts: Limits within a job.
        retry: When an operation that the wallet has not authorised yet is begun again.
        session: An aiohttp session whose connector, cookies and headers are used; it is not closed. Its ``trust_env`` is not
            used, that of *options* is.
        clock: The wall clock, in Unix seconds; for tests.
        on_event: Called with each event; see ``dan_async.events``.

    Raises:
        InvalidFieldError: The URL, the revision or the API version is wrong.
        InsecureTransportError: The URL has no TLS and its host is not loopback.

    Example::

        async with DanClient(GatewayNetwork("wss://gateway.example/v1", revision="0.3")) as dan:
            session = await dan.generate_session_key(wallet=wallet, chain_id=80002)
    """

    def __init__(
        self,
        url: str,
        *,
        revision: str | None = None,
        api_version: str = "v1",
        threshold: Threshold | None = None,
        options: TransportOptions | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        session: aiohttp.ClientSession | None = None,
        clock: Clock = time.time,
        on_event: OnEvent | None = None,
    ) -> None:
        given = check_gateway_revision(revision, api_version)
        self.default_threshold = (
            DEFAULT_THRESHOLD if threshold is None else check_instance("threshold", threshold, Threshold)
        )
        #: secp256k1 where the revision is known to take it; ed25519, which all take, otherwise.
        self.default_eph_alg: KeyAlgorithm = "secp256k1" if given is REVISION_1 else "ed25519"
        timeouts = setting("timeouts", timeouts, Timeouts)
        self._loop = OneLoop("network")
        self._gateway = Gateway(
            connector=SocketOpener(
                check_gateway_url("url", url, api_version),
                options=setting("options", options, TransportOptions),
                connect_timeout_s=timeouts.connect_s,
                session=session,
            ),
            revision=RevisionChoice(given),
            api_version="v2" if api_version == "v2" else "v1",
            timeouts=timeouts,
            retry=setting("retry", retry, RetryPolicy),
            clock=clock,
            events=EventHub(on_event),
        )

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Self:
        """
        Return the network that a network file describes (docs/how-to/networks.md).

        Args:
            path: The file.
            **options: Any other argument of the class; it wins over the file's.

        Raises:
            ConfigurationError: The file cannot be read, or is that of nodes; see ``NetworkFile.read``.
        """
        from dan_async.network_file import NetworkFile

        found = NetworkFile.read(path)
        if found.gateway is None:
            raise ConfigurationError(f"{path} is the file of nodes", hint="Use NodeNetwork.from_file()")
        return cls(
            found.gateway,
            revision=found.revision,
            api_version=found.api_version,
            **{"threshold": found.threshold, "options": found.options} | options,
        )

    def __repr__(self) -> str:
        return (
            f"GatewayNetwork({self._gateway.connector.where!r}, revision={self.revision!r}, "
            f"default {self.default_threshold})"
        )

    def observe(self, on_event: OnEvent) -> None:
        """Call one more function with each event; see ``dan_async.events.Observable``."""
        self._gateway.events.add(on_event)

    @property
    def revision(self) -> str | None:
        """The gateway's revision, if it was given or has been found out."""
        known = self._gateway.revision.known
        return None if known is None else str(known.revision)

    def check_keygen(self, request: KeygenRequest) -> None:
        """
        Check, without I/O, that the gateway's revision takes the ephemeral key, as far as the revision is known.

        Raises:
            InvalidFieldError: It does not, or more than t nodes are to hold a share.
            ClientClosedError: The network was closed.
        """
        self._refuse_if_closed()
        if (request.min_holders or 0) > request.threshold.t:
            raise InvalidFieldError(
                "min_holders", "is not available through a gateway, which does not report who holds a share"
            )
        self._check_claim(request.claim)

    def _refuse_if_closed(self) -> None:
        if self._gateway.connector.is_closed:
            raise ClientClosedError("the network was closed", hint="Make a new GatewayNetwork")
        self._loop.check()

    def _check_claim(self, claim: EphemeralClaim) -> None:
        known = self._gateway.revision.known
        if known is not None:
            known.check_claim(claim)

    # --- operations ---------------------------------------------------------------------------------------------------

    async def keygen(self, request: KeygenRequest, auth: AuthModule, *, deadline: Deadline) -> KeygenReport:
        """
        Make a distributed key; see ``Network.keygen``.

        Args:
            request: The key's parameters. A gateway makes a key of exactly n parties, or none.
            auth: The owner.
            deadline: The job's deadline.

        Raises:
            GatewayError: The gateway did not do it; ``phase`` says how far it came.
            ProtocolError: The gateway sent what the protocol does not allow.
            ConfigurationError: Its revision cannot carry the request; nothing was sent.
            SessionExpiredError: The ephemeral key's expiry has passed; nothing was created.
            WalletError: The owner did not authorise; nothing was created.
            DeadlineExceededError: The time ran out.
            ClientClosedError: The network was closed.
        """
        [key] = await self._keygen(request, auth, ("secp256k1",), deadline)
        return _report(request, key)

    async def keygen_batch(
        self,
        request: KeygenRequest,
        auth: AuthModule,
        *,
        sign_algs: Sequence[KeyAlgorithm],
        deadline: Deadline,
    ) -> dict[KeyAlgorithm, KeygenReport]:
        """
        Make a distributed key for each algorithm, over one connection; the owner signs once for each.

        Args:
            request: The keys' parameters, alike for all.
            auth: The owner.
            sign_algs: The algorithms, each once. Only revision 1 has others than secp256k1, or several.
            deadline: The job's deadline.

        Returns:
            A report for each algorithm; the public key of ed25519 has 32 bytes.

        Raises:
            DanError: As for ``keygen``.
        """
        keys = await self._keygen(request, auth, sign_algs, deadline)
        return {key.sign_alg: _report(request, key) for key in keys}

    def _keygen(
        self, request: KeygenRequest, auth: AuthModule, sign_algs: Sequence[KeyAlgorithm], deadline: Deadline
    ) -> Awaitable[tuple[KeygenResult, ...]]:
        self._refuse_if_closed()
        make = partial(
            keygen_exchange,
            threshold=request.threshold,
            claim=request.claim,
            permissions=request.permissions,
            key_label=request.key_label,
            sign_algs=sign_algs,
            api_version=self._gateway.api_version,
        )
        return OwnerOperation(
            gateway=self._gateway,
            operation=Operation.KEYGEN,
            request_id=request.request_id,
            make=make,
            claim=request.claim,
            auth=auth,
            deadline=deadline,
        ).run()

    async def add_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """
        Let another ephemeral key use a key; revisions 0.3 and 1. See ``Network.add_ephemeral_key``.

        Raises:
            InvalidFieldError: Revision 0.3 needs ``change.threshold``, or the revision cannot do it at all.
            DanError: As for ``keygen``.
        """
        return await self._change(Operation.ADD_EPHEMERAL_KEY, change, auth, deadline)

    async def revoke_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """Take a key from an ephemeral key; revision 1 only. See ``add_ephemeral_key``."""
        return await self._change(Operation.REVOKE_EPHEMERAL_KEY, change, auth, deadline)

    async def _change(
        self, operation: Operation, change: EphemeralKeyChange, auth: AuthModule, deadline: Deadline
    ) -> EphemeralKeyReport:
        self._refuse_if_closed()
        self._check_claim(change.claim)

        def make(protocol: GatewayProtocol) -> EphemeralKeyExchange:
            if protocol is REVISION_0_3 and change.threshold is None:
                raise InvalidFieldError(
                    "threshold",
                    "is needed in revision 0.3, which names n",
                    hint="Give a session that has threshold and parties_number",
                )
            return ephemeral_key_exchange(
                protocol,
                operation,
                claim=change.claim,
                key_id=change.key_id,
                n=0 if change.threshold is None else change.threshold.n,
                api_version=self._gateway.api_version,
            )

        await OwnerOperation(
            gateway=self._gateway,
            operation=operation,
            request_id=change.request_id,
            make=make,
            claim=change.claim,
            auth=auth,
            deadline=deadline,
        ).run()
        return EphemeralKeyReport(request_id=change.request_id)

    async def signgen(
        self, order: SigningOrder, key: EphemeralKey, *, deadline: Deadline
    ) -> tuple[bytes, ...]:
        """
        Sign; see ``Network.signgen``. In revision 0.1 a user operation only, before revision 1 one message at a time.

        Raises:
            InvalidFieldError: The revision cannot carry it, or not this ephemeral key.
            DanError: As for ``keygen``.
        """
        self._refuse_if_closed()
        self._check_claim(order.claim)
        make = partial(
            signgen_exchange,
            t=order.t,
            key_id=order.key_id,
            requests=order.requests,
            api_version=self._gateway.api_version,
        )
        results = await EphemeralKeyOperation(
            gateway=self._gateway,
            operation=Operation.SIGNGEN,
            request_id=new_request_id(),
            make=make,
            claim=order.claim,
            key=key,
            owner_id=order.owner_id or "",
            deadline=deadline,
        ).run()
        return tuple(map(SigngenResult.to_bytes, results))

    async def register_passkey(self, auth: AuthModule, *, deadline: Deadline) -> str:
        """
        Register a passkey; revision 1 only. See ``Network.register_passkey``.

        Raises:
            InvalidFieldError: The revision has no passkeys, or the API version is v2.
            DanError: As for ``keygen``.
        """
        self._refuse_if_closed()
        if self._gateway.api_version == "v2":
            raise InvalidFieldError("api_version", "must be v1: all passkeys would have one challenge in v2")
        found = await OwnerOperation(
            gateway=self._gateway,
            operation=Operation.REGISTER_PASSKEY,
            request_id=new_request_id(),
            make=passkey_exchange,
            claim=None,
            auth=auth,
            deadline=deadline,
        ).run()
        if found != auth.id:
            raise KeySubstitutionError(
                "the gateway registered another passkey", hint="The gateway may be dishonest", phase="result"
            )
        return found

    # ------------------------------------------------------------------------------------------------------------------

    async def health(self, *, timeout_s: TimeSpan | None = None) -> NetworkHealth:
        """
        See whether the gateway takes a connection; nothing is sent on it. The nodes behind it cannot be seen.

        Args:
            timeout_s: Seconds to wait; the time to connect if None.

        Returns:
            One entry, for the gateway. That it is down is reported, never raised.
        """
        self._loop.check()
        connector = self._gateway.connector
        limit = None if timeout_s is None else check_seconds("timeout_s", timeout_s)
        started = time.monotonic()
        try:
            socket = await connector.open(Operation.KEYGEN, timeout_s=limit)
            latency = time.monotonic() - started
            try:
                await socket.finish()
            finally:
                await socket.aclose()
        except DanError as error:
            found = NodeHealth(name=connector.where, url=connector.where, is_live=False, problem=str(error))
        else:
            found = NodeHealth(name=connector.where, url=connector.where, is_live=True, latency_s=latency)
        return NetworkHealth(nodes=(found,))

    async def aclose(self) -> None:
        """Break every connection; operations under way fail. May be called twice."""
        if not self._gateway.connector.is_closed:
            self._loop.check()
        await self._gateway.connector.aclose()


def _report(request: KeygenRequest, key: KeygenResult) -> KeygenReport:
    return KeygenReport(
        request_id=request.request_id,
        key_id=key.key_id,
        public_key=key.public_key,
        threshold=request.threshold,
    )
