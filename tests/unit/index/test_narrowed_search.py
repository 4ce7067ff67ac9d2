"""A search with few lists and candidates: what it returns is scored exactly and is nearly always the truth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fabricated_vectors import encoded, make_snapshot

from drdecr.encoder.types import Encoded
from drdecr.errors import ModelError, ModelMismatchError, UsageError
from drdecr.index import EXACT, SearchParams, Snapshot, StageTimes
from drdecr.index.score import estimated_relevance, query_lanes, relevance

NARROW = SearchParams(nprobe=8, candidates=60)


def clustered(passages: int, topics: int, seed: int, sentence_dim: int = 0) -> Encoded:
    """Fabricate passages whose tokens lie near a few topics each, as those of real texts do."""
    rng = np.random.default_rng(seed)
    fabricated = encoded(rng.integers(5, 40, passages).tolist(), 32, sentence_dim, seed)
    directions = np.random.default_rng(7).standard_normal((topics, 32))
    chosen = rng.integers(0, topics, (passages, 4))
    owner = np.repeat(np.arange(passages), np.diff(fabricated.offsets))
    topic = chosen[owner, rng.integers(0, 4, len(owner))]
    vectors = directions[topic] + 0.5 * rng.standard_normal((len(owner), 32))
    fabricated.vectors[:] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return fabricated


@pytest.fixture(scope="module", params=[0, 16], ids=["tokens only", "with sentence vectors"])
def sentence_dim(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory, sentence_dim: int) -> Snapshot:
    return make_snapshot(tmp_path_factory.mktemp("narrow"), clustered(1500, 100, 1, sentence_dim))


def weighted(queries: Encoded, seed: int) -> Encoded:
    """Give the rows lengths between a thousandth and some units, as a student's query weights do."""
    lengths = np.random.default_rng(seed).uniform(-3, 1, len(queries.vectors))
    queries.vectors[:] *= (10**lengths)[:, np.newaxis]
    return queries


@pytest.mark.parametrize("with_weights", [False, True])
def test_narrowed_search_finds_nearly_all_of_the_truth(
    snapshot: Snapshot, sentence_dim: int, with_weights: bool
) -> None:
    queries = clustered(40, 100, 2, sentence_dim)
    if with_weights:
        queries = weighted(queries, 3)
    truth = snapshot.search(queries, 10, EXACT)
    found = snapshot.search(queries, 10, NARROW)
    shared = sum(len({hit.id for hit in a} & {hit.id for hit in b}) for a, b in zip(truth, found, strict=True))
    assert shared / 400 >= 0.95


def test_narrowed_search_gives_exact_scores(snapshot: Snapshot, sentence_dim: int) -> None:
    queries = clustered(5, 100, 3, sentence_dim)
    for truth, found in zip(snapshot.search(queries, 1500, EXACT), snapshot.search(queries, 10, NARROW), strict=True):
        scores = {hit.id: hit.score for hit in truth}
        assert [scores[hit.id] for hit in found] == [hit.score for hit in found]
        assert found == sorted(found, key=lambda hit: (-hit.score, hit.position))


def test_estimates_come_close_to_the_exact_score(snapshot: Snapshot, sentence_dim: int) -> None:
    (segment,) = snapshot.segments
    queries = clustered(5, 100, 8, sentence_dim)
    for number in range(5):
        sentence = None if queries.sentences is None else queries.sentences[number]
        query = query_lanes(queries.tokens_of(number), sentence, 0.5)
        exact, windows = relevance(segment, query, np.arange(1500))
        assert estimated_relevance(segment, query, windows) == pytest.approx(exact, abs=0.1 * exact.std())


def test_search_returns_k_hits_however_few_lists_it_visits(snapshot: Snapshot, sentence_dim: int) -> None:
    queries = encoded([1, 3], 32, sentence_dim)
    for k in (1, 100, 1500, 9000):
        for hits in snapshot.search(queries, k, SearchParams(nprobe=1, candidates=1)):
            assert len(hits) == min(k, 1500)
            assert len({hit.position for hit in hits}) == len(hits)


def test_threads_get_the_answers_of_one_thread(snapshot: Snapshot, sentence_dim: int) -> None:
    queries = clustered(30, 100, 4, sentence_dim)
    expected = snapshot.search(queries, 10, NARROW)
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda i: snapshot.search(queries.select(i, i + 1), 10, NARROW)[0], list(range(30)) * 3)
        )
    assert answers == expected * 3


def test_order_of_a_batch_does_not_change_its_answers(snapshot: Snapshot, sentence_dim: int) -> None:
    queries = clustered(6, 100, 5, sentence_dim)
    alone = [snapshot.search(queries.select(i, i + 1), 5)[0] for i in range(6)]
    assert snapshot.search(queries, 5) == alone


def test_stages_are_timed(snapshot: Snapshot, sentence_dim: int) -> None:
    times = StageTimes()
    snapshot.search(clustered(2, 100, 6, sentence_dim), 5, times=times)
    assert min(times.candidates_s, times.score_s, times.fetch_s) > 0


def test_queries_of_another_dimension_are_refused(snapshot: Snapshot, sentence_dim: int) -> None:
    with pytest.raises(ModelMismatchError, match=r"24 dimensions.*has 32"):
        snapshot.search(encoded([3], 24, sentence_dim), 5)


def test_queries_without_the_sentence_vectors_are_refused(snapshot: Snapshot, sentence_dim: int) -> None:
    queries = encoded([3], 32)
    if sentence_dim:
        with pytest.raises(ModelMismatchError, match=r"no sentence dimensions.*has 16"):
            snapshot.search(queries, 5)
    else:
        assert len(snapshot.search(queries, 5)[0]) == 5


def test_queries_that_are_not_finite_are_refused(snapshot: Snapshot, sentence_dim: int) -> None:
    queries = encoded([3], 32, sentence_dim)
    queries.vectors[1, 1] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        snapshot.search(queries, 5)


@pytest.mark.parametrize("params", [{"nprobe": 0}, {"candidates": -1}])
def test_knobs_below_one_are_refused(params: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        SearchParams(**params)


def test_k_below_one_is_refused(snapshot: Snapshot, sentence_dim: int) -> None:
    with pytest.raises(UsageError, match="k must be at least 1"):
        snapshot.search(encoded([3], 32, sentence_dim), 0)


@pytest.mark.parametrize("every", [2, 700])
def test_search_among_allowed_passages_finds_the_best_of_those(
    snapshot: Snapshot, sentence_dim: int, every: int
) -> None:
    queries = clustered(20, 100, 8, sentence_dim)
    allowed = np.arange(1500) % every == 0
    truth = [[hit for hit in hits if allowed[hit.position]][:10] for hits in snapshot.search(queries, 1500, EXACT)]
    assert snapshot.search(queries, 10, EXACT, allowed=allowed) == truth
    found = snapshot.search(queries, 10, NARROW, allowed=allowed)
    assert all(allowed[hit.position] for hits in found for hit in hits)
    shared = sum(len(set(a) & set(b)) for a, b in zip(truth, found, strict=True))
    assert shared >= (0.95 if every == 2 else 1) * sum(map(len, truth))


def test_search_with_nothing_allowed_has_no_hits(snapshot: Snapshot, sentence_dim: int) -> None:
    nothing = np.zeros(1500, np.bool_)
    assert snapshot.search(clustered(1, 100, 9, sentence_dim), 10, NARROW, allowed=nothing) == [[]]
