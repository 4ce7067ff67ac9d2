"""The compiled loops that decode token vectors: cached on disk, without the GIL, single-threaded.

They read a segment's memory-mapped codes in place. As in `drdecr.index.kernels`, this file names the text of the
intrinsics that it compiles in.
Intrinsics: 774a8ccd5d05bff7
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from drdecr.compiled import compiled
from drdecr.index.halves import EIGHT, decode_eight, decode_one, dot_sixteens
from drdecr.index.lanes import add_floats, prefetch
from drdecr.index.sixteens import SIXTEEN, decode_sixteen_sixes, scale_to_one

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _reassociated(function: _Function) -> _Function:
    """Compile what other kernels call, and let sums be split over vector lanes: the same way for equal lengths."""
    return cast(_Function, njit(nogil=True, fastmath={"reassoc", "contract"})(function))


# Each passage's codes lie together, but passages lie anywhere: ask for a few rows ahead.
_ROWS_AHEAD = 16
_CELLS_AHEAD = 4
_CACHE_LINE = 64


@_reassociated
def _scale_to_one(vector: Any) -> None:
    """Scale a vector (dim,) float32 to length 1."""
    total = np.float32(0)
    for column in range(len(vector)):
        total += vector[column] * vector[column]
    if total > 0:
        scale = np.float32(1) / np.sqrt(total)
        for column in range(len(vector)):
            vector[column] *= scale


@compiled
def decode_halves(codes: Any, rows: Any, out: Any) -> None:
    """Decode the float16 `rows` (n,) int64 of `codes` (all rows, 2 x dim) uint8 into `out` (n, dim) float32."""
    source, target = codes.ctypes.data, out.ctypes.data
    dim = out.shape[1]
    for row in range(len(rows)):
        if row + _ROWS_AHEAD < len(rows):
            soon = source + rows[row + _ROWS_AHEAD] * 2 * dim
            for line in range(0, 2 * dim, _CACHE_LINE):
                prefetch(soon + line)
        at = source + rows[row] * 2 * dim
        to = target + row * dim * 4
        for column in range(0, dim - dim % EIGHT, EIGHT):
            decode_eight(at + 2 * column, to + 4 * column)
        for column in range(dim - dim % EIGHT, dim):
            decode_one(at + 2 * column, to + 4 * column)


@compiled
def dot_halves(codes: Any, rows: Any, query: Any, out: Any) -> None:
    """Write the dot products of float16 `rows` (n,) int64 with a query (dim,) float32 to `out` (n,) float64.

    Shapes: codes (all rows, 2 x dim) uint8.
    """
    dim = len(query)
    source, whole = codes.ctypes.data, dim - dim % SIXTEEN
    tail = np.zeros(1, np.float32)
    for row in range(len(rows)):
        if row + _CELLS_AHEAD < len(rows):
            soon = source + rows[row + _CELLS_AHEAD] * 2 * dim
            for line in range(0, 2 * dim, _CACHE_LINE):
                prefetch(soon + line)
        at = source + rows[row] * 2 * dim
        total = dot_sixteens(at, query.ctypes.data, whole)
        for column in range(whole, dim):
            decode_one(at + 2 * column, tail.ctypes.data)
            total += tail[0] * query[column]
        out[row] = total


@compiled
def decode_products(
    codes: Any, cells: Any, rows: Any, centroids: Any, tables: Any, width: Any, unit: bool, out: Any
) -> None:
    """Decode `rows` (n,) int64 of product codes into `out` (n, dim) float32: a centroid and what it left over.

    Shapes: codes (all rows, sub-codes) uint8, cells (all rows,) unsigned, centroids (lists, dim) float32, tables
    (sub-codes, 256, len(width)) float32. With `unit` each vector is scaled to length 1.
    """
    dim = out.shape[1]
    stride = tables.shape[2] * 4
    step = tables.shape[1] * stride
    base, middles, target = tables.ctypes.data, centroids.ctypes.data, out.ctypes.data
    source = codes.ctypes.data
    for i in range(len(rows)):
        if i + _ROWS_AHEAD < len(rows):
            soon = source + rows[i + _ROWS_AHEAD] * codes.shape[1]
            for line in range(0, codes.shape[1], _CACHE_LINE):
                prefetch(soon + line)
            prefetch(cells.ctypes.data + rows[i + _ROWS_AHEAD] * cells.itemsize)
        if i + _CELLS_AHEAD < len(rows):
            soon = middles + np.int64(cells[rows[i + _CELLS_AHEAD]]) * dim * 4
            for line in range(0, 4 * dim, _CACHE_LINE):
                prefetch(soon + line)
        row = rows[i]
        middle = middles + np.int64(cells[row]) * dim * 4
        to = target + i * dim * 4
        for sub in range(codes.shape[1]):
            entry = base + sub * step + np.int64(codes[row, sub]) * stride
            add_floats(middle + sub * stride, entry, to + sub * stride, width)
        if unit and dim % SIXTEEN == 0:
            scale_to_one(target + i * dim * 4, dim)
        elif unit:
            _scale_to_one(out[i])


@compiled
def decode_scalars(
    codes: Any, cells: Any, rows: Any, centroids: Any, lows: Any, steps: Any, six: bool, unit: bool, out: Any
) -> None:
    """Decode `rows` (n,) int64 of scalar codes into `out` (n, dim) float32: a centroid and what it left over.

    Shapes: codes (all rows, code_bytes) uint8, of 8 bits a dimension, or of 6, then four take three bytes; cells (all
    rows,) unsigned; centroids (lists, dim), lows and steps (dim,) float32. With `unit` each vector is scaled to
    length 1.
    """
    dim = out.shape[1]
    source, middles, target = codes.ctypes.data, centroids.ctypes.data, out.ctypes.data
    for i in range(len(rows)):
        if i + _ROWS_AHEAD < len(rows):
            soon = source + rows[i + _ROWS_AHEAD] * codes.shape[1]
            for line in range(0, codes.shape[1], _CACHE_LINE):
                prefetch(soon + line)
            prefetch(cells.ctypes.data + rows[i + _ROWS_AHEAD] * cells.itemsize)
        if i + _CELLS_AHEAD < len(rows):
            soon = middles + np.int64(cells[rows[i + _CELLS_AHEAD]]) * dim * 4
            for line in range(0, 4 * dim, _CACHE_LINE):
                prefetch(soon + line)
        row = rows[i]
        cell = cells[row]
        if six:
            at, middle, to = source + row * codes.shape[1], middles + np.int64(cell) * dim * 4, target + i * dim * 4
            whole = dim - dim % SIXTEEN
            for column in range(0, whole, SIXTEEN):
                decode_sixteen_sixes(
                    at + column // 4 * 3,
                    middle + column * 4,
                    lows.ctypes.data + column * 4,
                    steps.ctypes.data + column * 4,
                    to + column * 4,
                )
            for column in range(whole, dim):
                first = column // 4 * 3
                word = np.uint32(codes[row, first])
                word |= np.uint32(codes[row, first + 1]) << np.uint32(8)
                word |= np.uint32(codes[row, first + 2]) << np.uint32(16)
                code = (word >> np.uint32(6 * (column % 4))) & np.uint32(63)
                out[i, column] = centroids[cell, column] + (lows[column] + np.float32(code) * steps[column])
        else:
            for column in range(dim):
                left_over = lows[column] + np.float32(codes[row, column]) * steps[column]
                out[i, column] = centroids[cell, column] + left_over
        if unit and dim % SIXTEEN == 0:
            scale_to_one(target + i * dim * 4, dim)
        elif unit:
            _scale_to_one(out[i])
