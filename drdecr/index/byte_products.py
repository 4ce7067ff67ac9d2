"""Dot products of centroids and query tokens, rounded to bytes: what candidates are chosen by.

Each row and each query token is rounded to whole numbers between -127 and 127, in a unit of its own; at 128
dimensions the dot product of two vectors of length 1 is then off by .001. Whole numbers add up exactly, in whatever
order and with whatever instructions, so every CPU chooses the same candidates: with VNNI they are bytes, without it
floats that hold the same whole numbers (exact up to 1,040 dimensions).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drdecr.index.byte_tiles import GROUP, HAS_BYTE_DOTS
from drdecr.index.code_dots import MOST
from drdecr.index.estimates import round_lanes
from drdecr.index.kernels import byte_lane_products, lane_products, scale_products
from drdecr.index.lane_blocks import LaneBlock

# A byte without sign stands for so much less.
_OFFSET = 128


@dataclass(frozen=True)
class RoundedRows:
    """Rows in whole numbers: values (n, dim), int8 or float32; scales (n,) float32, what a unit of each is worth.

    `corrections` (n,) int32 is what the offset of the queries' bytes adds to each row's dot products.
    """

    values: NDArray[np.int8] | NDArray[np.float32]
    scales: NDArray[np.float32]
    corrections: NDArray[np.int32]

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """A weight of 1 for each dimension, as `round_lanes` wants them."""
        return np.ones(self.values.shape[1], np.float32)


def round_rows(rows: NDArray[np.float32], *, as_bytes: bool = HAS_BYTE_DOTS) -> RoundedRows:
    """Round rows (n, dim); as bytes the dimensions are padded to whole groups of four."""
    units, scales = _rounded(rows)
    if not as_bytes:
        return RoundedRows(units, scales, np.zeros(len(rows), np.int32))
    padded = np.zeros((len(rows), -(-rows.shape[1] // GROUP) * GROUP), np.int8)
    padded[:, : rows.shape[1]] = units
    return RoundedRows(padded, scales, _OFFSET * padded.sum(axis=1, dtype=np.int32))


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Dot products of rows with all lanes, (n, lanes) float32, and each lane's least and greatest, (lanes,)."""

    scores: NDArray[np.float32]
    lows: NDArray[np.float32]
    highs: NDArray[np.float32]


def rounded_products(rows: RoundedRows, blocks: list[LaneBlock]) -> ScoreTable:
    """Return the dot products of rows with all lanes, to within the rounding."""
    width = sum(block.vectors.shape[1] for block in blocks)
    out = np.empty((len(rows.scales), width), np.float32)
    lows, highs = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    as_bytes = rows.values.dtype == np.int8
    groups = -(-rows.values.shape[1] // GROUP)
    column = 0
    for block in blocks:
        lanes = block.vectors.shape[1]
        queries, scales = np.empty((groups, lanes, GROUP), np.uint8), np.empty(lanes, np.float32)
        round_lanes(block.vectors, rows.weights, _OFFSET, queries, scales)
        if as_bytes:
            byte_lane_products(
                rows.values, rows.corrections, rows.scales, queries, scales, block.lanes, out, column, lows, highs
            )
        else:
            units = queries.transpose(0, 2, 1).reshape(-1, lanes)[: rows.values.shape[1]].astype(np.float32) - _OFFSET
            lane_products(rows.values, np.ascontiguousarray(units), block.lanes, out, column)
            scale_products(rows.scales, scales, out, column, lows, highs)
        column += lanes
    return ScoreTable(out, lows, highs)


def _rounded(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return rows (n, dim) in whole numbers up to 127, and what a unit of each is worth, (n,)."""
    scales = (np.abs(rows).max(axis=1, initial=0) / np.float32(MOST)).astype(np.float32)
    units = np.rint(rows / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(units, -MOST, MOST).astype(np.float32), scales
