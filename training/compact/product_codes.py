"""A table as product codes: a byte for a few neighbouring columns (Jégou et al. 2011, product quantisation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.index.faiss_install import load_faiss

CENTROIDS = 256
_ROUNDS = 25


@dataclass(frozen=True, slots=True)
class ProductCodes:
    """Shapes: codes (rows, groups) uint8; codebook (groups * 256, width) of the table's kind, float16 for floats."""

    codes: NDArray[np.uint8]
    codebook: NDArray[np.generic]

    def decode(self) -> NDArray[np.generic]:
        """Return the table that the codes stand for, (rows, groups * width) of the codebook's dtype."""
        rows, groups = self.codes.shape
        places = self.codes.astype(np.int64) + np.arange(groups) * CENTROIDS
        table: NDArray[np.generic] = self.codebook[places].reshape(rows, -1)
        return table


def product_codes(table: NDArray[np.generic], width: int, *, seed: int = 0) -> ProductCodes:
    """Code every group of `width` columns with a codebook of its own.

    A group of at most 256 different rows is coded exactly (floats: as float16 holds them), any other by k-means over
    all its rows. Centroids are float16 for a table of floats, else whole numbers of its own kind. `width` must divide
    the columns. The same table and seed give the same codes.

    Raises: ResourceError where FAISS is not installed.
    """
    rows, columns = table.shape
    groups = columns // width
    codes = np.empty((rows, groups), np.uint8)
    codebook = np.empty((groups * CENTROIDS, width), table.dtype if _is_whole(table) else np.float16)
    for group in range(groups):
        book = codebook[group * CENTROIDS : (group + 1) * CENTROIDS]
        codes[:, group] = _code(table[:, group * width : (group + 1) * width], book, seed)
    return ProductCodes(codes, codebook)


def _code(points: NDArray[np.generic], book: NDArray[np.generic], seed: int) -> NDArray[np.int64]:
    """Fill a codebook, (256, width), and return which of its rows stands for each point."""
    cells, cell_of, counts = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    if len(cells) <= CENTROIDS:
        # Rows that are left repeat the last.
        book[:] = cells[np.minimum(np.arange(CENTROIDS), len(cells) - 1)]
        code_of = np.arange(len(cells))
    else:
        book[:] = _k_means(cells.astype(np.float32), counts, _is_whole(points), seed).astype(book.dtype)
        nearest = load_faiss().IndexFlatL2(cells.shape[1])
        nearest.add(book.astype(np.float32))
        code_of = nearest.search(cells.astype(np.float32), 1)[1].ravel()
    codes: NDArray[np.int64] = code_of[cell_of.ravel()]
    return codes


def _k_means(points: NDArray[np.float32], weights: NDArray[np.int64], whole: bool, seed: int) -> NDArray[np.float32]:
    k_means = load_faiss().Kmeans(
        points.shape[1],
        CENTROIDS,
        niter=_ROUNDS,
        seed=seed,
        int_centroids=whole,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    k_means.train(points, weights=weights.astype(np.float32))
    centroids: NDArray[np.float32] = k_means.centroids
    return centroids


def _is_whole(table: NDArray[np.generic]) -> bool:
    return bool(np.issubdtype(table.dtype, np.integer))
