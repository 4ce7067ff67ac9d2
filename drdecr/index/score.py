"""Exact scores: MaxSim over decoded token vectors, plus the share of the sentence vectors (decision 1)."""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass, field
from operator import sub

import numpy as np
from numpy.typing import NDArray

from drdecr.index.byte_products import ScoreTable, rounded_products
from drdecr.index.estimates import add_estimates
from drdecr.index.kernels import add_part_maxsim, narrow_table
from drdecr.index.lane_blocks import LaneBlock, lane_blocks
from drdecr.index.lanes import MAX_LANES
from drdecr.index.quantizer import Quantizer
from drdecr.index.segment import Segment
from drdecr.index.whole_codes import WholeLanes, whole_lanes

# Decoded tokens that are scored at a time: at 128 dimensions 512 KiB, which stays in a core's own cache.
_BLOCK_TOKENS = 1024
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
    closeness: float = 0.0
    _blocks: dict[int, list[LaneBlock]] = field(default_factory=dict)
    _tables: dict[int, ScoreTable] = field(default_factory=dict)
    _whole: dict[int, list[WholeLanes]] = field(default_factory=dict)
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
        return self._table(quantizer).scores

    def _table(self, quantizer: Quantizer) -> ScoreTable:
        if id(quantizer) not in self._tables:
            self._tables[id(quantizer)] = rounded_products(quantizer.rounded_centroids, self.blocks(quantizer))
        return self._tables[id(quantizer)]

    def whole_lanes(self, quantizer: Quantizer) -> list[WholeLanes]:
        """Return the query's lanes in whole numbers, beside a quantiser's codes."""
        if id(quantizer) not in self._whole:
            self._whole[id(quantizer)] = [whole_lanes(quantizer.whole_codes, each) for each in self.blocks(quantizer)]
        return self._whole[id(quantizer)]

    def narrow_table(self, quantizer: Quantizer) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the same table in bytes, above each lane's least score, and what a unit of each lane is worth."""
        if id(quantizer) not in self._narrow:
            table = self._table(quantizer)
            narrow, steps = np.empty(table.scores.shape, np.uint8), np.empty(table.scores.shape[1], np.float32)
            narrow_table(table.scores, table.lows, table.highs, narrow, steps)
            self._narrow[id(quantizer)] = narrow, steps
        return self._narrow[id(quantizer)]


def query_lanes(
    tokens: NDArray[np.float32],
    sentence: NDArray[np.float32] | None,
    sentence_weight: float,
    closeness: float = 0.0,
) -> QueryLanes:
    """Lay a query out. Shapes: tokens (n, dim), sentence (sentence_dim,) or None."""
    return QueryLanes(tokens, sentence, sentence_weight * len(tokens), closeness)


def relevance(
    segment: Segment, query: QueryLanes, passages: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score passages with tokens exactly; return the scores and each one's best window, (passages,).

    Relevance = MaxSim + weight x number of query tokens x dot product of the sentence vectors, by the best window;
    with a `closeness` that of `EncoderSpec`.
    """
    windows, parts = segment.windows_of(passages)
    if not len(windows):
        return np.zeros(0, np.float64), windows
    rows, bounds = segment.rows_of_windows(windows)
    together = parts if query.closeness else np.arange(len(windows) + 1)
    scores, own = _with_sentences(segment, query, windows, parts, *_maxsim(segment, query, rows, bounds, together))
    if not segment.has_windows:
        return scores, windows
    best = np.maximum.reduceat(own, parts[:-1])
    # The first of equal ones.
    winners = np.flatnonzero(own == np.repeat(best, np.diff(parts)))
    return scores, windows[winners[np.searchsorted(winners, parts[:-1])]]


def estimated_relevance(segment: Segment, query: QueryLanes, passages: NDArray[np.int64]) -> NDArray[np.float64]:
    """Score passages with tokens by their codes as whole numbers, (passages,): some thousandths off a token."""
    windows, parts = segment.windows_of(passages)
    quantizer = segment.quantizer
    codes = quantizer.whole_codes
    middles = query.table(quantizer) if codes.by_centroid else np.zeros((1, MAX_LANES), np.float32)
    scores, own = np.zeros(len(passages), np.float64), np.zeros(len(windows), np.float64)
    column, constant = 0, 0.0
    for block, lanes in zip(query.blocks(quantizer), query.whole_lanes(quantizer), strict=True):
        constant += lanes.constant
        add_estimates(
            segment.codes,
            segment.cells,
            codes.kind,
            codes.tables,
            (0,) * codes.tables.shape[2],
            codes.scale,
            windows,
            parts,
            segment.window_offsets,
            middles,
            int(codes.by_centroid),
            column,
            lanes.queries,
            lanes.scales,
            block.lanes,
            block.used,
            quantizer.stored_dim,
            scores,
            own,
        )
        column += block.vectors.shape[1] if codes.by_centroid else 0
    scores += constant
    own += constant
    return _with_sentences(segment, query, windows, parts, scores, own)[0]


def _with_sentences(
    segment: Segment,
    query: QueryLanes,
    windows: NDArray[np.int64],
    parts: NDArray[np.int64],
    scores: NDArray[np.float64],
    own: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make relevance of the MaxSim of passages, which only a `closeness` reads, and that of their windows, `own`.

    Return that of the passages, (passages,), and what each window by itself gives to it, (windows,). `parts`
    (passages + 1,) are the windows of each passage.
    """
    if query.sentence is None and not query.closeness and not segment.has_windows:
        return own, own
    sentences, firsts = sentence_scores(segment, query, windows), parts[:-1]
    if query.closeness:
        own *= query.closeness
        scores += np.maximum.reduceat(own, firsts)
        scores += np.maximum.reduceat(sentences, firsts)
        return scores, own + sentences
    own = own + sentences
    return (np.maximum.reduceat(own, firsts) if segment.has_windows else own), own


def _maxsim(
    segment: Segment,
    query: QueryLanes,
    rows: NDArray[np.int64],
    bounds: NDArray[np.int64],
    parts: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the MaxSim of groups of windows, (groups,), and of each window, (windows,).

    Shapes: rows (tokens,), bounds (windows + 1,) of each window's rows, parts (groups + 1,) of each group's windows.
    """
    scores, parted = np.zeros(len(parts) - 1, np.float64), np.zeros(len(bounds) - 1, np.float64)
    ends = bounds[parts].tolist()
    longest = max(map(sub, ends[1:], ends), default=0)
    room = _decoded_room(max(longest, _BLOCK_TOKENS), segment.quantizer.stored_dim)
    start = 0
    while start < len(scores):
        begin = ends[start]
        stop = max(start + 1, bisect_right(ends, begin + _BLOCK_TOKENS) - 1)
        vectors = segment.turned_rows(rows[begin : ends[stop]], room)
        first, last = parts[start], parts[stop]
        own, groups = bounds[first : last + 1] - begin, parts[start : stop + 1] - first
        for block in query.blocks(segment.quantizer):
            add_part_maxsim(
                vectors,
                own,
                groups,
                block.vectors,
                block.lanes,
                block.used,
                scores[start:stop],
                parted[first:last],
            )
        start = stop
    return scores, parted


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
    if query.sentence is None:
        return np.zeros(len(windows), np.float64)
    return segment.sentence_dots(windows, query.sentence) * query.sentence_scale
