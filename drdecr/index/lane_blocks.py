"""Query tokens laid out as the columns of a product: blocks of at most 32 lanes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.index.kernels import lane_products
from drdecr.index.lanes import LANES, MAX_LANES


@dataclass(frozen=True, slots=True)
class LaneBlock:
    """Up to 32 query vectors as columns: vectors (dim, lanes) float32; only `used` of the lanes are real."""

    vectors: NDArray[np.float32]
    lanes: tuple[int, ...]
    used: int


def lane_blocks(vectors: NDArray[np.float32]) -> list[LaneBlock]:
    """Split vectors (n, dim) into blocks of at most 32 lanes, the last one padded with zeros to whole registers."""
    blocks = []
    for start in range(0, len(vectors), MAX_LANES):
        part = vectors[start : start + MAX_LANES]
        registers = -(-len(part) // LANES)
        padded = np.zeros((vectors.shape[1], registers * LANES), np.float32)
        padded[:, : len(part)] = part.T
        blocks.append(LaneBlock(padded, (0,) * registers, len(part)))
    return blocks


def products(rows: NDArray[np.float32], blocks: list[LaneBlock]) -> NDArray[np.float32]:
    """Return the dot products of rows (n, dim) with all lanes, (n, lanes)."""
    out = np.empty((len(rows), sum(block.vectors.shape[1] for block in blocks)), np.float32)
    column = 0
    for block in blocks:
        lane_products(rows, block.vectors, block.lanes, out, column)
        column += block.vectors.shape[1]
    return out
