"""Codes as whole numbers: what each codec's codes are worth when they are not decoded.

A dimension of a code is `low + step x number`, with a number between 0 and 127, beside what its centroid scores.
Rounding so loses a thousandth of a dot product; the scaling of decoded vectors to length 1 is left out too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drdecr.index.byte_tiles import GROUP
from drdecr.index.code_dots import MOST, ZERO
from drdecr.index.estimates import EIGHTS, HALVES, PRODUCTS, SIXES, round_lanes
from drdecr.index.lane_blocks import LaneBlock

# Standard deviations that float16 dimensions are read up to.
_HALF_REACH = 5.0
_NO_TABLES = np.zeros((1, 1, 1), np.uint8)


@dataclass(frozen=True, slots=True)
class WholeCodes:
    """How to read codes as whole numbers.

    Shapes: lows and steps (dim,) float32; tables (sub-codes, 256, dimensions of a sub-code) uint8.
    `scale` is the inverse of a float16's step, `by_centroid` says that a code is what a centroid leaves over.
    """

    kind: int
    lows: NDArray[np.float32]
    steps: NDArray[np.float32]
    tables: NDArray[np.uint8]
    scale: float = 0.0
    by_centroid: bool = True


@dataclass(frozen=True, slots=True)
class WholeLanes:
    """A block of query tokens beside such codes.

    Shapes: queries (groups, lanes, dimensions of a group) uint8, read as int8; scales (lanes,) float32. `constant` is
    the sum over query tokens of what the lows of all dimensions score.
    """

    queries: NDArray[np.uint8]
    scales: NDArray[np.float32]
    constant: float


def whole_scalars(lows: NDArray[np.float32], steps: NDArray[np.float32], bits: int) -> WholeCodes:
    """Read scalar codes of 6 or 8 bits, of which the last of 8 is dropped: low + code x step, (dim,)."""
    if bits == 6:
        return WholeCodes(SIXES, lows, steps, _NO_TABLES)
    return WholeCodes(EIGHTS, lows + steps / np.float32(2), np.float32(2) * steps, _NO_TABLES)


def whole_products(tables: NDArray[np.float32]) -> WholeCodes:
    """Read product codes: tables (sub-codes, entries, dimensions of a sub-code), 2 or 4 of them."""
    lows, highs = tables.min(axis=1), tables.max(axis=1)
    steps = np.maximum((highs - lows) / np.float32(MOST), np.float32(1e-30))
    numbers = np.rint((tables - lows[:, None]) / steps[:, None]).astype(np.uint8)
    return WholeCodes(PRODUCTS, lows.reshape(-1), steps.reshape(-1), np.ascontiguousarray(numbers))


def whole_halves(centroids: NDArray[np.float32]) -> WholeCodes:
    """Read float16 vectors that are about as long as these centroids, (lists, dim)."""
    dim = centroids.shape[1]
    length = float(np.linalg.norm(centroids, axis=1).max(initial=0)) or 1.0
    reach = length * min(1.0, _HALF_REACH / dim**0.5)
    step = np.float32(reach / ZERO)
    lows, steps = np.full(dim, -reach, np.float32), np.full(dim, step, np.float32)
    return WholeCodes(HALVES, lows, steps, _NO_TABLES, float(1 / step), by_centroid=False)


def whole_lanes(codes: WholeCodes, block: LaneBlock) -> WholeLanes:
    """Lay a block of query tokens out beside codes."""
    dim, lanes = block.vectors.shape
    queries, scales = np.empty((-(-dim // GROUP), lanes, GROUP), np.uint8), np.empty(lanes, np.float32)
    round_lanes(block.vectors, codes.steps, 0, queries, scales)
    together = block.vectors[:, : block.used].sum(axis=1, dtype=np.float64)
    return WholeLanes(queries, scales, float(codes.lows.astype(np.float64) @ together))
