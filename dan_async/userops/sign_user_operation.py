"""sign_user_operation: user operation and session -> the same operation with the distributed key's signature."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from attrs import evolve

from dan_async._hex import from_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int
from dan_async.models.permissions import permissions_text
from dan_async.models.session import DanModuleInfo
from dan_async.models.user_operation import (
    PackedUserOperation,
    UserOperationV06,
    UserOperationV07,
)
from dan_async.permissions import check_permissions, parse_permissions
from dan_async.types import Clock, Hex
from dan_async.userops.entry_points import ENTRY_POINTS
from dan_async.wire.json_text import dump
from dan_async.wire.sign_request import RequestType, SignRequest

__all__ = ["MessageSigner", "Operation", "session_of", "sign_user_operation"]

Operation = TypeVar("Operation", bound=UserOperationV06 | UserOperationV07 | PackedUserOperation)

_LARGEST_CHAIN_ID = 2**53 - 1


class MessageSigner(Protocol):
    """The part of ``DanClient`` that signing needs."""

    async def sign_message(
        self,
        message: Any,
        session: Any,
        *,
        request_type: str | None = None,
        timeout: float | None = None,
    ) -> Hex:
        """Sign a message with a session's key; see ``DanClient.sign_message``."""
        ...


async def sign_user_operation(
    user_op: Operation,
    session: DanModuleInfo | Mapping[str, Any],
    *,
    client: MessageSigner,
    entry_point: str | None = None,
    chain_id: int | None = None,
    permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
    clock: Clock = time.time,
    timeout: float | None = None,
) -> Operation:
    """
    Have t of the nodes sign a user operation with the session's key.

    The nodes see the operation itself and check it against the session's permissions. What they sign is the personal message
    (EIP-191) over the operation's hash, which SimpleAccount and the accounts like it expect of their owner. It was checked
    that the signature recovers to the session's address.

    Args:
        user_op: The operation, complete but for its signature: nothing may change after it is signed.
        session: The session, as a payload, a ``DanModuleInfo`` or the seed's dict.
        client: An open ``DanClient``.
        entry_point: The entry point's address; the well-known one of the operation's version if None.
        chain_id: The chain; the session's if None.
        permissions: The session's permissions, as they were given at key generation: then an operation outside of them is
            refused here, before anything is sent. The nodes check them in any case.
        clock: The wall clock, for the permissions.
        timeout: Seconds for the whole call, instead of the client's.

    Returns:
        The operation with its signature: 65 bytes r, s, v.

    Raises:
        InvalidFieldError: An argument is wrong, or the chain is not known or not the session's; nothing was sent.
        PermissionDeniedError: The *permissions* given do not allow it; nothing was sent.
        DanError: What ``DanClient.sign_message`` raises, of permissions that do not allow the operation too.

    Example:
        >>> signed = await sign_user_operation(operation, session, client=dan)
    """
    if not isinstance(user_op, UserOperationV06 | UserOperationV07 | PackedUserOperation):
        raise InvalidFieldError("user_op", f"must be a user operation, not {type(user_op).__name__}")
    info = session_of(session)
    chain = info.chain_id if chain_id is None else chain_id
    if chain is None:
        raise InvalidFieldError("chain_id", "is missing, and the session does not say it either")
    message = {
        "userOperation": user_op.to_dict(),
        "entryPointVersion": user_op.version,
        "entryPointAddress": parse_address("entry_point", entry_point or ENTRY_POINTS[user_op.version]),
        "chainId": check_int("chain_id", chain, least=1, most=_LARGEST_CHAIN_ID),
    }
    text = permissions_text(permissions)
    if text is not None:
        request = SignRequest(request_type=RequestType.USER_OPERATION, message=dump(message))
        check_permissions(parse_permissions(text), request, now=clock())
    signature = await client.sign_message(message, info, request_type="accountAbstractionTx", timeout=timeout)
    return evolve(user_op, signature=from_hex(signature, field="signature", length=65))


def session_of(session: DanModuleInfo | Mapping[str, Any]) -> DanModuleInfo:
    """
    Take a session in any of its forms.

    Raises:
        InvalidFieldError: It is none.
    """
    if isinstance(session, DanModuleInfo):
        return session
    if isinstance(session, Mapping):
        return DanModuleInfo.from_dict(session)
    raise InvalidFieldError("session", f"must be a session payload or its dict, not {type(session).__name__}")
