"""Recall of a search against the exact one, on queries or on passages that stand in for them.

Exact means exact over what the snapshot stores: what its codec lost is not counted.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.types import Encoded
from drdecr.errors import UsageError
from drdecr.index.backend import EXACT, Hit, SearchParams
from drdecr.index.snapshot import Snapshot
from drdecr.index.tuning import Tuning

PASSAGE_QUERY_TOKENS = 32
# Scores of one passage differ by the order of additions, no more.
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Measured:
    """What a setting reached: recall at k, and median CPU milliseconds a query, all threads together."""

    recall: float
    cpu_ms: float


class RecallMeter:
    """Holds queries and their exact answers, and measures settings against them.

    `own` (queries,) are positions that a query must not count as its hits: passages that stand in for queries.
    A hit counts when it scores no less than the k-th exact one, so that it does not matter which of equals is found.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        queries: Encoded,
        k: int,
        *,
        own: NDArray[np.int64] | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._snapshot = snapshot
        self._queries = queries
        self._k = k
        self._own = np.full(len(queries), -1) if own is None else own
        self._least: list[float] = []
        self._wanted: list[int] = []
        self.exact_ms = 0.0
        for number in range(len(queries)):
            hits, spent_ms = self._search(number, EXACT)
            self.exact_ms += spent_ms / len(queries)
            self._wanted.append(len(hits))
            self._least.append(hits[-1].score if hits else 0.0)
            advance(1)

    def part(self, numbers: NDArray[np.int64]) -> RecallMeter:
        """Return a meter of some of the queries, without searching again."""
        other = object.__new__(RecallMeter)
        other._snapshot, other._k, other.exact_ms = self._snapshot, self._k, self.exact_ms
        other._queries = select(self._queries, numbers)
        other._own = self._own[numbers]
        other._least = [self._least[number] for number in numbers]
        other._wanted = [self._wanted[number] for number in numbers]
        return other

    def tuned(self, tuning: Tuning) -> RecallMeter:
        """Return a meter that searches as the snapshot would with another tuned setting."""
        other = copy.copy(self)
        other._snapshot = self._snapshot.tuned(tuning)
        return other

    def __len__(self) -> int:
        return len(self._queries)

    def measure(self, params: SearchParams) -> Measured:
        """Search every query alone, as a service does."""
        shares, took = self._answered(params)
        return Measured(round(float(shares.sum()) / max(sum(self._wanted), 1), 4), round(float(np.median(took)), 3))

    def missed(self, params: SearchParams) -> NDArray[np.int64]:
        """Count for each query the exact hits that a setting misses."""
        return np.array(self._wanted) - self._answered(params)[0]

    def _answered(self, params: SearchParams) -> tuple[NDArray[np.int64], list[float]]:
        found, took = np.zeros(len(self), np.int64), []
        for number in range(len(self)):
            hits, spent_ms = self._search(number, params)
            least = self._least[number]
            found[number] = sum(hit.score >= least - _TOLERANCE * max(1.0, abs(least)) for hit in hits)
            took.append(spent_ms)
        return found, took

    def _search(self, number: int, params: SearchParams) -> tuple[list[Hit], float]:
        own = int(self._own[number])
        query = self._queries.select(number, number + 1)
        started = time.process_time()
        hits = self._snapshot.search(query, self._k + (own >= 0), params)[0]
        spent_ms = 1000 * (time.process_time() - started)
        return [hit for hit in hits if hit.position != own][: self._k], spent_ms


def passages_as_queries(snapshot: Snapshot, count: int) -> tuple[Encoded, NDArray[np.int64]]:
    """Take tokens of random passages as queries; return them and the positions of their passages.

    Raises: UsageError for a snapshot in which no passage has tokens.
    """
    rng = np.random.default_rng(0)
    tokens: list[NDArray[np.float32]] = []
    sentences: list[NDArray[np.float32]] = []
    positions: list[int] = []
    for position in rng.permutation(snapshot.positions).tolist():
        try:
            vectors = snapshot.vectors_of(position)
        except UsageError:
            # The passage was deleted.
            continue
        if len(vectors) == 0:
            continue
        chosen = np.sort(rng.permutation(len(vectors))[:PASSAGE_QUERY_TOKENS])
        tokens.append(vectors[chosen])
        sentence = snapshot.sentence_of(position)
        if sentence is not None:
            sentences.append(sentence)
        positions.append(position)
        if len(positions) == count:
            break
    if not positions:
        raise UsageError(f"{snapshot.path} holds no passage with token vectors, so there is nothing to estimate")
    return _encoded(tokens, sentences), np.array(positions, np.int64)


def select(queries: Encoded, numbers: NDArray[np.int64]) -> Encoded:
    """Take some queries, in this order."""
    sentences = queries.sentences
    return _encoded(
        [queries.tokens_of(int(number)) for number in numbers],
        [] if sentences is None else [sentences[number] for number in numbers],
    )


def concatenate(parts: list[Encoded]) -> Encoded:
    """Join batches of queries."""
    return _encoded(
        [part.tokens_of(i) for part in parts for i in range(len(part))],
        [sentence for part in parts if part.sentences is not None for sentence in part.sentences],
    )


def _encoded(tokens: list[NDArray[np.float32]], sentences: list[NDArray[np.float32]]) -> Encoded:
    return Encoded(
        vectors=np.concatenate(tokens),
        offsets=np.cumsum([0, *map(len, tokens)]).astype(np.int64),
        sentences=np.stack(sentences) if sentences else None,
        spans=np.empty((0, 2), np.int32),
        truncated=np.zeros(len(tokens), np.bool_),
        unknown=np.zeros(len(tokens), np.float32),
    )
