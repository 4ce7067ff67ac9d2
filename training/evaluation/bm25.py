"""The floor: BM25 with the query as it is, in its own language, over English passages."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import bm25s
import numpy as np

from drdecr.corpus import Passage, Query
from training.evaluation.measures import Run
from training.evaluation.words import words

# The library sets its own logger to DEBUG when it is imported.
logging.getLogger("bm25s").setLevel(logging.WARNING)


class Bm25:
    """An index of passages by their words (BM25 as Lucene computes it, k1 1.5, b 0.75)."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._ids = [passage.id for passage in passages]
        self._index = bm25s.BM25()
        tokens = [words(passage.content) for passage in passages]
        self._vocabulary = {word for text in tokens for word in text}
        if self._vocabulary:
            self._index.index(tokens, show_progress=False)

    def rank(self, queries: Sequence[Query], k: int = 100) -> Run:
        """Return each query's best passages that share a word with it; often none."""
        run: Run = {}
        for query in queries:
            known = [word for word in words(query.text) if word in self._vocabulary]
            run[query.id] = {}
            if known:
                scores = self._index.get_scores(known)
                best = np.argsort(-scores, kind="stable")[:k]
                run[query.id] = {self._ids[at]: float(scores[at]) for at in best if scores[at] > 0}
        return run
