"""Keeps the vectors of the queries that were asked last, so that a query asked again is not encoded again."""

from __future__ import annotations

import threading
from collections import OrderedDict

from drdecr.encoder.types import Encoded
from service.metrics import Metrics

_ENTRY_BYTES = 1_000
"""What Python's objects around one entry take, about."""


class QueryCache:
    """Least recently used queries go first when the rest is larger than `max_bytes`; 0 keeps nothing."""

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, text: str) -> Encoded | None:
        """Return the encoded query, if it is kept."""
        with self._lock:
            found = self._kept.get(text)
            if found is not None:
                self._kept.move_to_end(text)
        self._metrics.query_cache.labels("miss" if found is None else "hit").inc()
        return found

    def put(self, text: str, encoded: Encoded) -> None:
        """Keep one encoded query, which must own its arrays: a view would keep its whole batch."""
        size = _size(text, encoded)
        with self._lock:
            if size > self._max_bytes or text in self._kept:
                return
            self._kept[text] = encoded
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._kept.popitem(last=False))
            self._metrics.query_cache_bytes.set(self._bytes)


def _size(text: str, encoded: Encoded) -> int:
    arrays = (encoded.vectors, encoded.offsets, encoded.sentences, encoded.spans, encoded.truncated, encoded.unknown)
    return _ENTRY_BYTES + 4 * len(text) + sum(array.nbytes for array in arrays if array is not None)
