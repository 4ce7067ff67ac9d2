"""The compiled inner loops of a search: cached on disk, without the GIL, single-threaded.

They read a segment's memory-mapped arrays in place. Nothing here allocates more than a few lanes.
numba looks only at this file's text when it decides whether a cached kernel is still good, so it names the text of
the intrinsics that it compiles in: a test says what belongs here after a change to those.
Intrinsics: 7d4cd141e940c140
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drdecr.compiled import compiled
from drdecr.index.byte_tiles import byte_tile, fold_rows
from drdecr.index.lanes import (
    LANES,
    TILE_REGISTERS,
    fold_tile,
    load_int64,
    prefetch,
    store_int64,
    store_tile,
)

_CACHE_LINE = 64


@compiled
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


@compiled
def byte_lane_products(
    rows: Any, corrections: Any, scales: Any, queries: Any, lane_scales: Any, lanes: Any, out: Any, column: int
) -> None:
    """Write rows x lanes dot products of rounded vectors into columns [column, column + lanes) of `out`.

    Shapes: rows (n, dim) int8, queries (dim / 4, lanes, 4) uint8, corrections (n,) int32 which the sums are too large
    by, scales (n,) and lane_scales (lanes,) float32: what a unit is worth; out (n, width) float32.
    """
    step, width = TILE_REGISTERS // len(lanes), len(lanes) * LANES
    sums = np.empty((step, width), np.int32)
    for row in range(0, len(rows), step):
        byte_tile(
            rows.ctypes.data + row * rows.shape[1],
            rows.shape[1],
            len(rows) - row,
            queries.ctypes.data,
            len(queries),
            sums.ctypes.data,
            lanes,
        )
        for own in range(min(step, len(rows) - row)):
            scale, correction = scales[row + own], corrections[row + own]
            part = out[row + own, column : column + width]
            for lane in range(len(part)):
                part[lane] = np.float32(sums[own, lane] - correction) * (scale * lane_scales[lane])


@compiled
def scale_products(scales: Any, lane_scales: Any, out: Any, column: int) -> None:
    """Give the dot products of rounded vectors in columns [column, column + lanes) of `out` their units.

    Shapes: as `byte_lane_products`.
    """
    for row in range(len(scales)):
        scale = scales[row]
        part = out[row, column : column + len(lane_scales)]
        for lane in range(len(part)):
            part[lane] *= scale * lane_scales[lane]


@compiled
def add_part_maxsim(
    rows: Any, bounds: Any, parts: Any, queries: Any, lanes: Any, used: int, scores: Any, part_scores: Any
) -> None:
    """Add to each passage's score the sum over query lanes of its best row, and to each of its parts' the same.

    Shapes: rows (tokens, dim) float32; bounds (parts + 1,) int64, which rows are a part's; parts (passages + 1,)
    int64, which parts are a passage's; queries (dim, lanes) float32, of which only the first `used` lanes hold query
    tokens; scores (passages,) and part_scores (parts,) float64, -inf where there are no rows.
    """
    step = TILE_REGISTERS // len(lanes)
    stride = rows.shape[1] * 4
    source = rows.ctypes.data
    best, own = np.empty(len(lanes) * LANES, np.float32), np.empty(len(lanes) * LANES, np.float32)
    for passage in range(len(scores)):
        best[:] = -np.inf
        for part in range(parts[passage], parts[passage + 1]):
            own[:] = -np.inf
            for row in range(bounds[part], bounds[part + 1], step):
                left = bounds[part + 1] - row
                fold_tile(
                    source + row * stride, stride, left, queries.ctypes.data, rows.shape[1], own.ctypes.data, lanes
                )
            total = 0.0
            for lane in range(used):
                total += own[lane]
                best[lane] = max(best[lane], own[lane])
            part_scores[part] += total
        total = 0.0
        for lane in range(used):
            total += best[lane]
        scores[passage] += total


@compiled
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


@compiled
def visit_lists(
    packed: Any, starts: Any, sizes: Any, lists: Any, gains: Any, allowed: Any, marks: Any, sums: Any, met: Any
) -> int:
    """Add to every passage met in a query token's lists that token's best gain; return how many were met.

    Shapes: packed, starts and sizes as `indexer.posting_lists` writes them; lists and gains (tokens, n), best
    first; allowed (passages,) bool, or None for all; marks (passages,) int32 and sums (passages,) float32, zero
    before; met (passages + 1,) int64, filled from the front.
    """
    base = packed.ctypes.data
    count = 0
    for token in range(lists.shape[0]):
        for place in range(lists.shape[1]):
            cell = lists[token, place]
            gain = gains[token, place]
            width = np.int64(packed[starts[cell]])
            escape = (np.int64(1) << width) - 1
            bit = 8 * (starts[cell] + 1)
            passage = np.int64(-1)
            left = sizes[cell]
            while left > 0:
                gap = (load_int64(base + (bit >> 3)) >> (bit & 7)) & escape
                bit += width
                passage += gap
                if gap == escape:
                    continue
                passage += 1
                left -= 1
                # Only a damaged file leads here: stay inside the scratch memory.
                if passage >= len(marks):
                    break
                if allowed is not None and not allowed[passage]:
                    continue
                # Without branches: which passages were met before is anybody's guess.
                mark = marks[passage]
                met[count] = passage
                count += mark == 0
                marks[passage] = token + 1
                sums[passage] += gain if mark != token + 1 else np.float32(0)
    return count


@compiled
def narrow_table(table: Any, out: Any, steps: Any) -> None:
    """Round a score table to bytes: what a score lies above the least of its lane, in units of the lane's own.

    Shapes: table (lists, width) float32, out (lists, width) uint8, steps (width,) float32: what a unit of each lane
    is worth. A byte a score keeps the table in a core's cache.
    """
    width = table.shape[1]
    lows, highs = np.full(width, np.float32(np.inf)), np.full(width, np.float32(-np.inf))
    for row in range(len(table)):
        # As a vector unit compares, so that the loop becomes one.
        for lane in range(width):
            score = table[row, lane]
            lows[lane] = score if score < lows[lane] else lows[lane]
            highs[lane] = score if score > highs[lane] else highs[lane]
    scales = np.empty(width, np.float32)
    for lane in range(width):
        steps[lane] = max((highs[lane] - lows[lane]) / np.float32(255), np.float32(1e-30))
        scales[lane] = np.float32(1) / steps[lane]
    for row in range(len(table)):
        for lane in range(width):
            out[row, lane] = np.uint8((table[row, lane] - lows[lane]) * scales[lane] + np.float32(0.5))


@compiled
def score_by_cells(passages: Any, offsets: Any, cells: Any, table: Any, steps: Any, tokens: int, scores: Any) -> None:
    """Score passages by MaxSim over the centroids of their tokens instead of the tokens, all less the same amount.

    Shapes: passages (n,) int64, table (lists, width) uint8 and steps (width,) of `narrow_table`, scores (n,) float32.
    """
    width = table.shape[1]
    best = np.empty(width, np.uint8)
    for i in range(len(passages)):
        if i + 2 < len(passages):
            soon = cells.ctypes.data + offsets[passages[i + 2]] * cells.itemsize
            prefetch(soon)
            prefetch(soon + _CACHE_LINE)
        first = offsets[passages[i]]
        fold_rows(cells, first, offsets[passages[i] + 1] - first, table, best)
        total = np.float32(0)
        for lane in range(tokens):
            total += np.float32(best[lane]) * steps[lane]
        scores[i] = total


@compiled
def best_rows(passages: Any, offsets: Any, cells: Any, table: Any, tokens: int, rows: Any, bounds: Any) -> int:
    """List of these passages' token rows those whose centroid some query token scores best in its passage.

    Shapes: as `score_by_cells`; fills rows (tokens of the passages,) int64 from the front and bounds (passages + 1,)
    int64, and returns how many rows there are.
    """
    width = table.shape[1]
    best, real = np.empty(width, np.uint8), np.zeros(width, np.uint8)
    real[:tokens] = 1
    count = 0
    bounds[0] = 0
    for i in range(len(passages)):
        if i + 2 < len(passages):
            soon = cells.ctypes.data + offsets[passages[i + 2]] * cells.itemsize
            prefetch(soon)
            prefetch(soon + _CACHE_LINE)
        first = offsets[passages[i]]
        fold_rows(cells, first, offsets[passages[i] + 1] - first, table, best)
        for row in range(offsets[passages[i]], offsets[passages[i] + 1]):
            cell = cells[row]
            found = np.uint8(0)
            for lane in range(width):
                found |= np.uint8(table[cell, lane] == best[lane]) & real[lane]
            rows[count] = row
            count += found != 0
        bounds[i + 1] = count
    return count


@compiled
def rows_of(passages: Any, offsets: Any, rows: Any, bounds: Any) -> None:
    """List the token rows of these passages: fills rows (tokens,) int64 and bounds (passages + 1,) int64."""
    at = 0
    bounds[0] = 0
    for i in range(len(passages)):
        for row in range(offsets[passages[i]], offsets[passages[i] + 1]):
            rows[at] = row
            at += 1
        bounds[i + 1] = at


@compiled
def collect_postings(offsets: Any, cells: Any, low: int, starts: Any, entries: Any, sizes: Any) -> None:
    """Collect the unique passages of the lists from `low` on, ascending, each list from its place in `entries`.

    Shapes: cells (tokens,) unsigned, starts (n,) int64, sizes (n,) int64, zero before.
    """
    count = len(starts)
    for passage in range(len(offsets) - 1):
        for row in range(offsets[passage], offsets[passage + 1]):
            own = np.int64(cells[row]) - low
            if own < 0 or own >= count:
                continue
            end = starts[own] + sizes[own]
            if sizes[own] == 0 or entries[end - 1] != passage:
                entries[end] = passage
                sizes[own] += 1


@compiled
def packed_bytes(entries: Any, starts: Any, sizes: Any, widths: Any, lengths: Any) -> None:
    """Choose for each list the bits of a gap that make it shortest, and say how many bytes it takes."""
    for own in range(len(starts)):
        best = np.int64(-1)
        widths[own] = 1
        for width in range(1, 33):
            escape = (np.int64(1) << width) - 1
            fields = sizes[own]
            previous = np.int64(-1)
            for entry in range(starts[own], starts[own] + sizes[own]):
                fields += (entries[entry] - previous - 1) // escape
                previous = entries[entry]
            if best < 0 or fields * width < best:
                best = fields * width
                widths[own] = width
            if fields == sizes[own]:
                break
        lengths[own] = 1 + (best + 7) // 8


@compiled
def pack_gaps(entries: Any, starts: Any, sizes: Any, widths: Any, places: Any, packed: Any) -> None:
    """Write each list at its place in `packed`, zero before, with eight bytes to spare at its end."""
    base = packed.ctypes.data
    for own in range(len(starts)):
        width = widths[own]
        escape = (np.int64(1) << width) - 1
        packed[places[own]] = width
        bit = 8 * (places[own] + 1)
        previous = np.int64(-1)
        for entry in range(starts[own], starts[own] + sizes[own]):
            gap = entries[entry] - previous - 1
            previous = entries[entry]
            while gap >= escape:
                at = base + (bit >> 3)
                store_int64(at, load_int64(at) | (escape << (bit & 7)))
                bit += width
                gap -= escape
            at = base + (bit >> 3)
            store_int64(at, load_int64(at) | (gap << (bit & 7)))
            bit += width
