"""How well an encoder ranks a small judged collection, by the exact relevance of every passage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from numpy.typing import NDArray

from drdecr.corpus import Passage, Qrels, Query
from drdecr.encoder.types import Encoded, Encoder
from drdecr.errors import InputError

_QUERY_WORDS = 12


@dataclass(frozen=True, slots=True)
class JudgedTexts:
    """Queries, the passages they are asked over, and the judgments. A few hundred of each are enough for a gate."""

    queries: Sequence[Query]
    passages: Sequence[Passage]
    qrels: Qrels


def generated_judgments(passages: Sequence[Passage], *, count: int = 300, seed: int = 0) -> JudgedTexts:
    """Ask for passages by words of their own: every third word, shuffled, is a query with that one relevant passage.

    Enough to tell whether a file ranks as another does; nothing about how well a student searches.
    Raises: InputError where no passage has words.
    """
    rng = random.Random(seed)
    filled = [passage for passage in passages if passage.content.strip()]
    if not filled:
        raise InputError("no passage has any text to make evaluation queries of")
    chosen = rng.sample(filled, min(count, len(filled)))
    queries = []
    for passage in chosen:
        words = passage.content.split()
        kept = rng.sample(words, max(1, min(len(words) // 3, _QUERY_WORDS)))
        queries.append(Query(f"generated-{passage.id}", " ".join(kept)))
    qrels = {query.id: {passage.id: 1} for query, passage in zip(queries, chosen, strict=True)}
    return JudgedTexts(queries, filled, qrels)


def ndcg_at_10(encoder: Encoder, judged: JudgedTexts) -> float:
    """Return the mean nDCG@10 of an encoder's exact ranking. Raises: InputError where no query has a judgment."""
    asked = [query for query in judged.queries if judged.qrels.get(query.id)]
    if not asked or not judged.passages:
        raise InputError("none of the queries is judged, or there are no passages; quality cannot be measured")
    passages = encoder.encode([passage.content for passage in judged.passages], "passage")
    queries = encoder.encode([query.text for query in asked], "query")
    ids = [passage.id for passage in judged.passages]
    weight = encoder.spec.sentence_weight
    run = {
        query.id: dict(zip(ids, relevance(queries.select(i, i + 1), passages, weight).tolist(), strict=True))
        for i, query in enumerate(asked)
    }
    qrels = {query.id: judged.qrels[query.id] for query in asked}
    measure = ir_measures.nDCG @ 10
    return float(ir_measures.calc_aggregate([measure], qrels, run)[measure])


def relevance(query: Encoded, passages: Encoded, sentence_weight: float) -> NDArray[np.float32]:
    """Score all passages for one query, (passages,) float32; -inf for a passage without token vectors."""
    scores = np.full(len(passages), -np.inf, np.float32)
    filled = np.flatnonzero(np.diff(passages.offsets))
    if not len(filled):
        return scores
    products = passages.vectors @ query.vectors.T
    scores[filled] = np.maximum.reduceat(products, passages.offsets[filled], axis=0).sum(axis=1)
    if query.sentences is not None and passages.sentences is not None:
        scores[filled] += sentence_weight * len(query.vectors) * (passages.sentences[filled] @ query.sentences[0])
    return scores
