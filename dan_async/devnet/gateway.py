"""
The devnet's gateway: the public clients' protocol in every revision, in front of the nodes.

It is a relay and is trusted for nothing. The nodes are sent the owner's setup as it came, and check the owner's signature
over a challenge that holds their own nonces; the gateway could refuse, but not forge. Any number of gateways can stand in
front of the same nodes.

In each operation the client's frames go to the nodes, and their agreed result comes back. The owner, or the ephemeral key,
signs elsewhere and in whichever revision: the signature is relayed.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from aiohttp import WSMsgType, web
from attrs import define, evolve, field, frozen

from dan_async._values import check_int, check_seconds, in_seconds, member_of, required
from dan_async.config import MAX_PARTIES, Threshold
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.devnet.listening import CLOSE_S, Arrivals, Door, receive
from dan_async.errors import (
    ConfigurationError,
    DanError,
    DeadlineExceededError,
    InvalidFieldError,
    NodeCode,
    NodeOutcome,
    NodeRefusedError,
    ProtocolError,
    QuorumError,
)
from dan_async.network import KeygenReport
from dan_async.nodes.ask_many import Plan
from dan_async.nodes.changes import change_ephemeral_key, register_passkey
from dan_async.nodes.health import rank
from dan_async.nodes.keygen import not_ready, run_keygen
from dan_async.nodes.network import NodeNetwork, NodePool
from dan_async.nodes.node import probing
from dan_async.nodes.round import Authenticate, NodeRound, SetupText, open_round
from dan_async.nodes.signature_shares import ExpectedShares
from dan_async.nodes.signing_race import Run, SignerRace
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.fields import decode_key_id, load_text, new_request_id
from dan_async.protocols.gateway import MAIN, ApiVersion, GatewayProtocol, Operation, Revision
from dan_async.protocols.gateway_0_3 import REVISION_0_1, REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import ChallengeResult, SignParams, oneshot_request_id
from dan_async.protocols.results import STATUS_OK, KeygenResult, SigngenResult
from dan_async.protocols.setups import (
    EphemeralKeySetup,
    KeygenSetup,
    Setup,
    SigngenSetup,
    UserAuthentication,
    WrittenSetup,
    claim_is_bare_key,
)
from dan_async.protocols.sign_request import SignRequest, sign_request_digest

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@frozen(kw_only=True)
class ServedExchange:
    """One operation that a client began. ``authentications`` is None until they have come."""

    protocol: GatewayProtocol
    operation: Operation
    api_version: ApiVersion
    setups: Mapping[str, WrittenSetup]
    authentications: Mapping[str, UserAuthentication] | None = None

    def challenge_frame(self, challenges: Mapping[str, str]) -> str:
        """Write the frame of challenges, one for each setup."""
        if challenges.keys() != self.setups.keys():
            raise InvalidFieldError("challenges", f"must be one for each of {', '.join(self.setups)}")
        ordered = {slot: challenges[slot] for slot in self.setups}
        return self.protocol.encode_challenges(self.operation, ordered)

    def read_authentications(self, frame: str) -> ServedExchange:
        """Read the frame that answers the challenges."""
        return self.authorised(self.protocol.decode_authentications(self.operation, frame, self.setups))

    def authorised(self, found: Mapping[str, UserAuthentication]) -> ServedExchange:
        """Return the exchange with its authentications, if their methods may carry it."""
        for auth in found.values():
            self.protocol.check_method(self.operation, auth.method)
        return evolve(self, authentications=found)

    def passkey_frame(self) -> str:
        """Write the result frame of registerPasskey: the id of the credential that was registered."""
        if self.operation is not Operation.REGISTER_PASSKEY or not self.authentications:
            raise InvalidFieldError("operation", "is not a registerPasskey that was authorised")
        return self.authentications[MAIN].id


def detect_revision(operation: Operation | str, frame: str) -> Revision:
    """Find out by its setup frame which revision a client speaks; a signgen of 0.1 or 0.3 is taken for 0.3 here."""
    known = member_of(Operation, "operation", operation)
    value = load_text(frame)
    if not isinstance(value, dict):
        return Revision.V1
    if known is Operation.KEYGEN:
        return Revision.V0_1 if claim_is_bare_key(value.get("metadata")) else Revision.V0_3
    if known is Operation.SIGNGEN:
        return Revision.V1 if "signAlg" in value else Revision.V0_3
    if known is Operation.ADD_EPHEMERAL_KEY:
        return Revision.V0_3 if "n" in value or "key_id" in value else Revision.V1
    return Revision.V1


def accept(
    operation: Operation | str,
    frame: str,
    *,
    api_version: ApiVersion = "v1",
    revision: Revision | str | None = None,
) -> ServedExchange:
    """Read the first frame of a connection; a one-shot exchange has its authentications already."""
    is_one_shot = api_version == "v2"
    if revision is None:
        protocol: GatewayProtocol = (
            REVISION_1 if is_one_shot else protocol_for(detect_revision(operation, frame))
        )
    else:
        protocol = protocol_for(revision)
    protocol.check_operation(operation, api_version)
    setup_frame, signatures = REVISION_1.decode_oneshot(frame) if is_one_shot else (frame, None)
    setups: dict[str, WrittenSetup] = {}
    for text in protocol.split_setups(operation, setup_frame):
        slot, setup = _read_setup(protocol, operation, text)
        if slot in setups:
            raise InvalidFieldError("signAlg", "is the same in two setups")
        if revision is None and protocol is REVISION_0_3 and _has_message_of_0_1(setup):
            protocol = REVISION_0_1
        setups[slot] = WrittenSetup(setup=setup, text=text)
    exchange = ServedExchange(
        protocol=protocol, operation=Operation(operation), api_version=api_version, setups=setups
    )
    if is_one_shot:
        return exchange.authorised(REVISION_1.read_authentications(operation, signatures, setups))
    return exchange


def _read_setup(protocol: GatewayProtocol, operation: str, text: str) -> tuple[str, Setup]:
    setup = protocol.decode_setup(operation, text)
    if isinstance(setup, KeygenSetup | EphemeralKeySetup):
        protocol.decode_claim(setup.claim_text or "")  # refused now rather than after a wallet was asked
    return (setup.sign_alg if isinstance(setup, KeygenSetup | SigngenSetup) else MAIN), setup


def _has_message_of_0_1(setup: Setup) -> bool:
    """Whether a signgen is of revision 0.1 rather than 0.3; a message of neither is refused."""
    if not isinstance(setup, SigngenSetup):
        return False
    try:
        REVISION_0_3.sign_requests(setup)
    except DanError:
        REVISION_0_1.sign_requests(setup)
        return True
    return False


# --- asking the nodes -------------------------------------------------------------------------------------------------

#: How long nodes are waited for when t have given their nonces for a signature, in seconds.
_PATIENCE_S = 0.25


async def relay_keygen(
    pool: NodePool,
    setup: SetupText,
    threshold: Threshold,
    authenticate: Authenticate,
    *,
    deadline: Deadline,
    is_oneshot: bool = False,
) -> KeygenReport:
    """Make a key; *authenticate* takes the challenge to the owner, who may have signed without one (revision 1, "v2")."""

    async def generate(opened: NodeRound) -> KeygenReport:
        return await run_keygen(
            pool.by_operator,
            opened,
            await authenticate(opened.challenge),
            threshold,
            deadline=deadline,
            grace_s=pool.timeouts.grace_s,
        )

    pool.refuse_if_closed()
    with pool.operation(setup.request_id, setup.operation):
        ranked = rank(pool.nodes)
        if is_oneshot:
            if len(ranked) < threshold.n:
                raise not_ready(len(ranked), threshold, (), setup.request_id, deadline=deadline)
            return await generate(NodeRound.oneshot(setup, pool.nodes, threshold.n))
        async with probing(ranked[threshold.n :], deadline=deadline):
            plan: Plan[ChallengeResult] = Plan(wanted=threshold.n, hedge_s=pool.timeouts.hedge_s)
            opened, asked = await open_round(ranked, setup, plan, deadline=deadline)
            ready = len(opened.participants)
            if ready < threshold.n:
                raise not_ready(ready, threshold, asked.outcomes, setup.request_id, deadline=deadline)
            return await generate(opened)


@frozen(kw_only=True)
class RelayedOrder:
    """A client's request to sign the digests with the key that the setup names."""

    setup: SetupText
    t: int
    digests: tuple[bytes, ...]
    is_oneshot: bool = False  # the ephemeral key has signed already, without a challenge from the nodes


async def relay_signgen(
    pool: NodePool, order: RelayedOrder, authenticate: Authenticate, *, deadline: Deadline
) -> tuple[bytes, ...]:
    """
    Have t of the nodes sign: 65 bytes r, s, v for each message, which recover to the key that t nodes say it is.

    Whoever has the ephemeral key signs once. So the challenge covers a nonce of every node that is ready, and any t of these
    may sign: where one fails then, others take over without asking again.
    """
    setup = order.setup
    pool.refuse_if_closed()
    with pool.operation(setup.request_id, setup.operation):
        candidates = rank(pool.nodes)
        assert setup.key_id is not None
        plan: Plan[ChallengeResult] = Plan(
            wanted=min(len(candidates), MAX_PARTIES), least=order.t, patience_s=_PATIENCE_S
        )
        opened, asked = await open_round(candidates, setup, plan, deadline=deadline)
        if len(asked.values) < order.t:
            raise _not_ready(order, asked.outcomes)
        if order.is_oneshot:
            opened = opened.without_nonces()
        authentication = await authenticate(opened.challenge)
        expected = ExpectedShares(
            request_id=setup.request_id,
            key_id=setup.key_id,
            digests=order.digests,
            presignatures=None,
            address=None,
        )

        async def attempt(run: Run) -> tuple[bytes, ...]:
            params = SignParams(
                request_id=setup.request_id,
                revision=setup.revision,
                setup=setup.text,
                signers=run.operators,
                participants=opened.participants if opened.nonces else (),
                nonces=opened.nonces,
                user_authentication=authentication,
            )
            return await pool.signer.collect(run, params, expected, deadline)

        ready = [node for node in candidates if node.operator in opened.participants]
        race = SignerRace(ready, order.t, attempt, lateness=pool.signer.lateness, deadline=deadline)
        return await race.run()


def _not_ready(order: RelayedOrder, outcomes: Sequence[NodeOutcome[Any]]) -> QuorumError:
    holds = [
        outcome
        for outcome in outcomes
        if not (isinstance(outcome.error, NodeRefusedError) and outcome.error.code == NodeCode.UNKNOWN_KEY)
    ]
    return QuorumError(
        f"fewer than {order.t} nodes that hold the key are ready to sign"
        if holds
        else "no node holds this key",
        hint="Nothing was signed; look at the network's health()" if holds else "Check the key id",
        threshold=order.t,
        outcomes=outcomes,
        phase="challenge",
        request_id=order.setup.request_id,
        retryable=bool(holds),
    )


# --- limits and refusals ------------------------------------------------------------------------------------------------

#: Longest close reason that fits in a WebSocket close frame, in bytes.
_LONGEST_REASON = 120


class CloseCode:
    """Why the gateway closed a connection before its result; 1000 comes after a result."""

    #: The protocol does not allow the frame here.
    BAD_REQUEST = 4400
    #: The nodes refused the owner's authorisation.
    REFUSED = 4403
    #: The client was silent for too long.
    TIMEOUT = 4408
    #: The nodes could not do it.
    NETWORK_FAILED = 4502


@frozen(kw_only=True)
class GatewayLimits:
    """Limits of the gateway."""

    max_frame_bytes: int = field(
        default=1024 * 1024, validator=required(check_int, least=1024, most=64 * 1024 * 1024)
    )
    max_connections: int = field(default=1024, validator=required(check_int, least=1, most=2**20))
    #: Seconds to wait for the first frame; for the owner's authorisation, as a person may be reading; for the nodes' work.
    first_frame_s: float = field(default=10.0, converter=in_seconds, validator=required(check_seconds))
    wallet_s: float = field(default=240.0, converter=in_seconds, validator=required(check_seconds))
    operation_s: float = field(default=60.0, converter=in_seconds, validator=required(check_seconds))


def _close_code(error: DanError) -> int:
    if isinstance(error, DeadlineExceededError):
        return CloseCode.TIMEOUT
    if isinstance(error, ConfigurationError | ProtocolError):
        return CloseCode.BAD_REQUEST
    refusals = [outcome.error for outcome in error.nodes if isinstance(outcome.error, NodeRefusedError)]
    if isinstance(error, QuorumError) and refusals and not any(refusal.retryable for refusal in refusals):
        return CloseCode.REFUSED
    return CloseCode.NETWORK_FAILED


def _reason(error: DanError) -> str:
    """Return the one line that helps a client most: a node's refusal, where there is one."""
    refusal = next((o.error for o in error.nodes if isinstance(o.error, NodeRefusedError)), None)
    return refusal.message if refusal is not None else error.message


# --- one operation ----------------------------------------------------------------------------------------------------

#: Characters that are read and hashed in some 5 ms at most, whatever they are.
_LONG = 8 * 1024


async def _read(text: str, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Read what is in a text of a stranger's: off the event loop if it is long."""
    if len(text) <= _LONG:
        return function(*args, **options)
    return await asyncio.to_thread(function, *args, **options)


def _read_requests(
    protocol: GatewayProtocol, setup: SigngenSetup
) -> tuple[Sequence[SignRequest], tuple[bytes, ...]]:
    requests = protocol.sign_requests(setup)
    return requests, tuple(map(sign_request_digest, requests))


@frozen(eq=False)
class Waits:
    """The connections that wait for a client: for the first frame, and for the owner's authorisation; the oldest first."""

    silent: dict[asyncio.Transport, None] = field(factory=dict)
    asked: dict[asyncio.Transport, None] = field(factory=dict)


@define(eq=False, repr=False)
class ServedOperation:
    """One operation of one client: its frames in and out, and the nodes asked in between."""

    _pool: NodePool
    _websocket: web.WebSocketResponse
    _transport: asyncio.Transport
    _limits: GatewayLimits
    _waits: Waits
    _slot: str = field(init=False)
    _text: str = field(init=False)
    _exchange: ServedExchange = field(init=False)
    #: Of the nodes' work: it stands still while the client is waited for.
    _deadline: Deadline = field(init=False)

    async def run(self, operation: Operation, api_version: ApiVersion) -> str:
        """Serve it and return the result frame; a TimeoutError if the client is silent, a ConnectionError if it left."""
        frame = await self._receive(self._limits.first_frame_s, self._waits.silent)
        self._deadline = Deadline(self._limits.operation_s)
        self._exchange = await _read(frame, accept, operation, frame, api_version=api_version)
        if len(self._exchange.setups) != 1:
            raise InvalidFieldError("signAlg", "must be secp256k1: this network makes one kind of key")
        [(self._slot, written)] = self._exchange.setups.items()
        self._text, setup = written.text, written.setup
        if isinstance(setup, KeygenSetup | SigngenSetup) and setup.sign_alg != "secp256k1":
            raise InvalidFieldError("signAlg", "must be secp256k1: this network has no other keys")
        self._pool.refuse_if_closed()
        if isinstance(setup, KeygenSetup):
            return await self._keygen(setup)
        if isinstance(setup, EphemeralKeySetup):
            return await self._change(setup)
        if isinstance(setup, SigngenSetup):
            return await self._sign(setup)
        return await self._register_passkey()

    async def finish(self, result: str) -> None:
        """Send the result, and close the connection."""
        await self._websocket.send_str(result)
        await self._websocket.close(code=1000)

    async def refuse(self, code: int, reason: str) -> None:
        """Close the connection, and say why."""
        cut = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        await self._websocket.close(code=code, message=cut.encode())

    @property
    def _is_oneshot(self) -> bool:
        return self._exchange.api_version == "v2"

    async def _receive(self, timeout_s: float, waiting: dict[asyncio.Transport, None]) -> str:
        waiting[self._transport] = None
        try:
            message = await receive(self._websocket, timeout_s)
        finally:
            waiting.pop(self._transport, None)
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.BINARY:
            raise ProtocolError("frames are text")
        raise ConnectionError("the client closed the connection")

    async def _authenticate(self, challenge: str) -> UserAuthentication:
        """Take a challenge to the client and bring its authorisation back."""
        if not self._is_oneshot:
            with self._deadline.paused():
                await self._websocket.send_str(self._exchange.challenge_frame({self._slot: challenge}))
                frame = await self._receive(self._limits.wallet_s, self._waits.asked)
            self._exchange = await _read(frame, self._exchange.read_authentications, frame)
        assert self._exchange.authentications is not None
        return self._exchange.authentications[self._slot]

    def _setup_text(self, key_id: str | None = None) -> SetupText:
        """Return the client's setup as the nodes are sent it."""
        made = SetupText(
            request_id=new_request_id(),
            operation=str(self._exchange.operation),
            revision=str(self._exchange.protocol.revision),
            text=self._text,
            key_id=None if key_id is None else decode_key_id(key_id),
        )
        return evolve(made, request_id=oneshot_request_id(made.digest)) if self._is_oneshot else made

    async def _keygen(self, setup: KeygenSetup) -> str:
        report = await relay_keygen(
            self._pool,
            self._setup_text(),
            Threshold(setup.t, setup.n),
            self._authenticate,
            deadline=self._deadline,
            is_oneshot=self._is_oneshot,
        )
        # Compressed on purpose: TypeScript clients derive a wrong address from an uncompressed key; see
        # docs/reference/gateway.md.
        result = KeygenResult(key_id=report.key_id, public_key=report.public_key, sign_alg="secp256k1")
        return self._exchange.protocol.encode_keygen_results([result])

    async def _change(self, setup: EphemeralKeySetup) -> str:
        if setup.tagged_key_id is None or setup.claim_text is None:
            raise InvalidFieldError("metadata", "must name the key and the ephemeral key")
        text = self._setup_text(setup.tagged_key_id)
        with self._pool.operation(text.request_id, text.operation):
            await change_ephemeral_key(
                self._pool.by_operator,
                text,
                self._authenticate,
                eph_id=self._exchange.protocol.decode_claim(setup.claim_text).eph_id,
                deadline=self._deadline,
                patience_s=self._pool.timeouts.patience_s,
                is_oneshot=self._is_oneshot,
            )
        return STATUS_OK

    async def _register_passkey(self) -> str:
        if self._is_oneshot:
            raise InvalidFieldError(
                "operation", "registerPasskey needs a challenge: the path is /v1/registerPasskey"
            )
        pool, text = self._pool, self._setup_text()
        needed = min(pool.default_threshold.n, len(pool.nodes))
        with pool.operation(text.request_id, text.operation):
            await register_passkey(
                pool.by_operator,
                text,
                self._authenticate,
                needed=needed,
                deadline=self._deadline,
                patience_s=pool.timeouts.patience_s,
            )
        return self._exchange.passkey_frame()

    async def _sign(self, setup: SigngenSetup) -> str:
        protocol = self._exchange.protocol
        requests, digests = await _read(setup.message, _read_requests, protocol, setup)
        order = RelayedOrder(
            setup=self._setup_text(setup.key_id), t=setup.t, digests=digests, is_oneshot=self._is_oneshot
        )
        signatures = await relay_signgen(self._pool, order, self._authenticate, deadline=self._deadline)
        results = [
            SigngenResult(
                signature=signature[:64],
                recovery_id=signature[64] - 27,
                transaction_id=request.transaction_id,
            )
            for request, signature in zip(requests, signatures, strict=True)
        ]
        return protocol.encode_signgen_results(results)


# --- the server -------------------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class GatewayServer:
    """One gateway, which closes its network. ``start`` once, ``stop`` once. Clients must show the token, if there is one."""

    _network: NodeNetwork
    _token: str | None = field(kw_only=True)
    _limits: GatewayLimits = field(kw_only=True)
    _allow_origins: Collection[str] = field(kw_only=True)
    _serving: set[asyncio.Task[Any]] = field(factory=set, init=False)
    _waits: Waits = field(factory=Waits, init=False)
    _runner: web.AppRunner | None = field(default=None, init=False)
    _door: Door | None = field(default=None, init=False)

    async def start(self, listener: socket.socket) -> None:
        """Begin to listen on a bound socket, which ``stop`` closes."""
        app = web.Application()
        app.router.add_get("/{version:v[12]}/{operation}", self._serve)
        arrivals = Arrivals(self._limits.max_connections, self._limits.first_frame_s, self._allow_origins)
        self._runner = await arrivals.serve(app)
        self._door = Door(self._runner, listener, arrivals)
        await self._door.start(is_open=True)

    async def stop(self) -> None:
        """Stop listening, give up the operations under way, and close the connections to the nodes."""
        if self._door is not None:
            await self._door.aclose()
        await cancel_and_wait(list(self._serving))
        if self._runner is not None:
            await self._runner.cleanup()
        await self._network.aclose()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        websocket = web.WebSocketResponse(
            autoping=False,
            compress=False,
            max_msg_size=self._limits.max_frame_bytes,
            timeout=CLOSE_S,
        )
        await websocket.prepare(request)
        task, transport = asyncio.current_task(), request.transport
        assert task is not None
        if transport is None:
            return websocket
        self._serving.add(task)
        try:
            await self._operate(
                request, ServedOperation(self._network.pool, websocket, transport, self._limits, self._waits)
            )
        finally:
            self._serving.discard(task)
        return websocket

    def _refuse(self, request: web.Request) -> web.Response | None:
        if request.match_info["operation"] not in set(Operation):
            return web.Response(status=404, text="no such operation")
        if self._token is not None and not _has_token(request, self._token):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        if len(self._serving) >= self._limits.max_connections:
            waiting = self._waits.silent or self._waits.asked  # those who say nothing keep nobody out
            if not waiting:
                return web.Response(status=503, headers={"Retry-After": "1"})
            longest = next(iter(waiting))
            del waiting[longest]
            longest.abort()
        return None

    async def _operate(self, request: web.Request, served: ServedOperation) -> None:
        api_version: ApiVersion = "v2" if request.match_info["version"] == "v2" else "v1"
        try:
            await served.finish(await served.run(Operation(request.match_info["operation"]), api_version))
        except DanError as error:
            _log.info("request %s: %s", error.request_id, error)
            await served.refuse(_close_code(error), _reason(error))
        except TimeoutError:
            await served.refuse(CloseCode.TIMEOUT, "no frame came in time")
        except ConnectionError:
            pass  # the client left: nobody is left to answer


def _has_token(request: web.Request, token: str) -> bool:
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = bearer if scheme.lower() == "bearer" else request.headers.get("X-Api-Key", "")
    return hmac.compare_digest(given.encode(), token.encode())
