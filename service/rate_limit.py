"""How many requests a second one key may send: a token bucket each."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimits:
    """A bucket for each key: it fills at the key's rate and holds what a second brings, at least one request."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, key: str, rate: float, now: float | None = None) -> int:
        """Take one request of a key with this rate a second; else return after how many seconds to ask again."""
        now = time.monotonic() if now is None else now
        room = max(1.0, rate)
        bucket = self._buckets.setdefault(key, _Bucket(room, now))
        bucket.tokens = min(room, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return math.ceil((1 - bucket.tokens) / rate)
