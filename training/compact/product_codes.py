"""A table as product codes: a byte for a few neighbouring columns (Jégou et al. 2011, product quantisation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CENTROIDS = 256
_SHOWN = 32_768
_ROUNDS = 12
# Distances at once: what fits a processor's cache several times over, but not a machine's memory.
_AT_ONCE = 1 << 24


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
    """Code every group of `width` columns by k-means of its own.

    Centroids are float16 for a table of floats, else whole numbers of its own kind. `width` must divide the columns.
    The same table and seed give the same codes.
    """
    rows, columns = table.shape
    groups = columns // width
    points = torch.from_numpy(table.astype(np.float32)).view(rows, groups, width).transpose(0, 1)
    drawn = torch.from_numpy(np.random.default_rng(seed).permutation(rows)[:_SHOWN])
    whole = np.issubdtype(table.dtype, np.integer)
    codes = np.empty((rows, groups), np.uint8)
    books = []
    for group in range(groups):
        centroids = _k_means(points[group, drawn].contiguous())
        kept = centroids.round() if whole else centroids.half().float()
        codes[:, group] = _nearest(points[group].contiguous(), kept).numpy().astype(np.uint8)
        books.append(kept.numpy().astype(table.dtype if whole else np.float16))
    return ProductCodes(codes, np.concatenate(books))


def _k_means(points: Tensor) -> Tensor:
    """Return 256 centroids, (256, width), of which some may repeat where there are fewer points."""
    # Evenly through the points in their order along the first column: near the density that k-means looks for.
    order = points[:, 0].argsort()
    centroids = points[order[torch.linspace(0, len(points) - 1, CENTROIDS).long()]].clone()
    for _ in range(_ROUNDS):
        nearest = _nearest(points, centroids)
        counts = torch.bincount(nearest, minlength=CENTROIDS).unsqueeze(1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return centroids


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    half = (centroids * centroids).sum(dim=1) / 2
    size = _AT_ONCE // CENTROIDS
    return torch.cat(
        [torch.addmm(half, part, centroids.T, alpha=-1).argmin(dim=1) for part in torch.split(points, size)]
    )
