"""DanError, the base of every error; import it from ``dan_async.errors``, which draws the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dan_async.models.outcome import NodeOutcome


class DanError(Exception):
    """
    Base of every error of ours: one ``except DanError`` catches them all.

    Args:
        message: What happened, in one sentence.
        hint: What the reader can do about it.
        phase: The step of the job: ``"challenge"``, ``"wallet"``, ``"keygen"``, ``"verdict"`` and so on.
        node: The node concerned, as its operator address or URL without credentials.
        request_id: The id under which the nodes know the request.
        attempts: How many attempts were made.
        retryable: Whether repeating the very same call is safe and may help.
    """

    #: Default of ``retryable`` for the class.
    is_retryable = False

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        phase: str | None = None,
        node: str | None = None,
        request_id: str | None = None,
        attempts: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.phase = phase
        self.node = node
        self.request_id = request_id
        self.attempts = attempts
        #: Seconds from the first attempt to the last one's failure, where attempts were counted.
        self.elapsed_s: float | None = None
        self.retryable = self.is_retryable if retryable is None else retryable

    @property
    def nodes(self) -> Sequence[NodeOutcome]:
        """What each node answered, where the error speaks of several."""
        return ()

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments would be lost by Exception's own pickling (process pools need this).
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[DanError], args: tuple[Any, ...], state: dict[str, Any]) -> DanError:
    error = cls.__new__(cls, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error
