"""Brute-force ranking against the definition of relevance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drdecr.corpus import Passage, Query
from drdecr.encoder.types import Encoded, EncoderSpec, Kind, Progress
from training.evaluation import ranking
from training.evaluation.ranking import rank_all, relevance

DIM = 8


def encoded(lengths: Sequence[int], seed: int, *, sentence_dim: int = 4) -> Encoded:
    random = np.random.default_rng(seed)
    tokens = sum(lengths)
    return Encoded(
        vectors=random.standard_normal((tokens, DIM)).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        sentences=random.standard_normal((len(lengths), sentence_dim)).astype(np.float32) if sentence_dim else None,
        spans=np.zeros((tokens, 2), dtype=np.int32),
        truncated=np.zeros(len(lengths), dtype=np.bool_),
        unknown=np.zeros(len(lengths), dtype=np.float32),
    )


def by_definition(queries: Encoded, passages: Encoded, weight: float) -> np.ndarray:
    scores = np.full((len(queries), len(passages)), -np.inf)
    for q in range(len(queries)):
        for p in range(len(passages)):
            ours, theirs = queries.tokens_of(q), passages.tokens_of(p)
            if len(ours) and len(theirs):
                scores[q, p] = (ours @ theirs.T).max(axis=1).sum()
                if queries.sentences is not None and passages.sentences is not None:
                    scores[q, p] += weight * len(ours) * (queries.sentences[q] @ passages.sentences[p])
    return scores


@given(
    st.lists(st.integers(0, 6), max_size=6),
    st.lists(st.integers(0, 9), max_size=12),
    st.integers(1, 20),
    st.sampled_from([0, 4]),
)
@settings(max_examples=80, deadline=None)
def test_relevance_is_maxsim_and_the_sentence_term_whatever_the_blocks(
    query_lengths: list[int], passage_lengths: list[int], block: int, sentence_dim: int
) -> None:
    queries = encoded(query_lengths, 1, sentence_dim=sentence_dim)
    passages = encoded(passage_lengths, 2, sentence_dim=sentence_dim)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ranking, "PASSAGE_TOKENS_AT_ONCE", block)
        patched.setattr(ranking, "QUERY_TOKENS_AT_ONCE", block)
        found = relevance(queries, passages, 0.3)
    np.testing.assert_allclose(found, by_definition(queries, passages, 0.3), rtol=1e-4, atol=1e-4)


class LetterEncoder:
    """One token a letter: equal letters have similarity 1, others 0."""

    spec = EncoderSpec("letters", "f", 26, 0, 0.0, 32, 180)

    def encode(self, texts: Sequence[str], kind: Kind, *, progress: Progress | None = None) -> Encoded:
        letters = [ord(char) - ord("a") for text in texts for char in text]
        return Encoded(
            vectors=np.eye(26, dtype=np.float32)[np.asarray(letters, dtype=np.int64)],
            offsets=np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64),
            sentences=None,
            spans=np.zeros((len(letters), 2), dtype=np.int32),
            truncated=np.zeros(len(texts), dtype=np.bool_),
            unknown=np.zeros(len(texts), dtype=np.float32),
        )

    def encode_sentences(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(texts), 0), np.float32)


PASSAGES = [Passage("first", "xyz"), Passage("second", "abz"), Passage("third", "xyz"), Passage("fourth", "abc")]


def test_passages_come_best_first_and_ties_in_their_order() -> None:
    run = rank_all(LetterEncoder(), [Query("q", "abc")], PASSAGES)
    assert list(run["q"]) == ["fourth", "second", "first", "third"]
    assert run["q"]["fourth"] == 3.0


def test_no_more_than_k_are_returned() -> None:
    assert list(rank_all(LetterEncoder(), [Query("q", "abc")], PASSAGES, k=2)["q"]) == ["fourth", "second"]


def test_query_without_tokens_finds_nothing() -> None:
    assert rank_all(LetterEncoder(), [Query("q", "")], PASSAGES) == {"q": {}}
