"""Dot products of query tokens with codes as they are stored, as numba intrinsics.

A code becomes a whole number between 0 and 127 a dimension, a query token one between -127 and 127, and a lane adds
up their products. That sum is exact, so every CPU gets the same one: with VNNI four dimensions take an instruction,
with AVX2 or AVX-512 three (no pair of products leaves 16 bits), on others LLVM finds its own way.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from drdecr.index.byte_tiles import GROUP, HAS_BYTE_DOTS, row_indices
from drdecr.index.halves import floats_at
from drdecr.index.lanes import LANES, cpu_has
from drdecr.index.sixteens import SIXTEEN, sixteen_sixes

_BYTE, _SHORT, _WORD, _FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
_WORDS, _FLOATS = ir.VectorType(_WORD, LANES), ir.VectorType(_FLOAT, LANES)
_WORD_BYTES = 4
MOST = 127
"""The largest whole number of a dimension."""
ZERO = 64
"""The number that stands for 0 where numbers stand for values of either sign."""

_PAIRS_ADD_UP = {
    16: ("avx512bw", "avx512.pmaddubs.w.512", "avx512.pmaddw.d.512"),
    8: ("avx2", "avx2.pmadd.ub.sw", "avx2.pmadd.wd"),
}


def _constant(kind: Any, value: Any, count: int) -> Any:
    return ir.Constant(ir.VectorType(kind, count), [value] * count)


def _add_dots(builder: Any, sums: Any, codes: Any, queries: Any) -> Any:
    """Add to each lane (int32) the products of its four dimensions; codes and queries are words of four bytes."""
    octets, shorts = ir.VectorType(_BYTE, GROUP * LANES), ir.VectorType(_SHORT, 2 * LANES)

    def function(name: str, result: Any, *arguments: Any) -> Any:
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), f"llvm.x86.{name}")

    if HAS_BYTE_DOTS and LANES == SIXTEEN:
        return builder.call(function("avx512.vpdpbusd.512", _WORDS, _WORDS, _WORDS, _WORDS), [sums, codes, queries])
    left, right = builder.bitcast(codes, octets), builder.bitcast(queries, octets)
    feature, products, pairs = _PAIRS_ADD_UP[LANES]
    if cpu_has(feature):
        halves = builder.call(function(products, shorts, octets, octets), [left, right])
        return builder.add(
            sums, builder.call(function(pairs, _WORDS, shorts, shorts), [halves, _constant(_SHORT, 1, 2 * LANES)])
        )
    wide = ir.VectorType(_WORD, GROUP * LANES)
    every = builder.mul(builder.zext(left, wide), builder.sext(right, wide))
    for first in range(GROUP):
        own = ir.Constant(_WORDS, [GROUP * lane + first for lane in range(LANES)])
        sums = builder.add(sums, builder.shuffle_vector(every, ir.Constant(wide, ir.Undefined), own))
    return sums


@intrinsic
def fold_codes(
    typingctx: Any,
    rows: Any,
    stride: Any,
    rows_left: Any,
    queries: Any,
    groups: Any,
    middles: Any,
    scales: Any,
    best: Any,
    lanes: Any,
) -> Any:
    """Raise `best` (lanes,) float32 to what a tile's rows score with the query lanes.

    All arguments but `lanes` are int64: the addresses of rows of whole numbers (uint8), of queries laid out as
    (groups, lanes, dimensions of a group) int8, of one address for each row of the tile, where it has a float32 for
    each lane to begin with, and of what a unit of each lane is worth (lanes,) float32; the bytes between rows, the
    rows that are left (the last one is repeated), and the groups of dimensions.
    """
    registers = len(lanes)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, stride_, left, queries_, groups_, middles_, scales_, best_, _ = args
        intp = base.type

        def load(address: Any, kind: Any) -> Any:
            return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

        def offset(address: Any, count: int) -> Any:
            return builder.add(address, ir.Constant(intp, count))

        indices = row_indices(builder, left, registers)
        addresses = [builder.add(base, builder.mul(index, stride_)) for index in indices]
        sums = [[cgutils.alloca_once(builder, _WORDS) for _ in range(registers)] for _ in addresses]
        for cell in itertools.chain.from_iterable(sums):
            builder.store(_constant(_WORD, 0, LANES), cell)
        undefined = ir.Constant(_WORDS, ir.Undefined)
        with cgutils.for_range(builder, groups_, intp=intp) as loop:
            at = builder.mul(loop.index, ir.Constant(intp, GROUP))
            lane_base = builder.add(queries_, builder.mul(at, ir.Constant(intp, registers * LANES)))
            own = [load(offset(lane_base, register * LANES * _WORD_BYTES), _WORDS) for register in range(registers)]
            for address, tile_row in zip(addresses, sums, strict=True):
                four = builder.insert_element(undefined, load(builder.add(address, at), _WORD), ir.Constant(_WORD, 0))
                spread = builder.shuffle_vector(four, undefined, _constant(_WORD, 0, LANES))
                for cell, lane in zip(tile_row, own, strict=True):
                    builder.store(_add_dots(builder, builder.load(cell), spread, lane), cell)
        for register in range(registers):
            here = register * LANES * _WORD_BYTES
            scale = load(offset(scales_, here), _FLOATS)
            high = load(offset(best_, here), _FLOATS)
            for index, tile_row in zip(indices, sums, strict=True):
                middle = load(builder.add(middles_, builder.mul(index, ir.Constant(intp, 8))), intp)
                whole = builder.sitofp(builder.load(tile_row[register]), _FLOATS)
                score = builder.fadd(load(offset(middle, here), _FLOATS), builder.fmul(whole, scale))
                high = builder.select(builder.fcmp_ordered(">", score, high), score, high)
            builder.store(high, builder.inttoptr(offset(best_, here), _FLOATS.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, lanes), emit


@intrinsic
def unpack_sixteen_sixes(typingctx: Any, source: Any, target: Any) -> Any:
    """Write sixteen codes of 6 bits at an address to another, a byte each."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes = builder.trunc(sixteen_sixes(builder, args[0]), ir.VectorType(_BYTE, SIXTEEN))
        builder.store(codes, builder.inttoptr(args[1], codes.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def unpack_sixteen_eights(typingctx: Any, source: Any, target: Any) -> Any:
    """Write sixteen codes of 8 bits at an address to another without their last bit."""
    octets = ir.VectorType(_BYTE, SIXTEEN)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes = builder.load(builder.inttoptr(args[0], octets.as_pointer()), align=1)
        halved = builder.lshr(codes, _constant(_BYTE, 1, SIXTEEN))
        builder.store(halved, builder.inttoptr(args[1], octets.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def copy_bytes(typingctx: Any, source: Any, target: Any, width: Any) -> Any:
    """Copy as many bytes as `width` is long from one address to another."""
    word = ir.IntType(8 * len(width))

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        own = builder.load(builder.inttoptr(args[0], word.as_pointer()), align=1)
        builder.store(own, builder.inttoptr(args[1], word.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, width), emit


@intrinsic
def round_sixteen_halves(typingctx: Any, source: Any, scale: Any, target: Any) -> Any:
    """Write sixteen halves at an address to another as whole numbers, x scale + `ZERO`, between 0 and `MOST`."""
    floats, words = ir.VectorType(_FLOAT, SIXTEEN), ir.VectorType(_WORD, SIXTEEN)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_, scale_, target_ = args

        single = builder.insert_element(ir.Constant(floats, ir.Undefined), scale_, ir.Constant(_WORD, 0))
        scales = builder.shuffle_vector(single, ir.Constant(floats, ir.Undefined), _constant(_WORD, 0, SIXTEEN))
        scaled = builder.fmul(floats_at(builder, source_, SIXTEEN), scales)
        # Numbers are cut and not rounded, so half of one is added.
        value = builder.fadd(scaled, _constant(_FLOAT, ZERO + 0.5, SIXTEEN))
        for sign, limit in ((">", 0.0), ("<", float(MOST))):
            bound = _constant(_FLOAT, limit, SIXTEEN)
            value = builder.select(builder.fcmp_ordered(sign, value, bound), value, bound)
        whole = builder.trunc(builder.fptosi(value, words), ir.VectorType(_BYTE, SIXTEEN))
        builder.store(whole, builder.inttoptr(target_, whole.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), emit
