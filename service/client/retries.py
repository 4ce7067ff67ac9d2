"""When a request is sent again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from service.client.call import UNSENDABLE, Call, read, unreachable

_Answer = TypeVar("_Answer", bound=BaseModel)
RETRIED_STATUSES = frozenset({429, 503})
"""The service asks for it: its queue is full, the key's rate is reached, or it is loading or stopping."""
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, *UNSENDABLE)


@dataclass(frozen=True, slots=True)
class Retries:
    """A request is sent at most 1 + `attempts` times; the pause doubles from `first_s` and never exceeds `longest_s`.

    `Retry-After` is respected: it is the least pause, and a longer one than `longest_s` ends the attempts. What may
    have been done, and must not be done twice, is not sent again: making, dropping, an upload that was sent whole.
    """

    attempts: int = 4
    first_s: float = 0.2
    longest_s: float = 30.0

    def pause_s(self, attempt: int, answer: httpx.Response | None) -> float | None:
        """Return the pause before attempt number `attempt` (from 1), or None to give up.

        `answer` is None where the connection failed before there was one.
        """
        if attempt > self.attempts or (answer is not None and answer.status_code not in RETRIED_STATUSES):
            return None
        # Full jitter, so that clients that were refused together do not come back together.
        pause_s = random.uniform(0.5, 1.0) * min(self.longest_s, self.first_s * 2 ** (attempt - 1))
        wanted_s = 0.0 if answer is None else retry_after_s(answer)
        return None if wanted_s > self.longest_s else max(pause_s, wanted_s)


def exchanged(
    call: Call[_Answer], retries: Retries, url: str
) -> Generator[float, httpx.Response | httpx.TransportError, _Answer]:
    """Decide, without a network, how a call goes: yields the pause before each attempt, is sent what came of it.

    Returns the answer. Raises: ServiceError.
    """
    pause_s: float | None = 0.0
    attempt = 0
    while True:
        assert pause_s is not None
        got = yield pause_s
        attempt += 1
        answer = got if isinstance(got, httpx.Response) else None
        pause_s = None if _final(call, got) else retries.pause_s(attempt, answer)
        if pause_s is not None:
            continue
        if isinstance(got, httpx.TransportError):
            raise unreachable(url, got, perhaps_done=_perhaps_done(call, got)) from got
        return read(call, got)


def _final(call: Call[Any], got: httpx.Response | httpx.TransportError) -> bool:
    if call.lines is not None and not call.lines.again:
        return True
    if isinstance(got, httpx.Response):
        return got.status_code in call.also
    # What the service was still working on when the wait ended would only be asked for twice.
    return isinstance(got, (httpx.ReadTimeout, *UNSENDABLE)) or _perhaps_done(call, got)


def _perhaps_done(call: Call[Any], problem: httpx.TransportError) -> bool:
    """Return whether a call without an answer may have been done, where doing it twice is not as doing it once."""
    if call.repeatable or isinstance(problem, _UNSENT):
        return False
    # Lines that broke off are not staged.
    return call.lines is None or call.lines.ended


def retry_after_s(answer: httpx.Response) -> float:
    """Return the seconds that `Retry-After` asks for, by number or date; 0 where it does not."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
