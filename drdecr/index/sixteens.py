"""Decodes in compiled code, sixteen dimensions at a time: codes of 6 bits, and vectors scaled to length 1.

Four codes of 6 bits take three bytes, the first in the lowest bits. Each lies within two neighbouring bytes: a
shuffle gives every dimension its two, and a shift of its own brings the code down.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

SIXTEEN = 16
_FLOATS = ir.VectorType(ir.FloatType(), SIXTEEN)
_FLOAT_BYTES = 4
_INDEX = ir.IntType(32)
_PACKED_BYTES = 12

_BYTES_OF_LANE = ((0, 1), (0, 1), (1, 2), (1, 2))
_SHIFT_OF_LANE = (0, 6, 4, 10)


def _constant(kind: Any, values: list[Any]) -> Any:
    return ir.Constant(ir.VectorType(kind, len(values)), values)


def sixteen_sixes(builder: Any, source: Any) -> Any:
    """Emit the sixteen codes of 6 bits at an address, 16 bits wide."""
    byte, half = ir.IntType(8), ir.IntType(16)
    kind = ir.VectorType(byte, _PACKED_BYTES)
    packed = builder.load(builder.inttoptr(source, kind.as_pointer()), align=1)
    places = [3 * group + place for group in range(SIXTEEN // 4) for pair in _BYTES_OF_LANE for place in pair]
    spread = builder.shuffle_vector(packed, ir.Constant(kind, ir.Undefined), _constant(_INDEX, places))
    pairs = builder.bitcast(spread, ir.VectorType(half, SIXTEEN))
    shifted = builder.lshr(pairs, _constant(half, list(_SHIFT_OF_LANE) * (SIXTEEN // 4)))
    return builder.and_(shifted, _constant(half, [63] * SIXTEEN))


@intrinsic
def decode_sixteen_sixes(typingctx: Any, source: Any, middle: Any, lows: Any, steps: Any, target: Any) -> Any:
    """Store middle + (low + code x step) for sixteen dimensions; all arguments are addresses, of any alignment."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_, middle_, lows_, steps_, target_ = args

        def load(address: Any, kind: Any) -> Any:
            return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)

        codes = sixteen_sixes(builder, source_)
        values = builder.sitofp(builder.zext(codes, ir.VectorType(_INDEX, SIXTEEN)), _FLOATS)
        left_over = builder.fadd(load(lows_, _FLOATS), builder.fmul(values, load(steps_, _FLOATS)))
        decoded = builder.fadd(load(middle_, _FLOATS), left_over)
        builder.store(decoded, builder.inttoptr(target_, _FLOATS.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), emit


@intrinsic
def scale_to_one(typingctx: Any, vector: Any, dim: Any) -> Any:
    """Scale the floats at an address to length 1, all zeros excepted; `dim` is a multiple of sixteen."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, dim_ = args
        intp = dim_.type
        count = builder.udiv(dim_, ir.Constant(intp, SIXTEEN))

        def place(loop: Any) -> Any:
            at = builder.mul(loop.index, ir.Constant(intp, SIXTEEN * _FLOAT_BYTES))
            return builder.inttoptr(builder.add(base, at), _FLOATS.as_pointer())

        def function(name: str, result: Any, *arguments: Any) -> Any:
            return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)

        squares = cgutils.alloca_once(builder, _FLOATS)
        builder.store(_constant(ir.FloatType(), [0.0] * SIXTEEN), squares)
        fma = function("llvm.fma.v16f32", _FLOATS, _FLOATS, _FLOATS, _FLOATS)
        with cgutils.for_range(builder, count, intp=intp) as loop:
            part = builder.load(place(loop), align=_FLOAT_BYTES)
            builder.store(builder.call(fma, [part, part, builder.load(squares)]), squares)
        total = builder.load(squares)
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        for half in (8, 4, 2, 1):
            other = _constant(_INDEX, [(dimension + half) % SIXTEEN for dimension in range(SIXTEEN)])
            total = builder.fadd(total, builder.shuffle_vector(total, undefined, other))
        square, one = builder.extract_element(total, ir.Constant(_INDEX, 0)), ir.Constant(ir.FloatType(), 1.0)
        root = builder.call(function("llvm.sqrt.f32", ir.FloatType(), ir.FloatType()), [square])
        positive = builder.fcmp_ordered(">", square, ir.Constant(ir.FloatType(), 0.0))
        scale = builder.select(positive, builder.fdiv(one, root), one)
        single = builder.insert_element(undefined, scale, ir.Constant(_INDEX, 0))
        scales = builder.shuffle_vector(single, undefined, _constant(_INDEX, [0] * SIXTEEN))
        with cgutils.for_range(builder, count, intp=intp) as loop:
            scaled = builder.fmul(builder.load(place(loop), align=_FLOAT_BYTES), scales)
            builder.store(scaled, place(loop), align=_FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit
