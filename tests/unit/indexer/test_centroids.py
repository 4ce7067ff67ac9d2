"""Choosing and training the centroids, however small or repetitive a collection is."""

from __future__ import annotations

import numpy as np
import pytest

from drdecr.index.faiss_install import load_faiss
from indexer.centroids import Assigner, sentence_lists, token_lists, train_centroids


@pytest.mark.parametrize(
    ("tokens", "lists"), [(0, 1), (1, 1), (2, 2), (3, 2), (100, 64), (300_000, 4096), (2_560_000, 8192)]
)
def test_lists_grow_with_the_root_of_the_collection(tokens: int, lists: int) -> None:
    assert token_lists(tokens) == lists
    assert sentence_lists(tokens) <= max(1, tokens)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_tiny_collections_are_trained_without_a_word(count: int, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(count).standard_normal((count, 8)).astype(np.float16)
    centroids = train_centroids(vectors, 64)
    assert len(centroids) == min(count, 64)
    assert np.isfinite(centroids).all()
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("distinct", [1, 3, 200])
def test_repeated_vectors_get_a_list_each_at_most(distinct: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((distinct, 8))
    repeated = np.tile(vectors, (1000 // distinct, 1)).astype(np.float16)
    centroids = train_centroids(repeated, 64)
    assert len(centroids) == min(distinct, 64)
    assert np.isfinite(centroids).all()


def test_zero_vectors_are_trained() -> None:
    assert np.isfinite(train_centroids(np.zeros((500, 8), np.float16), 16)).all()


def test_empty_collection_gets_one_list() -> None:
    assert train_centroids(np.zeros((0, 8), np.float16), 1).shape == (1, 8)


def test_vectors_go_to_the_centroid_of_the_greatest_product() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 8), dtype=np.float32)
    centroids = rng.standard_normal((7, 8), dtype=np.float32)
    assert Assigner(centroids)(vectors).tolist() == (vectors @ centroids.T).argmax(axis=1).tolist()


def test_a_gpu_clusters_and_assigns_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(1).standard_normal((900, 8)).astype(np.float32)
    expected = train_centroids(vectors, 16)
    cells = Assigner(expected)(vectors)
    faiss = load_faiss()
    moved: list[tuple[type, int]] = []

    def move(index: object, co: object = None, ngpu: int = -1) -> object:
        # Stands in for the GPU's index, which answers as this one does.
        moved.append((type(index), ngpu))
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", move)
    np.testing.assert_array_equal(train_centroids(vectors, 16), expected)
    np.testing.assert_array_equal(Assigner(expected)(vectors), cells)
    assert moved == [(faiss.IndexFlatIP, 2), (faiss.IndexFlatIP, -1)]
