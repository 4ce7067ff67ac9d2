"""Segments that share a quantiser are narrowed down together, as one segment of all their passages would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fabricated_vectors import encoded, save_vectors

from drdecr.encoder.types import Encoded
from drdecr.index import EXACT, SearchParams, Snapshot, snapshot
from drdecr.index.filters import Filter
from drdecr.index.segment import Segment
from indexer.build import build_from_vectors
from indexer.change import add_vectors

PARTS = (1600, 700, 310)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((60, 16))
    for number, count in enumerate(PARTS):
        texts = encoded(rng.integers(4, 12, count).tolist(), 16, seed=number)
        vectors = directions[rng.integers(0, 60, len(texts.vectors))] + 0.5 * texts.vectors
        texts.vectors[:] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        file = save_vectors(home / "v.npz", texts, ids=np.array([f"{number}-{i}" for i in range(count)]))
        if number == 0:
            build_from_vectors(file, home / "snapshot")
        else:
            add_vectors(home / "snapshot", file)
    return home / "snapshot"


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the passages of each segment that get exact scores."""
    counts: list[int] = []
    relevance = snapshot.relevance

    def counting(segment: Segment, query: object, passages: np.ndarray) -> object:
        counts.append(len(passages))
        return relevance(segment, query, passages)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "relevance", counting)
    return counts


def queries() -> Encoded:
    texts = encoded([8] * 30, 16, seed=9)
    directions = np.random.default_rng(0).standard_normal((60, 16))
    vectors = directions[np.random.default_rng(5).integers(0, 60, 240)] + 0.5 * texts.vectors
    texts.vectors[:] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return texts


def test_candidates_are_shared_by_the_segments_and_the_truth_is_among_them(path: Path, scored: list[int]) -> None:
    asked = queries()
    with Snapshot.open(path) as opened:
        assert [len(segment) for segment in opened.segments] == list(PARTS)
        assert len(opened.manifest.quantizers) == 1
        truth = opened.search(asked, 10, EXACT)
        scored.clear()
        found = opened.search(asked, 10, SearchParams(nprobe=16, candidates=200))
    per_query = np.array(scored).reshape(len(asked), len(PARTS)).sum(axis=1)
    # Ties with the last one stay in.
    assert (per_query >= 200).all() and per_query.mean() < 220
    shared = sum(len({hit.id for hit in a} & {hit.id for hit in b}) for a, b in zip(truth, found, strict=True))
    assert shared >= 0.95 * 300


def test_enough_passages_are_found_however_few_candidates_there_are(path: Path) -> None:
    with Snapshot.open(path) as opened:
        for k in (1, 40, 2000, 5000):
            (hits, *_) = opened.search(queries(), k, SearchParams(nprobe=1, candidates=1))
            assert len(hits) == min(k, sum(PARTS))


def test_a_narrow_filter_over_segments_stays_exact(path: Path) -> None:
    allowed = np.zeros(sum(PARTS), np.bool_)
    allowed[[3, 1700, 1701, 2400, 2500]] = True
    asked = queries()
    with Snapshot.open(path) as opened:
        narrow = opened.search(asked, 5, SearchParams(nprobe=1, candidates=2), allowed=allowed)
        assert narrow == opened.search(asked, 5, EXACT, allowed=allowed)
        nothing = Filter.model_validate({"must": [{"field": "colour", "eq": "red"}]})
        assert opened.search(asked, 5, filter=nothing) == [[]] * len(asked)
