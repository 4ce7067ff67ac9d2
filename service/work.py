"""Runs encoding and searching off the event loop: few threads, a bounded queue, deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from service.metrics import Metrics
from service.problems import Problem

_Result = TypeVar("_Result")
_Params = ParamSpec("_Params")


class Deadline:
    """A moment after which nobody waits for the answer."""

    __slots__ = ("_at", "_timeout_ms")

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._at = time.perf_counter() + timeout_ms / 1_000

    def remaining_s(self) -> float:
        """Return the seconds left, 0 when it has passed."""
        return max(0.0, self._at - time.perf_counter())

    def check(self) -> None:
        """Stop work that nobody waits for. Raises: Problem 504."""
        if self.remaining_s() == 0:
            raise self.problem()

    def problem(self) -> Problem:
        """Return the answer to a request that is late."""
        return Problem(504, "deadline_exceeded", f"No answer within {self._timeout_ms} ms; allow more by timeout_ms.")


class WorkQueue:
    """A pool of `threads`; beside the requests at work at most `depth` more may wait.

    A request is admitted once and may then run several pieces of work, so a long batch gives way to others
    between its pieces and is never refused half-way.
    """

    def __init__(self, threads: int, depth: int, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="work")
        self._limit = threads + depth
        self._admitted = 0
        self._metrics = metrics

    @asynccontextmanager
    async def admission(self) -> AsyncIterator[None]:
        """Hold a place for one request. Raises: Problem 429 when all are taken."""
        if self._admitted >= self._limit:
            self._metrics.refused.labels("queue_full").inc()
            raise Problem(
                429,
                "queue_full",
                f"{self._admitted} requests wait already; retry soon.",
                headers={"Retry-After": "1"},
            )
        self._admitted += 1
        self._metrics.admitted.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= 1
            self._metrics.admitted.set(self._admitted)

    async def run(
        self,
        deadline: Deadline,
        work: Callable[_Params, _Result],
        *args: _Params.args,
        **kwargs: _Params.kwargs,
    ) -> _Result:
        """Run `work` in the pool. Raises: Problem 504 at the deadline, also before the work begins."""

        def timely() -> _Result:
            deadline.check()
            return work(*args, **kwargs)

        future = asyncio.get_running_loop().run_in_executor(self._pool, timely)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                return await future
        except TimeoutError:
            self._metrics.refused.labels("deadline").inc()
            raise deadline.problem() from None

    def close(self) -> None:
        """Wait for the work in hand."""
        self._pool.shutdown(wait=True, cancel_futures=True)
