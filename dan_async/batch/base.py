"""What a batch gives: one result for each request, as they are finished."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from attrs import field, frozen

from dan_async.batch._stream import Finished, WorkStream
from dan_async.errors import ClientClosedError
from dan_async.models.session import DanSessionKeyPayload

__all__ = ["BatchRun", "ItemResult", "ItemStatus", "Made"]

#: made: a new session; kept: it was in the store; settled: a crash or an error had left it pending, and the nodes had made
#: it; failed: there is none.
ItemStatus: TypeAlias = Literal["made", "kept", "settled", "failed"]

#: What the work on one request gives.
Made: TypeAlias = tuple[ItemStatus, DanSessionKeyPayload]


@frozen(kw_only=True)
class ItemResult:
    """
    What came of one request.

    Args:
        index: Its place in the requests, from 0.
        status: What happened.
        request: The request itself; not shown in repr.
        session: The session; None if it failed. It holds a secret.
        error: Why it failed; None if it did not.
    """

    index: int
    status: ItemStatus
    request: Any = field(repr=False)
    session: DanSessionKeyPayload | None = None
    error: BaseException | None = None

    @property
    def is_success(self) -> bool:
        """Whether there is a session."""
        return self.session is not None


class BatchRun:
    """
    The results of a batch, to be iterated over with ``async for``: each as soon as it is there, in no certain order.

    Nothing runs before the first result is asked for. At most *concurrency* requests have been read, and begun or finished,
    beyond the results that were taken: whoever takes them slowly slows the batch down. Use it as an async context manager
    where the loop may be left early, or call ``aclose()``: then what is under way is cancelled and waited for.

    Args:
        requests: The requests; read one by one, and never further ahead than that.
        work: Works on one request.
        concurrency: How many are worked on at a time.
        rate_limit: How many are begun per second at most; None for no limit.

    Raises:
        InvalidFieldError: A parameter is wrong.
    """

    def __init__(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        work: Callable[[Any], Awaitable[Made]],
        *,
        concurrency: int,
        rate_limit: float | None = None,
    ) -> None:
        self._stream: WorkStream[Any, Made] = WorkStream(
            requests, work, concurrency=concurrency, rate_limit=rate_limit, fatal=ClientClosedError
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemResult:
        """
        Give the next result.

        Raises:
            StopAsyncIteration: There are no more.
            ClientClosedError: The client was closed; the requests that are left were not begun.
            Exception: What the requests themselves raised when they were read, once everything begun before is finished.
        """
        return _result(await anext(self._stream))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what is under way and wait for its end. May be called twice; no result comes afterwards."""
        await self._stream.aclose()


def _result(finished: Finished[Any, Made]) -> ItemResult:
    if finished.value is None:
        return ItemResult(index=finished.index, status="failed", request=finished.item, error=finished.error)
    status, session = finished.value
    return ItemResult(index=finished.index, status=status, request=finished.item, session=session)
