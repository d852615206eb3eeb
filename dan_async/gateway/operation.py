"""
One operation at a gateway: connect, setup, challenge, the owner's wallet or the ephemeral key, authentication, result.

Until the authentication is sent, a failure has changed nothing and the operation may be begun again. From then on the
gateway has all it needs: nothing is sent twice unless doing it twice is as good as once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Generic, NoReturn, TypeVar

from attrs import define, field, frozen

from dan_async.config import Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.errors import ChallengeError, ConnectError, DanError, RequestTimeoutError, SessionExpiredError
from dan_async.gateway.failures import IDEMPOTENT, ErrorContext, Phase
from dan_async.gateway.revision import RevisionChoice
from dan_async.listeners import Attempts, EventHub, operation, wallet_turn
from dan_async.network import AuthModule
from dan_async.protocols.exchange import Exchange
from dan_async.protocols.gateway import ApiVersion, GatewayProtocol, Operation
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import AuthMethod, EphemeralClaim
from dan_async.retry import RetryPolicy
from dan_async.transport.socket import Socket, SocketOpener, Started
from dan_async.types import Clock, RequestId

R = TypeVar("R")

#: While the wallet is waited for, the gateway is pinged this often, in seconds: proxies drop connections that are idle
#: for a minute, and a person may take longer.
PING_EVERY_S = 20.0

#: With less than this left of a deadline, in seconds, a wait that timed out did so because of it.
_SLACK_S = 0.01

#: A wallet that signs within so many seconds leaves no time for anything to come meanwhile.
_AT_ONCE_S = 0.001

#: Challenges that are remembered; the oldest are forgotten first. About 100 bytes each.
_MOST_REMEMBERED = 65_536

_DOING: dict[Phase, str] = {
    "connect": "reaching the gateway",
    "setup": "sending the gateway the setup",
    "challenge": "waiting for the gateway's challenge",
    "authentication": "sending the gateway the authentication",
    "result": "waiting for the gateway's result",
}


class SeenChallenges:
    """Challenges that were taken. A gateway that gives one twice is asking for a signature it already has."""

    def __init__(self, most: int = _MOST_REMEMBERED) -> None:
        self._most = most
        self._seen: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, challenges: Iterable[str]) -> None:
        """Take note of challenges; the case of their letters does not make another one."""
        for challenge in challenges:
            value = bytes.fromhex(challenge)
            with self._lock:  # event loops of other threads share it
                if value in self._seen:
                    raise ChallengeError(
                        "the gateway repeated an earlier challenge",
                        hint="The wallet was not asked. The gateway may be dishonest: repeats let signatures be replayed",
                    )
                self._seen[value] = None
                if len(self._seen) > self._most:
                    del self._seen[next(iter(self._seen))]


#: One for the process: a signature does not name the gateway that it was made for, nor the object that asked, so another
#: ``GatewayNetwork`` of the same owner must not sign the same challenge again.
SEEN = SeenChallenges()


@frozen(kw_only=True, eq=False, repr=False)
class Gateway:
    """The things that all operations at one gateway share."""

    connector: SocketOpener
    revision: RevisionChoice
    api_version: ApiVersion
    seen: SeenChallenges = SEEN
    timeouts: Timeouts
    retry: RetryPolicy
    clock: Clock
    events: EventHub = field(factory=EventHub)


@define(kw_only=True, eq=False, repr=False)
class GatewayOperation(ABC, Generic[R]):
    """One operation, run once. *make* raises a ConfigurationError if a revision cannot carry it."""

    #: How it is authorised.
    method: AuthMethod = field(init=False)
    _gateway: Gateway
    _operation: Operation
    _request_id: RequestId
    _make: Callable[[GatewayProtocol], Exchange[R]]
    _claim: EphemeralClaim | None
    _deadline: Deadline
    _attempts: int = field(default=0, init=False)
    _phase: Phase = field(default="connect", init=False)
    #: The one frame of a one-shot request, once it is authorised.
    _frame: str | None = field(default=None, init=False)

    def run(self) -> Awaitable[R]:
        """Run it, with the errors of ``GatewayNetwork.keygen``."""
        return self._run_heard() if self._gateway.events.listeners else self._run(self._attempt)

    async def _run_heard(self) -> R:
        with operation(self._gateway.events, self._request_id, str(self._operation), "gateway"):
            return await self._run(self._reports().watch(self._attempt))

    def _reports(self) -> Attempts:
        where, name = self._gateway.connector.where, str(self._operation)
        return Attempts(self._gateway.events, node=where, method=name, request_id=self._request_id)

    async def _run(self, attempt: Callable[[], Awaitable[R | DanError]]) -> R:
        retry = self._gateway.retry
        self._refuse_if_expired()
        if self._gateway.api_version == "v2":
            await self._authorise_one_shot()
        started = retry.clock()
        try:
            outcome = await attempt()
        except DanError as error:
            outcome = await retry.go_on(
                error,
                attempt,
                started=started,
                deadline=self._deadline,
                before_sleep=self._reports().before_sleep,
            )
        if isinstance(outcome, DanError):
            outcome.attempts = self._attempts
            raise outcome
        return outcome

    async def _authorise_one_shot(self) -> None:
        """Have a one-shot request authorised, once: every attempt sends the same frame."""
        exchange = self._made(REVISION_1)
        self._phase = "wallet"
        try:
            self._frame = await self._authorise(exchange, exchange.own_challenges(), None)
        except DanError as error:
            self._fail(error)

    async def _attempt(self) -> R | DanError:
        """Return the result, or an error after which the operation must not be begun again; raise the others."""
        self._attempts += 1
        choice = self._gateway.revision
        try:
            if choice.known is not None:
                exchange, socket, challenges = await self._begin(choice.known, 1)
            else:
                exchange, socket, challenges = await choice.find_out(
                    self._begin,
                    kind=(self._operation, None if self._claim is None else self._claim.sign_alg),
                    deadline=self._deadline,
                    where=self._gateway.connector.where,
                )
        except DanError as failure:
            choice.doubt(failure)
            raise
        frame = self._frame
        try:
            try:
                if frame is None:
                    self._gateway.seen.add(challenges.values())
                    self._phase = "wallet"
                    frame = await self._authorise(exchange, challenges, socket)
                timeouts, limit_s = self._gateway.timeouts, self._deadline.remaining()
                # The gateway may be at work on it: giving up before the deadline would only lose the result, unless the
                # operation can be repeated.
                if limit_s is None:
                    limit_s = timeouts.total_s
                if self._operation in IDEMPOTENT:
                    limit_s = min(limit_s, timeouts.attempt_s)
                self._phase = "authentication"
                await socket.send(frame, limit_s)
                self._phase = "result"
                result = exchange.read_result(await socket.receive(limit_s))
                await socket.finish()
            except DanError as error:
                self._fail(error)
            else:
                return result
            finally:
                await socket.aclose()
        except DanError as failure:
            if self._is_final():
                return failure
            raise

    def _is_final(self) -> bool:
        """Whether the operation must not be begun again after a failure."""
        return False

    @abstractmethod
    async def _authorise(
        self, exchange: Exchange[R], challenges: Mapping[str, str], socket: Socket | None
    ) -> str:
        """
        Have the challenges of all slots signed; return the authentication frame.

        Nothing may come meanwhile on the socket that brought them; it is None if there is none yet.
        """

    # --- connect, setup, challenge ------------------------------------------------------------------------------------

    def _made(self, protocol: GatewayProtocol) -> Exchange[R]:
        exchange = self._make(protocol)
        # Now rather than after the wallet was asked.
        protocol.check_method(exchange.operation, self.method)
        return exchange

    async def _begin(
        self, protocol: GatewayProtocol, parts: int
    ) -> tuple[Exchange[R], Socket, Mapping[str, str]]:
        """
        Begin in a revision: connect, and get the challenges, if the gateway gives any.

        Setup and challenge may take one of so many parts of the time that is left.
        """
        exchange = self._made(protocol)
        socket, challenges = None, {}
        try:
            self._phase = "connect"
            remaining = self._deadline.remaining()
            if remaining == 0.0:
                raise self._deadline.error("reaching the gateway")
            socket = await self._gateway.connector.open(self._operation, timeout_s=remaining)
            if self._frame is None:
                left_s, limit_s = self._deadline.remaining(), self._gateway.timeouts.attempt_s
                if left_s is not None:
                    limit_s = min(limit_s, left_s / parts)
                end = time.monotonic() + limit_s
                self._phase = "setup"
                await socket.send(exchange.setup_frame, limit_s)
                self._phase = "challenge"
                challenges = exchange.read_challenges(await socket.receive(max(0.0, end - time.monotonic())))
        except BaseException as error:
            if socket is not None:
                await socket.aclose()
            if isinstance(error, DanError):
                self._fail(error)
            raise
        return exchange, socket, challenges

    # --- failures -----------------------------------------------------------------------------------------------------

    def _fail(self, error: DanError) -> NoReturn:
        """Raise the error of the step under way in a person's words."""
        remaining = self._deadline.remaining()
        if (
            isinstance(error, RequestTimeoutError | ConnectError)
            and error.retryable
            and remaining is not None
            and remaining < _SLACK_S
        ):
            error = self._deadline.error(_DOING[self._phase])
        connector = self._gateway.connector
        context = ErrorContext(
            operation=self._operation,
            where=connector.where,
            request_id=self._request_id,
            mask=connector.mask,
        )
        found = context.explain(error, self._phase)
        if found is error:
            raise found
        raise found from error

    def _refuse_if_expired(self) -> None:
        if self._claim is not None and self._claim.expiry <= self._gateway.clock():
            error = SessionExpiredError(
                "the ephemeral key's expiry has passed, so the gateway would refuse it",
                hint="Nothing was created. Ask for a longer duration, or check the clock",
            )
            self._fail(error)


@define(kw_only=True, eq=False, repr=False)
class OwnerOperation(GatewayOperation[R]):
    """An operation that the owner's wallet or passkey authorises, while the gateway is watched."""

    _auth: AuthModule
    _is_interactive: bool = field(init=False)
    _wallet_was_asked: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.method, self._is_interactive = self._auth.method, self._auth.interactive

    def _is_final(self) -> bool:
        # Someone who has read and signed one prompt is never shown a second one behind the caller's back; a one-shot request
        # needs none.
        return self._wallet_was_asked and self._is_interactive and self._frame is None

    async def _authorise(
        self, exchange: Exchange[R], challenges: Mapping[str, str], socket: Socket | None
    ) -> str:
        if socket is not None and socket.has_more():
            await self._refuse_early(socket)  # it came together with the challenge
        signing = self._sign(exchange, challenges)
        began = time.monotonic()
        started = None if self._is_interactive else Started(signing)
        if started is not None and started.is_done:
            signatures = started.result
        else:
            signatures = await self._watched(started or signing, socket)
        if time.monotonic() - began >= _AT_ONCE_S:
            await self._refuse_early(socket)
        self._refuse_if_expired()
        found = {}
        for slot, signature in signatures.items():
            found[slot] = exchange.protocol.owner_authentication(
                claim=self._claim, method=self.method, owner_id=self._auth.id, signature=signature
            )
        return exchange.authentication_frame(found)

    async def _watched(self, signing: Awaitable[dict[str, str]], socket: Socket | None) -> dict[str, str]:
        """Wait for the wallet; give up when the gateway says something meanwhile, or the time is over."""
        # An interactive wallet has a limit of its own (Timeouts.wallet_s).
        limit = asyncio.timeout(None if self._is_interactive else self._deadline.remaining())
        waiting = self._deadline.paused() if self._is_interactive else nullcontext()
        is_waiting = True

        def interrupt(_: object) -> None:
            if is_waiting and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

        watching = nullcontext() if socket is None else socket.watch(interrupt, ping_every_s=PING_EVERY_S)
        try:
            with waiting:
                async with limit:
                    with watching:
                        return await signing
        except TimeoutError:
            if not limit.expired():
                raise
            await self._refuse_early(socket)
            raise self._deadline.error("waiting for the owner's wallet") from None
        finally:
            is_waiting = False

    async def _refuse_early(self, socket: Socket | None) -> None:
        early = await socket.early_error() if socket is not None else None
        if early is not None:
            raise early

    async def _sign(self, exchange: Exchange[R], challenges: Mapping[str, str]) -> dict[str, str]:
        events, signatures = self._gateway.events, {}
        for slot, challenge in challenges.items():
            # A passkey that is being registered vouches for nothing: there is no typed data.
            typed_data = {} if self._claim is None else exchange.typed_data(slot, challenge)
            self._wallet_was_asked = True
            with wallet_turn(events, self._request_id, self._is_interactive):
                signatures[slot] = await self._auth.authorise(challenge=challenge, typed_data=typed_data)
        return signatures


@define(kw_only=True, eq=False, repr=False)
class EphemeralKeyOperation(GatewayOperation[R]):
    """An operation that the ephemeral key authorises. Nobody is waited for: signing takes less than a millisecond."""

    _claim: EphemeralClaim
    _key: EphemeralKey
    _owner_id: str
    method: AuthMethod = field(default="ephemeral", init=False)

    async def _authorise(
        self, exchange: Exchange[R], challenges: Mapping[str, str], socket: Socket | None
    ) -> str:
        del socket
        self._refuse_if_expired()
        found = {}
        for slot, challenge in challenges.items():
            signature = self._key.sign_message(exchange.ephemeral_payload(slot, challenge))
            found[slot] = exchange.ephemeral_authentication(
                slot, claim=self._claim, owner_id=self._owner_id, signature=signature
            )
        return exchange.authentication_frame(found)
