"""One operation at the devnet's gateway: what its client sends goes to the nodes, what they agree on comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import evolve

from dan_async._tasks import Deadline
from dan_async.errors import DanError, InvalidFieldError
from dan_async.models.authentication import UserAuthentication
from dan_async.models.setup import EphemeralKeySetup, KeygenSetup, SigngenSetup
from dan_async.models.threshold import Threshold
from dan_async.networks.direct import NodeNetwork
from dan_async.networks.node_round import SetupText
from dan_async.networks.node_sign_relay import RelayedOrder
from dan_async.types import new_request_id
from dan_async.wire.codec import (
    ApiVersion,
    KeygenResult,
    Operation,
    Revision,
    ServedExchange,
    ServedSetup,
    SigngenResult,
    accept,
    module_for,
    sign_requests,
)
from dan_async.wire.node_1 import decode_key_id, oneshot_request_id
from dan_async.wire.sign_digest import sign_request_digest

__all__ = ["serve_exchange"]

Send = Callable[[str], Awaitable[None]]
Receive = Callable[[], Awaitable[str]]


async def serve_exchange(
    network: NodeNetwork,
    operation: Operation,
    api_version: ApiVersion,
    *,
    first_frame: str,
    send: Send,
    receive: Receive,
    deadline: Deadline,
) -> str:
    """
    Serve one operation.

    Args:
        network: The nodes.
        operation: What the client's URL names.
        api_version: The URL's version segment.
        first_frame: The client's first frame.
        send: Sends a frame to the client.
        receive: Waits for the client's next frame.
        deadline: For the nodes' work; it stands still while the client is waited for.

    Returns:
        The result frame.

    Raises:
        ProtocolError: The client sent what the protocol does not allow.
        InvalidFieldError: It asked for something that this network does not do; the field is named.
        QuorumError: The nodes refused or failed.
        DanError: Any other failure, named.
    """
    exchange = _settled(accept(operation, first_frame, api_version=api_version))
    if len(exchange.setups) != 1:
        raise InvalidFieldError("signAlg", "must be secp256k1: this network makes one kind of key")
    served = exchange.setups[0]
    dialogue = _Dialogue(exchange, served, send, receive, deadline)
    if isinstance(served.setup, KeygenSetup):
        return await _keygen(network, dialogue, served.setup, deadline)
    if isinstance(served.setup, EphemeralKeySetup):
        return await _change(network, dialogue, served.setup, deadline)
    if operation is Operation.REGISTER_PASSKEY:
        return await _register_passkey(network, dialogue, deadline)
    if isinstance(served.setup, SigngenSetup):
        return await _sign(network, dialogue, served.setup, deadline)
    raise InvalidFieldError("operation", f"{operation} is not served here")


def _settled(exchange: ServedExchange) -> ServedExchange:
    """Tell a signgen of revision 0.1 from one of 0.3: their setups are the same, the messages in them are not."""
    setup = exchange.setups[0].setup
    if exchange.revision is not Revision.V0_3 or not isinstance(setup, SigngenSetup):
        return exchange
    try:
        sign_requests(Revision.V0_3, setup)
    except DanError:
        sign_requests(Revision.V0_1, setup)
        return evolve(exchange, revision=Revision.V0_1)
    return exchange


class _Dialogue:
    """The exchange with the client: its challenge out, its authorisation in."""

    def __init__(
        self, exchange: ServedExchange, served: ServedSetup, send: Send, receive: Receive, deadline: Deadline
    ) -> None:
        self.exchange = exchange
        self._served = served
        self._send = send
        self._receive = receive
        self._deadline = deadline

    @property
    def is_oneshot(self) -> bool:
        """Whether the client has signed already."""
        return self.exchange.api_version == "v2"

    def setup_text(self, key_id: str | None = None) -> SetupText:
        """The client's setup as the nodes are sent it."""
        made = SetupText(
            request_id=new_request_id(),
            operation=str(self.exchange.operation),
            revision=str(self.exchange.revision),
            text=self._served.text,
            key_id=None if key_id is None else decode_key_id(key_id),
        )
        if not self.is_oneshot:
            return made
        return SetupText(
            request_id=oneshot_request_id(made.digest),
            operation=made.operation,
            revision=made.revision,
            text=made.text,
            key_id=made.key_id,
        )

    def given(self) -> UserAuthentication:
        """The authorisation that came with the setup."""
        assert self.exchange.authentications is not None
        return self.exchange.authentications[self._served.slot]

    async def authenticate(self, challenge: str) -> UserAuthentication:
        """Take a challenge to the client and bring its authorisation back."""
        if self.is_oneshot:
            return self.given()
        with self._deadline.paused():
            await self._send(self.exchange.challenge_frame({self._served.slot: challenge}))
            self.exchange = self.exchange.read_authentications(await self._receive())
        return self.given()


async def _keygen(network: NodeNetwork, dialogue: _Dialogue, setup: KeygenSetup, deadline: Deadline) -> str:
    if setup.sign_alg != "secp256k1":
        raise InvalidFieldError("signAlg", "must be secp256k1: this network makes no other keys")
    threshold = Threshold(setup.t, setup.n)
    text = dialogue.setup_text()
    if dialogue.is_oneshot:
        report = await network.relay_oneshot_keygen(text, threshold, dialogue.given(), deadline=deadline)
    else:
        report = await network.relay_keygen(text, threshold, dialogue.authenticate, deadline=deadline)
    # Compressed on purpose: of an uncompressed key the TypeScript clients work out a wrong address (docs/gateway.md).
    result = KeygenResult(key_id=report.key_id, public_key=report.public_key, sign_alg="secp256k1")
    return dialogue.exchange.keygen_frame([result])


async def _change(
    network: NodeNetwork, dialogue: _Dialogue, setup: EphemeralKeySetup, deadline: Deadline
) -> str:
    if setup.tagged_key_id is None or setup.claim_text is None:
        raise InvalidFieldError("metadata", "must name the key and the ephemeral key")
    revision = Revision(dialogue.exchange.revision)
    claim = module_for(revision).decode_claim(setup.claim_text)
    await network.relay_change(
        dialogue.setup_text(setup.tagged_key_id),
        dialogue.authenticate,
        eph_id=claim.eph_id,
        threshold=None,
        deadline=deadline,
        is_oneshot=dialogue.is_oneshot,
    )
    return dialogue.exchange.status_frame()


async def _register_passkey(network: NodeNetwork, dialogue: _Dialogue, deadline: Deadline) -> str:
    if dialogue.is_oneshot:
        raise InvalidFieldError(
            "operation", "registerPasskey needs a challenge: the path is /v1/registerPasskey"
        )
    await network.relay_passkey(dialogue.setup_text(), dialogue.authenticate, deadline=deadline)
    return dialogue.exchange.passkey_frame()


async def _sign(network: NodeNetwork, dialogue: _Dialogue, setup: SigngenSetup, deadline: Deadline) -> str:
    if setup.sign_alg != "secp256k1":
        raise InvalidFieldError("signAlg", "must be secp256k1: this network has no other keys")
    requests = sign_requests(dialogue.exchange.revision, setup)
    order = RelayedOrder(
        setup=dialogue.setup_text(setup.key_id),
        t=setup.t,
        digests=tuple(sign_request_digest(request) for request in requests),
        is_oneshot=dialogue.is_oneshot,
    )
    signatures = await network.relay_signgen(order, dialogue.authenticate, deadline=deadline)
    return dialogue.exchange.signgen_frame(
        [
            SigngenResult(
                signature=signature[:64],
                recovery_id=signature[64] - 27,
                transaction_id=request.transaction_id,
            )
            for request, signature in zip(requests, signatures, strict=True)
        ]
    )
