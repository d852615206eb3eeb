"""Errors about user operations. Imported from ``dan_async.errors``, where the tree is drawn."""

from __future__ import annotations

from dan_async._error_base import DanError


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
