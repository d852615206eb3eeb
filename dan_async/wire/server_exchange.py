"""
The gateway's side of one operation: the mirror of ``client_exchange``. Nothing here waits, connects or checks a signature.

A gateway does: ``accept`` the first frame; for ``v1`` send ``challenge_frame`` and ``read_authentications``; have the
nodes do it; send ``keygen_frame`` or another result frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from dan_async.errors import InvalidFieldError
from dan_async.models.authentication import UserAuthentication
from dan_async.models.setup import EphemeralKeySetup, KeygenSetup, SigngenSetup
from dan_async.types import Json
from dan_async.wire import revision_1
from dan_async.wire.members import load_text
from dan_async.wire.metadata import claim_is_bare_key
from dan_async.wire.results import STATUS_OK, KeygenResult, SigngenResult
from dan_async.wire.revisions import (
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
)

__all__ = ["ServedExchange", "ServedSetup", "accept", "detect_revision"]


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
