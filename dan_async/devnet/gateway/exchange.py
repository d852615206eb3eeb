"""
One operation at the devnet's gateway: what its client sends goes to the nodes, what they agree on comes back.

The gateway's side of one operation: the mirror of ``client_exchange``. Nothing here waits, connects or checks a signature.

A gateway does: ``accept`` the first frame; for ``v1`` send ``challenge_frame`` and ``read_authentications``; have the
nodes do it; send ``keygen_frame`` or another result frame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import evolve, frozen

from dan_async.config import Threshold
from dan_async.deadline import Deadline
from dan_async.devnet.gateway.relay import (
    RelayedOrder,
    relay_change,
    relay_keygen,
    relay_oneshot_keygen,
    relay_passkey,
    relay_signgen,
)
from dan_async.errors import DanError, InvalidFieldError
from dan_async.nodes.network import NodeNetwork
from dan_async.nodes.round import SetupText
from dan_async.protocols import gateway_1 as revision_1
from dan_async.protocols.exchange import (
    MAIN,
    ApiVersion,
    Operation,
    Revision,
    Setup,
    check_method,
    check_operation,
    decode_setup,
    module_for,
    oneshot_challenge,
    sign_requests,
)
from dan_async.protocols.fields import decode_key_id, load_text
from dan_async.protocols.node import oneshot_request_id
from dan_async.protocols.results import STATUS_OK, KeygenResult, SigngenResult
from dan_async.protocols.setups import (
    EphemeralKeySetup,
    KeygenSetup,
    SigngenSetup,
    UserAuthentication,
    claim_is_bare_key,
)
from dan_async.protocols.sign_request import sign_request_digest
from dan_async.types import Json, new_request_id


@frozen(kw_only=True)
class ServedSetup:
    """
    One setup as it came.

    Args:
        slot: Its name in the other frames: the distributed key's algorithm, or ``main``.
        text: Its text, exactly as it was sent.
        setup: What it says.
    """

    slot: str
    text: str
    setup: Setup


@frozen(kw_only=True)
class ServedExchange:
    """
    One operation that a client began.

    Args:
        revision: The revision the client speaks. A signgen before revision 1 is taken for 0.3 until
            ``read_authentications`` knows better: its setup is the same in 0.1.
        operation: What it is for.
        api_version: ``v1`` (challenge and response) or ``v2`` (one-shot).
        setups: What the client asks for.
        authentications: Who authorised each slot; None until the client said.
    """

    revision: Revision
    operation: Operation
    api_version: ApiVersion
    setups: tuple[ServedSetup, ...]
    authentications: Mapping[str, UserAuthentication] | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """A name for each setup."""
        return tuple(entry.slot for entry in self.setups)

    def challenge_frame(self, challenges: Mapping[str, str]) -> str:
        """
        Write the challenge frame.

        Args:
            challenges: For each slot 64 hex digits without 0x.

        Raises:
            InvalidFieldError: A challenge is missing or has another form.
        """
        if set(challenges) != set(self.slots):
            raise InvalidFieldError("challenges", f"must be one for each of {', '.join(self.slots)}")
        ordered = {slot: challenges[slot] for slot in self.slots}
        return module_for(self.revision).encode_challenges(self.operation, ordered)

    def own_challenges(self) -> dict[str, str]:
        """Give the challenges that a one-shot client has signed: for each slot a hash of its setup."""
        return {entry.slot: oneshot_challenge(entry.text) for entry in self.setups}

    def read_authentications(self, frame: str) -> ServedExchange:
        """
        Read the authentication frame.

        Returns:
            This exchange with its authentications, and its revision settled.

        Raises:
            ProtocolError: It is not JSON.
            InvalidFieldError: A member is missing, unknown or wrong.
        """
        found = module_for(self.revision).decode_authentications(self.operation, frame, self.slots)
        revision = self.revision
        if self.operation is Operation.SIGNGEN and revision is Revision.V0_3:
            revision = _signgen_revision(next(iter(found.values())))
        return _authorised(evolve(self, revision=revision), found)

    def keygen_frame(self, results: Sequence[KeygenResult]) -> str:
        """Write the result frame of keygen."""
        return module_for(self.revision).encode_keygen_results(results)

    def signgen_frame(self, results: Sequence[SigngenResult]) -> str:
        """Write the result frame of signgen."""
        return module_for(self.revision).encode_signgen_results(results)

    def status_frame(self) -> str:
        """Write the result frame of addEphemeralKey and revokeEphemeralKey."""
        return STATUS_OK

    def passkey_frame(self) -> str:
        """Write the result frame of registerPasskey: the id of the credential that was registered."""
        if self.operation is not Operation.REGISTER_PASSKEY or not self.authentications:
            raise InvalidFieldError("operation", "is not a registerPasskey that was authorised")
        return next(iter(self.authentications.values())).id


def _authorised(exchange: ServedExchange, found: Mapping[str, UserAuthentication]) -> ServedExchange:
    for auth in found.values():
        check_method(exchange.revision, exchange.operation, auth.method)
    return evolve(exchange, authentications=found)


def _signgen_revision(auth: UserAuthentication) -> Revision:
    """Tell 0.1 from 0.3 by the credentials: only 0.1 names the owner in them."""
    credentials = load_text(auth.credentials)
    return Revision.V0_1 if isinstance(credentials, dict) and "eoa" in credentials else Revision.V0_3


def detect_revision(operation: Operation | str, frame: str) -> Revision:
    """
    Find out by its setup frame which revision a client speaks. The frame is not checked here.

    Args:
        operation: The operation that the client's URL named.
        frame: Its first frame, of challenge and response.

    Returns:
        The revision; 0.3 for a signgen of 0.1 or 0.3, whose setups are the same.

    Raises:
        ProtocolError: The frame is not JSON.
        InvalidFieldError: There is no such operation.
    """
    check_operation(Revision.V1, operation)
    value: Json = load_text(frame)
    if not isinstance(value, dict):
        return Revision.V1
    if operation == Operation.KEYGEN:
        return Revision.V0_1 if claim_is_bare_key(value.get("metadata")) else Revision.V0_3
    if operation == Operation.SIGNGEN:
        return Revision.V1 if "signAlg" in value else Revision.V0_3
    if operation == Operation.ADD_EPHEMERAL_KEY:
        return Revision.V0_3 if "n" in value or "key_id" in value else Revision.V1
    return Revision.V1


def accept(
    operation: Operation | str,
    frame: str,
    *,
    api_version: ApiVersion = "v1",
    revision: Revision | str | None = None,
) -> ServedExchange:
    """
    Read the first frame of a connection.

    Args:
        operation: The operation that the client's URL named.
        frame: The frame.
        api_version: The version segment of the URL.
        revision: The revision to insist on; found out if None.

    Returns:
        The exchange; a one-shot one has its authentications already.

    Raises:
        ProtocolError: The frame is not JSON.
        InvalidFieldError: A member is missing, unknown or wrong, or the revision has no such operation.
    """
    if revision is None:
        revision = Revision.V1 if api_version == "v2" else detect_revision(operation, frame)
    found, known = check_operation(revision, operation, api_version)
    setup_frame, signatures = revision_1.decode_oneshot(frame) if api_version == "v2" else (frame, None)
    setups = tuple(_served(found, known, text) for text in module_for(found).split_setups(known, setup_frame))
    if len({entry.slot for entry in setups}) != len(setups):
        raise InvalidFieldError("signAlg", "is the same in two setups")
    exchange = ServedExchange(revision=found, operation=known, api_version=api_version, setups=setups)
    if api_version == "v2":
        return _authorised(exchange, revision_1.read_authentications(known, signatures, exchange.slots))
    return exchange


def _served(revision: Revision, operation: Operation, text: str) -> ServedSetup:
    setup = decode_setup(revision, operation, text)
    if isinstance(setup, KeygenSetup | EphemeralKeySetup):
        module_for(revision).decode_claim(
            setup.claim_text or ""
        )  # refused now rather than after a wallet was asked
    slot = setup.sign_alg if isinstance(setup, KeygenSetup | SigngenSetup) else MAIN
    return ServedSetup(slot=slot, text=text, setup=setup)


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
        report = await relay_oneshot_keygen(
            network.pool, text, threshold, dialogue.given(), deadline=deadline
        )
    else:
        report = await relay_keygen(network.pool, text, threshold, dialogue.authenticate, deadline=deadline)
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
    await relay_change(
        network.pool,
        dialogue.setup_text(setup.tagged_key_id),
        dialogue.authenticate,
        eph_id=claim.eph_id,
        deadline=deadline,
        is_oneshot=dialogue.is_oneshot,
    )
    return dialogue.exchange.status_frame()


async def _register_passkey(network: NodeNetwork, dialogue: _Dialogue, deadline: Deadline) -> str:
    if dialogue.is_oneshot:
        raise InvalidFieldError(
            "operation", "registerPasskey needs a challenge: the path is /v1/registerPasskey"
        )
    await relay_passkey(network.pool, dialogue.setup_text(), dialogue.authenticate, deadline=deadline)
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
    signatures = await relay_signgen(network.pool, order, dialogue.authenticate, deadline=deadline)
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
