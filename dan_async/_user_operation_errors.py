"""Errors about user operations; import them from ``dan_async.errors``, which draws the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dan_async._error_base import DanError

if TYPE_CHECKING:
    from dan_async.models.user_operation_receipt import UserOperationReceipt


class PermissionDeniedError(DanError):
    """
    The session's permissions do not allow what was asked. Nothing was signed.

    Args:
        rule: The rule that says no, as a path into the permissions (``permissions[0].args.value``), or what of the request
            has no place under permissions (``requestType``, ``callData``).
        problem: What is not allowed, as the end of a sentence.
        hint: What to do about it.
    """

    def __init__(self, rule: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"the permissions do not allow this: {rule}: {problem}", hint=hint)
        self.rule = rule
        self.problem = problem


class UserOperationError(DanError):
    """
    A user operation did not go the way it should.

    Args:
        message: What happened.
        user_operation_hash: Its hash, where it has one.
        **context: As for ``DanError``.
    """

    def __init__(self, message: str, *, user_operation_hash: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.user_operation_hash = user_operation_hash


class BundlerError(UserOperationError):
    """
    The bundler, the paymaster or the chain's node answered with an error. docs/bundler-errors.md explains the codes.

    Args:
        message: What happened, in plain words where the code is known.
        service: Who answered: ``"bundler"``, ``"paymaster"`` or ``"node"``.
        code: The JSON-RPC error code.
        entry_point_code: The entry point's own code, as ``"AA21"``; None if it named none.
        **context: As for ``UserOperationError``.
    """

    def __init__(
        self, message: str, *, service: str, code: int, entry_point_code: str | None = None, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.service = service
        self.code = code
        self.entry_point_code = entry_point_code


class PaymasterError(BundlerError):
    """The paymaster does not pay for this operation."""


class DuplicateUserOperationError(UserOperationError):
    """This very operation was sent before, or another one already has its nonce. It was not sent."""


class UserOperationRevertedError(UserOperationError):
    """
    The operation is on the chain, its gas is paid, and its calls were reverted.

    Args:
        message: What happened.
        receipt: What the bundler reported.
        **context: As for ``UserOperationError``.
    """

    def __init__(self, message: str, *, receipt: UserOperationReceipt, **context: Any) -> None:
        super().__init__(message, **context)
        self.receipt = receipt


class UserOperationTimeoutError(UserOperationError, TimeoutError):
    """The operation was sent and is not on the chain yet. It may still come: do not send it again with another nonce."""
