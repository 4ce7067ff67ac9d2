"""Runs encoding and searching off the event loop: few threads, a bounded queue, deadlines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, ParamSpec, TypeVar

import structlog

from service.deadline import ClientGoneError, Deadline
from service.metrics import Metrics
from service.problems import Problem
from service.threads import LeavableThread

log = structlog.get_logger("service.work")

# Refusals of one second that are told at once; others wait as long as they ask the client to wait.
_REFUSED_AT_ONCE = 100
_RETRY_AFTER_S = 1

_Result = TypeVar("_Result")
_Params = ParamSpec("_Params")


class Waiter(Generic[_Result]):
    """The place where a request waits on the event loop for what a worker thread makes."""

    def __init__(self, deadline: Deadline, metrics: Metrics) -> None:
        self.deadline = deadline
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[_Result] = self._loop.create_future()

    def finish(self, work: Callable[[], _Result]) -> None:
        """Do the work, unless nobody waits for it, and hand over its result or its error. For a worker thread."""
        try:
            self.deadline.check()
            result = work()
        except BaseException as error:
            self.fail(error)
        else:
            self._call(self._set_result, result)

    def fail(self, error: BaseException) -> None:
        """Hand over an error. For a worker thread."""
        if not isinstance(error, Exception):
            # Such as a panic of the tokenizer's Rust: raised on the event loop it ends more than one request.
            error = RuntimeError(f"{type(error).__name__}: {error}")
        self._call(self._set_error, error)

    async def wait(self) -> _Result:
        """Return the result. Raises: what the work raised, Problem 504 at the deadline, ClientGoneError."""
        self.deadline.watch(self._leave)
        try:
            async with asyncio.timeout(self.deadline.remaining_s()):
                return await self._future
        except TimeoutError:
            self._metrics.refused.labels("deadline").inc()
            raise self.deadline.problem() from None
        finally:
            self.deadline.forget(self._leave)

    def _leave(self) -> None:
        self._set_error(ClientGoneError())

    def _call(self, set_it: Callable[..., None], value: object) -> None:
        # Where the loop was closed meanwhile, nobody is left to tell.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(set_it, value)

    def _set_result(self, result: _Result) -> None:
        if not self._future.done():
            self._future.set_result(result)

    def _set_error(self, error: BaseException) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class WorkQueue:
    """Worker threads, and a bound on the requests that may wait for them.

    `threads` requests are at work and at most `depth` more may wait. A request is admitted once and may then give
    several pieces of work, so a long batch gives way to others between its pieces and is never refused half-way.
    Work that is `begun` goes first: what was encoded together is searched before the next are encoded.
    """

    def __init__(self, threads: int, depth: int, metrics: Metrics) -> None:
        self._limit = threads + depth
        self._admitted = 0
        self._refused_since, self._refused = 0.0, 0
        self._metrics = metrics
        self._begun: deque[Callable[[], None]] = deque()
        self._new: deque[Callable[[], None]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._threads = [LeavableThread(self._work, f"work-{number}") for number in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def idle(self) -> bool:
        """Tell whether at most one request is admitted: there is nobody to wait for."""
        return self._admitted <= 1

    @asynccontextmanager
    async def admission(self) -> AsyncIterator[None]:
        """Hold a place for one request. Raises: Problem 429 when all are taken."""
        if self._admitted >= self._limit:
            self._metrics.refused.labels("queue_full").inc()
            waiting = self._admitted
            await self._slow_down()
            raise Problem(
                429,
                "queue_full",
                f"{waiting} requests wait already; retry soon.",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )
        self._admitted += 1
        self._metrics.admitted.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= 1
            self._metrics.admitted.set(self._admitted)

    async def _slow_down(self) -> None:
        """Let a refusal wait where there are many: whoever asks again at once would leave no time for the others."""
        now = asyncio.get_running_loop().time()
        if now - self._refused_since >= 1:
            self._refused_since, self._refused = now, 0
        self._refused += 1
        if self._refused > _REFUSED_AT_ONCE:
            await asyncio.sleep(_RETRY_AFTER_S)

    async def run(
        self,
        deadline: Deadline,
        work: Callable[_Params, _Result],
        *args: _Params.args,
        **kwargs: _Params.kwargs,
    ) -> _Result:
        """Run `work` on a worker. Raises: as `Waiter.wait`; work whose time is up is never begun."""
        waiter = Waiter[_Result](deadline, self._metrics)
        self.submit(lambda: waiter.finish(lambda: work(*args, **kwargs)))
        return await waiter.wait()

    def submit(self, work: Callable[[], None], *, begun: bool = False) -> None:
        """Give work to the next free worker; an error of it is only logged. Safe from any thread."""
        with self._change:
            (self._begun if begun else self._new).append(work)
            self._change.notify()

    def close(self, patience_s: float) -> None:
        """Finish the work that was given, and stop; what takes longer than `patience_s` in all is left behind."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        ends_at = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def _work(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException:
                # Whoever waits for it gets no answer before its deadline, but the others do.
                log.exception("work failed")
            # While this waits for the next, the index of the last request may be replaced and must be let go.
            del work

    def _next(self) -> Callable[[], None] | None:
        with self._change:
            while not (self._begun or self._new):
                if self._closed:
                    return None
                self._change.wait()
            return (self._begun or self._new).popleft()
