"""The compiled inner loops of a search: cached on disk, without the GIL, single-threaded.

They read a segment's memory-mapped arrays in place. Nothing here allocates more than a few lanes.
numba looks only at this file's date when it decides whether a cached kernel is still good: touch it after a change
to the intrinsics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from drdecr.index.halves import EIGHT, decode_eight, decode_one
from drdecr.index.lanes import LANES, TILE_REGISTERS, fold_tile, load_int64, prefetch, store_tile

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    """Compile without the GIL and keep the result on disk, or in memory where no directory can be written."""
    try:
        return cast(_Function, njit(nogil=True, cache=True)(function))
    except RuntimeError:
        return cast(_Function, njit(nogil=True)(function))


# The codes of a passage lie scattered over its tokens' lists: without asking ahead, each costs a trip to memory.
_ROWS_AHEAD = 16
_CACHE_LINE = 64


@_compiled
def decode_halves(data: Any, positions: Any, out: Any) -> None:
    """Decode float16 rows that start at byte `positions` of `data` into `out` (rows, dim) float32."""
    source, target = data.ctypes.data, out.ctypes.data
    dim = out.shape[1]
    for row in range(len(positions)):
        if row + _ROWS_AHEAD < len(positions):
            soon = source + positions[row + _ROWS_AHEAD]
            for line in range(0, 2 * dim, _CACHE_LINE):
                prefetch(soon + line)
        at = source + positions[row]
        to = target + row * dim * 4
        for column in range(0, dim - dim % EIGHT, EIGHT):
            decode_eight(at + 2 * column, to + 4 * column)
        for column in range(dim - dim % EIGHT, dim):
            decode_one(at + 2 * column, to + 4 * column)


@_compiled
def lane_products(rows: Any, queries: Any, lanes: Any, out: Any, column: int) -> None:
    """Write rows x lanes dot products into columns [column, column + lanes) of `out`.

    Shapes: rows (n, dim), queries (dim, lanes), out (n, width), all float32 and contiguous.
    """
    step = TILE_REGISTERS // len(lanes)
    stride, out_stride = rows.shape[1] * 4, out.shape[1] * 4
    source, target = rows.ctypes.data, out.ctypes.data + column * 4
    for row in range(0, len(rows), step):
        store_tile(
            source + row * stride,
            stride,
            len(rows) - row,
            queries.ctypes.data,
            rows.shape[1],
            target + row * out_stride,
            out_stride,
            lanes,
        )


@_compiled
def add_maxsim(rows: Any, bounds: Any, queries: Any, lanes: Any, used: int, scores: Any) -> None:
    """Add to each passage's score the sum over query lanes of its best row.

    Shapes: rows (tokens, dim) float32, bounds (passages + 1,) int64, queries (dim, lanes) float32,
    scores (passages,) float64. Only the first `used` lanes hold query tokens.
    """
    step = TILE_REGISTERS // len(lanes)
    stride = rows.shape[1] * 4
    source = rows.ctypes.data
    best = np.empty(len(lanes) * LANES, np.float32)
    for passage in range(len(scores)):
        best[:] = -np.inf
        for row in range(bounds[passage], bounds[passage + 1], step):
            left = bounds[passage + 1] - row
            fold_tile(
                source + row * stride, stride, left, queries.ctypes.data, rows.shape[1], best.ctypes.data, lanes
            )
        total = 0.0
        for lane in range(used):
            total += best[lane]
        scores[passage] += total


@_compiled
def best_lists(table: Any, tokens: int, lists: Any, scores: Any) -> None:
    """Find each query token's best lists, best first, ties to the smaller list.

    Shapes: table (all lists, width) float32, lists (tokens, n) int64, scores (tokens, n) float32.
    """
    count = lists.shape[1]
    scores[:] = -np.inf
    threshold = np.full(table.shape[1], np.float32(np.inf))
    threshold[:tokens] = -np.inf
    for row in range(len(table)):
        better = False
        for token in range(tokens):
            better |= table[row, token] > threshold[token]
        if not better:
            continue
        for token in range(tokens):
            score = table[row, token]
            if score <= threshold[token]:
                continue
            place = count - 1
            while place > 0 and scores[token, place - 1] < score:
                scores[token, place] = scores[token, place - 1]
                lists[token, place] = lists[token, place - 1]
                place -= 1
            scores[token, place] = score
            lists[token, place] = row
            threshold[token] = scores[token, count - 1]


@_compiled
def visit_lists(
    data: Any,
    starts: Any,
    sizes: Any,
    code_bytes: int,
    token_bits: int,
    lists: Any,
    gains: Any,
    allowed: Any,
    marks: Any,
    sums: Any,
    met: Any,
) -> int:
    """Add to every passage met in a query token's lists that token's best gain; return how many were met.

    Shapes: lists and gains (tokens, n); allowed (passages,) bool, or None for all; marks (passages,) int32 and
    sums (passages,) float32, zero before; met (passages,) int64, filled from the front.
    """
    base = data.ctypes.data
    count = 0
    for token in range(lists.shape[0]):
        for place in range(lists.shape[1]):
            cell = lists[token, place]
            gain = gains[token, place]
            ids = base + starts[cell] + sizes[cell] * code_bytes
            for entry in range(sizes[cell]):
                passage = load_int64(ids + 8 * entry) >> token_bits
                if allowed is not None and not allowed[passage]:
                    continue
                mark = marks[passage]
                if mark == token + 1:
                    continue
                if mark == 0:
                    met[count] = passage
                    count += 1
                marks[passage] = token + 1
                sums[passage] += gain
    return count


@_compiled
def score_by_cells(passages: Any, offsets: Any, cells: Any, table: Any, tokens: int, scores: Any) -> None:
    """Score passages by MaxSim over the centroids of their tokens instead of the tokens.

    Shapes: passages (n,) int64, table (lists, width) float32, scores (n,) float32.
    """
    width = table.shape[1]
    best = np.empty(width, np.float32)
    for i in range(len(passages)):
        best[:] = -np.inf
        for row in range(offsets[passages[i]], offsets[passages[i] + 1]):
            cell = cells[row]
            for lane in range(width):
                value = table[cell, lane]
                best[lane] = value if value > best[lane] else best[lane]
        total = np.float32(0)
        for lane in range(tokens):
            total += best[lane]
        scores[i] = total


@_compiled
def locate_tokens(
    passages: Any,
    offsets: Any,
    cells: Any,
    ranks: Any,
    starts: Any,
    code_bytes: int,
    positions: Any,
    token_cells: Any,
    bounds: Any,
) -> None:
    """Find where the codes of these passages' tokens lie.

    Fills positions (tokens,) int64 in bytes, token_cells (tokens,) int64 and bounds (passages + 1,) int64.
    """
    at = 0
    bounds[0] = 0
    for i in range(len(passages)):
        for row in range(offsets[passages[i]], offsets[passages[i] + 1]):
            cell = np.int64(cells[row])
            token_cells[at] = cell
            positions[at] = starts[cell] + np.int64(ranks[row]) * code_bytes
            at += 1
        bounds[i + 1] = at
