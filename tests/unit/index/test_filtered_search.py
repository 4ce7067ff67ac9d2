"""A filtered search returns what filtering the whole ranking would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_filters import FILTERS, METADATA, passes
from fabricated_vectors import WordEncoder, encoded, make_snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drdecr.index import EXACT, Snapshot
from drdecr.index.filters import parse_filter
from indexer.build import build

ENCODER = WordEncoder(16, 8)
COLOURS = ("red", "green", "blue")
QUERIES = ENCODER.encode(["word7 word8", "all about word3", "..."], "query")


def snapshot_of(directory: Path, metadata: list[dict[str, Any]]) -> Snapshot:
    path = directory / "passages.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for i, each in enumerate(metadata):
            record = {"id": f"p{i}", "text": f"all about word{i % 40} word{i % 7} and word{i}", "metadata": each}
            file.write(json.dumps(record) + "\n")
    build(ENCODER, path, directory / "snapshot", force=True)
    return Snapshot.open(directory / "snapshot")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=st.lists(METADATA, min_size=1, max_size=25), filters=st.lists(FILTERS, min_size=1, max_size=8))
def test_wide_open_search_is_brute_force_filtered(tmp_path: Path, metadata: list[dict], filters: list[dict]) -> None:
    with snapshot_of(tmp_path, metadata) as snapshot:
        everything = snapshot.search(QUERIES, 1000, EXACT)
        for wanted in filters:
            expected = [[hit for hit in hits if passes(wanted, metadata[hit.position])] for hits in everything]
            assert snapshot.search(QUERIES, 1000, EXACT, filter=parse_filter(wanted)) == expected


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    metadata = [{"n": i, "colour": COLOURS[i % 3], "rare": i % 1000 == 17} for i in range(3000)]
    return snapshot_of(tmp_path_factory.mktemp("large"), metadata)


def test_filter_that_keeps_a_thousandth_is_answered_exactly(large: Snapshot) -> None:
    wanted = parse_filter({"must": [{"field": "rare", "eq": True}]})
    found = large.search(QUERIES, 10, filter=wanted)
    assert [{hit.position for hit in hits} for hits in found] == [{17, 1017, 2017}] * 2 + [set()]
    everything = large.search(QUERIES, 3000, EXACT)
    assert found == [[hit for hit in hits if hit.position % 1000 == 17] for hits in everything]


def test_default_knobs_return_k_passing_passages(large: Snapshot) -> None:
    wanted = parse_filter({"must": [{"field": "colour", "in": ["red", "blue"]}, {"field": "n", "range": {"gt": 50}}]})
    for hits in large.search(QUERIES, 500, filter=wanted)[:2]:
        assert len(hits) == 500
        assert all(hit.position % 3 != 1 and hit.position > 50 for hit in hits)


def test_filter_that_nothing_passes_has_no_hits(large: Snapshot) -> None:
    wanted = parse_filter({"must": [{"field": "colour", "eq": "mauve"}]})
    assert large.search(QUERIES, 10, filter=wanted) == [[], [], []]


def test_filter_and_allowed_passages_both_count(large: Snapshot) -> None:
    wanted = parse_filter({"must": [{"field": "rare", "eq": True}]})
    hits = large.search(QUERIES, 10, filter=wanted, allowed=np.arange(3000) < 1500)[0]
    assert {hit.position for hit in hits} == {17, 1017}


def test_vectors_without_texts_have_no_metadata(tmp_path: Path) -> None:
    with make_snapshot(tmp_path, encoded([3, 4, 5], 16)) as snapshot:
        queries = encoded([2], 16, seed=1)
        assert snapshot.search(queries, 5, filter=parse_filter({"must": [{"field": "a", "eq": 1}]})) == [[]]
        assert len(snapshot.search(queries, 5, filter=parse_filter({}))[0]) == 3
