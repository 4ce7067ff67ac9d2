"""Token pooling: near token vectors of a passage become one.

Ward's hierarchical clustering of the tokens of a window by their cosine distances, cut at n / pool clusters (Clavié
et al. 2024, arXiv 2409.14683); a cluster becomes the direction of its sum, with the mean of the lengths. The
clustering is SciPy's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drdecr.encoder.windows import Windowed
from drdecr.errors import ResourceError
from drdecr.index.reduction import Reduction, with_lengths


def reduce_passages(passages: Windowed, reduction: Reduction) -> Windowed:
    """Pool the token vectors of passages that a student encoded, then keep the first dimensions of each.

    Pooled passages have `members`. Raises: ResourceError where SciPy is missing.
    """
    windows = passages.windows
    if reduction.pool == 1:
        return replace(passages, windows=replace(windows, vectors=reduction.shorten(windows.vectors)))
    owners = [clusters(windows.tokens_of(number), reduction.pool) for number in range(len(windows))]
    counts = [int(owner.max(initial=-1)) + 1 for owner in owners]
    offsets = np.cumsum([0, *counts]).astype(np.int64)
    parts = [
        _means(windows.tokens_of(number), owner, count)
        for number, (owner, count) in enumerate(zip(owners, counts, strict=True))
    ]
    vectors = np.concatenate([np.empty((0, windows.vectors.shape[1]), np.float32), *parts])
    pooled = replace(windows, vectors=reduction.shorten(vectors), offsets=offsets, spans=np.empty((0, 2), np.int32))
    return Windowed(pooled, passages.bounds, _members(passages, owners, offsets))


def clusters(vectors: NDArray[np.float32], pool: float) -> NDArray[np.int64]:
    """Return the cluster of each vector (n, dim), (n,); they are numbered by where their first vectors are."""
    count = len(vectors)
    wanted = max(int(count // pool), 1)
    if wanted >= count:
        return np.arange(count)
    linkage, fcluster = _scipy()
    directions = with_lengths(vectors, np.ones(count, np.float32))
    distances = np.clip(1.0 - directions @ directions.T, 0.0, 2.0)
    tree = linkage(distances[np.triu_indices(count, 1)], method="ward")
    labels = fcluster(tree, wanted, "maxclust")
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order: NDArray[np.int64] = np.argsort(np.argsort(firsts))[inverse]
    return order


def _means(vectors: NDArray[np.float32], owner: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    if count == len(vectors):
        return vectors
    sums = np.zeros((count, vectors.shape[1]), np.float32)
    np.add.at(sums, owner, vectors)
    lengths = np.bincount(owner, np.linalg.norm(vectors, axis=1), count) / np.bincount(owner, minlength=count)
    return with_lengths(sums, lengths.astype(np.float32))


def _members(
    passages: Windowed, owners: list[NDArray[np.int64]], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int32], ...]:
    windows = passages.windows
    if not len(windows.spans):
        return tuple(np.empty((0, 3), np.int32) for _ in range(len(passages)))
    found = []
    for low, high in zip(passages.bounds[:-1].tolist(), passages.bounds[1:].tolist(), strict=True):
        rows = [owners[number] + offsets[number] - offsets[low] for number in range(low, high)]
        spans = windows.spans[windows.offsets[low] : windows.offsets[high]]
        found.append(np.column_stack([np.concatenate([np.empty(0, np.int64), *rows]), spans]).astype(np.int32))
    return tuple(found)


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
    except ImportError as problem:
        raise ResourceError(f"pooling needs SciPy ({problem}); install it: pip install 'drdecr[pool]'") from None
    return linkage, fcluster
