"""How well an encoder ranks a small judged collection, by the exact relevance of every passage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import ir_measures

from drdecr.corpus import Passage, Qrels, Query
from drdecr.encoder.types import Encoder
from drdecr.errors import InputError
from training.evaluation.ranking import rank_all

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
    run = rank_all(encoder, asked, judged.passages, len(judged.passages))
    qrels = {query.id: judged.qrels[query.id] for query in asked}
    measure = ir_measures.nDCG @ 10
    return float(ir_measures.calc_aggregate([measure], qrels, run)[measure])
