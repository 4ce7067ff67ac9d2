"""With probing wide open a search is brute force: same passages, same order, same scores."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from fabricated_vectors import brute_force, encoded, make_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from drdecr.encoder.types import Encoded
from drdecr.index import EXACT, SearchParams

LENGTHS = st.lists(st.sampled_from([0, 1, 1, 2, 3, 7, 12, 13, 30]), min_size=0, max_size=12)


def repeat_first_text(passages: Encoded) -> Encoded:
    """Give the last passage the vectors of the first, where they are equally long."""
    if len(passages) < 2 or len(passages.tokens_of(0)) != len(passages.tokens_of(len(passages) - 1)):
        return passages
    passages.tokens_of(len(passages) - 1)[:] = passages.tokens_of(0)
    if passages.sentences is not None:
        passages.sentences[-1] = passages.sentences[0]
    return passages


@settings(max_examples=60, deadline=None)
@given(
    lengths=LENGTHS,
    query_lengths=st.lists(st.sampled_from([0, 1, 5, 8, 9, 16, 32, 33, 70]), min_size=1, max_size=3),
    dim=st.sampled_from([1, 4, 8, 11, 24]),
    sentence_dim=st.sampled_from([0, 3, 8]),
    k=st.sampled_from([1, 3, 100]),
    seed=st.integers(0, 1000),
)
def test_wide_open_search_ranks_exactly_as_brute_force(
    lengths: list[int], query_lengths: list[int], dim: int, sentence_dim: int, k: int, seed: int
) -> None:
    passages = repeat_first_text(encoded(lengths, dim, sentence_dim, seed, dyadic=True))
    queries = encoded(query_lengths, dim, sentence_dim, seed + 1, dyadic=True)
    with tempfile.TemporaryDirectory() as directory, make_snapshot(Path(directory), passages) as snapshot:
        assert len(snapshot) == len(lengths)
        found = snapshot.search(queries, k, EXACT)
    for query, hits in enumerate(found):
        expected = brute_force(passages, queries, query, k)
        assert [(hit.position, hit.score) for hit in hits] == expected
        assert [hit.id for hit in hits] == [f"p{position}" for position, _ in expected]


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=15),
    sentence_dim=st.sampled_from([0, 16]),
    seed=st.integers(0, 1000),
)
def test_wide_open_search_scores_unit_vectors_as_brute_force(
    lengths: list[int], sentence_dim: int, seed: int
) -> None:
    passages = encoded(lengths, 32, sentence_dim, seed)
    queries = encoded([17], 32, sentence_dim, seed + 1)
    with tempfile.TemporaryDirectory() as directory, make_snapshot(Path(directory), passages) as snapshot:
        hits = snapshot.search(queries, len(lengths), EXACT)[0]
    expected = brute_force(passages, queries, 0, len(lengths))
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)
    truth = dict(expected)
    for hit in hits:
        assert hit.score == pytest.approx(truth[hit.position], abs=1e-5)


def test_passages_of_512_tokens_are_ranked_as_brute_force(tmp_path: Path) -> None:
    passages = encoded([512, 511, 512, 1, 512], 16, 0, dyadic=True)
    queries = encoded([32], 16, 0, seed=5, dyadic=True)
    with make_snapshot(tmp_path, passages) as snapshot:
        hits = snapshot.search(queries, 10, EXACT)[0]
    assert [(hit.position, hit.score) for hit in hits] == brute_force(passages, queries, 0, 10)


def test_repeated_texts_tie_and_keep_their_order(tmp_path: Path) -> None:
    one = encoded([9], 12, 4)
    passages = Encoded(
        vectors=np.tile(one.vectors, (50, 1)),
        offsets=np.arange(51, dtype=np.int64) * 9,
        sentences=np.tile(one.sentences, (50, 1)),
        spans=one.spans,
        truncated=np.zeros(50, np.bool_),
        unknown=np.zeros(50, np.float32),
    )
    queries = encoded([6], 12, 4, seed=3)
    with make_snapshot(tmp_path, passages) as snapshot:
        hits = snapshot.search(queries, 20, EXACT)[0]
        assert [hit.position for hit in hits] == list(range(20))
        assert len({hit.score for hit in hits}) == 1


def test_empty_collection_has_no_hits(tmp_path: Path) -> None:
    with make_snapshot(tmp_path, encoded([], 8, 4)) as snapshot:
        snapshot.warm_up()
        assert len(snapshot) == 0
        assert snapshot.search(encoded([3, 0], 8, 4), 10) == [[], []]


def test_query_without_tokens_has_no_hits(tmp_path: Path) -> None:
    with make_snapshot(tmp_path, encoded([4, 2], 8)) as snapshot:
        assert snapshot.search(encoded([0], 8), 10, EXACT) == [[]]


def test_passage_without_tokens_is_never_a_hit(tmp_path: Path) -> None:
    with make_snapshot(tmp_path, encoded([0, 3, 0, 2, 0], 8, 4)) as snapshot:
        for params in (EXACT, SearchParams(), SearchParams(nprobe=1, candidates=1)):
            hits = snapshot.search(encoded([4], 8, 4, seed=2), 10, params)[0]
            assert {hit.position for hit in hits} <= {1, 3}
            assert hits
