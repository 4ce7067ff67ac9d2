"""Exact scores: MaxSim over decoded token vectors, plus the share of the sentence vectors (decision 1)."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drdecr.index.byte_products import rounded_products
from drdecr.index.kernels import add_maxsim, best_rows, narrow_table
from drdecr.index.lane_blocks import LaneBlock, lane_blocks, products
from drdecr.index.quantizer import Quantizer
from drdecr.index.segment import Segment

# Decoded tokens that are scored at a time: at 128 dimensions 256 KiB, which stays in a core's own cache.
_BLOCK_TOKENS = 512
_KEPT_TOKENS = 4096
_scratch = threading.local()


@dataclass(frozen=True, slots=True)
class QueryLanes:
    """One query, laid out for the kernels. `sentence_scale` is weight x number of query tokens.

    What depends on a quantiser is computed once, however many segments share it. Shapes: vectors (tokens, dim).
    """

    vectors: NDArray[np.float32]
    sentence: NDArray[np.float32] | None
    sentence_scale: float
    _blocks: dict[int, list[LaneBlock]] = field(default_factory=dict)
    _tables: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    _narrow: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return len(self.vectors)

    def blocks(self, quantizer: Quantizer) -> list[LaneBlock]:
        """Return the query's lanes in a quantiser's space."""
        if id(quantizer) not in self._blocks:
            self._blocks[id(quantizer)] = lane_blocks(quantizer.turn(self.vectors))
        return self._blocks[id(quantizer)]

    def table(self, quantizer: Quantizer) -> NDArray[np.float32]:
        """Return the dot products of all centroids with all lanes, (lists, lanes), rounded (see `byte_products`)."""
        if id(quantizer) not in self._tables:
            self._tables[id(quantizer)] = rounded_products(quantizer.rounded_centroids, self.blocks(quantizer))
        return self._tables[id(quantizer)]

    def narrow_table(self, quantizer: Quantizer) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the same table in bytes, above each lane's least score, and what a unit of each lane is worth."""
        if id(quantizer) not in self._narrow:
            table = self.table(quantizer)
            narrow, steps = np.empty(table.shape, np.uint8), np.empty(table.shape[1], np.float32)
            narrow_table(table, narrow, steps)
            self._narrow[id(quantizer)] = narrow, steps
        return self._narrow[id(quantizer)]


def query_lanes(
    tokens: NDArray[np.float32], sentence: NDArray[np.float32] | None, sentence_weight: float
) -> QueryLanes:
    """Lay a query out. Shapes: tokens (n, dim), sentence (sentence_dim,) or None."""
    return QueryLanes(tokens, sentence, sentence_weight * len(tokens))


def relevance(
    segment: Segment, query: QueryLanes, passages: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score passages with tokens exactly, each by its best window; return the scores and the windows, (passages,).

    Relevance = MaxSim + weight x number of query tokens x dot product of the sentence vectors.
    """
    windows, bounds = segment.windows_of(passages)
    scores = _window_relevance(segment, query, windows)
    if not segment.has_windows or not len(windows):
        return scores, windows
    best = np.maximum.reduceat(scores, bounds[:-1])
    # The first of equal ones.
    winners = np.flatnonzero(scores == np.repeat(best, np.diff(bounds)))
    return best, windows[winners[np.searchsorted(winners, bounds[:-1])]]


def estimated_relevance(segment: Segment, query: QueryLanes, windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Score windows with tokens by the few tokens that matter, (windows,): never more than the exact score.

    Those are a window's tokens whose centroid some query token scores best: of 80 tokens about a sixth.
    """
    tokens = int((segment.window_offsets[windows + 1] - segment.window_offsets[windows]).sum())
    rows, bounds = np.empty(tokens, np.int64), np.empty(len(windows) + 1, np.int64)
    narrow, _ = query.narrow_table(segment.quantizer)
    count = best_rows(windows, segment.window_offsets, segment.cells, narrow, query.tokens, rows, bounds)
    return _maxsim(segment, query, rows[:count], bounds) + sentence_scores(segment, query, windows)


def _window_relevance(segment: Segment, query: QueryLanes, windows: NDArray[np.int64]) -> NDArray[np.float64]:
    return _maxsim(segment, query, *segment.rows_of_windows(windows)) + sentence_scores(segment, query, windows)


def _maxsim(
    segment: Segment, query: QueryLanes, rows: NDArray[np.int64], bounds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the MaxSim of groups of token rows, (groups,): rows (tokens,), bounds (groups + 1,) of each group."""
    scores = np.zeros(len(bounds) - 1, np.float64)
    longest = int(np.diff(bounds).max(initial=0))
    room = _decoded_room(max(longest, _BLOCK_TOKENS), segment.quantizer.stored_dim)
    start = 0
    while start < len(scores):
        begin = bounds[start]
        stop = max(start + 1, int(np.searchsorted(bounds, begin + _BLOCK_TOKENS, side="right")) - 1)
        vectors = segment.turned_rows(rows[begin : bounds[stop]], room)
        for block in query.blocks(segment.quantizer):
            own = bounds[start : stop + 1] - begin
            add_maxsim(vectors, own, block.vectors, block.lanes, block.used, scores[start:stop])
        start = stop
    return scores


def _decoded_room(tokens: int, dim: int) -> NDArray[np.float32]:
    """Return this thread's memory for decoded tokens; fresh memory would cost a page fault every few tokens."""
    held: NDArray[np.float32] | None = getattr(_scratch, "decoded", None)
    if held is None or held.size < tokens * dim:
        held = np.empty(tokens * dim, np.float32)
        if tokens <= _KEPT_TOKENS:
            _scratch.decoded = held
    return held[: tokens * dim].reshape(tokens, dim)


def sentence_scores(segment: Segment, query: QueryLanes, windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what the sentence vectors add to the relevance of windows; 0 for a student without them."""
    scores = np.zeros(len(windows), np.float64)
    if query.sentence is None:
        return scores
    blocks = lane_blocks(query.sentence[None, :])
    for start in range(0, len(windows), _BLOCK_TOKENS):
        part = windows[start : start + _BLOCK_TOKENS]
        scores[start : start + len(part)] = products(segment.sentences_of(part), blocks)[:, 0]
    return scores * query.sentence_scale
