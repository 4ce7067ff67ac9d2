"""The compiled inner loops of a search: cached on disk, without the GIL, single-threaded.

They read a segment's memory-mapped arrays in place. Nothing here allocates more than a few lanes.
numba looks only at this file's text when it decides whether a cached kernel is still good, so it names the text of
the intrinsics that it compiles in: a test says what belongs here after a change to those.
Intrinsics: 76d5392174ef76fc
"""

from __future__ import annotations

from typing import Any

import numpy as np

from drdecr.compiled import compiled
from drdecr.index.byte_tiles import byte_tile, fold_rows
from drdecr.index.lane_sum import lane_sum
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
    rows: Any,
    corrections: Any,
    scales: Any,
    queries: Any,
    lane_scales: Any,
    lanes: Any,
    out: Any,
    column: int,
    lows: Any,
    highs: Any,
) -> None:
    """Write rows x lanes dot products of rounded vectors into columns [column, column + lanes) of `out`.

    Shapes: rows (n, dim) int8, queries (dim / 4, lanes, 4) uint8, corrections (n,) int32 which the sums are too large
    by, scales (n,) and lane_scales (lanes,) float32: what a unit is worth; out (n, width) float32; lows and highs
    (width,) float32 follow each column's.
    """
    step, width = TILE_REGISTERS // len(lanes), rows.shape[1]
    for row in range(0, len(rows), step):
        byte_tile(
            rows.ctypes.data + row * width,
            width,
            len(rows) - row,
            queries.ctypes.data,
            len(queries),
            corrections.ctypes.data + 4 * row,
            scales.ctypes.data + 4 * row,
            lane_scales.ctypes.data,
            out.ctypes.data + 4 * (row * out.shape[1] + column),
            4 * out.shape[1],
            lows.ctypes.data + 4 * column,
            highs.ctypes.data + 4 * column,
            lanes,
        )


@compiled
def scale_products(scales: Any, lane_scales: Any, out: Any, column: int, lows: Any, highs: Any) -> None:
    """Give the dot products of rounded vectors in columns [column, column + lanes) of `out` their units.

    Shapes: as `byte_lane_products`.
    """
    for row in range(len(scales)):
        for lane in range(len(lane_scales)):
            score = out[row, column + lane] * (scales[row] * lane_scales[lane])
            out[row, column + lane] = score
            lows[column + lane] = score if score < lows[column + lane] else lows[column + lane]
            highs[column + lane] = score if score > highs[column + lane] else highs[column + lane]


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
            for lane in range(used):
                best[lane] = max(best[lane], own[lane])
            part_scores[part] += lane_sum(own, used)
        scores[passage] += lane_sum(best, used)


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
    packed: Any,
    starts: Any,
    sizes: Any,
    lists: Any,
    gains: Any,
    share: float,
    allowed: Any,
    marks: Any,
    since: int,
    sums: Any,
    met: Any,
    gained: Any,
) -> int:
    """Add up, for every passage met in the query tokens' lists, each token's best gain; return how many were met.

    -1 where the lists are not what was written.

    A token passes over the lists that gain less than this share of what its first list does.

    Shapes: packed, starts and sizes as `indexer.posting_lists` writes them; lists and gains (tokens, n), best
    first; allowed (passages,) bool, or None for all; met (passages + 1,) int64 and gained (passages + 1,) float32,
    filled from the front: the passages and what they gained. Scratch memory: marks (passages,) int32, all of them
    less than `since` before and less than `since` + tokens after; sums (passages,) float32.
    """
    base = packed.ctypes.data
    # The bit that the last eight bytes begin with.
    last = 8 * (len(packed) - 8)
    count = 0
    for token in range(lists.shape[0]):
        now = since + token
        for place in range(lists.shape[1]):
            cell = lists[token, place]
            gain = gains[token, place]
            if gain < share * gains[token, 0]:
                break
            if starts[cell] < 0 or starts[cell] > len(packed) - 8:
                return -1
            width = np.int64(packed[starts[cell]])
            if width < 1 or width > 32:
                return -1
            escape = (np.int64(1) << width) - 1
            bit = 8 * (starts[cell] + 1)
            passage = np.int64(-1)
            left = sizes[cell]
            if left > len(marks) or bit + (left - 1) * width > last:
                return -1
            while left > 0:
                gap = (load_int64(base + (bit >> 3)) >> (bit & 7)) & escape
                bit += width
                passage += gap
                if gap == escape:
                    if bit + (left - 1) * width > last:
                        return -1
                    continue
                passage += 1
                left -= 1
                if passage >= len(marks):
                    return -1
                if allowed is not None and not allowed[passage]:
                    continue
                # Without branches: which passages were met before is anybody's guess.
                mark = marks[passage]
                met[count] = passage
                count += mark < since
                marks[passage] = now
                before = sums[passage]
                added = gain if mark != now else np.float32(0)
                sums[passage] = (before if mark >= since else np.float32(0)) + added
    for i in range(count):
        gained[i] = sums[met[i]]
    return count


@compiled
def narrow_table(table: Any, lows: Any, highs: Any, out: Any, steps: Any) -> None:
    """Round a score table to bytes: what a score lies above the least of its lane, in units of the lane's own.

    Shapes: table (lists, width) float32, lows and highs (width,) float32, each lane's least and greatest score; out
    (lists, width) uint8, steps (width,) float32: what a unit of each lane is worth. A byte a score keeps the table in
    a core's cache.
    """
    width = table.shape[1]
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
    best, worth = np.empty(width, np.uint8), np.empty(width, np.float32)
    for i in range(len(passages)):
        if i + 6 < len(passages):
            soon = cells.ctypes.data + offsets[passages[i + 6]] * cells.itemsize
            prefetch(soon)
            prefetch(soon + _CACHE_LINE)
        first = offsets[passages[i]]
        fold_rows(cells, first, offsets[passages[i] + 1] - first, table, best)
        for lane in range(tokens):
            worth[lane] = np.float32(best[lane]) * steps[lane]
        scores[i] = lane_sum(worth, tokens)


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
