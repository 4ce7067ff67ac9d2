"""Compiled loops that score passages by their codes, without decoding them: cached on disk, without the GIL.

As in `drdecr.index.kernels`, this file names the text of the intrinsics that it compiles in.
Intrinsics: 562469f7a03300a1
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from drdecr.compiled import compiled
from drdecr.index.code_dots import (
    MOST,
    copy_bytes,
    fold_codes,
    round_sixteen_halves,
    unpack_sixteen_eights,
    unpack_sixteen_sixes,
)
from drdecr.index.lane_sum import lane_sum
from drdecr.index.lanes import LANES, TILE_REGISTERS, prefetch
from drdecr.index.sixteens import SIXTEEN

SIXES, EIGHTS, PRODUCTS, HALVES = range(4)
"""How a code is read: 6 bits a dimension, 8 bits, an entry of a table for some dimensions, or float16."""

_CACHE_LINE = 64
_ROUNDER = np.float32(1.5 * 2**23)
# What sixteen dimensions take, of each kind but products.
_SIXTEEN_BYTES = (12, 16, 0, 32)


@compiled
def round_lanes(vectors: Any, weights: Any, offset: int, out: Any, scales: Any) -> None:
    """Round weighted lanes to whole numbers up to 127, in a unit of each lane's own.

    Shapes: vectors (dim, lanes) and weights (dim,) float32; out (groups, lanes, dimensions of a group) uint8 takes
    the numbers plus `offset` as bytes, those past `dim` too; scales (lanes,) float32: what a unit is worth.
    """
    dim, lanes = vectors.shape
    for lane in range(lanes):
        scales[lane] = 0
    for column in range(dim):
        for lane in range(lanes):
            size = abs(vectors[column, lane] * weights[column])
            scales[lane] = size if size > scales[lane] else scales[lane]
    shares = np.empty(lanes, np.float32)
    for lane in range(lanes):
        scales[lane] /= np.float32(MOST)
        shares[lane] = np.float32(1) / scales[lane] if scales[lane] > 0 else np.float32(0)
    for group in range(len(out)):
        for place in range(out.shape[2]):
            column = group * out.shape[2] + place
            if column >= dim:
                out[group, :, place] = offset
                continue
            weight = weights[column]
            for lane in range(lanes):
                # Adding and subtracting rounds to whole numbers, halves to even ones.
                whole = (vectors[column, lane] * weight * shares[lane] + _ROUNDER) - _ROUNDER
                whole = whole if whole < np.float32(MOST) else np.float32(MOST)
                whole = whole if whole > np.float32(-MOST) else np.float32(-MOST)
                out[group, lane, place] = np.uint8(np.int32(whole) + offset)


@njit(nogil=True, inline="always")
def _unpack(kind: Any, source: Any, scale: Any, target: Any) -> None:
    """Write sixteen dimensions at an address as whole numbers."""
    if kind == SIXES:
        unpack_sixteen_sixes(source, target)
    elif kind == EIGHTS:
        unpack_sixteen_eights(source, target)
    else:
        round_sixteen_halves(source, scale, target)


@compiled
def add_estimates(
    codes: Any,
    cells: Any,
    kind: int,
    tables: Any,
    width: Any,
    scale: Any,
    windows: Any,
    parts: Any,
    offsets: Any,
    middles: Any,
    step: int,
    column: int,
    queries: Any,
    scales: Any,
    lanes: Any,
    used: int,
    dim: int,
    scores: Any,
    part_scores: Any,
) -> None:
    """Add to each passage's score the sum over query lanes of its best token, and to each of its windows' the same.

    Shapes: codes (tokens, code_bytes) uint8, read as `kind` says, with `tables` (sub-codes, 256, len(width)) uint8
    and the `scale` of halves; cells (tokens,) unsigned; windows (windows,) int64 and parts (passages + 1,), which are
    a passage's; offsets (all windows + 1,) int64, the tokens of a window; middles (lists, width) float32: what a
    token of a list begins with in each lane, from `column` on, `step` rows for each list; queries (groups, lanes,
    dimensions of a group) and scales (lanes,) of `round_lanes`, the first `used` of them query tokens; scores
    (passages,) and part_scores (windows,) float64, -inf where there are no tokens.
    """
    tile = TILE_REGISTERS // len(lanes)
    whole, stride = dim // SIXTEEN, -(-dim // SIXTEEN) * SIXTEEN
    # Of the last dimensions, fewer than sixteen, a copy is read: there may be nothing behind them.
    sixteen_bytes, half_scale = _SIXTEEN_BYTES[kind], np.float32(scale)
    spare = np.zeros(2 * SIXTEEN, np.uint8)
    room = np.zeros((tile, stride), np.uint8)
    starts = np.empty(tile, np.int64)
    first_middle, row_bytes = middles.ctypes.data + 4 * column, 4 * middles.shape[1] * step
    best, own = np.empty(len(lanes) * LANES, np.float32), np.empty(len(lanes) * LANES, np.float32)
    for passage in range(len(scores)):
        best[:] = -np.inf
        for part in range(parts[passage], parts[passage + 1]):
            own[:] = -np.inf
            begin, end = offsets[windows[part]], offsets[windows[part] + 1]
            # The next window's codes come while this one's are read.
            soon, until = np.int64(0), np.int64(0)
            if part + 1 < len(windows):
                soon = codes.ctypes.data + offsets[windows[part + 1]] * codes.shape[1]
                until = codes.ctypes.data + offsets[windows[part + 1] + 1] * codes.shape[1]
            for row in range(begin, end, tile):
                left = min(tile, end - row)
                stop = until if row + tile >= end else min(until, soon + tile * codes.shape[1])
                while soon < stop:
                    prefetch(soon)
                    soon += _CACHE_LINE
                for place in range(left):
                    starts[place] = first_middle + np.int64(cells[row + place]) * row_bytes
                    prefetch(starts[place])
                    prefetch(starts[place] + _CACHE_LINE)
                    source = codes.ctypes.data + (row + place) * codes.shape[1]
                    to = room.ctypes.data + place * stride
                    if kind == PRODUCTS:
                        for sub in range(codes.shape[1]):
                            entry = sub * tables.shape[1] + np.int64(codes[row + place, sub])
                            copy_bytes(tables.ctypes.data + entry * len(width), to + sub * len(width), width)
                        continue
                    for sixteen in range(whole):
                        _unpack(kind, source + sixteen * sixteen_bytes, half_scale, to + sixteen * SIXTEEN)
                    if whole * SIXTEEN < dim:
                        for byte in range(whole * sixteen_bytes, codes.shape[1]):
                            spare[byte - whole * sixteen_bytes] = codes[row + place, byte]
                        _unpack(kind, spare.ctypes.data, half_scale, to + whole * SIXTEEN)
                fold_codes(
                    room.ctypes.data,
                    stride,
                    left,
                    queries.ctypes.data,
                    len(queries),
                    starts.ctypes.data,
                    scales.ctypes.data,
                    own.ctypes.data,
                    lanes,
                )
            for lane in range(used):
                best[lane] = max(best[lane], own[lane])
            part_scores[part] += lane_sum(own, used)
        scores[passage] += lane_sum(best, used)
