"""How many inverted lists a collection gets, and where their centroids lie.

With `faiss-gpu` and a GPU that it sees, FAISS clusters and assigns there; an empty `CUDA_VISIBLE_DEVICES` forbids it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.index.faiss_install import load_faiss

_ITERATIONS = 6
_POINTS_PER_CENTROID = 32
_MAX_SAMPLE = 1_000_000
_SEED = 20_220_712


def token_lists(tokens: int) -> int:
    """Choose the number of lists: the power of two near 7 x sqrt(tokens), at least one token each."""
    return _power_of_two(7.0 * tokens**0.5, tokens)


def sentence_lists(passages: int) -> int:
    """Choose the number of lists of the sentence vectors: the power of two near sqrt(passages)."""
    return _power_of_two(float(passages) ** 0.5, passages)


def centroid_sample(vectors: NDArray[Any], lists: int) -> NDArray[np.float32]:
    """Draw the vectors that train `lists` centroids: all of a small collection, 32 a centroid of a large one."""
    rows = sample_rows(len(vectors), lists)
    return np.ascontiguousarray(vectors if rows is None else vectors[rows], dtype=np.float32)


def sample_rows(count: int, lists: int) -> NDArray[np.int64] | None:
    """Draw which of `count` vectors train `lists` centroids, ascending; None for all of them."""
    size = min(_POINTS_PER_CENTROID * lists, _MAX_SAMPLE)
    if count <= size:
        return None
    return np.sort(np.random.default_rng(_SEED).choice(count, size, replace=False))


def train_centroids(vectors: NDArray[Any], lists: int) -> NDArray[np.float32]:
    """Cluster a sample of vectors (n, dim) into at most `lists` directions, (lists, dim) float32.

    A collection with fewer distinct vectors than lists gets one list for each; an empty one gets one list.
    """
    count, dim = vectors.shape
    if count == 0:
        return np.zeros((1, dim), np.float32)
    sample = centroid_sample(vectors, lists)
    distinct = np.unique(sample, axis=0) if len(sample) <= 4 * _POINTS_PER_CENTROID * 64 else sample
    if len(distinct) <= lists:
        return np.ascontiguousarray(distinct)
    faiss = load_faiss()
    # FAISS prints a warning below 39 points a centroid; a small collection simply has no more.
    kmeans = faiss.Kmeans(
        dim,
        lists,
        niter=_ITERATIONS,
        spherical=True,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
        gpu=faiss.get_num_gpus(),
    )
    kmeans.train(sample)
    centroids: NDArray[np.float32] = np.ascontiguousarray(kmeans.centroids, dtype=np.float32)
    return centroids


class Assigner:
    """Finds the list of each vector: the centroid with the greatest dot product."""

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        faiss = load_faiss()
        self._index = faiss.IndexFlatIP(centroids.shape[1])
        self._index.add(centroids)
        if faiss.get_num_gpus():
            self._index = faiss.index_cpu_to_all_gpus(self._index)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the lists of vectors (n, dim), (n,) int64."""
        cells: NDArray[np.int64] = self._index.search(vectors, 1)[1][:, 0]
        return cells


def _power_of_two(wanted: float, limit: int) -> int:
    lists = 1
    while 2 * lists <= min(wanted * 2**0.5, limit):
        lists *= 2
    return lists
