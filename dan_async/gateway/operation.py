"""
Challenges are good for one operation: a gateway that gives one twice is asking for a signature it already has.

One operation at a gateway: connect, setup, challenge, the owner's wallet, authentication, result.

Until the authentication is sent, a failure has changed nothing and the operation may be begun again. From then on the
gateway has all it needs: nothing is sent twice unless doing it twice is as good as once.

Signing at a gateway: the ephemeral key authorises it, so there is nobody to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from attrs import field, frozen

from dan_async.config import Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.errors import ChallengeError, ConnectError, DanError, RequestTimeoutError, SessionExpiredError
from dan_async.events import Attempts, EventHub, wallet_turn
from dan_async.gateway.failures import Phase, Scene
from dan_async.gateway.revision import RevisionChoice
from dan_async.network import SigningOrder
from dan_async.protocols.exchange import ApiVersion, Exchange, Revision, check_method, signgen_exchange
from dan_async.protocols.results import SigngenResult
from dan_async.protocols.setups import AuthMethod, EphemeralClaim
from dan_async.retry import RetryPolicy
from dan_async.transport.socket import FrameConnector, FrameSocket
from dan_async.types import Clock, TypedData

if TYPE_CHECKING:
    from dan_async.network import AuthModule

#: Challenges that are remembered; the oldest are forgotten first. About 100 bytes each.
MOST_REMEMBERED = 65_536


class SeenChallenges:
    """
    Remembers the challenges of one network object, so that none is answered twice.

    Args:
        most: How many to remember.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._seen: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, challenges: Iterable[str]) -> None:
        """
        Take note of challenges that came.

        Args:
            challenges: Each 64 hex digits; the case of the letters does not make another challenge.

        Raises:
            ChallengeError: One came before.
        """
        for challenge in challenges:
            value = bytes.fromhex(challenge)
            if value in self._seen:
                raise ChallengeError(
                    "the gateway gave a challenge that it had given before",
                    hint="The wallet was not asked. Suspect the gateway: repeated challenges let signatures be replayed",
                )
            self._seen[value] = None
            if len(self._seen) > self._most:
                del self._seen[next(iter(self._seen))]


R = TypeVar("R")

T = TypeVar("T")

#: While the wallet is waited for, the gateway is pinged this often, in seconds: proxies drop connections that are idle
#: for a minute, and a person may take longer.
PING_EVERY_S = 20.0

#: With less than this left of a deadline, in seconds, a wait that timed out did so because of it.
_SLACK_S = 0.01

#: Turns of the event loop in which a frame that came while the wallet signed is read.
_TURNS = 3

_DOING: dict[Phase, str] = {
    "connect": "reaching the gateway",
    "setup": "sending the gateway the setup",
    "challenge": "waiting for the gateway's challenge",
    "authentication": "sending the gateway the authentication",
    "result": "waiting for the gateway's result",
}


@frozen(kw_only=True)
class Gateway:
    """
    What all operations at one gateway share.

    Args:
        connector: The way to it.
        revision: What it speaks.
        seen: The challenges it has given.
        timeouts: Limits within an operation.
        retry: When an operation is begun again.
        clock: The wall clock.
        events: Who listens to what happens.
    """

    connector: FrameConnector
    revision: RevisionChoice
    seen: SeenChallenges = field(factory=SeenChallenges)
    timeouts: Timeouts
    retry: RetryPolicy
    clock: Clock
    events: EventHub = field(factory=EventHub)


@frozen(kw_only=True)
class _Begun(Generic[R]):
    """An operation whose challenges have come."""

    exchange: Exchange[R]
    socket: FrameSocket
    challenges: Mapping[str, str]


class GatewayOperation(Generic[R]):
    """
    Runs one operation, once.

    Args:
        gateway: Where.
        scene: What its errors say about it.
        make: Makes its texts in a revision; raises a ConfigurationError if the revision cannot carry it.
        claim: The ephemeral key that the owner vouches for; None where a passkey is registered.
        auth: Who authorises it.
        deadline: The job's deadline.
    """

    def __init__(
        self,
        gateway: Gateway,
        scene: Scene,
        make: Callable[[Revision], Exchange[R]],
        *,
        claim: EphemeralClaim | None,
        auth: AuthModule,
        deadline: Deadline,
    ) -> None:
        self._gateway = gateway
        self._scene = scene
        self._make = make
        self._claim = claim
        self._auth = auth
        self._deadline = deadline
        self._wallet_was_asked = False
        self._attempts = 0
        self._told = Attempts(
            gateway.events, node=scene.where, method=str(scene.operation), request_id=scene.request_id
        )

    async def run(self) -> R:
        """
        Run it with challenge and response.

        Raises:
            ConfigurationError: The revision cannot carry it; nothing was sent.
            GatewayError: The gateway did not do it; ``phase`` says how far it came.
            ProtocolError: The gateway sent what the protocol does not allow.
            WalletError: The owner did not authorise it; nothing was created.
            DeadlineExceededError: The time ran out.
            SessionExpiredError: The claim has expired; nothing was sent.
        """
        self._refuse_if_expired("connect")
        outcome = await self._gateway.retry.run(
            self._told.watch(self._outcome), deadline=self._deadline, before_sleep=self._told.before_sleep
        )
        if isinstance(outcome, DanError):
            outcome.attempts = self._attempts
            raise outcome
        return outcome

    async def run_one_shot(self) -> R:
        """
        Run it without a challenge: the wallet is asked first, once, and the one frame is sent over a working connection.

        Raises:
            DanError: As for ``run``.
        """
        self._refuse_if_expired("connect")
        exchange = self._made(Revision.V1)
        frame = await self._authorise(exchange, exchange.own_challenges(), None)

        async def attempt() -> R:
            socket = await self._connect()
            try:
                return await self._conclude(exchange, socket, frame)
            finally:
                await socket.aclose()

        return await self._gateway.retry.run(
            self._told.watch(attempt), deadline=self._deadline, before_sleep=self._told.before_sleep
        )

    async def _outcome(self) -> R | DanError:
        """Give the result, or an error after which the operation must not be begun again; raise the others."""
        self._attempts += 1
        try:
            begun = await self._gateway.revision.begin(
                self._begin,
                kind=(self._scene.operation, None if self._claim is None else self._claim.sign_alg),
                deadline=self._deadline,
                attempt_s=self._gateway.timeouts.attempt_s,
                where=self._scene.where,
            )
            try:
                self._refuse_seen(begun.challenges)
                frame = await self._authorise(begun.exchange, begun.challenges, begun.socket)
                return await self._conclude(begun.exchange, begun.socket, frame)
            finally:
                await begun.socket.aclose()
        except DanError as error:
            # Someone who has read and signed one prompt is never shown a second one behind the caller's back.
            if self._wallet_was_asked and self._auth.interactive:
                return error
            raise

    # --- connect, setup, challenge ------------------------------------------------------------------------------------

    def _made(self, revision: Revision) -> Exchange[R]:
        exchange = self._make(revision)
        # Now rather than after the wallet was asked.
        check_method(revision, exchange.operation, self._auth.method)
        return exchange

    async def _begin(self, revision: Revision, limit_s: float | None) -> _Begun[R]:
        exchange = self._made(revision)
        socket = await self._connect()
        step = Deadline(limit_s)
        phase: Phase = "setup"
        try:
            await socket.send(exchange.setup_frame, step.remaining())
            phase = "challenge"
            challenges = exchange.read_challenges(await socket.receive(step.remaining()))
        except DanError as error:
            await socket.aclose()
            self._fail(error, phase)
        except BaseException:
            await socket.aclose()
            raise
        return _Begun(exchange=exchange, socket=socket, challenges=challenges)

    def _refuse_seen(self, challenges: Mapping[str, str]) -> None:
        try:
            self._gateway.seen.add(challenges.values())
        except ChallengeError as error:
            self._fail(error, "challenge")

    async def _connect(self) -> FrameSocket:
        remaining = self._deadline.remaining()
        if remaining == 0.0:
            self._fail(self._deadline.error("reaching the gateway"), "connect")
        try:
            return await self._gateway.connector.open(self._scene.operation, timeout_s=remaining)
        except DanError as error:
            self._fail(error, "connect")

    def _fail(self, error: DanError, phase: Phase) -> NoReturn:
        remaining = self._deadline.remaining()
        if (
            isinstance(error, RequestTimeoutError | ConnectError)
            and error.retryable
            and remaining is not None
            and remaining < _SLACK_S
        ):
            error = self._deadline.error(_DOING[phase])
        found = self._scene.explain(error, phase)
        if found is error:
            raise found
        raise found from error

    # --- wallet -------------------------------------------------------------------------------------------------------

    async def _authorise(
        self, exchange: Exchange[R], challenges: Mapping[str, str], socket: FrameSocket | None
    ) -> str:
        """
        Have the owner sign, while the gateway is watched.

        Args:
            exchange: The operation.
            challenges: A challenge for each slot.
            socket: The connection on which they came; nothing may come on it now. None if there is none yet.

        Returns:
            The authentication frame.
        """
        if socket is not None and socket.may_hold_frames():
            await self._look_for_early(socket)  # it came together with the challenge
        signatures = await self._watch(self._sign(exchange, challenges), socket)
        self._refuse_early(socket)
        if socket is not None and socket.may_have_input():
            await self._look_for_early(socket)
        self._refuse_if_expired("wallet")
        return exchange.authentication_frame(
            {
                slot: exchange.owner_authentication(
                    claim=self._claim, method=self._auth.method, owner_id=self._auth.id, signature=signature
                )
                for slot, signature in signatures.items()
            }
        )

    async def _watch(self, signing: Coroutine[Any, Any, T], socket: FrameSocket | None) -> T:
        """Wait for the wallet; give up when the gateway says something meanwhile, or the time is over."""
        interactive = self._auth.interactive
        # An interactive wallet has a limit of its own (Timeouts.wallet_s).
        limit = asyncio.timeout(None if interactive else self._deadline.remaining())
        waiting = self._deadline.paused() if interactive else nullcontext()
        is_waiting = True

        def interrupt(_: object) -> None:
            if is_waiting and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

        try:
            with waiting:
                async with limit:
                    if socket is not None:
                        socket.listen(interrupt, ping_every_s=PING_EVERY_S)
                    return await signing
        except TimeoutError:
            if not limit.expired():
                raise
            self._refuse_early(socket)
            self._fail(self._deadline.error("waiting for the owner's wallet"), "wallet")
        finally:
            is_waiting = False
            signing.close()

    async def _look_for_early(self, socket: FrameSocket) -> None:
        socket.listen()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._refuse_early(socket)

    async def _sign(self, exchange: Exchange[R], challenges: Mapping[str, str]) -> dict[str, str]:
        signatures = {}
        for slot, challenge in challenges.items():
            # A passkey that is being registered vouches for nothing: there is no typed data.
            typed_data = {} if self._claim is None else exchange.typed_data(slot, challenge)
            self._wallet_was_asked = True
            try:
                with wallet_turn(self._gateway.events, self._scene.request_id, self._auth.interactive):
                    signatures[slot] = await self._auth.authorise(challenge=challenge, typed_data=typed_data)
            except DanError as error:
                self._fail(error, "wallet")
        return signatures

    def _refuse_early(self, socket: FrameSocket | None) -> None:
        early = socket.early_error() if socket is not None else None
        if early is not None:
            self._fail(early, "wallet")

    def _refuse_if_expired(self, phase: Phase) -> None:
        if self._claim is not None and self._claim.expiry <= self._gateway.clock():
            error = SessionExpiredError(
                "the ephemeral key's expiry has passed, so the gateway would refuse it",
                hint="Nothing was created. Ask for a longer duration, or check the clock",
            )
            self._fail(error, phase)

    # --- authentication, result ---------------------------------------------------------------------------------------

    async def _conclude(self, exchange: Exchange[R], socket: FrameSocket, frame: str) -> R:
        timeouts, limit_s = self._gateway.timeouts, self._deadline.remaining()
        # The gateway may be at work on it: giving up before the deadline would only lose the result, unless the operation
        # can be repeated.
        if limit_s is None:
            limit_s = timeouts.total_s
        if self._scene.is_idempotent:
            limit_s = min(limit_s, timeouts.attempt_s)
        phase: Phase = "authentication"
        try:
            await socket.send(frame, limit_s)
            phase = "result"
            result = exchange.read_result(await socket.receive(limit_s))
            await socket.finish()
        except DanError as error:
            self._fail(error, phase)
        return result


@frozen
class _EphemeralAuth:
    """Who authorises, as far as an operation wants to know before it begins."""

    id: str
    method: AuthMethod = "ephemeral"
    interactive: bool = False

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        """Nobody asks: an ephemeral key signs the payload of ``Exchange.ephemeral_payload``."""
        raise NotImplementedError


class SigngenOperation(GatewayOperation[tuple[SigngenResult, ...]]):
    """
    Signs the messages of an order, once.

    Args:
        gateway: Where.
        scene: What its errors say about it.
        order: What is to be signed.
        key: The ephemeral key.
        api_version: ``v1`` or ``v2``.
        deadline: The job's deadline.
    """

    def __init__(
        self,
        gateway: Gateway,
        scene: Scene,
        order: SigningOrder,
        key: EphemeralKey,
        *,
        api_version: ApiVersion,
        deadline: Deadline,
    ) -> None:
        self._order = order
        self._key = key
        super().__init__(
            gateway,
            scene,
            _exchanges(order, api_version),
            claim=order.claim,
            auth=_EphemeralAuth(order.claim.eph_id),
            deadline=deadline,
        )

    async def sign(self, *, is_one_shot: bool) -> tuple[bytes, ...]:
        """
        Run it.

        Returns:
            For each message 65 bytes r, s, v, unchecked.

        Raises:
            DanError: As for ``GatewayOperation.run``.
        """
        results = await (self.run_one_shot() if is_one_shot else self.run())
        return tuple(result.signature + bytes((27 + result.recovery_id,)) for result in results)

    async def _authorise(
        self,
        exchange: Exchange[tuple[SigngenResult, ...]],
        challenges: Mapping[str, str],
        socket: FrameSocket | None,
    ) -> str:
        del socket  # it is not watched meanwhile: signing takes less than a millisecond
        self._refuse_if_expired("wallet")
        claim = self._order.claim
        return exchange.authentication_frame(
            {
                slot: exchange.ephemeral_authentication(
                    slot,
                    claim=claim,
                    owner_id=self._order.owner_id or "",
                    signature=self._key.sign_message(exchange.ephemeral_payload(slot, challenge)),
                )
                for slot, challenge in challenges.items()
            }
        )


def _exchanges(
    order: SigningOrder, api_version: ApiVersion
) -> Callable[[Revision], Exchange[tuple[SigngenResult, ...]]]:
    def make(revision: Revision) -> Exchange[tuple[SigngenResult, ...]]:
        return signgen_exchange(
            revision, t=order.t, key_id=order.key_id, requests=order.requests, api_version=api_version
        )

    return make
