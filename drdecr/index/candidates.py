"""Which passages get an exact score: the stages that narrow a collection down.

1. One product of the query tokens with all centroids.
2. Each query token visits its best lists, but for those that gain much less than the best; a passage gains what the
   list's centroid scores above the first list that the token does not visit, or above what a passage that it does not
   meet is taken to have (the imputed score).
3. The best few thousand are scored by the centroids of all their tokens, window by window; the sentence vectors enter
   here.
4. The best of those, the candidates, are scored by their codes as whole numbers, which need no decoding.

The best of stage 4, a few more than the hits, get the exact score.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.errors import SnapshotCorruptError
from drdecr.index.backend import SearchParams
from drdecr.index.kernels import best_lists, score_by_cells, visit_lists
from drdecr.index.knobs import knobs_for
from drdecr.index.score import QueryLanes, estimated_relevance, sentence_scores
from drdecr.index.segment import Segment
from drdecr.index.tuning import Tuning

# Passages scored by centroids for each candidate.
_SHORTLIST_FACTOR = 4
# Of the passages that a filter keeps: so many get exact scores for each candidate before the filter narrows a search.
_FILTERED_EXACT_FACTOR = 4
# How many get exact scores: by their codes as whole numbers the k best are hardly ever further down (of 100 best over
# 50,000 passages all at 6 bits, 99.9 at 4 and 99.8 at 2).
_FINALISTS_MORE = 4
_FINALISTS_SHARE = 5
# What a query token finds where it meets nothing: the score that this share of the lists exceeds, by a sample of them
# (k-means leaves them in random order).
_BETTER_LISTS = 0.0125
_SAMPLED_LISTS = 512
# A query token passes over the lists that gain less than this share of what its best one does: the default search
# takes a seventh less time, for .0005 of recall (50,000 passages). With a filter none is passed over: such a list may
# hold what the filter leaves.
_GAIN_SHARE = 0.6
_LAST_MARK = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Knobs:
    """The knobs of one search on one segment, all decided."""

    nprobe: int
    candidates: int
    finalists: int
    exact: bool


def decide_knobs(segment: Segment, params: SearchParams, k: int, tuning: Tuning | None = None) -> Knobs:
    """Fill in the knobs that were left open, by the segment's size."""
    sentences = bool(segment.sentence_dim)
    nprobe, candidates = knobs_for(params, k, len(segment), segment.lists, tuning, sentences=sentences)
    finalists = k + k // _FINALISTS_SHARE + _FINALISTS_MORE
    return Knobs(nprobe, candidates, finalists, exact=nprobe == segment.lists and candidates == len(segment))


class CandidateFinder:
    """Narrows a segment down for one query at a time; each thread has its own scratch memory."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._local = threading.local()

    def find(
        self,
        query: QueryLanes,
        knobs: Knobs,
        wanted: int,
        allowed: NDArray[np.bool_] | None = None,
        *,
        filtered: bool = True,
    ) -> NDArray[np.int64]:
        """Return the passages that deserve an exact score, at least `wanted` of them where there are so many.

        `allowed` (passages,) leaves out all others; few enough allowed passages are all returned, so that a narrow
        filter is answered exactly. Without `filtered` only deleted passages are not allowed.
        """
        segment = self._segment
        if allowed is not None:
            kept = np.flatnonzero(allowed)
            if knobs.exact or (filtered and len(kept) <= _FILTERED_EXACT_FACTOR * knobs.candidates):
                return kept
            wanted = min(wanted, len(kept))
        if knobs.exact:
            return np.arange(len(segment), dtype=np.int64)
        table = query.table(segment.quantizer)
        share = _GAIN_SHARE if allowed is None or not filtered else 0.0
        if knobs.nprobe == segment.lists and len(segment) <= _SHORTLIST_FACTOR * knobs.candidates:
            # All lists meet all passages, and none would be cut: a small segment of a quantiser with many lists.
            met = np.arange(len(segment), dtype=np.int64) if allowed is None else kept
        else:
            met = self._meet(table, query.tokens, knobs, wanted, allowed, share)
        if query.sentence is not None:
            # Where passages are read by sentences, several of the nearest are often of one passage.
            count = knobs.candidates * (2 if query.closeness else 1)
            nearest = segment.nearest_sentences(query.sentence, count, knobs.nprobe, allowed)
            met = np.union1d(met, nearest)
        if len(met) > knobs.candidates:
            met = _best(met, self._score_by_centroids(query, met), knobs.candidates)
        if len(met) > knobs.finalists:
            met = _best(met, estimated_relevance(segment, query, met), knobs.finalists)
        return met

    def _score_by_centroids(self, query: QueryLanes, passages: NDArray[np.int64]) -> NDArray[np.float64]:
        segment = self._segment
        windows, parts = segment.windows_of(passages)
        groups, offsets = (passages, segment.offsets) if query.closeness else (windows, segment.window_offsets)
        narrow, steps = query.narrow_table(segment.quantizer)
        scores = np.empty(len(groups), np.float32)
        score_by_cells(groups, offsets, segment.cells, narrow, steps, query.tokens, scores)
        estimates = sentence_scores(segment, query, windows)
        if query.closeness:
            estimates = np.maximum.reduceat(estimates, parts[:-1])
            estimates += (1 + query.closeness) * scores
            return estimates
        estimates += scores
        return np.maximum.reduceat(estimates, parts[:-1]) if segment.has_windows else estimates

    def _meet(
        self,
        table: NDArray[np.float32],
        tokens: int,
        knobs: Knobs,
        wanted: int,
        allowed: NDArray[np.bool_] | None,
        share: float,
    ) -> NDArray[np.int64]:
        nprobe = knobs.nprobe
        while True:
            share = share if nprobe < self._segment.lists else 0.0
            met, sums = self._visit(table, tokens, nprobe, allowed, share)
            if len(met) >= wanted or nprobe == self._segment.lists:
                return _best(met, sums, _SHORTLIST_FACTOR * knobs.candidates)
            nprobe, share = min(4 * nprobe, self._segment.lists), 0.0

    def _visit(
        self,
        table: NDArray[np.float32],
        tokens: int,
        nprobe: int,
        allowed: NDArray[np.bool_] | None,
        share: float,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the passages that these lists meet and what each gained; the next visit overwrites both."""
        segment = self._segment
        count = min(nprobe + 1, segment.lists)
        lists, scores = np.empty((tokens, count), np.int64), np.empty((tokens, count), np.float32)
        best_lists(table, tokens, lists, scores)
        gains = scores[:, :nprobe] - np.minimum(scores[:, -1:], _imputed(table, tokens)[:, None])
        scratch = self._scratch_of(tokens)
        found = visit_lists(
            segment.postings,
            segment.starts,
            segment.sizes,
            np.ascontiguousarray(lists[:, :nprobe]),
            gains,
            share,
            allowed,
            scratch.marks,
            scratch.since,
            scratch.sums,
            scratch.met,
            scratch.gained,
        )
        scratch.since += tokens
        if found < 0:
            raise SnapshotCorruptError("posting lists cannot be read; run `drdecr index verify`")
        return scratch.met[:found], scratch.gained[:found]

    def _scratch_of(self, tokens: int) -> _Scratch:
        held: _Scratch | None = getattr(self._local, "scratch", None)
        if held is None:
            held = self._local.scratch = _Scratch(len(self._segment))
        if held.since + tokens > _LAST_MARK:
            held.marks[:] = 0
            held.since = 1
        return held


def _imputed(table: NDArray[np.float32], tokens: int) -> NDArray[np.float32]:
    """Return about what each query token finds in a passage that it does not meet, (tokens,).

    That is the best of about as many centroids as a passage has tokens; how many exactly hardly matters.
    """
    sample = table[:_SAMPLED_LISTS]
    count = max(1, round(_BETTER_LISTS * len(sample)))
    lists, scores = np.empty((tokens, count), np.int64), np.empty((tokens, count), np.float32)
    best_lists(sample, tokens, lists, scores)
    return scores[:, -1]


class _Scratch:
    """One thread's memory for visits (see `visit_lists`), which needs no cleaning between them."""

    def __init__(self, passages: int) -> None:
        self.marks = np.zeros(passages, np.int32)
        self.since = 1
        self.sums = np.empty(passages, np.float32)
        self.met = np.empty(passages + 1, np.int64)
        self.gained = np.empty(passages + 1, np.float32)


def _best(passages: NDArray[np.int64], scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Keep the `count` best passages, in the order of their positions."""
    if len(passages) > count:
        # numpy partitions floats several times faster than it finds the places of a partition.
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        better = passages[scores > least]
        passages = np.concatenate([better, passages[scores == least][: count - len(better)]])
    return np.sort(passages)
