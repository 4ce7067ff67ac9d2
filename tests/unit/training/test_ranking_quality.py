"""The exact ranking that quality gates stand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drdecr.corpus import Passage, Query
from drdecr.encoder.load import load_encoder
from drdecr.errors import InputError
from training.ranking_quality import JudgedTexts, ndcg_at_10, relevance

PASSAGES = ["one two", "", "three", "three four five"]


def test_relevance_is_maxsim_plus_the_weighted_sentence_product(tiny_student: Path) -> None:
    encoder = load_encoder(tiny_student, threads=1)
    query, passages = encoder.encode(["two three"], "query"), encoder.encode(PASSAGES, "passage")
    assert query.sentences is not None and passages.sentences is not None
    scores = relevance(query, passages, 0.5)
    for text in (0, 2, 3):
        maxsim = sum(max(float(a @ b) for b in passages.tokens_of(text)) for a in query.vectors)
        sentences = 0.5 * len(query.vectors) * float(query.sentences[0] @ passages.sentences[text])
        assert scores[text] == pytest.approx(maxsim + sentences, abs=1e-4)
    assert scores[1] == -np.inf


def test_collection_of_empty_passages_scores_nothing(tiny_student: Path) -> None:
    encoder = load_encoder(tiny_student, threads=1)
    scores = relevance(encoder.encode(["a"], "query"), encoder.encode(["", " "], "passage"), 0.5)
    assert scores.tolist() == [-np.inf, -np.inf]


def test_ndcg_counts_only_judged_queries(tiny_student: Path) -> None:
    encoder = load_encoder(tiny_student, threads=1)
    passages = [Passage(str(i), text) for i, text in enumerate(["apple pie", "boat race", "copper mine"])]
    right = JudgedTexts(
        [Query("a", "apple pie"), Query("unjudged", "x")], passages, {"a": {"0": 1}, "elsewhere": {"1": 1}}
    )
    assert ndcg_at_10(encoder, right) == 1.0
    second = JudgedTexts([Query("a", "apple pie")], passages[:2], {"a": {"1": 1}})
    assert ndcg_at_10(encoder, second) == pytest.approx(1 / np.log2(3))


def test_quality_without_any_judged_query_is_refused(tiny_student: Path) -> None:
    nothing = JudgedTexts([Query("a", "apple")], [Passage("0", "apple")], {"b": {"0": 1}})
    with pytest.raises(InputError, match="judged"):
        ndcg_at_10(load_encoder(tiny_student, threads=1), nothing)
