"""
Events: the client's work as it happens, for the *on_event* function of ``DanClient`` and of both networks.

An event is a small frozen object with plain fields: ids, addresses, names, numbers. None holds a key, a signature, a nonce,
a payload, or text that a peer wrote. docs/reference/events.md lists them.

An event listener is a plain function. It is called on the event loop, in the middle of the work, so it must be quick. An
error that it raises is logged once and changes nothing. While nobody listens, no event is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from attrs import asdict, frozen

from dan_async.types import MpcKeyId, OperatorAddress, RequestId

__all__ = [
    "AttemptAbandoned",
    "AttemptFailed",
    "AttemptStarted",
    "AttemptSucceeded",
    "Event",
    "NodeDown",
    "NodeUp",
    "Observable",
    "OnEvent",
    "OperationFinished",
    "OperationRestarted",
    "OperationStarted",
    "RetryScheduled",
    "Verdict",
    "WalletAnswered",
    "WalletAsked",
]

#: A wallet that signs in less was not waited for: a key in this process.
AT_ONCE_S = 0.001

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


@frozen(kw_only=True)
class Event:
    """
    Something happened.

    Args:
        request_id: The request it belongs to; None for what belongs to no request, such as a node's health.
    """

    #: The event's name in snake case: ``attempt_started``.
    name: ClassVar[str] = "event"

    request_id: RequestId | None = None

    def __init_subclass__(cls) -> None:
        cls.name = _WORD.sub("_", cls.__name__).lower()

    def to_dict(self) -> dict[str, Any]:
        """Return name and fields as a dictionary that ``json.dumps`` takes, for structured logs."""
        return {"event": self.name, **asdict(self)}


# --- operations -------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class _Operation(Event):
    """
    A network and its task.

    Args:
        operation: ``"keygen"``, ``"addEphemeralKey"`` and so on.
        network: ``"nodes"``, or ``"gateway"``.
    """

    operation: str
    network: Literal["nodes", "gateway"]


@frozen(kw_only=True)
class OperationStarted(_Operation):
    """A network begins an operation."""


@frozen(kw_only=True)
class OperationFinished(_Operation):
    """
    The operation ended; follows every ``OperationStarted``.

    Args:
        elapsed_s: Seconds since it started, the wallet's included.
        error: The class of the error that is raised, ``"CancelledError"`` if the caller gave up, None if all went well.
        code: That error's number, if it has one; see ``AttemptFailed``.
        phase: The step that failed, if the error says.
    """

    elapsed_s: float
    error: str | None = None
    code: int | None = None
    phase: str | None = None


@frozen(kw_only=True)
class OperationRestarted(Event):
    """
    A key generation that failed after the owner had signed begins again, under another request id.

    Args:
        new_request_id: The id from now on. ``OperationFinished`` names the first one.
        restart: The number of the restart, from 1.
        excluded: The nodes that are left out from now on.
    """

    new_request_id: RequestId
    restart: int
    excluded: tuple[OperatorAddress, ...] = ()


# --- attempts ---------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class _Attempt(Event):
    """
    One attempt at one peer.

    Args:
        node: A node's operator address, or a gateway's URL without credentials.
        method: The method of the node protocol, or the gateway's operation.
        attempt: The number of the attempt, from 1.
    """

    node: OperatorAddress | str
    method: str
    attempt: int


@frozen(kw_only=True)
class AttemptStarted(_Attempt):
    """A peer is asked. One of the next three events follows."""


@frozen(kw_only=True)
class AttemptSucceeded(_Attempt):
    """
    The peer answered, and the answer could be read. Whether its content holds is judged later, in the ``Verdict``.

    Args:
        elapsed_s: Seconds that the attempt took.
    """

    elapsed_s: float


@frozen(kw_only=True)
class AttemptFailed(_Attempt):
    """
    The attempt failed.

    Args:
        elapsed_s: Seconds that it took.
        error: The class of the error: ``"NodeTimeoutError"``.
        code: The node protocol's code, the HTTP status or the WebSocket close code, if there was one.
        is_retryable: Whether another attempt is safe and may help.
        phase: The step that failed, if the error says.
    """

    elapsed_s: float
    error: str
    code: int | None = None
    is_retryable: bool = False
    phase: str | None = None


@frozen(kw_only=True)
class AttemptAbandoned(_Attempt):
    """
    The answer is not waited for any more: enough other nodes have answered, or the caller has given up.

    Args:
        elapsed_s: Seconds since it started.
    """

    elapsed_s: float


@frozen(kw_only=True)
class RetryScheduled(_Attempt):
    """
    Another attempt will follow a failed one.

    Args:
        attempt: The attempt that failed.
        wait_s: Seconds until the next one.
        error: The class of the error.
        code: Its number, if it has one.
    """

    wait_s: float
    error: str
    code: int | None = None


# --- nodes ------------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class NodeDown(Event):
    """
    A node has failed for the first time in a row, and rests: others are asked in its place while there are any.

    Args:
        node: Its operator address.
        failures: How many times in a row it has failed.
        rest_s: Seconds that it rests for.
    """

    node: OperatorAddress
    failures: int
    rest_s: float


@frozen(kw_only=True)
class NodeUp(Event):
    """
    A node that was down has answered again.

    Args:
        node: Its operator address.
        failures: How many times in a row it had failed.
    """

    node: OperatorAddress
    failures: int


# --- wallet and verdict -----------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class WalletAsked(Event):
    """
    The owner's wallet is asked to sign.

    Args:
        is_interactive: Whether a person sees a prompt.
    """

    is_interactive: bool


@frozen(kw_only=True)
class WalletAnswered(Event):
    """
    The wallet has signed, or failed to.

    Args:
        is_interactive: Whether a person saw a prompt.
        elapsed_s: Seconds that it took.
        error: The class of the error, if it failed.
    """

    is_interactive: bool
    elapsed_s: float
    error: str | None = None


@frozen(kw_only=True)
class Verdict(Event):
    """
    The nodes' answers have been counted.

    Args:
        operation: As in ``OperationStarted``.
        is_won: Whether enough nodes agree.
        agreed: How many nodes agree.
        threshold: How many must.
        parties: How many were asked.
        failed: The nodes that answered wrongly or not at all.
        elapsed_s: Seconds since they were asked.
        key_id: The distributed key's id, if they agree on one.
    """

    operation: str
    is_won: bool
    agreed: int
    threshold: int
    parties: int
    failed: tuple[OperatorAddress, ...] = ()
    elapsed_s: float
    key_id: MpcKeyId | None = None


#: An event listener.
OnEvent: TypeAlias = Callable[[Event], None]


@runtime_checkable
class Observable(Protocol):
    """A network with event listeners, as both of ours are. One of yours needs it if its client is given *on_event*."""

    def observe(self, on_event: OnEvent) -> None:
        """
        Add an event listener; one that was added before is not called twice.

        Args:
            on_event: A plain function that is called with each event, on the event loop.

        Raises:
            InvalidFieldError: It is not a plain function.
        """
