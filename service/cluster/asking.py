"""Asks one shard, of which there are replicas: a second one is asked when the first is slow, or has failed.

Hedged requests: Dean and Barroso 2013, "The Tail at Scale": a second copy goes out when the first has taken longer
than 95 in 100 do, which costs a twentieth more calls and cuts the tail to where both are slow.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")
Send = Callable[[], Awaitable[_Result]]
"""Sends a call to some replica; the cluster's router takes the one with the fewest calls."""

_KEPT = 512
_TELLING = 32
_FIRST_HEDGE_S = 0.1
_LEAST_HEDGE_S = 0.002
_LATEST_HEDGE = 1 / 3


class ShardGoneError(Exception):
    """No replica gave an answer in time; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Latencies:
    """The latest answers of a shard to one kind of call: how long 95 in 100 of them took at most."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_KEPT)
        self._since = 0
        self._p95_s = _FIRST_HEDGE_S
        self._lock = threading.Lock()

    @property
    def p95_s(self) -> float:
        return self._p95_s

    def add(self, seconds: float) -> None:
        """Count an answer."""
        with self._lock:
            self._latest.append(seconds)
            self._since += 1
            if self._since >= _TELLING:
                self._since = 0
                ordered = sorted(self._latest)
                self._p95_s = max(_LEAST_HEDGE_S, ordered[int(0.95 * len(ordered))])


class Asking:
    """How one shard is asked.

    Counts the questions, the second calls by why they were made, and the questions that got no answer. When a second
    call is due is told by calls of the same kind: a search takes longer than the reading of a passage.
    """

    def __init__(self) -> None:
        self.latencies: defaultdict[str, Latencies] = defaultdict(Latencies)
        self.asked = 0
        self.hedged = 0
        self.retried = 0
        self.missing = 0

    async def ask(self, kind: str, send: Send[_Result], timeout_s: float) -> _Result:
        """Return the first answer of a call of some kind, a hedge after the p95 and one retry of a failed one.

        Raises: ShardGoneError when all that was sent failed, or nothing came in time.
        """
        self.asked += 1
        try:
            return await self._ask(self.latencies[kind], send, timeout_s)
        except ShardGoneError:
            self.missing += 1
            raise

    async def _ask(self, latencies: Latencies, send: Send[_Result], timeout_s: float) -> _Result:
        loop = asyncio.get_running_loop()
        began = loop.time()
        # Under load the p95 may be near the deadline, where a hedge would come too late to answer.
        until, hedge_at = began + timeout_s, began + min(latencies.p95_s, _LATEST_HEDGE * timeout_s)
        waiting = {asyncio.ensure_future(send())}
        hedged = retried = False
        try:
            while True:
                now = loop.time()
                if now >= until:
                    raise ShardGoneError(f"no answer within {timeout_s:.3f} s")
                if not hedged and now >= hedge_at:
                    hedged = True
                    self.hedged += 1
                    waiting.add(asyncio.ensure_future(send()))
                wake = until if hedged else min(until, hedge_at)
                done, waiting = await asyncio.wait(
                    waiting, timeout=max(0.0, wake - now), return_when=asyncio.FIRST_COMPLETED
                )
                for each in done:
                    failure = each.exception()
                    if failure is None:
                        latencies.add(loop.time() - began)
                        return each.result()
                    if not retried:
                        retried = True
                        self.retried += 1
                        waiting.add(asyncio.ensure_future(send()))
                    elif not waiting:
                        raise ShardGoneError(f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}")
        finally:
            for each in waiting:
                each.cancel()
                # What it comes to is nobody's concern any more, not even that it failed.
                each.add_done_callback(_forget)


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
