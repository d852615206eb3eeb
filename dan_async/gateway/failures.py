"""Failures at a gateway, in words a person can act on: the one place where a transport's error becomes ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from attrs import field, frozen

from dan_async.errors import (
    ConnectError,
    ConnectionLostError,
    DanError,
    GatewayError,
    ProtocolError,
    RequestTimeoutError,
    WalletError,
)
from dan_async.protocols.gateway import Operation
from dan_async.types import RequestId

#: The steps of an operation, in their order.
Phase: TypeAlias = Literal["connect", "setup", "challenge", "wallet", "authentication", "result"]

_DOING: dict[str, str] = {
    "connect": "while the connection was opened",
    "setup": "while the setup was sent",
    "challenge": "while its challenge was awaited",
    "wallet": "while the owner's wallet was asked",
    "authentication": "while the authentication was sent",
    "result": "while its result was awaited",
}

_REFUSED_HINT = (
    "The gateway may not accept what was asked for, or speak another revision; nothing was created"
)

_TROUBLE = "The gateway, or the nodes behind it, had a problem or too much to do"

_LATE_HINT = (
    "Nothing was created. The gateway may be overloaded, or wait for something this revision does not send"
)

_WALLET_HINT = (
    "The signature was not sent, so nothing was created. Answer the wallet sooner, or ask the gateway's operator for "
    "longer limits"
)

#: Possible outcomes once the gateway has the owner's signature, whatever it said afterwards.
_AFTERMATH: dict[Operation, str] = {
    Operation.KEYGEN: "The key may exist all the same; calling again makes another one",
    Operation.ADD_EPHEMERAL_KEY: "The ephemeral key may have been added all the same",
    Operation.REGISTER_PASSKEY: (
        "The passkey may be registered all the same: try it before another one is made"
    ),
    Operation.SIGNGEN: (
        "The gateway or its nodes may not accept the ephemeral key or the message: it may have been revoked, have expired, "
        "or the permissions may not allow it. A message that is signed twice does no harm"
    ),
    Operation.REVOKE_EPHEMERAL_KEY: (
        "The ephemeral key may have been revoked or not; revoke it again, which does no harm if it was"
    ),
}

#: Doing these twice is as good as once: a revoked key stays revoked, and a message that is signed twice is no more signed
#: than before. A second keygen makes another key; whether adding a key twice is harmless, gateways do not say.
IDEMPOTENT = frozenset({Operation.REVOKE_EPHEMERAL_KEY, Operation.SIGNGEN})

#: WebSocket close codes (RFC 6455 section 7.4) that judge our frame: sending it again will not help.
_JUDGEMENTS = frozenset({1002, 1003, 1007, 1008, 1009, 1010})

#: ... and those that speak of the server's condition. Codes from 4400 are HTTP's with 4000 added, by custom.
_CONDITIONS = frozenset({1001, 1012, 1013, 1014, 4408, 4425, 4429})


def _is_judgement(code: int | None) -> bool:
    return code is not None and (code in _JUDGEMENTS or (4400 <= code < 4500 and code not in _CONDITIONS))


def _is_trouble(code: int | None) -> bool:
    """Whether the server closed because of its own condition. 1011 may not say so: many close with it on a bad frame."""
    return code is not None and (code in _CONDITIONS or 4500 <= code < 4600)


def is_about_the_moment(error: DanError) -> bool:
    """Whether a failure before the challenge says nothing about the revision: no connection, or a server in trouble."""
    if not isinstance(error, GatewayError):
        return not isinstance(error, ProtocolError)
    return error.phase == "connect" or _is_trouble(error.close_code)


@frozen(kw_only=True, eq=False, repr=False)
class ErrorContext:
    """
    The common part of one operation's errors.

    ``where`` is the gateway's URL, redacted; ``mask`` takes our own credentials out of the gateway's words.
    """

    operation: Operation
    where: str
    request_id: RequestId
    mask: Callable[[str], str] = field(repr=False)

    def explain(self, error: DanError, phase: Phase) -> DanError:
        """
        Return the error to raise for that of a transport, a decoder or a wallet in a step.

        A transport's becomes a ``GatewayError``; any other stays, with its context filled in. From the authentication on,
        it says what may have happened and is only worth repeating where that is safe.
        """
        found = self._translated(error, phase)
        found.phase = found.phase or phase
        found.request_id = self.request_id
        if not isinstance(found, WalletError):
            found.node = self.where
        if isinstance(found, ProtocolError):
            found.message = self.mask(found.message)
            found.args = (found.message,)
        if phase in ("authentication", "result"):
            found.retryable = found.retryable and self.operation in IDEMPOTENT
            # In place of the usual hint: that one speaks of a request that came to nothing.
            found.hint = _AFTERMATH[self.operation]
            if self.operation is Operation.SIGNGEN and _is_trouble(getattr(error, "close_code", None)):
                found.hint = f"{_TROUBLE}. Call again later: a message that is signed twice does no harm"
        return found

    def _translated(self, error: DanError, phase: Phase) -> DanError:
        if isinstance(error, ConnectError):
            return GatewayError(
                error.message,
                hint=error.hint,
                phase="connect",
                status=error.status,
                retry_after=error.retry_after,
                retryable=error.retryable,
            )
        if isinstance(error, ConnectionLostError):
            hint = f"{_TROUBLE}; nothing was created" if _is_trouble(error.close_code) else _REFUSED_HINT
            return GatewayError(
                f"{error.message}, {_DOING[phase]}",
                hint=_WALLET_HINT if phase == "wallet" else hint,
                close_code=error.close_code,
                close_reason=error.close_reason,
                retryable=not _is_judgement(error.close_code),
            )
        if isinstance(error, RequestTimeoutError):
            return GatewayError(f"{error.message}, {_DOING[phase]}", hint=_LATE_HINT, retryable=True)
        if isinstance(error, ProtocolError):
            error.hint = error.hint or "Check the gateway's URL and revision; nothing was created"
        return error
