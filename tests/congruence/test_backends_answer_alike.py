"""One suite for every backend: ids, scores, positions and windows as on one machine, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from fabricated_vectors import WordEncoder

from drdecr.index import EXACT, SearchParams, Snapshot
from drdecr.index.filters import parse_filter
from service.cluster.backend import ShardedSnapshot

QUERIES = [
    "word1 word2 word3",
    "word7",
    "word11 word12 word13 word14 word15 word16 word17 word18 word19 word20",
    "",
    "nothing that is known",
    " ".join(f"word{number}" for number in range(40)),
]


@pytest.mark.parametrize(
    "params",
    [
        SearchParams(),
        EXACT,
        SearchParams(effort="fast"),
        SearchParams(nprobe=1, candidates=1),
        SearchParams(nprobe=3),
    ],
    ids=["default", "exact", "fast", "least", "nprobe"],
)
@pytest.mark.parametrize("k", [1, 10, 2000])
def test_hits_are_those_of_one_machine(
    backend: ShardedSnapshot, local: Snapshot, encoder: WordEncoder, params: SearchParams, k: int
) -> None:
    queries = encoder.encode(QUERIES, "query")
    expected = local.search(queries, k, params)
    assert backend.search(queries, k, params) == expected
    assert sum(map(len, expected)) >= 4 * min(k, 100)


def test_filtered_hits_are_those_of_one_machine(
    backend: ShardedSnapshot, local: Snapshot, encoder: WordEncoder
) -> None:
    queries = encoder.encode(QUERIES, "query")
    for condition in ({"field": "words", "eq": 9}, {"field": "words", "range": {"gte": 3, "lt": 20}}):
        wanted = parse_filter({"must": [condition]})
        expected = local.search(queries, 20, filter=wanted)
        assert len(expected[0]) == 20
        assert backend.search(queries, 20, filter=wanted) == expected


def test_passages_and_explanations_are_those_of_one_machine(
    backend: ShardedSnapshot, local: Snapshot, encoder: WordEncoder
) -> None:
    queries = encoder.encode(QUERIES, "query")
    (hits,) = local.search(queries.select(2, 3), 100)
    assert any(hit.window for hit in hits)
    assert backend.passages_of(hits) == local.passages_of(hits)
    for hit in hits[:20]:
        found = backend.explain(queries.select(2, 3), hit.position)
        assert found is not None
        assert list(found) == local.explain(queries.select(2, 3), hit.position)
    assert backend.passage("p3-0") == local.passage("p3-0")
    assert backend.passage("p0-100") is None
    assert backend.passage("no such id") is None


def test_what_is_known_of_a_snapshot_is_the_same(backend: ShardedSnapshot, local: Snapshot) -> None:
    assert backend.version == local.version
    assert len(backend) == len(local)


def test_several_queries_at_once_are_as_one_by_one(backend: ShardedSnapshot, encoder: WordEncoder) -> None:
    queries = encoder.encode(QUERIES, "query")
    together = backend.search(queries, 10)
    assert together == [backend.search(queries.select(at, at + 1), 10)[0] for at in range(len(QUERIES))]
    assert np.isfinite([hit.score for hits in together for hit in hits]).all()
