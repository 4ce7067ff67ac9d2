"""How far token vectors lie from the centroids that stand for them, and when training those anew pays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 2**16


def mean_residual(vectors: NDArray[Any], cells: NDArray[Any], centroids: NDArray[np.float32]) -> float | None:
    """Return the mean squared distance of vectors (n, dim) from their centroids `cells` (n,); None without vectors.

    At most 65,536 of them, evenly spread, are read.
    """
    if len(vectors) == 0:
        return None
    rows = np.linspace(0, len(vectors) - 1, min(len(vectors), _SAMPLE)).astype(np.int64)
    distances = np.asarray(vectors[rows], dtype=np.float32) - centroids[cells[rows]]
    return round(float(np.einsum("ij,ij->i", distances, distances, dtype=np.float64).mean()), 6)
