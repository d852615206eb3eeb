"""What became of asking one node."""

from __future__ import annotations

from attrs import frozen

from dan_async.models.acknowledgement import Acknowledgement
from dan_async.types import OperatorAddress


@frozen(kw_only=True)
class NodeOutcome:
    """
    One node's part in a request.

    Args:
        operator: The node.
        acknowledgement: What it said, if that passed every check.
        error: Why it does not count, otherwise.
        attempts: How many times it was asked.
        elapsed_s: Seconds from the first attempt to the end.
    """

    operator: OperatorAddress
    acknowledgement: Acknowledgement | None = None
    error: BaseException | None = None
    attempts: int = 1
    elapsed_s: float = 0.0

    @property
    def is_success(self) -> bool:
        """Whether the node's acknowledgement counts."""
        return self.acknowledgement is not None

    def describe(self) -> str:
        """One line for an error or a log."""
        if self.is_success:
            what = "acknowledged"
        elif self.error is None:
            what = "had not answered yet"
        else:
            what = getattr(self.error, "message", None) or type(self.error).__name__
        times = "" if self.attempts == 1 else f", {self.attempts} attempts"
        return f"node {self.operator}: {what} ({self.elapsed_s:.2f} s{times})"
