"""What became of asking one node."""

from __future__ import annotations

from attrs import define, frozen

from dan_async.models.acknowledgement import Acknowledgement
from dan_async.types import OperatorAddress


@define
class Tries:
    """How many attempts at one node were made so far: counts up while it is being asked."""

    made: int = 0


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
        step: The step of the job in which it was asked: ``"challenge"``, ``"keygen"`` and so on; empty if there is but one.
        is_ready: Whether it answered what has no acknowledgement, such as the challenge.
    """

    operator: OperatorAddress
    acknowledgement: Acknowledgement | None = None
    error: BaseException | None = None
    attempts: int = 1
    elapsed_s: float = 0.0
    step: str = ""
    is_ready: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the node did its part: its acknowledgement counts, or it is ready."""
        return self.acknowledgement is not None or self.is_ready

    @property
    def code(self) -> int | None:
        """The error code of the node protocol with which it refused, if it did."""
        return getattr(self.error, "code", None)

    def describe(self) -> str:
        """One line for an error or a log: who, at which step, what, and how long it took."""
        if self.acknowledgement is not None:
            what = f"acknowledged key {self.acknowledgement.key_id[:8]}…"
        elif self.is_ready:
            what = "ready"
        elif self.error is None:
            what = "had not answered yet"
        else:
            what = getattr(self.error, "message", None) or type(self.error).__name__
            if culprits := getattr(self.error, "culprits", ()):
                what += f"; it blames {', '.join(culprits)}"
        step = f"{self.step}: " if self.step else ""
        facts = [f"{self.elapsed_s:.2f} s", f"{self.attempts} attempt{'' if self.attempts == 1 else 's'}"]
        if self.code is not None:
            facts.append(f"code {self.code}")
        return f"node {self.operator}: {step}{what} ({', '.join(facts)})"
