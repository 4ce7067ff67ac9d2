"""Encodes the queries of concurrent requests together: dynamic batching by a budget of tokens.

While a worker is free, a query is encoded at once and alone. While all are at work, queries gather, and the next free
worker takes as many as the budget holds. `linger_ms` lets a free worker wait for more where others are in flight.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from drdecr.encoder.types import Encoded
from service.deadline import ClientGoneError, Deadline
from service.engine import StagedEncoder
from service.metrics import Metrics
from service.problems import Problem
from service.query_cache import QueryCache
from service.stopwatch import Stopwatch
from service.work import Waiter, WorkQueue

_Result = TypeVar("_Result")
MAX_QUERIES = 64
"""In one batch, however short they are: so many are tokenised before the budget is looked at."""


@dataclass(slots=True)
class _Asked:
    """One query that waits to be encoded, and what to do with its vectors."""

    text: str
    watch: Stopwatch
    waiter: Waiter[Any]
    then: Callable[[Encoded], object]
    tokens: Any = None
    waits_since: float = field(default_factory=time.perf_counter)

    def waited(self) -> None:
        """Count the time since it was last worked on as waiting."""
        self.watch.add("queue", 1_000 * (time.perf_counter() - self.waits_since))


class QueryEncoding:
    """Takes one query from each request, and gives each request's own work its vectors."""

    def __init__(
        self,
        encoder: StagedEncoder,
        queue: WorkQueue,
        cache: QueryCache,
        metrics: Metrics,
        *,
        batch_tokens: int,
        linger_ms: float,
    ) -> None:
        self._encoder = encoder
        self._queue = queue
        self._cache = cache
        self._metrics = metrics
        self._batch_tokens = batch_tokens
        self._linger_s = linger_ms / 1_000
        self._asked: deque[_Asked] = deque()
        self._called = False
        self._lock = threading.Lock()

    async def run(
        self,
        text: str,
        deadline: Deadline,
        watch: Stopwatch,
        then: Callable[[Encoded], _Result],
    ) -> _Result:
        """Encode a query together with others', run `then` with its vectors on a worker, and return its result.

        Raises: what `then` or the encoder raised, Problem 504, ClientGoneError.
        """
        waiter = Waiter[_Result](deadline, self._metrics)
        asked = _Asked(text, watch, waiter, then)
        kept = self._cache.get(text)
        if kept is not None:
            self._hand_over(asked, kept, begun=False)
        else:
            with self._lock:
                self._asked.append(asked)
            self._call_worker()
        return await waiter.wait()

    def _call_worker(self) -> None:
        if not self._claim_call():
            return
        if self._linger_s and not self._queue.idle:
            asyncio.get_running_loop().call_later(self._linger_s, self._queue.submit, self._encode_next)
        else:
            self._queue.submit(self._encode_next)

    def _claim_call(self) -> bool:
        """Tell whether a worker must be called: there are queries, and none is called yet."""
        with self._lock:
            needed = bool(self._asked) and not self._called
            self._called |= needed
        return needed

    def _encode_next(self) -> None:
        batch = self._take()
        if not batch:
            return
        now: list[_Asked] = []
        later: list[_Asked] = []
        with _failing_together(batch):
            self._tokenise(batch)
            fitting = self._fitting(batch)
            now, later = batch[:fitting], batch[fitting:]
        with self._lock:
            self._asked.extendleft(reversed(later))
        if self._claim_call():
            self._queue.submit(self._encode_next)
        if now:
            with _failing_together(now):
                self._encode(now)

    def _take(self) -> list[_Asked]:
        """Take the queries that waited longest, leaving out those that nobody waits for any more."""
        batch: list[_Asked] = []
        with self._lock:
            self._called = False
            while self._asked and len(batch) < MAX_QUERIES:
                asked = self._asked.popleft()
                try:
                    asked.waiter.deadline.check()
                except (Problem, ClientGoneError) as error:
                    asked.waiter.fail(error)
                else:
                    batch.append(asked)
        return batch

    def _tokenise(self, batch: Sequence[_Asked]) -> None:
        new = [asked for asked in batch if asked.tokens is None]
        for asked in new:
            asked.waited()
        began = time.perf_counter()
        tokens = self._encoder.tokenize([asked.text for asked in new], "query") if new else []
        took_ms = 1_000 * (time.perf_counter() - began)
        for asked, own in zip(new, tokens, strict=True):
            asked.tokens = own
            asked.watch.add("tokenise", took_ms)
            asked.waits_since = time.perf_counter()

    def _fitting(self, batch: Sequence[_Asked]) -> int:
        """Return how many of the first queries the budget holds, padding included; at least one."""
        longest = 0
        for number, asked in enumerate(batch):
            longest = max(longest, len(asked.tokens.ids))
            if number and longest * (number + 1) > self._batch_tokens:
                return number
        return len(batch)

    def _encode(self, batch: Sequence[_Asked]) -> None:
        for asked in batch:
            asked.waited()
        began = time.perf_counter()
        encoded = self._encoder.encode_tokens([asked.tokens for asked in batch])
        took_ms = 1_000 * (time.perf_counter() - began)
        self._metrics.encode_batch.observe(len(batch))
        first, *others = [
            encoded if len(batch) == 1 else encoded.select(number, number + 1).copy() for number in range(len(batch))
        ]
        for asked, own in zip(batch, (first, *others), strict=True):
            self._cache.put(asked.text, own)
            asked.watch.add("encode", took_ms)
        for asked, own in zip(batch[1:], others, strict=True):
            self._hand_over(asked, own, begun=True)
        # Here and now: no other worker need be woken for it.
        batch[0].waits_since = time.perf_counter()
        self._finish(batch[0], first)

    def _hand_over(self, asked: _Asked, encoded: Encoded, *, begun: bool) -> None:
        asked.waits_since = time.perf_counter()
        self._queue.submit(lambda: self._finish(asked, encoded), begun=begun)

    @staticmethod
    def _finish(asked: _Asked, encoded: Encoded) -> None:
        """Do a query's own work with its vectors. For a worker thread."""

        def work() -> object:
            asked.waited()
            return asked.then(encoded)

        asked.waiter.finish(work)


@contextmanager
def _failing_together(batch: Sequence[_Asked]) -> Iterator[None]:
    """Hand an error to all queries of a batch, so that no request waits for what will not come."""
    try:
        yield
    except BaseException as error:
        for asked in batch:
            asked.waiter.fail(error)
