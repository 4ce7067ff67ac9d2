"""Exact ranking of a few thousand passages without a snapshot: brute-force relevance in BLAS batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage, Query
from drdecr.encoder.types import Encoded, Encoder, EncoderSpec, Progress
from drdecr.encoder.windows import Windowed, encode_windows
from training.evaluation.measures import Run

PASSAGE_TOKENS_AT_ONCE = 1024
QUERY_TOKENS_AT_ONCE = 512


def rank_all(
    encoder: Encoder,
    queries: Sequence[Query],
    passages: Sequence[Passage],
    k: int = 100,
    *,
    progress: Progress | None = None,
) -> Run:
    """Encode everything and rank every passage for every query, exactly."""
    encoded = encode_windows(encoder, [passage.content for passage in passages], progress=progress)
    return rank_encoded(encoder, queries, encoded, [passage.id for passage in passages], k, progress=progress)


def rank_encoded(
    encoder: Encoder,
    queries: Sequence[Query],
    passages: Windowed,
    passage_ids: Sequence[str],
    k: int = 100,
    *,
    progress: Progress | None = None,
) -> Run:
    """Rank passages that are encoded already, as for the same collection in many languages."""
    encoded = encoder.encode([query.text for query in queries], "query", progress=progress)
    scores = relevance_of_passages(encoded, passages, encoder.spec)
    run: Run = {}
    for row, query in zip(scores, queries, strict=True):
        best = np.argsort(-row, kind="stable")[:k]
        run[query.id] = {passage_ids[at]: float(row[at]) for at in best if np.isfinite(row[at])}
    return run


def relevance_of_passages(queries: Encoded, passages: Windowed, spec: EncoderSpec) -> NDArray[np.float32]:
    """Return the relevance of passages as an index has it (see `EncoderSpec`), (queries, passages) float32.

    The best window scores a passage, or with a `closeness` all of them and the best. -inf where there are no tokens.
    """
    firsts = passages.bounds[:-1]
    if not spec.closeness:
        best = relevance(queries, passages.windows, spec.sentence_weight)
        return np.maximum.reduceat(best, firsts, axis=1) if len(passages) < len(passages.windows) else best
    whole = relevance(queries, replace(passages.windows, offsets=passages.offsets, sentences=None), 0.0)
    parts = relevance(queries, replace(passages.windows, sentences=None), 0.0)
    scores = whole
    scores += spec.closeness * np.maximum.reduceat(parts, firsts, axis=1)
    if queries.sentences is not None and passages.windows.sentences is not None:
        tokens = np.diff(queries.offsets).astype(np.float32)[:, None]
        dots = np.maximum.reduceat(queries.sentences @ passages.windows.sentences.T, firsts, axis=1)
        scores += spec.sentence_weight * tokens * dots
    return scores


def relevance(queries: Encoded, passages: Encoded, sentence_weight: float) -> NDArray[np.float32]:
    """Return MaxSim + weight x query tokens x dot of the sentence vectors (see `EncoderSpec`).

    Shape (queries, passages), float32; -inf where the query or the passage has no token vectors.
    """
    scores = np.full((len(queries), len(passages)), -np.inf, dtype=np.float32)
    passage_starts, filled_passages = _starts(passages)
    query_starts, filled_queries = _starts(queries)
    for first, last in _blocks(passages.offsets[filled_passages + 1], PASSAGE_TOKENS_AT_ONCE):
        rows = _block(passages, passage_starts, first, last)
        for low, high in _blocks(queries.offsets[filled_queries + 1], QUERY_TOKENS_AT_ONCE):
            columns = _block(queries, query_starts, low, high)
            # maximum over a passage's rows, then sum over a query's columns
            best = np.maximum.reduceat(rows @ columns.T, passage_starts[first:last] - passage_starts[first], axis=0)
            totals = np.add.reduceat(best, query_starts[low:high] - query_starts[low], axis=1)
            scores[np.ix_(filled_queries[low:high], filled_passages[first:last])] = totals.T
    if queries.sentences is not None and passages.sentences is not None and sentence_weight:
        tokens = np.diff(queries.offsets).astype(np.float32)[:, None]
        scores += sentence_weight * tokens * (queries.sentences @ passages.sentences.T)
    return scores


def _starts(texts: Encoded) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the texts with token vectors begin, and which texts those are."""
    filled = np.flatnonzero(np.diff(texts.offsets))
    return texts.offsets[filled], filled


def _block(texts: Encoded, starts: NDArray[np.int64], first: int, last: int) -> NDArray[np.float32]:
    stop = starts[last] if last < len(starts) else texts.offsets[-1]
    return texts.vectors[starts[first] : stop]


def _blocks(ends: NDArray[np.int64], tokens: int) -> list[tuple[int, int]]:
    """Cut texts, given where each ends, into runs of about so many tokens, at least one text each."""
    blocks = []
    first = 0
    while first < len(ends):
        begin = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, begin + tokens, side="right")))
        blocks.append((first, last))
        first = last
    return blocks
