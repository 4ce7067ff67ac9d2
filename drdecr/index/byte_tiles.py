"""Bytes with the query tokens as vector lanes: dot products in exact integers, and maxima of table rows.

A dot product takes four dimensions an instruction, which only CPUs with AVX-512 VNNI have;
`drdecr.index.byte_products` gets the same integers from floats on others.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from drdecr.index.lanes import LANES, cpu_has, tile_rows

HAS_BYTE_DOTS = cpu_has("avx512vnni")
GROUP = 4
"""Dimensions that one instruction takes of each lane."""

_WORD = ir.IntType(32)
_WORDS = ir.VectorType(_WORD, LANES)
_WORD_BYTES = 4


def row_indices(builder: Any, rows_left: Any, registers: int) -> list[Any]:
    """Emit the indices of a tile's rows; rows past the end repeat the last one."""
    last = builder.sub(rows_left, ir.Constant(rows_left.type, 1))
    every = (ir.Constant(rows_left.type, row) for row in range(tile_rows(registers)))
    return [builder.select(builder.icmp_signed("<", wanted, last), wanted, last) for wanted in every]


@intrinsic
def byte_tile(
    typingctx: Any,
    rows: Any,
    stride: Any,
    rows_left: Any,
    queries: Any,
    groups: Any,
    corrections: Any,
    scales: Any,
    lane_scales: Any,
    out: Any,
    out_stride: Any,
    lows: Any,
    highs: Any,
    lanes: Any,
) -> Any:
    """Write the dot products of a tile's rows (int8) with all lanes (uint8) to `out`, float32.

    A row's are less by its correction (int32), and in units of its scale times the lane's (float32); `lows` and
    `highs` (lanes,) float32 follow them. All arguments but `lanes` are int64: addresses, the bytes between rows, the
    rows that are left (the last one is repeated), and the groups of dimensions. Queries are laid out as (groups,
    lanes, dimensions of a group).
    """
    registers = len(lanes)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, stride_, left, queries_, groups_, corrections_, scales_, lane_scales_, out_, out_stride_, *ends, _ = (
            args
        )
        intp = base.type
        indices = row_indices(builder, left, registers)
        addresses = [builder.add(base, builder.mul(index, stride_)) for index in indices]
        sums = [[cgutils.alloca_once(builder, _WORDS) for _ in range(registers)] for _ in addresses]
        for cell in itertools.chain.from_iterable(sums):
            builder.store(ir.Constant(_WORDS, [0] * LANES), cell)
        dot = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_WORDS, [_WORDS] * 3), "llvm.x86.avx512.vpdpbusd.512"
        )
        undefined = ir.Constant(_WORDS, ir.Undefined)
        first = ir.Constant(ir.VectorType(_WORD, LANES), [0] * LANES)

        def load(address: Any, kind: Any) -> Any:
            return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

        with cgutils.for_range(builder, groups_, intp=intp) as loop:
            at = builder.mul(loop.index, ir.Constant(intp, GROUP))
            lane_base = builder.add(queries_, builder.mul(at, ir.Constant(intp, registers * LANES)))
            own = [
                load(builder.add(lane_base, ir.Constant(intp, register * LANES * _WORD_BYTES)), _WORDS)
                for register in range(registers)
            ]
            for address, tile_row in zip(addresses, sums, strict=True):
                four = builder.insert_element(undefined, load(builder.add(address, at), _WORD), ir.Constant(_WORD, 0))
                spread = builder.shuffle_vector(four, undefined, first)
                for cell, lane in zip(tile_row, own, strict=True):
                    builder.store(builder.call(dot, [builder.load(cell), lane, spread]), cell)
        floats = ir.VectorType(ir.FloatType(), LANES)

        def spread_of(values: Any, index: Any, kind: Any) -> Any:
            value = load(builder.add(values, builder.mul(index, ir.Constant(intp, _WORD_BYTES))), kind)
            wide = ir.VectorType(kind, LANES)
            single = builder.insert_element(ir.Constant(wide, ir.Undefined), value, ir.Constant(_WORD, 0))
            return builder.shuffle_vector(single, ir.Constant(wide, ir.Undefined), first)

        for register in range(registers):
            here = ir.Constant(intp, register * LANES * _WORD_BYTES)
            lane_scale = load(builder.add(lane_scales_, here), floats)
            places = [builder.inttoptr(builder.add(end, here), floats.as_pointer()) for end in ends]
            low, high = (builder.load(place, align=1) for place in places)
            for index, tile_row in zip(indices, sums, strict=True):
                whole = builder.sub(builder.load(tile_row[register]), spread_of(corrections_, index, _WORD))
                scale = builder.fmul(spread_of(scales_, index, ir.FloatType()), lane_scale)
                score = builder.fmul(builder.sitofp(whole, floats), scale)
                low = builder.select(builder.fcmp_ordered("<", score, low), score, low)
                high = builder.select(builder.fcmp_ordered(">", score, high), score, high)
                target = builder.add(builder.add(out_, builder.mul(index, out_stride_)), here)
                builder.store(score, builder.inttoptr(target, floats.as_pointer()), align=1)
            for place, end in zip(places, (low, high), strict=True):
                builder.store(end, place, align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12, lanes), emit


def _fold(cell_bits: int, width: int) -> Any:
    octets = ir.VectorType(ir.IntType(8), width)

    def fold(typingctx: Any, cells: Any, count: Any, table: Any, stride: Any, best: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            cells_, count_, table_, stride_, best_ = args
            intp = cells_.type
            highest = cgutils.alloca_once(builder, octets)
            builder.store(ir.Constant(octets, [0] * width), highest)

            def load(address: Any, kind: Any) -> Any:
                return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

            with cgutils.for_range(builder, count_, intp=intp) as loop:
                at = builder.add(cells_, builder.mul(loop.index, ir.Constant(intp, cell_bits // 8)))
                number = builder.zext(load(at, ir.IntType(cell_bits)), intp)
                found = load(builder.add(table_, builder.mul(number, stride_)), octets)
                high = builder.load(highest)
                builder.store(builder.select(builder.icmp_unsigned(">", found, high), found, high), highest)
            builder.store(builder.load(highest), builder.inttoptr(best_, octets.as_pointer()), align=1)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), emit

    return intrinsic(fold)


_fold_short_8, _fold_short_16, _fold_short_32 = (_fold(16, width) for width in (8, 16, 32))
_fold_wide_8, _fold_wide_16, _fold_wide_32 = (_fold(32, width) for width in (8, 16, 32))


@njit(nogil=True, inline="always")
def fold_rows(cells: Any, first: Any, count: Any, table: Any, best: Any) -> None:
    """Set `best` (width,) uint8 to the maxima of the rows of `table` (lists, width) uint8 that some cells name.

    Those are `count` of `cells` (n,), uint16 or uint32, from the `first` on; width is a multiple of eight.
    """
    width = table.shape[1]
    source = cells.ctypes.data + first * cells.itemsize
    at = 0
    while at < width:
        place, target, left = table.ctypes.data + at, best.ctypes.data + at, width - at
        if cells.itemsize == 2:
            if left >= 32:
                _fold_short_32(source, count, place, width, target)
            elif left >= 16:
                _fold_short_16(source, count, place, width, target)
            else:
                _fold_short_8(source, count, place, width, target)
        elif left >= 32:
            _fold_wide_32(source, count, place, width, target)
        elif left >= 16:
            _fold_wide_16(source, count, place, width, target)
        else:
            _fold_wide_8(source, count, place, width, target)
        at += 32 if left >= 32 else 16 if left >= 16 else 8
